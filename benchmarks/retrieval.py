"""How good the search is: nDCG@10 of a set of questions over a Postgres table, searched exactly.

    python benchmarks/retrieval.py DATASET [--model MODEL] [--approximate]

DATASET is a folder with corpus.jsonl.gz (id, text), queries.jsonl.gz (id, text) and qrels.tsv
(query id, document id, relevance). Plain sentence-transformers is measured on the same texts in
the same run, so the two figures can be compared whatever the model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from inputs import packaged_minilm

from toastrack import Embedder, Record
from toastrack_postgres import EmbeddedPostgres, PostgresStore

Qrels = Mapping[str, Mapping[str, int]]


def ndcg_at_10(ranking: Sequence[str], relevant: Mapping[str, int]) -> float:
    """Normalised discounted cumulative gain with linear gain, as trec_eval's ndcg_cut_10."""
    gain = sum(
        relevant.get(document, 0) / math.log2(rank + 2)
        for rank, document in enumerate(ranking[:10])
    )
    best = sorted(relevant.values(), reverse=True)[:10]
    return gain / sum(value / math.log2(rank + 2) for rank, value in enumerate(best))


def mean_ndcg(qrels: Qrels, search: Callable[[str], Sequence[str]]) -> float:
    """Average over all questions that have a relevant document."""
    return sum(ndcg_at_10(search(query), relevant) for query, relevant in qrels.items()) / len(
        qrels
    )


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", help="hub name or folder; the packaged MiniLM if left out")
    parser.add_argument("--approximate", action="store_true", help="search through the HNSW index")
    options = parser.parse_args()
    corpus = read_rows(options.dataset / "corpus.jsonl.gz")
    queries = read_rows(options.dataset / "queries.jsonl.gz")
    qrels = read_qrels(options.dataset / "qrels.tsv")
    model = options.model or packaged_minilm()

    embedder = Embedder(model, on_truncate="ignore")
    started = time.monotonic()
    vectors = dict(zip(queries, embedder.embed_queries(queries.values()), strict=True))
    print(f"{len(queries):,} questions embedded in {time.monotonic() - started:.0f} s")
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
        PostgresStore(server.conninfo, embedder=embedder) as store,
    ):
        print(store.upsert(Record(id, text) for id, text in corpus.items()))
        if options.approximate:
            store.build_index()
        started = time.monotonic()
        ours = mean_ndcg(
            qrels,
            lambda query: [
                match.id
                for match in store.search(vectors[query], k=10, exact=not options.approximate)
            ],
        )
        print(f"{len(qrels):,} searches in {time.monotonic() - started:.0f} s")
    how = "HNSW" if options.approximate else "exact"
    print(f"toastrack, Postgres, {how}:    nDCG@10 = {ours:.4f}")
    plain = plain_sentence_transformers(model, embedder, corpus, queries, qrels)
    print(f"sentence-transformers, exact: nDCG@10 = {plain:.4f}   (ratio {ours / plain:.4f})")


def plain_sentence_transformers(
    model: str,
    embedder: Embedder,
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Qrels,
) -> float:
    """The same, by ``SentenceTransformer.encode`` and a matrix product."""
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(model)
    documents = plain.encode(
        list(corpus.values()), prompt=embedder.document_prompt, normalize_embeddings=True
    )
    asked = plain.encode(
        list(queries.values()), prompt=embedder.query_prompt, normalize_embeddings=True
    )
    row = {query: number for number, query in enumerate(queries)}
    ids = list(corpus)
    scores = np.asarray(asked) @ np.asarray(documents).T
    return mean_ndcg(
        qrels, lambda query: [ids[column] for column in np.argsort(-scores[row[query]])[:10]]
    )


def read_rows(path: Path) -> dict[str, str]:
    """Read id -> text from gzipped JSON Lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return {row["id"]: row["text"] for row in map(json.loads, file)}


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read query id -> document id -> relevance from tab-separated lines; a header is passed over."""
    qrels: dict[str, dict[str, int]] = {}
    for query, document, relevance in _fields(path.read_text(encoding="utf-8").splitlines()):
        if relevance.isdigit() and int(relevance):
            qrels.setdefault(query, {})[document] = int(relevance)
    return qrels


def _fields(lines: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    for line in lines:
        first, *others = line.split("\t")
        yield first, others[-2], others[-1]


if __name__ == "__main__":
    main()
