"""How long documents take from a file into a database, and how much of it is waiting in turn.

    python benchmarks/ingest.py [--hosts postgres chroma qdrant] [--documents 500] [--repeats 3]

The first table of a host goes from a JSON Lines file into it with MiniLM: toastrack's ``ingest``
against langchain's and llama-index' stores with the same model, all taking turns.

The second says what the pipeline costs: "overlap" is the wall time of ``ingest`` over the larger of
its parts taken alone: the model on the same chunks, and the writing of the same records with ready
vectors. 1.00 would be perfect. On a CPU the model, the database and Python share the cores, so it
cannot be reached there; therefore it is also taken with a stand-in for a GPU, which only sleeps for
each token and leaves the cores alone, chosen so slow that the model takes about twice as long as reading and
writing together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from inputs import corpus_option, packaged_minilm, passages, subject, where_from
from measuring import (
    CannotRunError,
    Contestant,
    Table,
    main,
    needs,
    seconds,
    take_turns,
)

from toastrack import Embedder, Record, ingest
from toastrack.models.engine_choice import EngineName

COLUMNS = {
    "": "",
    "documents/s": ",.1f",
    "seconds": ".2f",
    "toastrack's best over it": ".2f",
    "turns": "d",
    "remark": "",
}
OVERLAP = {
    "engine": "",
    "ingest, s": ".2f",
    "model alone, s": ".2f",
    "writing alone, s": ".2f",
    "reading and splitting alone, s": ".2f",
    "overlap": ".2f",
    "turns": "d",
}
HOSTS = ("postgres", "chroma", "qdrant")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--hosts", nargs="+", default=list(HOSTS), metavar="HOST")
    corpus_option(parser)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--stand-in-documents", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Measure one host after the other."""
    if unknown := set(options.hosts) - set(HOSTS):
        raise CannotRunError(f"not measured: no host is called {', '.join(sorted(unknown))}")
    # toastrack splits what is over the model's limit and the others drop it, so nothing is: all
    # embed the same tokens.
    splitter = Embedder(packaged_minilm())
    texts = [
        splitter.split(text)[0]
        for text in passages(options.documents, corpus=options.corpus, seed=options.seed)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "documents.jsonl"
        lines = (json.dumps({"id": f"{n}", "text": text}) for n, text in enumerate(texts))
        file.write_text("\n".join(lines), encoding="utf-8")
        for host in HOSTS:
            if host not in options.hosts:
                continue
            with _opened(host, folder) as places:
                yield _end_to_end(host, file, texts, places, options)
                yield _overlap(host, file, texts, places, options)


# -- the hosts -------------------------------------------------------------------------------

_numbers = count()


def _name() -> str:
    return f"bench_{next(_numbers)}"


@dataclass
class Places:
    """Where a host's contestants write: each call makes an empty place of its own."""

    toastrack: Callable[[Embedder], Any]
    langchain: Callable[[Any, int], Any]
    llama_index: Callable[[int], Any]
    close: Callable[[], object] = lambda: None

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _opened(host: str, folder: Path) -> Places:
    return {"postgres": _postgres, "chroma": _chroma, "qdrant": _qdrant}[host](folder)


def _postgres(folder: Path) -> Places:
    needs("psycopg", "psycopg")
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    server = EmbeddedPostgres(folder / "postgres")
    conninfo = server.start()

    def langchain(model: Any, size: int) -> Any:
        needs("langchain_postgres", "langchain-postgres")
        from langchain_postgres import PGEngine, PGVectorStore

        url = conninfo.replace("postgresql://", "postgresql+psycopg://", 1)
        engine = PGEngine.from_connection_string(url)
        name = _name()
        engine.init_vectorstore_table(name, vector_size=size)
        return PGVectorStore.create_sync(engine, model, name)

    def llama_index(size: int) -> Any:
        needs("llama_index.vector_stores.postgres", "llama-index-vector-stores-postgres")
        from llama_index.vector_stores.postgres import PGVectorStore

        return PGVectorStore.from_params(
            connection_string=conninfo.replace("postgresql://", "postgresql+psycopg2://", 1),
            async_connection_string=conninfo.replace("postgresql://", "postgresql+asyncpg://", 1),
            table_name=_name(),
            embed_dim=size,
        )

    return Places(
        lambda model: PostgresStore(conninfo, _name(), embedder=model),
        langchain,
        llama_index,
        server.stop,
    )


def _chroma(folder: Path) -> Places:
    needs("chromadb", "chromadb")
    import chromadb

    from toastrack_chroma import ChromaStore

    client = chromadb.PersistentClient(folder / "chroma")

    def langchain(model: Any, size: int) -> Any:
        needs("langchain_chroma", "langchain-chroma")
        from langchain_chroma import Chroma

        return Chroma(_name(), model, client=client)

    def llama_index(size: int) -> Any:
        needs("llama_index.vector_stores.chroma", "llama-index-vector-stores-chroma")
        from llama_index.vector_stores.chroma import ChromaVectorStore

        collection: Any = client.create_collection(_name(), embedding_function=None)
        return ChromaVectorStore(chroma_collection=collection)

    return Places(
        lambda model: ChromaStore(client, _name(), embedder=model), langchain, llama_index
    )


def _qdrant(folder: Path) -> Places:
    needs("qdrant_client", "qdrant-client")
    from qdrant_client import QdrantClient, models

    from toastrack_qdrant import QdrantStore

    # In a folder a local client writes some hundred rows a second, whoever asks.
    client = QdrantClient(":memory:")

    def langchain(model: Any, size: int) -> Any:
        needs("langchain_qdrant", "langchain-qdrant")
        from langchain_qdrant import QdrantVectorStore

        name = _name()
        client.create_collection(
            name, models.VectorParams(size=size, distance=models.Distance.COSINE)
        )
        return QdrantVectorStore(client, name, embedding=model)

    def llama_index(size: int) -> Any:
        needs("llama_index.vector_stores.qdrant", "llama-index-vector-stores-qdrant")
        from llama_index.vector_stores.qdrant import QdrantVectorStore

        return QdrantVectorStore(_name(), client=client)

    return Places(
        lambda model: QdrantStore(client, _name(), embedder=model),
        langchain,
        llama_index,
        client.close,
    )


# -- end to end ------------------------------------------------------------------------------


def _end_to_end(
    host: str, file: Path, texts: Sequence[str], places: Places, options: argparse.Namespace
) -> Table:
    contestants = [
        Contestant(name, partial(_ours, places, engine, file))
        for name, engine in _engines().items()
    ]
    contestants += [
        Contestant("langchain, HuggingFaceEmbeddings", partial(_langchain, places, file)),
        Contestant("llama-index, HuggingFaceEmbedding", partial(_llama_index, places, file)),
    ]
    turns = take_turns(contestants, options.repeats)
    where = where_from(options.corpus)
    table = Table(f"{host}: {len(texts)} documents from a file, {where}, MiniLM", COLUMNS)
    ours = [turns[name].median for name in _engines() if not turns[name].failed]
    for name, turn in turns.items():
        if turn.failed:
            table.add(name, *[None] * (len(COLUMNS) - 2), turn.failed)
            continue
        over = turn.median / min(ours) if ours and name not in _engines() else None
        rate = len(texts) / turn.median
        table.add(name, rate, turn.median, over, len(turn.seconds))
    table.keep(turns)
    table.note("Each document is cut so that the model reads all of it.")
    return table


def _engines() -> dict[str, EngineName]:
    return {
        "toastrack ingest, best engine": "auto",
        "toastrack ingest, sentence-transformers": "sentence-transformers",
    }


def _model(engine: EngineName) -> Embedder:
    model = subject("minilm")
    folder = model.folder if engine == "sentence-transformers" else model.exported
    return Embedder(folder, engine=engine, device="cpu", on_truncate="ignore").load()


def _ours(places: Places, engine: EngineName, file: Path) -> Callable[[], object]:
    model = _model(engine)
    return lambda: _ingested(places, model, file)


def _ingested(places: Places, model: Embedder, file: Path) -> None:
    with places.toastrack(model) as store:
        ingest(file, store)


def _read(file: Path) -> list[str]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def _langchain(places: Places, file: Path) -> Callable[[], object]:
    needs("langchain_huggingface", "langchain-huggingface")
    from langchain_huggingface import HuggingFaceEmbeddings

    model = HuggingFaceEmbeddings(model_name=packaged_minilm(), model_kwargs={"device": "cpu"})
    return lambda: places.langchain(model, 384).add_texts(_read(file))


def _llama_index(places: Places, file: Path) -> Callable[[], object]:
    needs("llama_index.embeddings.huggingface", "llama-index-embeddings-huggingface")
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=packaged_minilm(), device="cpu")

    def run() -> None:
        pipeline = IngestionPipeline(transformations=[model], vector_store=places.llama_index(384))
        pipeline.run(nodes=[TextNode(text=text) for text in _read(file)])

    return run


