"""What a filtered search returns: rows, recall@k and latency, for server defaults and for us.

    python benchmarks/filters.py [--rows 50000] [--dimensions 1024] [--queries 50] [--k 10 1000]

The vectors lie in clusters. Each filter selects one end of the cloud, and the queries come from
the other end ("far"), from between ("apart") and from right beside it ("beside"): the hard case,
because an index looks near the query first. "Server defaults" is the same statement with
pgvector's own settings, as an integration sends it that sets none; "relaxed_order" lets the index
go on until it has enough rows, as pgvector 0.8 offers.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import psycopg
from inputs import packaged_minilm
from measuring import percentile
from numpy.typing import NDArray

from toastrack import Embedder, Record
from toastrack.space import EmbeddingSpace
from toastrack_postgres import EmbeddedPostgres, PostgresStore

Matrix = NDArray[np.float32]

SHARES = [0.5, 0.05, 0.01, 0.001]
PLACES = {"beside": 0.02, "apart": 0.5, "far": 1.0}
RELAXED = {"hnsw.iterative_scan": "relaxed_order"}


def cloud(rows: int, dimensions: int, seed: int) -> Matrix:
    """Unit vectors in 200 clusters with a decaying spectrum, the shape text embeddings have."""
    pick = np.random.default_rng(seed)
    spectrum = 1 / np.sqrt(1 + np.arange(dimensions))
    centres = pick.normal(size=(200, dimensions)) * spectrum
    points = centres[pick.integers(200, size=rows)]
    points = points + 0.7 * pick.normal(size=(rows, dimensions)) * spectrum
    unit: Matrix = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit


def main() -> None:
    """Fill a table, build its index and print one line a filter and setup."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    vectors = cloud(options.rows, options.dimensions, seed=options.seed)
    # Along the widest direction: one end of the cloud is filtered, the others ask.
    order = np.argsort(vectors[:, 0])
    rank = np.empty(options.rows, dtype=int)
    rank[order] = np.arange(options.rows)

    def records() -> Iterator[Record]:
        for number in range(options.rows):
            fields = {_field(share): bool(rank[number] < share * options.rows) for share in SHARES}
            yield Record(str(number), f"row {number}", fields, vector=vectors[number])

    embedder = _Sized(options.dimensions)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
        psycopg.connect(server.conninfo, autocommit=True) as connection,
        PostgresStore(connection, "cloud", embedder=embedder) as store,
    ):
        started = time.monotonic()
        store.upsert(records())
        print(f"{options.rows:,} rows written in {time.monotonic() - started:.0f} s")
        started = time.monotonic()
        store.build_index(maintenance_work_mem="1GB")
        print(f"index built in {time.monotonic() - started:.0f} s\n")
        print("| k | rows that match | queries | setup | rows | recall@k | p50 ms | p99 ms |")
        print("|---|---|---|---|---|---|---|---|")
        for k, share, (place, where) in itertools.product(options.k, SHARES, PLACES.items()):
            last = int(options.rows * (share + (1 - share) * where)) or options.queries
            queries = vectors[order[max(0, last - options.queries) : last]]
            allowed = np.flatnonzero(rank < share * options.rows)
            best = [
                {str(i) for i in allowed[np.argsort(-(vectors[allowed] @ query))[:k]]}
                for query in queries
            ]
            setups = {
                "server defaults": partial(plain, connection, {}, _field(share), k),
                "relaxed_order": partial(plain, connection, RELAXED, _field(share), k),
                "toastrack": partial(ours, store, _field(share), k),
            }
            for name, search in setups.items():
                line = measure(search, queries, best)
                matching = f"{share:.1%} ({len(allowed):,})"
                print(f"| {k} | {matching} | {place} | {name} | {line}", flush=True)


def plain(
    connection: psycopg.Connection[Any],
    settings: Mapping[str, str],
    field: str,
    k: int,
    query: Matrix,
) -> Sequence[str]:
    """The statement that integrations send."""
    with connection.transaction():
        for name, value in settings.items():
            connection.execute("select set_config(%s, %s, true)", [name, value])
        rows = connection.execute(
            "select id from cloud where metadata @> jsonb_build_object(%s::text, true) "
            "order by embedding <=> %s::halfvec limit %s",
            [field, str(query.tolist()), k],
        ).fetchall()
    return [row[0] for row in rows]


def ours(store: PostgresStore, field: str, k: int, query: Matrix) -> Sequence[str]:
    """The store's own search."""
    return [match.id for match in store.search(query, k=k, filter={field: True})]


def _field(share: float) -> str:
    return f"first_{share * 1_000:.0f}_of_1000"


def measure(
    search: Callable[[Matrix], Sequence[str]], queries: Matrix, best: Sequence[set[str]]
) -> str:
    """Run every query once after a warm-up and describe what came back."""
    search(queries[0])
    rows, recalls, times = [], [], []
    for query, wanted in zip(queries, best, strict=True):
        started = time.perf_counter()
        found = search(query)
        times.append((time.perf_counter() - started) * 1_000)
        rows.append(len(found))
        recalls.append(len(wanted & set(found)) / len(wanted))
    p99 = percentile(times, 99)
    return (
        f"{statistics.mean(rows):.1f} | {statistics.mean(recalls):.3f} | "
        f"{statistics.median(times):.1f} | {p99:.1f} |"
    )


class _Sized(Embedder):
    """The packaged MiniLM under a size of its own: no text is embedded here."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(packaged_minilm())
        self._size = dimensions

    @property
    def dimensions(self) -> int:
        return self._size

    @property
    def space(self) -> EmbeddingSpace:
        return replace(super().space, dimensions=self._size)

    @property
    def _known_space(self) -> EmbeddingSpace:
        return self.space


if __name__ == "__main__":
    main()
