"""Who writes ready vectors into a database: toastrack, the host's own client, and other libraries.

Each gets what its users hold, before the clock starts: toastrack and the clients float32 arrays, the
others lists of Python's floats. Each starts with an empty place of its own.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import numpy as np
from inputs import packaged_minilm, prose
from measuring import needs

from toastrack import Embedder, Record
from toastrack.stores.plan import Row, rows_of
from toastrack.stores.windows import Window

SIZE = 1_024
# Rows in one call of psycopg or of a client, where its users choose.
BATCH = 1_000


@dataclass(frozen=True)
class Rows:
    """What is written: ids are UUIDs, as some take no other; vectors are float32 ``(n, size)``."""

    ids: list[str]
    texts: list[str]
    metadatas: list[dict[str, Any]]
    vectors: Any

    def __len__(self) -> int:
        return len(self.ids)


def rows(number: int, seed: int, size: int = SIZE) -> Rows:
    """Random unit vectors, texts of some 500 characters, a few fields of metadata."""
    pick = random.Random(seed)
    vectors = np.random.default_rng(seed).standard_normal((number, size), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metadatas = [
        {"lang": pick.choice(["en", "de"]), "page": page, "title": prose(pick, 4)}
        for page in range(number)
    ]
    texts = [prose(pick, 100) for _ in range(number)]
    ids = random.Random(0)
    return Rows(
        [str(UUID(int=ids.getrandbits(128))) for _ in range(number)], texts, metadatas, vectors
    )


def changed(before: Rows, seed: int) -> Rows:
    """The same ids and metadata with other texts and vectors."""
    then = rows(len(before), seed, before.vectors.shape[1])
    return replace(then, ids=before.ids, metadatas=before.metadatas)


@dataclass(frozen=True)
class Writer:
    """One way to write.

    Args:
        form: Turns rows into what its users hold.
        place: Makes an empty place and returns what writes into it.
        kind: What it stores a vector as; only those of one kind are compared.
        again: Whether it can write the same ids another time.
        share: The part of the rows that it writes, where all of them would take minutes.
        ours: Whether it is toastrack.
    """

    form: Callable[[Rows], Any]
    place: Callable[[], Callable[[Any], object]]
    kind: str = ""
    again: bool = True
    share: float = 1
    ours: bool = False


def embedder(folder: Path, size: int = SIZE) -> Embedder:
    """Return an embedder of the right size, which only says who it is and never runs."""
    shutil.copytree(packaged_minilm(), folder)
    pooling = folder / "1_Pooling" / "config.json"
    config = json.loads(pooling.read_text(encoding="utf-8"))
    pooling.write_text(json.dumps(config | {"word_embedding_dimension": size}), encoding="utf-8")
    made = Embedder(folder)
    assert made.space.dimensions == size
    return made


def records(some: Rows) -> list[Record]:
    """What toastrack's users hold."""
    parts = zip(some.ids, some.texts, some.metadatas, some.vectors, strict=True)
    return [Record(id, text, metadata, vector) for id, text, metadata, vector in parts]


def stored_rows(some: Rows) -> list[Row]:
    """What toastrack writes: the records with what it compares them by."""
    return rows_of(Window(records(some)), 256)


def lists(some: Rows) -> Rows:
    """What langchain's users hold: vectors as lists of floats."""
    return replace(some, vectors=some.vectors.tolist())


def nodes(some: Rows) -> list[Any]:
    """What llama-index' users hold."""
    from llama_index.core.schema import TextNode

    parts = zip(some.ids, some.texts, some.metadatas, some.vectors.tolist(), strict=True)
    return [
        TextNode(id_=id, text=text, metadata=metadata, embedding=vector)
        for id, text, metadata, vector in parts
    ]


def ready() -> Any:
    """Stand in for a langchain model where a store takes no vectors: look them up by the text."""
    needs("langchain_core", "langchain-core")
    from langchain_core.embeddings import Embeddings

    class Ready(Embeddings):
        def __init__(self) -> None:
            self.vectors: dict[str, list[float]] = {}

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.vectors.get(text) or self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [1.0] + [0.0] * (SIZE - 1)

    return Ready()


