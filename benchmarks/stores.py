"""Do all stores find the same? The handbook's 30 questions, every store against brute force.

    python benchmarks/stores.py [--model MODEL]

Prints, for each store, for how many questions its ten best are those of a comparison with every
vector (ranks may differ where scores differ by less than 1e-3), the largest difference of a score,
and how often a model was loaded in the whole run.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from inputs import packaged_minilm

from toastrack import Embedder, Match, Record, ingest
from toastrack.engines.sentence_transformers import SentenceTransformersEngine
from toastrack.stores import IngestStore

EXAMPLES = Path(__file__).parent.parent / "examples"
K = 10
# Scores that differ by less are one score: half precision rounds by about as much.
ONE_SCORE = 1e-3


@contextmanager
def postgres(folder: Path, embedder: Embedder) -> Iterator[IngestStore]:
    """A table of the embedded Postgres, searched through its HNSW index."""
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    with (
        EmbeddedPostgres(folder / "postgres") as server,
        PostgresStore(server.conninfo, embedder=embedder) as store,
    ):
        yield store


@contextmanager
def chroma_ephemeral(folder: Path, embedder: Embedder) -> Iterator[IngestStore]:
    """Chroma in memory."""
    import chromadb

    from toastrack_chroma import ChromaStore

    with ChromaStore(chromadb.EphemeralClient(), embedder=embedder) as store:
        yield store


@contextmanager
def chroma_persistent(folder: Path, embedder: Embedder) -> Iterator[IngestStore]:
    """Chroma in a folder."""
    import chromadb

    from toastrack_chroma import ChromaStore

    client = chromadb.PersistentClient(folder / "chroma")
    with ChromaStore(client, embedder=embedder) as store:
        yield store


@contextmanager
def qdrant_memory(folder: Path, embedder: Embedder) -> Iterator[IngestStore]:
    """Qdrant's client in memory."""
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    client = QdrantClient(":memory:")
    with QdrantStore(client, "handbook", embedder=embedder) as store:
        yield store
    client.close()


@contextmanager
def qdrant_path(folder: Path, embedder: Embedder) -> Iterator[IngestStore]:
    """Qdrant's client in a folder."""
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    client = QdrantClient(path=str(folder / "qdrant"))
    with QdrantStore(client, "handbook", embedder=embedder) as store:
        yield store
    client.close()


STORES = [postgres, chroma_ephemeral, chroma_persistent, qdrant_memory, qdrant_path]


def main(
    model: Annotated[
        str | None, typer.Option(help="A hub name or folder. [default: the packaged MiniLM]")
    ] = None,
) -> None:
    """Do all stores find the same? Every store against brute force on the handbook's questions."""
    model = model or packaged_minilm()
    loads = _count_loads()
    embedders: list[Embedder] = []
    with (EXAMPLES / "handbook-questions.tsv").open(encoding="utf-8", newline="") as file:
        questions = [row[1] for row in list(csv.reader(file, delimiter="\t"))[1:]]
    print(f"{len(questions)} questions, {Path(model).name}, the best {K} against brute force\n")
    print("| store | records | the same | largest difference of a score |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for open_store in STORES:
            name = open_store.__name__.replace("_", " ")
            # One embedder a store, as parts of a program would have; one model for all of them.
            embedders.append(Embedder(model))
            with open_store(Path(folder), embedders[-1]) as store:
                ingest(EXAMPLES / "handbook", store)
                store.build_index()
                same, difference = _compare(store, questions)
                print(
                    f"| {name} | {store.count()} | {same} of {len(questions)} | {difference:.1e} |",
                    flush=True,
                )
    print(f"\n{len(embedders)} embedders in one process loaded {len(loads)} model(s).")


def _compare(store: IngestStore, questions: Sequence[str]) -> tuple[int, float]:
    records = _all_records(store)
    texts = [record.text for record in records]
    vectors = store.embedder.embed_documents(texts)
    same, largest = 0, 0.0
    for question in questions:
        scores = dict(
            zip(
                (record.id for record in records),
                vectors @ store.embedder.embed_query(question),
                strict=True,
            )
        )
        best = sorted(scores.values(), reverse=True)[:K]
        found: list[Match] = store.search(question, k=K)
        largest = max(largest, *(abs(match.score - scores[match.id]) for match in found))
        same += len(found) == K and all(
            abs(scores[match.id] - score) < ONE_SCORE
            for match, score in zip(found, best, strict=True)
        )
    return same, float(largest)


def _all_records(store: IngestStore) -> list[Record]:
    """Every record: a search for more than there are."""
    ids = [match.id for match in store.search(np.ones(store.space.dimensions), k=10_000)]
    return [record for record in store.get(ids) if record is not None]


def _count_loads() -> list[Any]:
    loads: list[Any] = []
    load = SentenceTransformersEngine.__init__

    def counted(self: SentenceTransformersEngine, *arguments: Any, **options: Any) -> None:
        loads.append(arguments)
        load(self, *arguments, **options)

    SentenceTransformersEngine.__init__ = counted  # type: ignore[method-assign]
    return loads


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        typer.run(main)
