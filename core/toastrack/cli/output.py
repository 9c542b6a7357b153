"""What people see: bars, tables, summaries. Nothing moves where output is not a terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from toastrack.cli.flags import with_flags
from toastrack.ingestion.ingest import Progress
from toastrack.records import Match, Report, Skip

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[Progress], None]]:
    """Show a bar that the callback moves: bytes of the sources, and what became of them."""
    with _bar("{task.fields[done]}") as bar:
        task = bar.add_task(label, total=None, done="reading, loading the model")

        def move(progress: Progress) -> None:
            report = progress.report
            done = f"{report.embedded} embedded, {report.unchanged} unchanged"
            bar.update(task, completed=progress.bytes_done, total=progress.bytes_total, done=done)

        yield move


@contextmanager
def share_bar(label: str) -> Iterator[Callable[[float], None]]:
    """Show that something is going on, and the share that is done once the callback is told."""
    with _bar() as bar:
        task = bar.add_task(label, total=None)
        yield lambda share: bar.update(task, completed=share, total=1.0)


@contextmanager
def working(label: str) -> Iterator[None]:
    """Show that something of unknown length is going on."""
    with share_bar(label):
        yield


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Show which step of unknown length is going on; the callback names it."""
    with _bar() as bar:
        task = bar.add_task("", total=None)
        yield lambda step: bar.update(task, description=step)


def _bar(*texts: str) -> Bar:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *map(TextColumn, texts),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def say(message: str) -> None:
    """Write a line to standard error; beside a bar it stands above it.

    typer.echo writes past what rich puts in place of the stream, into the line of the bar.
    """
    print(message, file=sys.stderr)


def name_first(count: int) -> Callable[[Skip], None]:
    """Return what names this many of the inputs that are left out, on standard error."""
    left = count

    def name(skip: Skip) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            say(f"left out: {with_flags(str(skip))}")
        elif left == -1:
            say("Others are only counted; --json names them.")

    return name


def summary(report: Report, *, index_built: bool) -> str:
    """Say in one or two lines what an ingest did."""
    parts = [f"{report.embedded} embedded", f"{report.unchanged} unchanged"]
    if report.written > report.embedded:
        parts.append(f"{report.written - report.embedded} updated")
    if report.deleted:
        parts.append(f"{report.deleted} deleted")
    lines = [
        f"{_count(report.read, 'document')} ({_count(report.chunks, 'chunk')}): "
        f"{', '.join(parts)} in {report.seconds:.1f} s."
    ]
    if report.skipped:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.skipped_by_kind.items())
        lines.append(f"{_count(report.skipped, 'input')} left out: {kinds}.")
    if report.truncated:
        lines.append(f"{_count(report.truncated, 'text')} cut at the model's limit.")
    if index_built:
        lines.append("The index is built.")
    return "\n".join(lines)


def print_matches(matches: Sequence[Match], *, title: str | None = None) -> None:
    """Print hits as a table: score, id and the beginning of the text, or all that is around it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not matches:
        console.print("No hits.")
        return
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    table.add_column("text")
    for match in matches:
        text = match.context or textwrap.shorten(match.text, 160, placeholder=" ...")
        # Text, not str: brackets in a document are no markup.
        table.add_row(f"{match.score:.3f}", Text(match.id), Text(text))
    console.print(table)


def print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of words; numbers, in columns whose head ends with a space, stand right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for position, head in enumerate(heads):
        side: Literal["left", "right"] = "right" if head.endswith(" ") else "left"
        # A name is copied into the next command, so it stands on one line.
        table.add_column(head.strip(), justify=side, overflow="fold", no_wrap=position == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def size_of(number: int | None) -> str:
    """Say a number of bytes as people do; "" for one that nobody knows."""
    if number is None:
        return ""
    size = float(number)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