# -- overlap ---------------------------------------------------------------------------------


def _overlap(
    host: str, file: Path, texts: Sequence[str], places: Places, options: argparse.Namespace
) -> Table:
    table = Table(f"{host}: what ingest takes over its slower part alone", OVERLAP)
    model = _model("auto")
    parts = _parts(file, model)
    vectors = model.embed_documents([record.text for record in parts])
    _add_overlap(table, str(model.running_on), model, file, places, parts, vectors, options)

    # It only sleeps, so it can have more of them, without which starting would count too much.
    more = file.with_name("more.jsonl")
    lines = (
        json.dumps({"id": f"{n}", "text": texts[n % len(texts)]})
        for n in range(options.stand_in_documents)
    )
    more.write_text("\n".join(lines), encoding="utf-8")
    parts = _parts(more, model)
    generator = np.random.default_rng(options.seed)
    vectors = generator.standard_normal((len(parts), model.dimensions), dtype=np.float32)
    tokens = sum(model.count_tokens(record.text) for record in parts)
    busy = _writing(places, model, _ready(parts, vectors)) + seconds(partial(_parts, more, model))
    pause = 2 * busy / tokens
    engine: Any = model._engine()
    run = engine.run

    def sleep(batch: Sequence[Any], *, prompt: str) -> Any:
        time.sleep(pause * sum(len(one.ids) for one in batch))
        return np.ones((len(batch), engine.dimensions), dtype=np.float32)

    engine.run = sleep
    try:
        name = f"stand-in for a GPU, {len(parts):,} chunks at {1 / pause:,.0f} tokens/s"
        _add_overlap(table, name, model, more, places, parts, vectors, options)
    finally:
        engine.run = run
    return table


