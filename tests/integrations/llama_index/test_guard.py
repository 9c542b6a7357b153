"""LlamaIndex' own vector stores refuse another space, once they are guarded."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from urls import sqlalchemy_url

from toastrack import Embedder
from toastrack.errors import SpaceMismatchError, UnsupportedError
from toastrack.stores import record_space, recorded_space

pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery

from toastrack_llama_index import ToastrackEmbedding

TEXTS = [f"{flour} bread keeps {days} days" for flour in ("rye", "wheat") for days in range(6)]


@dataclass(frozen=True)
class Host:
    """One collection, and how it is opened by somebody else."""

    name: str
    open: Callable[[], Any]
    """Makes another object over it, as another process would."""


@pytest.fixture
def chroma(tmp_path: Path) -> Host:
    package = pytest.importorskip(
        "llama_index.vector_stores.chroma",
        reason="llama-index-vector-stores-chroma is not installed",
    )
    import chromadb

    client = chromadb.PersistentClient(str(tmp_path))

    def open() -> Any:
        collection = client.get_or_create_collection("bread", embedding_function=None)
        return package.ChromaVectorStore(chroma_collection=collection)

    return Host("Collection 'bread'", open)


@pytest.fixture
def qdrant() -> Iterator[Host]:
    package = pytest.importorskip(
        "llama_index.vector_stores.qdrant",
        reason="llama-index-vector-stores-qdrant is not installed",
    )
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    yield Host(
        "Collection 'bread'",
        # The server-less client warns of being asked for the index.
        lambda: package.QdrantVectorStore("bread", client=client, index_doc_id=False),
    )
    client.close()


@pytest.fixture
def postgres(embedder: Embedder, postgres_dsn: str, schema: str) -> Iterator[Host]:
    package = pytest.importorskip(
        "llama_index.vector_stores.postgres",
        reason="llama-index-vector-stores-postgres is not installed",
    )
    opened: list[Any] = []

    def open() -> Any:
        store = package.PGVectorStore(
            connection_string=sqlalchemy_url(postgres_dsn, "psycopg2"),
            async_connection_string=sqlalchemy_url(postgres_dsn, "asyncpg"),
            table_name="bread",
            schema_name=schema,
            embed_dim=embedder.dimensions,
        )
        opened.append(store)
        return store

    yield Host(f"Table '{schema}.data_bread'", open)
    for store in opened:
        asyncio.run(store.close())


@pytest.fixture(params=["chroma", "qdrant", "postgres"])
def host(request: pytest.FixtureRequest) -> Host:
    found: Host = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def ours(embedder: Embedder) -> ToastrackEmbedding:
    return ToastrackEmbedding(embedder=embedder)


@pytest.fixture
def raw(embedder: Embedder) -> ToastrackEmbedding:
    """The same model, whose queries have no prompt."""
    return ToastrackEmbedding(embedder.model, device="cpu", query_prompt="")


@pytest.fixture
def other(other_folder: Path) -> ToastrackEmbedding:
    return ToastrackEmbedding(other_folder, device="cpu")


def documents() -> list[Document]:
    return [Document(text=text, metadata={"flour": text.split()[0]}) for text in TEXTS]


def filled(store: Any, embedding: ToastrackEmbedding) -> VectorStoreIndex:
    return VectorStoreIndex.from_documents(
        documents(),
        embed_model=embedding,
        storage_context=StorageContext.from_defaults(vector_store=store),
    )


def found(store: Any, embedding: ToastrackEmbedding) -> int:
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    return len(index.as_retriever(similarity_top_k=100).retrieve("rye"))


def nodes(embedding: ToastrackEmbedding, texts: list[str]) -> list[TextNode]:
    made = [TextNode(text=text) for text in texts]
    contents = [node.get_content(MetadataMode.EMBED) for node in made]
    for node, vector in zip(made, embedding.get_text_embedding_batch(contents), strict=True):
        node.embedding = vector
    return made


def query(embedding: ToastrackEmbedding) -> VectorStoreQuery:
    return VectorStoreQuery(embedding.get_query_embedding("rye"), similarity_top_k=100)


def test_the_first_one_records_its_space(host: Host, ours: ToastrackEmbedding) -> None:
    store = host.open()
    kind = type(store)
    assert ours.guard(store) is store
    assert isinstance(store, kind)
    assert type(store).__name__ == kind.__name__
    assert store.class_name() == kind.class_name()
    filled(store, ours)
    assert recorded_space(host.open()) == ours.embedder.space
    assert found(store, ours) == len(TEXTS)
    assert found(ours.guard(host.open()), ours) == len(TEXTS)


def test_another_space_is_refused(
    host: Host, ours: ToastrackEmbedding, raw: ToastrackEmbedding
) -> None:
    filled(ours.guard(host.open()), ours)
    theirs = raw.guard(host.open())
    calls: list[Callable[[], Any]] = [
        lambda: filled(theirs, raw),
        lambda: found(theirs, raw),
        lambda: theirs.add(nodes(raw, ["more"])),
        lambda: theirs.query(query(raw)),
        lambda: IngestionPipeline(transformations=[raw], vector_store=theirs).run(
            documents=documents()
        ),
    ]
    for call in calls:
        with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent") as said:
            call()
        assert str(said.value).startswith(f"{host.name} was built in another embedding space:")
    assert found(host.open(), ours) == len(TEXTS)


@pytest.mark.parametrize("kind", ["chroma", "postgres"])
async def test_another_space_is_refused_awaited(
    request: pytest.FixtureRequest, kind: str, ours: ToastrackEmbedding, raw: ToastrackEmbedding
) -> None:
    host: Host = request.getfixturevalue(kind)
    store = ours.guard(host.open())
    await store.async_add(nodes(ours, TEXTS))
    assert len((await store.aquery(query(ours))).ids or []) == len(TEXTS)
    theirs = raw.guard(host.open())
    with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
        await theirs.async_add(nodes(raw, ["more"]))
    with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
        await theirs.aquery(query(raw))
    if hasattr(store, "close"):
        await store.close()
        await theirs.close()


async def test_an_asynchronous_client_of_qdrant(
    ours: ToastrackEmbedding, raw: ToastrackEmbedding
) -> None:
    package = pytest.importorskip(
        "llama_index.vector_stores.qdrant",
        reason="llama-index-vector-stores-qdrant is not installed",
    )
    from qdrant_client import AsyncQdrantClient

    client = AsyncQdrantClient(":memory:")

    def open() -> Any:
        return package.QdrantVectorStore("bread", aclient=client, index_doc_id=False)

    store = ours.guard(open())
    await store.async_add(nodes(ours, TEXTS))
    assert len((await store.aquery(query(ours))).ids or []) == len(TEXTS)
    theirs = raw.guard(open())
    with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
        await theirs.async_add(nodes(raw, ["more"]))
    with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
        await theirs.aquery(query(raw))
    with pytest.raises(TypeError, match="Await the methods that begin with an a"):
        store.add(nodes(ours, ["more"]))
    await client.delete_collection("bread")
    await open().async_add(nodes(ours, TEXTS))
    with pytest.raises(SpaceMismatchError, match="does not say which model embedded"):
        await ours.guard(open()).aquery(query(ours))
    await ours.guard(open(), adopt=True).aquery(query(ours))
    await client.close()


def test_a_filled_collection_is_proven_first(
    host: Host, ours: ToastrackEmbedding, other: ToastrackEmbedding
) -> None:
    """With the metadata that LlamaIndex puts in front of each text."""
    filled(host.open(), ours)
    with pytest.raises(SpaceMismatchError, match="does not say which model embedded") as said:
        found(ours.guard(host.open()), ours)
    assert "guard(vector_store, adopt=True)" in str(said.value)
    with pytest.raises(SpaceMismatchError, match="of 12 texts that were embedded again 0 agree"):
        found(other.guard(host.open(), adopt=True), other)
    assert recorded_space(host.open()) is None
    assert found(ours.guard(host.open(), adopt=True), ours) == len(TEXTS)
    recorded = recorded_space(host.open())
    assert recorded == ours.embedder.space
    assert recorded is not None
    assert recorded.unproven == ("query_prompt",)


def test_two_that_were_opened_before_either_wrote(
    host: Host, ours: ToastrackEmbedding, raw: ToastrackEmbedding
) -> None:
    one, two = ours.guard(host.open()), raw.guard(host.open())
    two.add(nodes(raw, ["rye bread"]))
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        one.add(nodes(ours, ["rye bread"]))


def test_a_collection_that_is_emptied_starts_anew(
    qdrant: Host, ours: ToastrackEmbedding, raw: ToastrackEmbedding
) -> None:
    """LlamaIndex deletes a collection of Qdrant's to empty it, and makes it at the next node."""
    store = ours.guard(qdrant.open())
    store.add(nodes(ours, TEXTS))
    store.clear()
    assert recorded_space(store) is None
    raw.guard(qdrant.open()).add(nodes(raw, ["rye bread"]))
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        store.add(nodes(ours, TEXTS))


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda store: store.model_copy(),
        lambda store: pickle.loads(pickle.dumps(store)),
    ],
    ids=["copy", "deepcopy", "model_copy", "pickle"],
)
async def test_a_copy_is_guarded_as_its_original(
    host: Host, ours: ToastrackEmbedding, raw: ToastrackEmbedding, copied: Callable[[Any], Any]
) -> None:
    """LlamaIndex leaves out of a pickle what cannot be pickled, be it the client: that is refused."""
    filled(ours.guard(host.open()), ours)
    theirs = host.open()
    try:
        copied(theirs)
    except TypeError:  # as its client cannot be copied, guarded or not
        with pytest.raises(TypeError):
            copied(raw.guard(theirs))
        return
    store = copied(raw.guard(theirs))
    assert isinstance(store, type(host.open()))
    with pytest.raises((SpaceMismatchError, UnsupportedError)):
        store.add(nodes(raw, ["more"]))
    with pytest.raises((SpaceMismatchError, UnsupportedError)):
        await store.aquery(query(raw))
    if hasattr(store, "close"):
        await store.close()
    assert found(host.open(), ours) == len(TEXTS)


