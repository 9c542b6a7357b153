"""How many rows a second go into a database, with ready vectors, against its own client and others.

    python benchmarks/writing.py [--hosts postgres chroma qdrant] [--rows 10000] [--repeats 3]

A row is a 1,024-d vector, a text of some 500 characters and three fields of metadata. Each turn
begins with an empty table or collection and writes three times: rows that are all new, the same
ones again, and the same ids with other texts and vectors. All contestants take turns. The rows are
made before, in the form that a contestant's users hold them; slow ones write a tenth of them.

Postgres is the embedded server, fsync on, without a vector index, which is everybody's default.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from measuring import (
    CannotRunError,
    Contestant,
    Outcome,
    Table,
    main,
    needs,
    seconds,
    take_turns,
)
from writers import SIZE, Rows, Writer, changed, chroma, embedder, postgres, qdrant, rows

PASSES = ("all new", "all unchanged", "all changed")
COLUMNS = {
    "rows/s": "",
    "all new": ",.0f",
    "all unchanged": ",.0f",
    "all changed": ",.0f",
    "toastrack over it, new": ".2f",
    "toastrack over it, changed": ".2f",
    "rows": ",d",
    "turns": "d",
    "remark": "",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument(
        "--hosts", nargs="+", default=["postgres", "chroma", "qdrant"], metavar="HOST"
    )
    parser.add_argument("--rows", type=int, default=10_000, help="for Postgres")
    parser.add_argument("--chroma-rows", type=int, default=2_000, help="its index takes its time")
    parser.add_argument("--qdrant-rows", type=int, default=2_000, help="in memory, or of a server")
    parser.add_argument("--qdrant-path-rows", type=int, default=150, help="in a folder: very slow")
    parser.add_argument("--qdrant-url", help="a server to measure against, too")
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Measure one host after the other."""
    unknown = set(options.hosts) - {"postgres", "chroma", "qdrant"}
    if unknown:
        raise CannotRunError(f"not measured: no host is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = embedder(folder / "model")
        if "postgres" in options.hosts:
            needs("psycopg", "psycopg")
            from toastrack_postgres import EmbeddedPostgres

            with EmbeddedPostgres(folder / "postgres") as server:
                writers = postgres(server.conninfo, model)
                yield measured("Postgres", writers, options.rows, options)
        if "chroma" in options.hosts:
            for label, place in (("in memory", None), ("in a folder", folder)):
                writers = chroma(place, model)
                yield measured(f"Chroma {label}", writers, options.chroma_rows, options)
        if "qdrant" in options.hosts:
            writers = qdrant(":memory:", model)
            yield measured("Qdrant, local client in memory", writers, options.qdrant_rows, options)
            writers = qdrant(folder, model)
            label = "Qdrant, local client in a folder"
            yield measured(label, writers, options.qdrant_path_rows, options)
            if options.qdrant_url:
                writers = qdrant(options.qdrant_url, model)
                yield measured("Qdrant, a server", writers, options.qdrant_rows, options)


class Entry:
    """One contestant with its rows, and what each pass took in each turn."""

    def __init__(self, name: str, writer: Writer, first: Rows, then: Rows) -> None:
        self.name = name
        self.writer = writer
        self.rows = int(len(first) * writer.share)
        self.seconds: dict[str, list[float]] = {one: [] for one in PASSES}
        self._first, self._then = (_head(some, self.rows) for some in (first, then))
        self._write: Callable[[object], object] | None = None

    def contestant(self) -> Contestant:
        """Take turns: each in a place of its own."""
        return Contestant(self.name, self._load, self._empty)

    def _load(self) -> Callable[[], object]:
        self._first_form = self.writer.form(self._first)
        self._then_form = self.writer.form(self._then)
        return self._turn

    def _empty(self) -> None:
        self._write = self.writer.place()

    def _turn(self) -> None:
        assert self._write is not None
        forms = (self._first_form, self._first_form, self._then_form)
        for name, form in zip(PASSES, forms, strict=True):
            if name == PASSES[0] or self.writer.again:
                self.seconds[name].append(seconds(partial(self._write, form)))

    def rate(self, name: str) -> float | None:
        """Rows a second of one pass; the first, unmeasured turn is left out."""
        taken = self.seconds[name][1:]
        return self.rows / statistics.median(taken) if taken else None


def measured(
    label: str, writers: Mapping[str, Writer], number: int, options: argparse.Namespace
) -> Table:
    """Let all writers of a host take turns."""
    first = rows(number, options.seed)
    then = changed(first, options.seed + 1)
    entries = [Entry(name, writer, first, then) for name, writer in writers.items()]
    turns = take_turns([entry.contestant() for entry in entries], options.repeats)
    table = Table(f"{label}: {number:,} rows with ready {SIZE:,}-d vectors", COLUMNS)
    ours = {entry.writer.kind: entry for entry in entries if entry.writer.ours}
    for entry in entries:
        _add(table, entry, ours[entry.writer.kind], turns[entry.name])
    table.keep(turns)
    table.details["seconds"] = {entry.name: entry.seconds for entry in entries}
    return table


def _add(table: Table, entry: Entry, ours: Entry, turn: Outcome) -> None:
    if turn.failed:
        table.add(entry.name, *[None] * (len(COLUMNS) - 2), turn.failed)
        return
    rates = [entry.rate(name) for name in PASSES]
    over = [
        None if entry is ours else _over(ours.rate(name), entry.rate(name))
        for name in (PASSES[0], PASSES[2])
    ]
    remark = "" if entry.writer.again else "writes an id a second time, or refuses to"
    table.add(entry.name, *rates, *over, entry.rows, len(turn.seconds), remark)


def _over(ours: float | None, other: float | None) -> float | None:
    return ours / other if ours and other else None


def _head(some: Rows, number: int) -> Rows:
    return Rows(
        some.ids[:number], some.texts[:number], some.metadatas[:number], some.vectors[:number]
    )


if __name__ == "__main__":
    main(__doc__, arguments, tables)