_numbers = count()


def _name() -> str:
    return f"bench_{next(_numbers)}"


# -- Postgres --------------------------------------------------------------------------------

_TABLE = """
create table {name} (id text primary key, document_id text, chunk int, text text,
                     metadata jsonb, text_hash bytea, embedding {kind}({size}))
"""
_UPSERT = """
insert into {name} (id, document_id, chunk, text, metadata, text_hash, embedding)
values (%s, %s, %s, %s, %s, %s, %s)
on conflict (id) do update set
    document_id = excluded.document_id, chunk = excluded.chunk, text = excluded.text,
    metadata = excluded.metadata, text_hash = excluded.text_hash, embedding = excluded.embedding
"""
_COPY = "copy {name} (id, document_id, chunk, text, metadata, text_hash, embedding) from stdin (format binary)"


def postgres(conninfo: str, model: Embedder) -> dict[str, Writer]:
    """All who write to Postgres; none has a vector index, which is everybody's default."""
    found: dict[str, Writer] = {}
    kinds: tuple[Literal["halfvec", "vector"], ...] = ("halfvec", "vector")
    for kind in kinds:
        found[f"toastrack upsert, {kind}"] = Writer(
            records, partial(postgres_store, conninfo, model, kind), kind, ours=True
        )
        found[f"psycopg executemany, {kind}"] = Writer(
            lambda some: some, partial(executemany, conninfo, kind), kind
        )
        found[f"psycopg binary COPY, {kind}"] = Writer(
            lambda some: some, partial(_copy, conninfo, kind), kind, again=False
        )
    url = conninfo.replace("postgresql://", "postgresql+psycopg://", 1)
    found["langchain-postgres PGVectorStore.add_embeddings"] = Writer(
        lists, partial(_langchain_pg, url), "vector", share=0.1
    )
    found["langchain-postgres PGVector.add_embeddings"] = Writer(
        lists, partial(_langchain_pg_old, url), "vector", share=0.1
    )
    found["llama-index PGVectorStore.add"] = Writer(
        nodes, partial(_llama_index_pg, conninfo), "vector", again=False, share=0.1
    )
    return found


def postgres_store(
    conninfo: str, model: Embedder, kind: Literal["halfvec", "vector"]
) -> Callable[[Any], object]:
    """Make an empty table of a store's."""
    from toastrack_postgres import PostgresStore

    return PostgresStore(conninfo, _name(), embedder=model, storage=kind).open().upsert


def _plain_table(conninfo: str, kind: str, size: int = SIZE) -> tuple[Any, str]:
    import psycopg
    from pgvector.psycopg import register_vector

    connection: Any = psycopg.connect(conninfo)
    register_vector(connection)
    name = _name()
    connection.execute(_TABLE.format(name=name, kind=kind, size=size))
    connection.execute(f"create index on {name} (document_id)")
    connection.commit()
    return connection, name


def _plain_rows(some: Rows, kind: str) -> Iterator[tuple[Any, ...]]:
    from pgvector.psycopg import HalfVector
    from psycopg.types.json import Jsonb

    for number, id in enumerate(some.ids):
        vector = some.vectors[number]
        yield (
            id,
            id,
            None,
            some.texts[number],
            Jsonb(some.metadatas[number]),
            b"0" * 32,
            HalfVector(vector) if kind == "halfvec" else vector,
        )


def executemany(conninfo: str, kind: str, size: int = SIZE) -> Callable[[Any], object]:
    """Make an empty table of psycopg's."""
    connection, name = _plain_table(conninfo, kind, size)

    def write(some: Rows) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(_UPSERT.format(name=name), _plain_rows(some, kind))

    return write


def _copy(conninfo: str, kind: str) -> Callable[[Any], object]:
    connection, name = _plain_table(conninfo, kind)

    def write(some: Rows) -> None:
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy(_COPY.format(name=name)) as copy,
        ):
            copy.set_types(["text", "text", "int4", "text", "jsonb", "bytea", kind])
            for row in _plain_rows(some, kind):
                copy.write_row(row)

    return write


