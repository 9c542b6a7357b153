"""The table of adapters that the contract of an embedding is tested on.

An adapter joins with one entry in ``ADAPTERS``: how its host is brought up, and how texts become
vectors through the host's own calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

import pytest
from server_troubles import Trouble
from store_faces import StoreFace, axis_of

from toastrack import Embedder

Vectors = list[list[float]]


class Face(Protocol):
    """An adapter, asked through its host's own calls; nothing here calls toastrack by name."""

    held: Any
    """What the user holds and may print, pickle and copy."""

    def documents(self, texts: list[str]) -> Vectors:
        """Embed texts the way the host does when it stores them."""
        ...

    def query(self, text: str) -> list[float]:
        """Embed a text the way the host does when it searches."""
        ...

    async def adocuments(self, texts: list[str]) -> Vectors:
        """``documents``, through the host's asynchronous calls."""
        ...

    async def aquery(self, text: str) -> list[float]:
        """``query``, through the host's asynchronous calls."""
        ...


class Build(Protocol):
    """Builds an adapter: over an embedder, or with settings of its own (``model=`` and others)."""

    def __call__(self, embedder: Embedder | None = None, /, **settings: Any) -> Face: ...


@dataclass(frozen=True)
class Adapter:
    """One way that texts become vectors."""

    name: str
    start: Callable[[pytest.FixtureRequest], AbstractContextManager[Build]]
    """Brings the host up, empty, and takes it down again."""
    precision: float = 1e-5
    """How far a number may be from the core's float32."""
    asynchronous: bool = True
    """Whether the host has asynchronous calls."""
    copies: bool = True
    """Whether what the user holds can be pickled and copied."""
    blocking: tuple[str, ...] = ()
    """Code of the host that works where it is called, so that no event loop may call it."""


class _Core:
    def __init__(self, embedder: Embedder) -> None:
        self.held = embedder

    def documents(self, texts: list[str]) -> Vectors:
        vectors: Vectors = self.held.embed_documents(texts).tolist()
        return vectors

    def query(self, text: str) -> list[float]:
        vector: list[float] = self.held.embed_query(text).tolist()
        return vector

    async def adocuments(self, texts: list[str]) -> Vectors:
        vectors: Vectors = (await self.held.aembed_documents(texts)).tolist()
        return vectors

    async def aquery(self, text: str) -> list[float]:
        vector: list[float] = (await self.held.aembed_query(text)).tolist()
        return vector


class _LangChain:
    def __init__(self, embeddings: Any) -> None:
        self.held = embeddings

    def _store(self) -> Any:
        from langchain_core.vectorstores import InMemoryVectorStore

        return InMemoryVectorStore(self.held)

    def documents(self, texts: list[str]) -> Vectors:
        store = self._store()
        return [store.store[number]["vector"] for number in store.add_texts(texts)]

    def query(self, text: str) -> list[float]:
        vector: list[float] = self.held.embed_query(text)
        return vector

    async def adocuments(self, texts: list[str]) -> Vectors:
        store = self._store()
        return [store.store[number]["vector"] for number in await store.aadd_texts(texts)]

    async def aquery(self, text: str) -> list[float]:
        vector: list[float] = await self.held.aembed_query(text)
        return vector


class _LlamaIndex:
    def __init__(self, embedding: Any) -> None:
        self.held = embedding

    def _nodes(self, texts: list[str]) -> list[Any]:
        from llama_index.core.schema import TextNode

        return [TextNode(text=text) for text in texts]

    def documents(self, texts: list[str]) -> Vectors:
        return [node.embedding for node in self.held(self._nodes(texts))]

    def query(self, text: str) -> list[float]:
        vector: list[float] = self.held.get_query_embedding(text)
        return vector

    async def adocuments(self, texts: list[str]) -> Vectors:
        return [node.embedding for node in await self.held.acall(self._nodes(texts))]

    async def aquery(self, text: str) -> list[float]:
        vector: list[float] = await self.held.aget_query_embedding(text)
        return vector


@contextmanager
def _core(request: pytest.FixtureRequest) -> Iterator[Build]:
    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        return _Core(Embedder(**settings) if embedder is None else embedder)

    yield build


@contextmanager
def _langchain(request: pytest.FixtureRequest) -> Iterator[Build]:
    pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")
    from toastrack_langchain import ToastrackEmbeddings

    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        shared: dict[str, Any] = {} if embedder is None else {"embedder": embedder}
        return _LangChain(ToastrackEmbeddings(**shared, **settings))

    yield build


@contextmanager
def _llama_index(request: pytest.FixtureRequest) -> Iterator[Build]:
    pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")
    from toastrack_llama_index import ToastrackEmbedding

    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        return _LlamaIndex(
            ToastrackEmbedding(settings.pop("model", None), embedder=embedder, **settings)
        )

    yield build


class _ChromaFunction:
    """Chroma's own collection, which embeds through ours."""

    def __init__(self, function: Any, client: Any) -> None:
        self.held = function
        self._client = client

    def _collection(self) -> Any:
        name = f"texts_{uuid4().hex[:12]}"
        return self._client.create_collection(name, embedding_function=self.held)

    def documents(self, texts: list[str]) -> Vectors:
        if not texts:
            return []
        collection = self._collection()
        ids = [str(number) for number in range(len(texts))]
        collection.add(ids=ids, documents=texts)
        stored = collection.get(include=["embeddings"])
        vectors = dict(zip(stored["ids"], stored["embeddings"].tolist(), strict=True))
        return [vectors[id] for id in ids]

    def query(self, text: str) -> list[float]:
        size = self.held.embedder.dimensions
        collection = self._collection()
        ids = [str(number) for number in range(size)]
        collection.add(ids=ids, embeddings=[axis_of(number, size) for number in range(size)])
        found = collection.query(query_texts=[text], n_results=size, include=["distances"])
        scores = dict(zip(found["ids"][0], found["distances"][0], strict=True))
        return [1 - scores[id] for id in ids]

    async def adocuments(self, texts: list[str]) -> Vectors:
        raise NotImplementedError("Chroma's own asynchronous collection embeds on the event loop")

    async def aquery(self, text: str) -> list[float]:
        raise NotImplementedError("Chroma's own asynchronous collection embeds on the event loop")


