"""LangChain's own vector stores refuse another space, once they are guarded."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from programs import run_script
from urls import sqlalchemy_url

from toastrack import Embedder
from toastrack.errors import SpaceMismatchError, StoreError, UnprovenWarning, UnsupportedError
from toastrack.stores import Store, record_space, recorded_space

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings, FakeEmbeddings
from langchain_core.vectorstores import InMemoryVectorStore

from toastrack_langchain import ToastrackEmbeddings

TEXTS = [f"{flour} bread keeps {days} days" for flour in ("rye", "wheat") for days in range(6)]
IDS = [f"00000000-0000-0000-0000-{number:012}" for number in range(len(TEXTS))]


@dataclass(frozen=True)
class Host:
    """One collection, and how it is opened by somebody else."""

    name: str
    open: Callable[[Embeddings], Any]
    """Makes another object over it, as another process would."""
    replace: Callable[[], None]
    """Deletes it, and makes an empty one of its name."""


@pytest.fixture
def chroma(tmp_path: Path) -> Host:
    package = pytest.importorskip("langchain_chroma", reason="langchain-chroma is not installed")

    def open(embeddings: Embeddings) -> Any:
        return package.Chroma(
            "bread",
            embeddings,
            persist_directory=str(tmp_path),
            collection_metadata={"baker": "Ada"},
        )

    return Host("Collection 'bread'", open, lambda: open(FakeEmbeddings(size=1)).reset_collection())


@pytest.fixture
def qdrant(embedder: Embedder) -> Iterator[Host]:
    package = pytest.importorskip("langchain_qdrant", reason="langchain-qdrant is not installed")
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")

    def make() -> None:
        client.delete_collection("bread")
        size = embedder.dimensions
        client.create_collection(
            "bread", models.VectorParams(size=size, distance=models.Distance.COSINE)
        )

    make()
    yield Host(
        "Collection 'bread'", lambda given: package.QdrantVectorStore(client, "bread", given), make
    )
    client.close()


@pytest.fixture
def postgres(embedder: Embedder, postgres_dsn: str, schema: str) -> Iterator[Host]:
    package = pytest.importorskip(
        "langchain_postgres", reason="langchain-postgres is not installed"
    )
    engine = package.PGEngine.from_connection_string(sqlalchemy_url(postgres_dsn, "psycopg"))

    def make() -> None:
        engine.init_vectorstore_table(
            "bread", embedder.dimensions, schema_name=schema, overwrite_existing=True
        )

    make()
    yield Host(
        f"Table '{schema}.bread'",
        lambda given: package.PGVectorStore.create_sync(engine, given, "bread", schema_name=schema),
        make,
    )
    asyncio.run(engine.close())


@pytest.fixture(params=["chroma", "qdrant", "postgres"])
def host(request: pytest.FixtureRequest) -> Host:
    found: Host = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def ours(embedder: Embedder) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(embedder=embedder)


@pytest.fixture
def raw(embedder: Embedder) -> ToastrackEmbeddings:
    """The same model, whose queries have no prompt."""
    return ToastrackEmbeddings(model=embedder.model, device="cpu", query_prompt="")


@pytest.fixture
def other(other_folder: Path) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(model=str(other_folder), device="cpu")


def texts_of(documents: list[Document]) -> set[str]:
    return {document.page_content for document in documents}


def test_the_first_one_records_its_space(host: Host, ours: ToastrackEmbeddings) -> None:
    store = host.open(ours)
    assert ours.guard(store) is store
    assert recorded_space(store) is None  # nothing is asked, and nothing written, before it is used
    assert store.add_texts(TEXTS, ids=IDS) == IDS
    assert recorded_space(host.open(ours)) == ours.embedder.space
    assert texts_of(store.similarity_search("rye", k=100)) == set(TEXTS)
    assert len(store.as_retriever(search_kwargs={"k": 3}).invoke("rye")) == 3


def test_it_stays_what_it_was(host: Host, ours: ToastrackEmbeddings) -> None:
    store = host.open(ours)
    kind = type(store)
    ours.guard(store)
    assert isinstance(store, kind)
    assert type(store).__name__ == kind.__name__
    assert store.embeddings is ours


def test_another_space_is_refused(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    ours.guard(host.open(ours)).add_texts(TEXTS, ids=IDS)
    theirs = raw.guard(host.open(raw))
    vector = raw.embed_query("rye")
    calls: list[Callable[[], Any]] = [
        lambda: theirs.add_texts(["more"]),
        lambda: theirs.add_documents([Document("more")]),
        lambda: theirs.similarity_search("rye"),
        lambda: theirs.similarity_search_with_score("rye"),
        lambda: theirs.similarity_search_by_vector(vector),
        lambda: theirs.max_marginal_relevance_search("rye"),
        lambda: theirs.search("rye", "mmr"),
        lambda: theirs.as_retriever().invoke("rye"),
    ]
    for call in calls:
        with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent") as said:
            call()
        assert str(said.value).startswith(f"{host.name} was built in another embedding space:")
    assert len(host.open(ours).similarity_search("rye", k=100)) == len(TEXTS)


async def test_another_space_is_refused_awaited(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    store = ours.guard(host.open(ours))
    assert await store.aadd_texts(TEXTS, ids=IDS) == IDS
    assert texts_of(await store.asimilarity_search("rye", k=100)) == set(TEXTS)
    theirs = raw.guard(host.open(raw))
    calls: tuple[Callable[[], Any], ...] = (
        lambda: theirs.aadd_texts(["more"]),
        lambda: theirs.aadd_documents([Document("more")]),
        lambda: theirs.asimilarity_search("rye"),
        lambda: theirs.amax_marginal_relevance_search("rye"),
        lambda: theirs.as_retriever().ainvoke("rye"),
    )
    for call in calls:
        with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
            await call()


def test_two_that_were_opened_before_either_wrote(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    one, two = ours.guard(host.open(ours)), raw.guard(host.open(raw))
    two.add_texts(["rye bread"])
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        one.add_texts(["rye bread"])


def test_two_threads_that_write_first_at_once(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    both = (ours, raw)
    for given in both:
        given.embedder.load()
    for _ in range(8):
        host.replace()
        stores = [given.guard(host.open(given)) for given in both]
        start = Barrier(len(stores))

        def write(store: Any, start: Barrier = start) -> bool:
            start.wait()
            try:
                store.add_texts(["rye bread"])
            except SpaceMismatchError:
                return False
            return True

        with ThreadPoolExecutor(len(stores)) as pool:
            assert sorted(pool.map(write, stores)) == [False, True]


def test_a_collection_that_is_replaced_meanwhile(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    store = ours.guard(host.open(ours))
    store.add_texts(TEXTS)
    host.replace()
    raw.guard(host.open(raw)).add_texts(TEXTS)
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        store.similarity_search("rye")


def test_a_filled_collection_is_proven_first(
    host: Host, ours: ToastrackEmbeddings, other: ToastrackEmbeddings
) -> None:
    host.open(ours).add_texts(TEXTS, metadatas=[{"loaf": text} for text in TEXTS])
    with pytest.raises(SpaceMismatchError, match="does not say which model embedded") as said:
        ours.guard(host.open(ours)).similarity_search("rye")
    assert "guard(vector_store, adopt=True)" in str(said.value)
    with pytest.raises(SpaceMismatchError, match="of 12 texts that were embedded again 0 agree"):
        other.guard(host.open(other), adopt=True).add_texts(["more"])
    assert recorded_space(host.open(ours)) is None
    store = ours.guard(host.open(ours), adopt=True)
    assert len(store.similarity_search("rye", k=100)) == len(TEXTS)
    found = recorded_space(store)
    assert found == ours.embedder.space
    assert found is not None
    assert found.unproven == ("query_prompt",)


async def test_it_is_proven_awaited(host: Host, ours: ToastrackEmbeddings) -> None:
    await host.open(ours).aadd_texts(TEXTS)
    with pytest.raises(SpaceMismatchError, match="does not say which model embedded"):
        await ours.guard(host.open(ours)).asimilarity_search("rye")
    store = ours.guard(host.open(ours), adopt=True)
    assert len(await store.asimilarity_search("rye", k=100)) == len(TEXTS)


def test_metadata_that_is_null_is_none_in_a_proof(
    postgres: Host, ours: ToastrackEmbeddings, postgres_dsn: str, schema: str
) -> None:
    import psycopg

    store = postgres.open(ours)
    store.add_texts(TEXTS, ids=IDS)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"update {schema}.bread set langchain_metadata = 'null'")
    found = ours.guard(store, adopt=True).similarity_search("rye", k=100)
    assert texts_of(found) == set(TEXTS)


def test_too_few_texts_prove_nothing(host: Host, ours: ToastrackEmbeddings) -> None:
    host.open(ours).add_texts(TEXTS[:2])
    with pytest.warns(UnprovenWarning, match=f"{host.name}: 2 texts"):
        ours.guard(host.open(ours), adopt=True).similarity_search("rye")


def test_guarding_again_replaces_the_guard(host: Host, ours: ToastrackEmbeddings) -> None:
    store = host.open(ours)
    kind = type(store)
    store.add_texts(TEXTS)
    with pytest.raises(SpaceMismatchError, match="does not say"):
        ours.guard(store).similarity_search("rye")
    ours.guard(store, adopt=True).similarity_search("rye")
    assert type(store).__mro__[1] is kind


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))],
    ids=["copy", "deepcopy", "pickle"],
)
async def test_a_copy_is_guarded_as_its_original(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings, copied: Callable[[Any], Any]
) -> None:
    ours.guard(host.open(ours)).add_texts(TEXTS, ids=IDS)
    theirs = host.open(raw)
    try:
        copied(theirs)
    except (TypeError, AttributeError) as error:  # as its client cannot be copied, guarded or not
        with pytest.raises(type(error)):
            copied(raw.guard(theirs))
        return
    store = copied(raw.guard(theirs))
    assert isinstance(store, type(host.open(raw)))
    with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
        store.add_texts(["more"])
    with pytest.raises(SpaceMismatchError, match="the query prompt: stored 'Represent"):
        await store.asimilarity_search("rye")
    assert len(copied(ours.guard(host.open(ours))).similarity_search("rye", k=100)) == len(TEXTS)


def test_believing(host: Host, ours: ToastrackEmbeddings, other: ToastrackEmbeddings) -> None:
    host.open(ours).add_texts(TEXTS)
    other.guard(host.open(other), adopt="unchecked").similarity_search("rye")
    found = recorded_space(host.open(other))
    assert found == other.embedder.space
    assert found is not None
    assert "weights" in found.unproven


def test_recording_without_a_guard(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    store = host.open(ours)
    record_space(store, ours.embedder.space)
    record_space(store, ours.embedder.space)
    found = recorded_space(store)
    assert found is not None
    assert found.unproven == ()
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        record_space(store, raw.embedder.space)
    host.replace()
    store = host.open(ours)
    store.add_texts(TEXTS)
    record_space(store, ours.embedder.space)
    found = recorded_space(store)
    assert found is not None
    assert "weights" in found.unproven


def test_what_people_wrote_beside_it_stays(chroma: Host, ours: ToastrackEmbeddings) -> None:
    store = ours.guard(chroma.open(ours))
    store.add_texts(TEXTS)
    assert chroma.open(ours)._collection.metadata["baker"] == "Ada"


def test_a_vector_store_that_embeds_with_something_else(
    host: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    with pytest.raises(ValueError, match="they differ in query_prompt"):
        ours.guard(host.open(raw))


def test_a_cache_over_these_embeddings(chroma: Host, ours: ToastrackEmbeddings) -> None:
    classic = pytest.importorskip(
        "langchain_classic.embeddings", reason="langchain-classic is not installed"
    )
    from langchain_classic.storage import InMemoryByteStore

    cached = classic.CacheBackedEmbeddings.from_bytes_store(
        ours, InMemoryByteStore(), namespace=ours.cache_namespace, key_encoder="blake2b"
    )
    store = ours.guard(chroma.open(cached))
    store.add_texts(TEXTS)
    assert recorded_space(store) == ours.embedder.space
    with pytest.raises(ValueError, match="embeds with FakeEmbeddings"):
        ours.guard(chroma.open(FakeEmbeddings(size=3)))


def test_a_vector_store_without_a_place_for_it(ours: ToastrackEmbeddings) -> None:
    with pytest.raises(UnsupportedError, match="InMemoryVectorStore has no place"):
        ours.guard(InMemoryVectorStore(ours))
    with pytest.raises(ValueError, match="adopt='maybe'"):
        ours.guard(InMemoryVectorStore(ours), adopt="maybe")  # type: ignore[arg-type]


def test_a_deleted_collection_says_so(
    qdrant: Host, chroma: Host, ours: ToastrackEmbeddings
) -> None:
    found = qdrant.open(ours)
    found.client.delete_collection("bread")
    with pytest.raises(StoreError, match="'bread' was deleted while"):
        ours.guard(found).add_texts(TEXTS)
    found = chroma.open(ours)
    found.delete_collection()
    with pytest.raises(StoreError, match="'bread' was deleted while"):
        ours.guard(found).add_texts(TEXTS)


def test_a_store_of_ours_opens_what_was_guarded(tmp_path: Path, ours: ToastrackEmbeddings) -> None:
    package = pytest.importorskip("langchain_chroma", reason="langchain-chroma is not installed")
    import chromadb

    from toastrack_chroma import ChromaStore

    client = chromadb.PersistentClient(str(tmp_path))
    cosine = {"hnsw": {"space": "cosine"}}
    vectors = package.Chroma("bread", ours, client=client, collection_configuration=cosine)
    ours.guard(vectors).add_texts(TEXTS, ids=IDS, metadatas=[{"loaf": text} for text in TEXTS])
    with ChromaStore(client, "bread", embedder=ours.embedder, verify=True) as store:
        assert store.space == ours.embedder.space
        found = {match.id: (match.text, match.metadata) for match in store.search("rye", k=100)}
        assert found == {id: (text, {"loaf": text}) for id, text in zip(IDS, TEXTS, strict=True)}
    # And the other way round.
    with ChromaStore(client, "ours", embedder=ours.embedder) as store:
        store.open()
        vectors = package.Chroma("ours", ours, client=client)
        assert recorded_space(vectors) == store.space
        assert ours.guard(vectors).add_texts(TEXTS, ids=IDS) == IDS
    raw = ToastrackEmbeddings(model=ours.embedder.model, device="cpu", query_prompt="")
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        raw.guard(package.Chroma("ours", raw, client=client)).similarity_search("rye")


def check_said_to_ours(
    open: Callable[..., Store], ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    """A store of ours over what LangChain's filled reads the space there, and refuses another."""
    with open(embedder=ours.embedder, verify=True) as store:
        assert store.space == ours.embedder.space
        assert {match.text for match in store.search("rye", k=100)} == set(TEXTS)
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        open(embedder=raw.embedder).open()


