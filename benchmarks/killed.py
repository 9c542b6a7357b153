"""Kill an ingest with -9 at random moments, run it again, and compare with an undisturbed one.

    python benchmarks/killed.py [--tries 25] [--seed 0] [--source examples/handbook]

A try takes twice as long as the ingest and some seconds for starting Python and the model: about
17 s with the handbook on two cores. A try survives if the second run ends with the same ids, hashes
and vectors (to 1e-3), and embeds nothing that the first one had written.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from inputs import packaged_minilm

from toastrack import Embedder, Report, ingest
from toastrack_postgres import EmbeddedPostgres, PostgresStore

CHILD = """
import sys
from toastrack import Embedder, ingest
from toastrack_postgres import PostgresStore
conninfo, table, source, model = sys.argv[1:]
with PostgresStore(conninfo, table, embedder=Embedder(model).load()) as store:
    print("ready", flush=True)
    ingest(source, store)
"""


def main() -> None:
    """Print one line a try and the total."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tries", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--source", default=str(Path(__file__).parent.parent / "examples" / "handbook")
    )
    options = parser.parse_args()
    pick = random.Random(options.seed)
    embedder = Embedder(packaged_minilm()).load()
    survived = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
        psycopg.connect(server.conninfo, autocommit=True) as connection,
    ):
        whole, seconds = _ingest(connection, "undisturbed", embedder, options.source)
        expected = _rows(connection, "undisturbed")
        for number in range(1, options.tries + 1):
            table = f"try_{number}"
            moment = pick.uniform(0, seconds)
            _killed(server.conninfo, table, options.source, embedder.model, moment)
            before = _count(connection, table)
            report, _ = _ingest(connection, table, embedder, options.source)
            good = (
                _equal(_rows(connection, table), expected)
                and report.unchanged == before
                and report.embedded == whole.embedded - before
            )
            survived += good
            print(
                f"try {number}: killed after {moment:.2f} of {seconds:.2f} s, {before} of "
                f"{whole.chunks} were there, {report.embedded} embedded: "
                f"{'survived' if good else 'DAMAGED'}",
                flush=True,
            )
    print(f"{survived}/{options.tries} survived (seed {options.seed})")


def _ingest(
    connection: psycopg.Connection[Any], table: str, embedder: Embedder, source: str
) -> tuple[Report, float]:
    with PostgresStore(connection, table, embedder=embedder) as store:
        started = time.monotonic()
        return ingest(source, store), time.monotonic() - started


def _killed(conninfo: str, table: str, source: str, model: str, moment: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, conninfo, table, source, model],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(moment)
        child.kill()


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"select count(*) from {table}").fetchone()
    return int(row[0]) if row else 0


def _rows(connection: psycopg.Connection[Any], table: str) -> dict[str, tuple[bytes, Any]]:
    rows = connection.execute(f"select id, text_hash, embedding::text from {table}").fetchall()
    return {id: (hash, np.array(vector[1:-1].split(","), float)) for id, hash, vector in rows}


def _equal(found: dict[str, tuple[bytes, Any]], expected: dict[str, tuple[bytes, Any]]) -> bool:
    return found.keys() == expected.keys() and all(
        found[id][0] == expected[id][0] and np.abs(found[id][1] - expected[id][1]).max() < 1e-3
        for id in expected
    )


if __name__ == "__main__":
    main()