def _embedder(embedder: Embedder | None, settings: dict[str, Any]) -> Embedder:
    return Embedder(**settings) if embedder is None else embedder


@contextmanager
def _chroma_function(request: pytest.FixtureRequest) -> Iterator[Build]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from toastrack_chroma import ToastrackEmbeddingFunction

    client = chromadb.EphemeralClient()

    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        shared: dict[str, Any] = {} if embedder is None else {"embedder": embedder}
        return _ChromaFunction(ToastrackEmbeddingFunction(**shared, **settings), client)

    yield build
    client.close()


@contextmanager
def _chroma(request: pytest.FixtureRequest) -> Iterator[Build]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from toastrack_chroma import AsyncChromaStore, ChromaStore

    host, port, database = request.getfixturevalue("chroma_database")
    client = chromadb.EphemeralClient()
    users: Counter[asyncio.AbstractEventLoop] = Counter()

    def open_store(embedder: Embedder, name: str) -> Any:
        return ChromaStore(client, name, embedder=embedder)

    @asynccontextmanager
    async def open_async(embedder: Embedder, name: str) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        users[loop] += 1
        awaited = await chromadb.AsyncHttpClient(host=host, port=port, database=database)
        try:
            async with AsyncChromaStore(awaited, name, embedder=embedder) as store:
                yield store
        finally:
            users[loop] -= 1
            if not users[loop]:
                # All of Chroma's asynchronous clients share one connection pool a loop, and none of
                # them has a way to close it.
                await awaited._server._clients.pop(hash(loop)).aclose()

    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        chosen = _embedder(embedder, settings)
        return StoreFace(chosen, open_store(chosen, "held"), open_store, open_async)

    yield build
    client.close()


@contextmanager
def _qdrant(request: pytest.FixtureRequest) -> Iterator[Build]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import AsyncQdrantStore, QdrantStore

    client = qdrant_client.QdrantClient(":memory:")

    def open_store(embedder: Embedder, name: str) -> Any:
        return QdrantStore(client, name, embedder=embedder)

    @asynccontextmanager
    async def open_async(embedder: Embedder, name: str) -> AsyncIterator[Any]:
        awaited = qdrant_client.AsyncQdrantClient(":memory:")
        try:
            async with AsyncQdrantStore(awaited, name, embedder=embedder) as store:
                yield store
        finally:
            await awaited.close()

    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        chosen = _embedder(embedder, settings)
        return StoreFace(chosen, open_store(chosen, "held"), open_store, open_async)

    yield build
    client.close()


@contextmanager
def _postgres(request: pytest.FixtureRequest) -> Iterator[Build]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    from toastrack_postgres import AsyncPostgresStore, PostgresStore

    schema: str = request.getfixturevalue("schema")
    dsn: str = request.getfixturevalue("postgres_dsn")

    def open_store(embedder: Embedder, name: str) -> Any:
        return PostgresStore(dsn, name, schema=schema, storage="vector", embedder=embedder)

    def open_async(embedder: Embedder, name: str) -> Any:
        return AsyncPostgresStore(dsn, name, schema=schema, storage="vector", embedder=embedder)

    def build(embedder: Embedder | None = None, /, **settings: Any) -> Face:
        chosen = _embedder(embedder, settings)
        return StoreFace(chosen, open_store(chosen, "held"), open_store, open_async)

    yield build


ADAPTERS = [
    Adapter("core", _core),
    Adapter("chroma", _chroma, copies=False),
    Adapter("chroma-function", _chroma_function, asynchronous=False),
    Adapter("postgres", _postgres, copies=False),
    Adapter(
        "qdrant",
        _qdrant,
        copies=False,
        blocking=("qdrant_client.local.distances", "qdrant_client.local.local_collection.upsert"),
    ),
    Adapter("langchain", _langchain),
    Adapter("llama-index", _llama_index),
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to ``make test-rest`` what a server may do wrong, but for the core and what is usual."""
    for item in items:
        call = getattr(item, "callspec", None)
        trouble, asked = (call and call.params.get(name) for name in ("trouble", "adapter"))
        is_rare = isinstance(trouble, Trouble) and not trouble.usual
        if is_rare and isinstance(asked, Adapter) and asked.name != "core":
            item.add_marker("rest")


@pytest.fixture(params=ADAPTERS, ids=[adapter.name for adapter in ADAPTERS])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """The adapter under test."""
    adapter: Adapter = request.param
    return adapter


@pytest.fixture
def build(adapter: Adapter, request: pytest.FixtureRequest) -> Iterator[Build]:
    """Builds the adapter under test in one host."""
    with adapter.start(request) as build:
        yield build


@pytest.fixture
def asynchronous(adapter: Adapter) -> None:
    """Leave out hosts without asynchronous calls."""
    if not adapter.asynchronous:
        pytest.skip(f"{adapter.name} has no asynchronous calls")


@pytest.fixture
def copies(adapter: Adapter) -> None:
    """Leave out hosts whose objects hold a connection."""
    if not adapter.copies:
        pytest.skip(f"{adapter.name}: what the user holds cannot be pickled")