def _langchain_pg(url: str) -> Callable[[Any], object]:
    needs("langchain_postgres", "langchain-postgres")
    from langchain_postgres import PGEngine, PGVectorStore

    engine = PGEngine.from_connection_string(url)
    name = _name()
    engine.init_vectorstore_table(name, vector_size=SIZE)
    model = ready()
    store = PGVectorStore.create_sync(engine, model, name)
    return lambda some: store.add_embeddings(some.texts, some.vectors, some.metadatas, some.ids)


def _langchain_pg_old(url: str) -> Callable[[Any], object]:
    needs("langchain_postgres", "langchain-postgres")
    import warnings

    from langchain_postgres import PGVector

    model = ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PGVector is deprecated, and many use it
        store = PGVector(model, connection=url, collection_name=_name(), embedding_length=SIZE)
    return lambda some: store.add_embeddings(
        some.texts, some.vectors, metadatas=some.metadatas, ids=some.ids
    )


def _llama_index_pg(conninfo: str) -> Callable[[Any], object]:
    needs("llama_index.vector_stores.postgres", "llama-index-vector-stores-postgres")
    from llama_index.vector_stores.postgres import PGVectorStore

    store = PGVectorStore.from_params(
        connection_string=conninfo.replace("postgresql://", "postgresql+psycopg2://", 1),
        async_connection_string=conninfo.replace("postgresql://", "postgresql+asyncpg://", 1),
        table_name=_name(),
        embed_dim=SIZE,
    )
    return store.add


# -- Chroma ----------------------------------------------------------------------------------


def chroma(folder: Path | None, model: Embedder) -> dict[str, Writer]:
    """All who write to Chroma, in memory or in folders."""
    needs("chromadb", "chromadb")
    return {
        "toastrack upsert": Writer(records, partial(_chroma_store, folder, model), ours=True),
        "collection.upsert, arrays, as many rows a call as Chroma takes": Writer(
            lambda some: some, partial(_chroma_client, folder)
        ),
        "collection.upsert, with all that toastrack stores": Writer(
            _with_chroma_fields, partial(_chroma_client, folder)
        ),
        "langchain-chroma add_texts": Writer(lists, partial(_langchain_chroma, folder)),
        "llama-index ChromaVectorStore.add": Writer(
            nodes, partial(_llama_index_chroma, folder), again=False
        ),
    }


def _with_chroma_fields(some: Rows) -> Rows:
    """Rows whose metadata holds the fields of toastrack, too: each is a row of Chroma's database."""
    from toastrack_chroma.codec import row_metadata

    return replace(some, metadatas=[row_metadata(row) for row in stored_rows(some)])


def _chroma(folder: Path | None) -> Any:
    import chromadb

    if folder is None:
        return chromadb.EphemeralClient()
    return chromadb.PersistentClient(Path(tempfile.mkdtemp(dir=folder)))


def _chroma_store(folder: Path | None, model: Embedder) -> Callable[[Any], object]:
    from toastrack_chroma import ChromaStore

    return ChromaStore(_chroma(folder), _name(), embedder=model).open().upsert


def _chroma_collection(client: Any) -> Any:
    return client.create_collection(
        _name(), embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )


def _chroma_client(folder: Path | None) -> Callable[[Any], object]:
    client = _chroma(folder)
    collection = _chroma_collection(client)

    def write(some: Rows) -> None:
        size = client.get_max_batch_size()
        for start in range(0, len(some), size):
            part = slice(start, start + size)
            collection.upsert(
                ids=some.ids[part],
                embeddings=some.vectors[part],
                documents=some.texts[part],
                metadatas=some.metadatas[part],
            )

    return write


def _langchain_chroma(folder: Path | None) -> Callable[[Any], object]:
    needs("langchain_chroma", "langchain-chroma")
    from langchain_chroma import Chroma

    model = ready()
    client = _chroma(folder)
    store = Chroma(
        _name(), model, client=client, collection_configuration={"hnsw": {"space": "cosine"}}
    )

    def write(some: Rows) -> None:
        model.vectors = dict(zip(some.texts, some.vectors, strict=True))
        size = client.get_max_batch_size()
        for start in range(0, len(some), size):
            part = slice(start, start + size)
            store.add_texts(some.texts[part], some.metadatas[part], some.ids[part])

    return write


