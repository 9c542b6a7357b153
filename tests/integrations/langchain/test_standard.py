"""LangChain's own suites, run on our embeddings and on stores that hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from urls import sqlalchemy_url

from toastrack import Embedder

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from toastrack_langchain import ToastrackEmbeddings


@pytest.fixture
def embeddings(embedder: Embedder) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(embedder=embedder)


class _OurEmbeddings:
    """What LangChain's suites need to know of an embeddings class."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _use_the_tiny_model(self, loaded: Embedder, tiny_folder: Path) -> None:
        self.folder = tiny_folder

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return ToastrackEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.folder, "device": "cpu"}


class TestUnit(_OurEmbeddings, EmbeddingsUnitTests):
    """The unit tests of an embeddings class."""


class TestIntegration(_OurEmbeddings, EmbeddingsIntegrationTests):
    """The integration tests of an embeddings class."""


@pytest.fixture
def memory(embeddings: ToastrackEmbeddings) -> VectorStore:
    return InMemoryVectorStore(embeddings)


@pytest.fixture
def chroma(embeddings: ToastrackEmbeddings, tmp_path: Path) -> Iterator[VectorStore]:
    package = pytest.importorskip("langchain_chroma", reason="langchain-chroma is not installed")
    store: Any = package.Chroma("documents", embeddings, persist_directory=str(tmp_path))
    yield store
    store.delete_collection()


@pytest.fixture
def postgres(
    embeddings: ToastrackEmbeddings, postgres_dsn: str, schema: str
) -> Iterator[VectorStore]:
    package = pytest.importorskip(
        "langchain_postgres", reason="langchain-postgres is not installed"
    )
    engine = package.PGEngine.from_connection_string(sqlalchemy_url(postgres_dsn, "psycopg"))
    engine.init_vectorstore_table(
        "documents",
        embeddings.embedder.dimensions,
        schema_name=schema,
        # Its default is uuid, and LangChain's suite calls its documents "1" and "2".
        id_column=package.Column("langchain_id", "VARCHAR", nullable=False),
    )
    store: VectorStore = package.PGVectorStore.create_sync(
        engine, embeddings, "documents", schema_name=schema
    )
    yield store
    asyncio.run(engine.close())


class TestInMemoryVectorStore(VectorStoreIntegrationTests):
    """The store that langchain-core brings."""

    @pytest.fixture
    def vectorstore(self, memory: VectorStore) -> VectorStore:
        return memory


class TestChroma(VectorStoreIntegrationTests):
    """langchain-chroma's store."""

    @pytest.fixture
    def vectorstore(self, chroma: VectorStore) -> VectorStore:
        return chroma


class TestPGVectorStore(VectorStoreIntegrationTests):
    """langchain-postgres' store; it awaits embeddings on a thread of its own, always."""

    @pytest.fixture
    def vectorstore(self, postgres: VectorStore) -> VectorStore:
        return postgres


class _StoreRetriever:
    """What LangChain's suite needs to know of a store's retriever."""

    store: VectorStore

    def fill(self, store: VectorStore) -> None:
        store.add_documents([Document(text) for text in ("rye", "bread", "salt", "oven")])
        self.store = store

    @property
    def retriever_constructor(self) -> Any:
        return lambda **options: self.store.as_retriever(search_kwargs=options)

    @property
    def retriever_query_example(self) -> str:
        return "why is bread sour?"


class TestInMemoryRetriever(_StoreRetriever, RetrieversIntegrationTests):
    """A retriever over langchain-core's store."""

    @pytest.fixture(autouse=True)
    def _fill(self, memory: VectorStore) -> None:
        self.fill(memory)


class TestChromaRetriever(_StoreRetriever, RetrieversIntegrationTests):
    """A retriever over langchain-chroma's store."""

    @pytest.fixture(autouse=True)
    def _fill(self, chroma: VectorStore) -> None:
        self.fill(chroma)


class TestPGRetriever(_StoreRetriever, RetrieversIntegrationTests):
    """A retriever over langchain-postgres' store."""

    @pytest.fixture(autouse=True)
    def _fill(self, postgres: VectorStore) -> None:
        self.fill(postgres)
