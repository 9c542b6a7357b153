"""What words add to vectors: nDCG@10 of each search mode, over Postgres and Qdrant.

    python benchmarks/hybrid.py DATASET [--model MODEL] [--questions N] [--store postgres|qdrant]

DATASET is a folder as retrieval.py takes it. Vectors are searched exactly; a ``--weight`` beside 1
says how much the list by words counts in "hybrid".
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inputs import packaged_minilm
from retrieval import mean_ndcg, read_qrels, read_rows

from toastrack import Embedder, Record


@contextmanager
def postgres(embedder: Embedder) -> Iterator[Any]:
    """An empty table of an embedded server."""
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
        PostgresStore(server.conninfo, embedder=embedder) as store,
    ):
        yield store


@contextmanager
def qdrant(embedder: Embedder) -> Iterator[Any]:
    """An empty collection in memory."""
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    with QdrantStore(QdrantClient(":memory:"), "passages", embedder=embedder) as store:
        yield store


STORES = {"postgres": postgres, "qdrant": qdrant}


def main() -> None:
    """Print a line for each store and mode."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", help="hub name or folder; the packaged MiniLM if left out")
    parser.add_argument("--questions", type=int, help="so many, taken by chance; all if left out")
    parser.add_argument("--store", choices=sorted(STORES), action="append")
    parser.add_argument("--weight", type=float, action="append", default=[])
    options = parser.parse_args()
    corpus = read_rows(options.dataset / "corpus.jsonl.gz")
    queries = read_rows(options.dataset / "queries.jsonl.gz")
    qrels = read_qrels(options.dataset / "qrels.tsv")
    if options.questions:
        chosen = random.Random(0).sample(sorted(qrels), options.questions)
        qrels = {query: qrels[query] for query in chosen}
    embedder = Embedder(options.model or packaged_minilm(), on_truncate="ignore")
    vectors = embedder.embed_documents(corpus.values())
    records = [
        Record(id, text, vector=vector)
        for (id, text), vector in zip(corpus.items(), vectors, strict=True)
    ]
    print(f"{len(corpus):,} passages, {len(qrels):,} questions")
    print("| store | mode | weights | nDCG@10 | median ms |\n|---|---|---|---|---|")
    for name in options.store or STORES:
        with STORES[name](embedder) as store:
            store.upsert(records)
            store.build_text_index()
            ways: list[dict[str, Any]] = [{"mode": "vector"}, {"mode": "text"}, {"mode": "hybrid"}]
            ways += [{"mode": "hybrid", "weights": (1.0, weight)} for weight in options.weight]
            for way in ways:
                measure(name, store, queries, qrels, way)


def measure(name: str, store: Any, queries: Any, qrels: Any, way: dict[str, Any]) -> None:
    """Ask all questions in one way."""
    times = []

    def search(query: str) -> list[str]:
        begin = time.perf_counter()
        found = store.search(queries[query], k=10, exact=True, **way)
        times.append(1000 * (time.perf_counter() - begin))
        return [match.id for match in found]

    score = mean_ndcg(qrels, search)
    weights = " : ".join(f"{weight:g}" for weight in way.get("weights", (1, 1)))
    shown = weights if way["mode"] == "hybrid" else ""
    median = sorted(times)[len(times) // 2]
    print(f"| {name} | {way['mode']} | {shown} | {score:.4f} | {median:.0f} |", flush=True)


if __name__ == "__main__":
    main()