def _llama_index_chroma(folder: Path | None) -> Callable[[Any], object]:
    needs("llama_index.vector_stores.chroma", "llama-index-vector-stores-chroma")
    from llama_index.vector_stores.chroma import ChromaVectorStore

    return ChromaVectorStore(chroma_collection=_chroma_collection(_chroma(folder))).add


# -- Qdrant ----------------------------------------------------------------------------------


def qdrant(where: str | Path, model: Embedder) -> dict[str, Writer]:
    """All who write to Qdrant: ":memory:", folders of a local client, or a server's URL."""
    needs("qdrant_client", "qdrant-client")
    found = {
        "toastrack upsert": Writer(records, partial(_qdrant_store, where, model), ours=True),
        f"client.upsert, {BATCH} points a call": Writer(
            lambda some: some, partial(_qdrant_upsert, where)
        ),
        "client.upload_points": Writer(lambda some: some, partial(_qdrant_points, where)),
        "client.upload_collection, arrays": Writer(
            lambda some: some, partial(_qdrant_collection, where)
        ),
        "langchain-qdrant add_texts": Writer(lists, partial(_langchain_qdrant, where)),
        "llama-index QdrantVectorStore.add": Writer(nodes, partial(_llama_index_qdrant, where)),
    }
    return found


def _qdrant(where: str | Path) -> Any:
    from qdrant_client import QdrantClient

    if isinstance(where, Path):
        return QdrantClient(path=tempfile.mkdtemp(dir=where))
    return QdrantClient(where)


def _qdrant_place(where: str | Path) -> tuple[Any, str]:
    from qdrant_client import models

    client, name = _qdrant(where), _name()
    client.create_collection(name, models.VectorParams(size=SIZE, distance=models.Distance.COSINE))
    return client, name


def _qdrant_store(where: str | Path, model: Embedder) -> Callable[[Any], object]:
    from toastrack_qdrant import QdrantStore

    return QdrantStore(_qdrant(where), _name(), embedder=model).open().upsert


def _payloads(some: Rows) -> Iterator[dict[str, Any]]:
    for text, metadata in zip(some.texts, some.metadatas, strict=True):
        yield {"text": text, "metadata": metadata}


def _points(some: Rows) -> Iterator[Any]:
    from qdrant_client import models

    for id, vector, payload in zip(some.ids, some.vectors, _payloads(some), strict=True):
        yield models.PointStruct(id=id, vector=vector.tolist(), payload=payload)


def _qdrant_upsert(where: str | Path) -> Callable[[Any], object]:
    client, name = _qdrant_place(where)

    def write(some: Rows) -> None:
        points = list(_points(some))
        for start in range(0, len(points), BATCH):
            client.upsert(name, points[start : start + BATCH], wait=True)

    return write


def _qdrant_points(where: str | Path) -> Callable[[Any], object]:
    client, name = _qdrant_place(where)
    return lambda some: client.upload_points(name, _points(some), wait=True)


def _qdrant_collection(where: str | Path) -> Callable[[Any], object]:
    client, name = _qdrant_place(where)
    return lambda some: client.upload_collection(
        name, some.vectors, payload=_payloads(some), ids=some.ids, wait=True
    )


def _langchain_qdrant(where: str | Path) -> Callable[[Any], object]:
    needs("langchain_qdrant", "langchain-qdrant")
    from langchain_qdrant import QdrantVectorStore

    model = ready()
    client, name = _qdrant_place(where)
    store = QdrantVectorStore(client, name, embedding=model)

    def write(some: Rows) -> None:
        model.vectors = dict(zip(some.texts, some.vectors, strict=True))
        store.add_texts(some.texts, some.metadatas, some.ids)

    return write


def _llama_index_qdrant(where: str | Path) -> Callable[[Any], object]:
    needs("llama_index.vector_stores.qdrant", "llama-index-vector-stores-qdrant")
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    return QdrantVectorStore(_name(), client=_qdrant(where)).add