def test_a_search_creates_no_collection(qdrant: Host, ours: ToastrackEmbedding) -> None:
    store = ours.guard(qdrant.open())
    with pytest.raises(ValueError, match="bread not found"):
        store.query(query(ours))
    assert not store.client.collection_exists("bread")
    record_space(store, ours.embedder.space)
    assert qdrant.open().query(query(ours)).ids == []  # of itself it looks when it is made


def test_a_vector_store_without_a_place_for_it(ours: ToastrackEmbedding) -> None:
    with pytest.raises(UnsupportedError, match="SimpleVectorStore has no place"):
        ours.guard(SimpleVectorStore())


def test_a_store_of_ours_opens_what_was_guarded(tmp_path: Path, ours: ToastrackEmbedding) -> None:
    package = pytest.importorskip(
        "llama_index.vector_stores.chroma",
        reason="llama-index-vector-stores-chroma is not installed",
    )
    import chromadb

    from toastrack_chroma import ChromaStore

    client = chromadb.PersistentClient(str(tmp_path))
    cosine: Any = {"hnsw": {"space": "cosine"}}
    collection = client.create_collection("bread", configuration=cosine, embedding_function=None)
    filled(ours.guard(package.ChromaVectorStore(chroma_collection=collection)), ours)
    with ChromaStore(client, "bread", embedder=ours.embedder, verify=True) as store:
        assert store.space == ours.embedder.space == recorded_space(collection)
        assert {match.text for match in store.search("rye", k=100)} == set(TEXTS)


def test_a_collection_of_qdrants_says_the_same_to_a_store_of_ours(
    qdrant: Host, ours: ToastrackEmbedding
) -> None:
    from toastrack_qdrant import QdrantStore

    vectors = ours.guard(qdrant.open())
    filled(vectors, ours)
    with QdrantStore(
        vectors.client, "bread", embedder=ours.embedder, fields="llama-index", verify=True
    ) as store:
        assert store.space == ours.embedder.space
        assert {match.text for match in store.search("rye", k=100)} == set(TEXTS)


def test_a_table_of_postgres_says_the_same_to_a_store_of_ours(
    postgres: Host,
    postgres_dsn: str,
    schema: str,
    ours: ToastrackEmbedding,
    raw: ToastrackEmbedding,
) -> None:
    from toastrack_postgres import PostgresStore

    filled(ours.guard(postgres.open()), ours)
    open = partial(
        PostgresStore,
        postgres_dsn,
        "data_bread",
        schema=schema,
        columns="llama-index",
        create=False,
    )
    with open(embedder=ours.embedder, verify=True) as store:
        assert store.space == ours.embedder.space
        assert {match.text for match in store.search("rye", k=100)} == set(TEXTS)
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        open(embedder=raw.embedder).open()