def test_a_collection_of_qdrants_says_the_same_to_a_store_of_ours(
    qdrant: Host, ours: ToastrackEmbeddings, raw: ToastrackEmbeddings
) -> None:
    from toastrack_qdrant import QdrantStore

    vectors = ours.guard(qdrant.open(ours))
    vectors.add_texts(TEXTS)
    open = partial(QdrantStore, vectors.client, "bread", fields="langchain", create=False)
    check_said_to_ours(open, ours, raw)


def test_a_table_of_postgres_says_the_same_to_a_store_of_ours(
    postgres: Host,
    postgres_dsn: str,
    schema: str,
    ours: ToastrackEmbeddings,
    raw: ToastrackEmbeddings,
) -> None:
    from toastrack_postgres import PostgresStore

    ours.guard(postgres.open(ours)).add_texts(TEXTS)
    open = partial(
        PostgresStore, postgres_dsn, "bread", schema=schema, columns="langchain", create=False
    )
    check_said_to_ours(open, ours, raw)


def test_a_column_of_postgres_says_the_same_to_ours(
    postgres: Host, postgres_dsn: str, schema: str, ours: ToastrackEmbeddings
) -> None:
    import psycopg

    from toastrack_postgres import check_column_space, record_column_space

    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"comment on column {schema}.bread.embedding is 'baked daily'")
    ours.guard(postgres.open(ours)).add_texts(TEXTS)
    with psycopg.connect(postgres_dsn) as connection:
        check_column_space(connection, "bread", "embedding", ours.embedder, schema=schema)
        query = (
            "select col_description(%s::regclass, ordinal_position) from information_schema.columns"
        )
        query += " where table_schema = %s and table_name = 'bread' and column_name = 'embedding'"
        ((comment,),) = connection.execute(query, [f"{schema}.bread", schema]).fetchall()
        assert comment.startswith("baked daily\ntoastrack {")
    postgres.replace()
    with psycopg.connect(postgres_dsn) as connection:
        record_column_space(connection, "bread", "embedding", ours.embedder, schema=schema)
    assert recorded_space(postgres.open(ours)) == ours.embedder.space