def _ready(parts: Sequence[Record], vectors: Any) -> list[Record]:
    return [replace(record, vector=vector) for record, vector in zip(parts, vectors, strict=True)]


def _add_overlap(
    table: Table,
    name: str,
    model: Embedder,
    file: Path,
    places: Places,
    parts: Sequence[Record],
    vectors: Any,
    options: argparse.Namespace,
) -> None:
    ready = _ready(parts, vectors)
    chunks = [record.text for record in parts]
    taken: dict[str, list[float]] = {"ingest": [], "model": [], "writing": [], "reading": []}
    for turn in range(options.repeats + 1):
        found = {
            "ingest": seconds(partial(_ingested, places, model, file)),
            "model": seconds(partial(model.embed_documents, chunks)),
            "writing": _writing(places, model, ready),
            "reading": seconds(partial(_parts, file, model)),
        }
        for what, value in found.items():
            if turn:  # the first is not counted
                taken[what].append(value)
    medians = {what: statistics.median(values) for what, values in taken.items()}
    # Neighbours in time share what else the machine did.
    ratios = [
        whole / max(one, other)
        for whole, one, other in zip(taken["ingest"], taken["model"], taken["writing"], strict=True)
    ]
    table.add(name, *medians.values(), statistics.median(ratios), options.repeats)
    table.details[name] = taken


def _parts(file: Path, model: Embedder) -> list[Record]:
    """Read and split, as ``ingest`` does."""
    found = []
    for number, text in enumerate(_read(file)):
        chunks = model.split(text)
        for position, chunk in enumerate(chunks):
            if len(chunks) == 1:
                found.append(Record(f"{number}", chunk))
            else:
                found.append(
                    Record(f"{number}#{position}", chunk, document_id=f"{number}", chunk=position)
                )
    return found


def _writing(places: Places, model: Embedder, ready: Sequence[Record]) -> float:
    """Write records with ready vectors into an empty place, opened before the clock starts."""
    with places.toastrack(model) as store:
        store.count()
        return seconds(partial(store.upsert, ready))


if __name__ == "__main__":
    main(__doc__, arguments, tables)
