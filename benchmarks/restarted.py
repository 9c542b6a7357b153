"""Restart the database at random moments under an ingest, and look at what is stored afterwards.

    python benchmarks/restarted.py [--tries 20] [--seed 0] [--source examples/handbook]

By turns the server is killed with -9 and shut down fast. The ingest is never started again: it has
to connect again by itself. A try survives if it ends without an error and with the same ids and
text hashes as an undisturbed ingest, and a second run embeds nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from inputs import packaged_minilm

from toastrack import Embedder, Report, ingest
from toastrack_postgres import EmbeddedPostgres, PostgresStore

ENDS = {"kill -9": signal.SIGKILL, "fast shutdown": signal.SIGINT}


def main() -> None:
    """Print one line a try and the total."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--tries", type=int, default=20)
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
        ThreadPoolExecutor(1) as threads,
    ):
        whole = run(server, "undisturbed", embedder, options.source)
        expected = stored(server, "undisturbed")
        print(
            "| try | the server | after s | back after s | error | rows | wrong hashes | "
            "embedded twice | second run embeds |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for number in range(1, options.tries + 1):
            table = f"try_{number}"
            how, end = list(ENDS.items())[number % 2]
            moment = pick.uniform(0, whole.seconds)
            running = threads.submit(run, server, table, embedder, options.source)
            time.sleep(moment)
            away = restart(server, end)
            error = running.exception()
            embedded = 0 if error else running.result().embedded
            rows = stored(server, table)
            again = run(server, table, embedder, options.source)
            wrong = sum(expected.get(id) != found for id, found in rows.items())
            survived += error is None and rows == expected and again.embedded == 0
            print(
                f"| {number} | {how} | {moment:.2f} | {away:.2f} | {error or '-'} | "
                f"{len(rows)} of {len(expected)} | {wrong} | {embedded - whole.embedded} | "
                f"{again.embedded} |",
                flush=True,
            )
    print(f"\n{survived}/{options.tries} survived (seed {options.seed})")


def run(server: EmbeddedPostgres, table: str, embedder: Embedder, source: str) -> Report:
    """Ingest over a connection of the store's own."""
    with PostgresStore(server.conninfo, table, embedder=embedder) as store:
        return ingest(source, store)


def restart(server: EmbeddedPostgres, end: signal.Signals) -> float:
    """End the server's process, start it again, and return how many seconds it was away."""
    pid = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    started = time.monotonic()
    os.kill(pid, end)
    answers = True
    while answers:  # a shutdown takes a moment, in which starting would find it still there
        try:
            psycopg.connect(server.conninfo).close()
        except psycopg.OperationalError:
            answers = False
    server.start()
    return time.monotonic() - started


def stored(server: EmbeddedPostgres, table: str) -> dict[str, bytes]:
    """Return the text hashes by id."""
    with psycopg.connect(server.conninfo) as connection:
        return dict(connection.execute(f"select id, text_hash from {table}").fetchall())


if __name__ == "__main__":
    main()