async def test_postgres_on_the_loop_of_the_caller(
    ours: ToastrackEmbeddings, raw: ToastrackEmbeddings, postgres_dsn: str, schema: str
) -> None:
    package = pytest.importorskip(
        "langchain_postgres", reason="langchain-postgres is not installed"
    )
    from sqlalchemy.ext.asyncio import create_async_engine

    own = create_async_engine(sqlalchemy_url(postgres_dsn, "asyncpg"))
    engine = package.PGEngine.from_engine(own)
    size = ours.embedder.dimensions
    await engine.ainit_vectorstore_table("bread", size, schema_name=schema)

    async def open(embeddings: ToastrackEmbeddings) -> Any:
        create = package.PGVectorStore.create
        return embeddings.guard(await create(engine, embeddings, "bread", schema_name=schema))

    store = await open(ours)
    await store.aadd_texts(TEXTS)
    assert len(await store.asimilarity_search("rye", k=100)) == len(TEXTS)
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        await (await open(raw)).asimilarity_search("rye")
    with pytest.raises(TypeError, match="Await the methods that begin with an a"):
        store.similarity_search("rye")
    await engine.close()


def test_the_older_one_of_langchain_postgres(ours: ToastrackEmbeddings) -> None:
    package = pytest.importorskip(
        "langchain_postgres", reason="langchain-postgres is not installed"
    )
    store = object.__new__(package.PGVector)  # its constructor would ask the server
    store.embedding_function = ours
    with pytest.raises(UnsupportedError, match="PGVector is over no table that toastrack can ask"):
        ours.guard(store)


_ANOTHER_PROCESS = """
import sys

from langchain_chroma import Chroma

from toastrack.errors import SpaceMismatchError
from toastrack_langchain import ToastrackEmbeddings

raw = ToastrackEmbeddings(model=sys.argv[1], device="cpu", query_prompt="")
store = raw.guard(Chroma("bread", raw, persist_directory=sys.argv[2]))
for call in (store.add_texts, store.similarity_search):
    try:
        call(["rye"] if call == store.add_texts else "rye")
    except SpaceMismatchError as error:
        print(error)
"""


@pytest.mark.rest
def test_another_process(chroma: Host, tmp_path: Path, ours: ToastrackEmbeddings) -> None:
    ours.guard(chroma.open(ours)).add_texts(TEXTS)
    script = tmp_path / "another.py"
    script.write_text(_ANOTHER_PROCESS)
    printed = run_script(script, str(ours.model_name), str(tmp_path))
    assert printed.count("Collection 'bread' was built in another embedding space:") == 2
