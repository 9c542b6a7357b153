"""The table of adapters that the contract of an embedding is tested on.

An adapter joins with one entry in ``ADAPTERS``: how its host is brought up, and how texts become
vectors through the host's own calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

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


ADAPTERS = [
    Adapter("core", _core),
    Adapter("langchain", _langchain),
    Adapter("llama-index", _llama_index),
]


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
