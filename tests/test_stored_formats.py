"""Stores that earlier versions filled are opened, and nothing in them is embedded again.

Every set under ``data/stores`` was made by ``make.py`` there, which says when one is added.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from chroma_server import close_client
from stored_records import (
    BEST,
    CHUNKS,
    COLLECTION,
    DOCUMENT,
    FILES,
    LONG,
    PLACED,
    READY,
    RECORDS,
    SOURCE,
    VECTOR,
    WHOLE,
)

from toastrack import Embedder, Record, ingest
from toastrack.errors import SourceError

if TYPE_CHECKING:
    from toastrack_chroma import ChromaStore
    from toastrack_postgres import PostgresStore
    from toastrack_qdrant import QdrantStore

    Store = ChromaStore | PostgresStore | QdrantStore
    Open = Callable[[Path, Embedder, pytest.FixtureRequest], AbstractContextManager[Store]]

SETS = sorted((Path(__file__).parent / "data" / "stores").glob("format-*"))
# What halfvec leaves of a vector.
PRECISION = 2e-3


@contextmanager
def chroma(
    made: Path,
    embedder: Embedder,
    request: pytest.FixtureRequest,
    *,
    collection: str = COLLECTION,
) -> Iterator[Store]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from toastrack_chroma import ChromaStore

    client = chromadb.PersistentClient(unpacked(made / FILES["chroma"], request))
    try:
        with ChromaStore(client, collection, embedder=embedder, create=False) as store:
            yield store
    finally:
        close_client(client)


@contextmanager
def qdrant(
    made: Path,
    embedder: Embedder,
    request: pytest.FixtureRequest,
    *,
    host: str = "qdrant",
    vector_name: str | None = None,
) -> Iterator[Store]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import QdrantStore

    folder = str(unpacked(made / FILES[host], request))
    with (
        closing(qdrant_client.QdrantClient(path=folder)) as client,
        QdrantStore(
            client, COLLECTION, embedder=embedder, create=False, vector_name=vector_name
        ) as store,
    ):
        yield store


@contextmanager
def postgres(made: Path, embedder: Embedder, request: pytest.FixtureRequest) -> Iterator[Store]:
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    from psycopg.conninfo import make_conninfo

    from toastrack_postgres import PostgresStore

    dsn: str = request.getfixturevalue("postgres_dsn")
    # The dump names its schema, so it is restored into a database of the test's own.
    database = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as server:
        try:
            server.execute(f"create database {database} template template0")
        except psycopg.errors.InsufficientPrivilege:
            pytest.skip("this user may not create databases")
        conninfo = make_conninfo(dsn, dbname=database)
        try:
            with psycopg.connect(conninfo) as connection:
                connection.execute((made / FILES["postgres"]).read_text(encoding="utf-8"))
            with PostgresStore(conninfo, COLLECTION, embedder=embedder, create=False) as store:
                yield store
        finally:
            server.execute(f"drop database {database} with (force)")


def unpacked(archive: Path, request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("tmp_path") / "store"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


HOSTS: dict[str, Open] = {
    "chroma": chroma,
    "qdrant": qdrant,
    "qdrant-named": partial(qdrant, host="qdrant-named", vector_name=VECTOR),
    "postgres": postgres,
}


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Embedder:
    return Embedder(minilm_folder, device="cpu").load()


@pytest.fixture(
    params=[
        pytest.param((made, open_store), id=f"{made.name}-{host}")
        for made in SETS
        for host, open_store in HOSTS.items()
        if (made / FILES[host]).exists()
    ]
)
def store(request: pytest.FixtureRequest, minilm: Embedder) -> Iterator[Store]:
    """A store as an earlier version left it."""
    made, open_store = request.param
    with open_store(made, minilm, request) as store:
        yield store


def as_json(record: Record | None) -> str:
    """Write all of a record down, because 1 == 1.0 == True in Python."""
    assert record is not None
    assert isinstance(record.metadata, dict)
    fields = [record.id, record.text, record.document_id, record.chunk, record.metadata]
    return json.dumps(fields, sort_keys=True)


def test_there_is_a_set() -> None:
    assert SETS


def test_the_recorded_space_is_the_embedders(store: Store, minilm: Embedder) -> None:
    assert store.space == minilm.space
    assert store.space.digest == minilm.space.digest


def test_the_records_are_there_to_the_letter(store: Store) -> None:
    found = store.get(record.id for record in RECORDS)
    assert found == RECORDS
    assert [as_json(record) for record in found] == [as_json(record) for record in RECORDS]
    assert store.count() == len(RECORDS)
    documents = sorted([DOCUMENT, *(record.id for record in WHOLE)])
    assert sorted(store.document_ids()) == documents
    assert store.count(documents=True) == len(documents)


def test_nothing_is_embedded_or_written_again(store: Store) -> None:
    upserted = store.upsert(RECORDS)
    replaced = store.replace_many(
        [(DOCUMENT, CHUNKS), *((record.id, [record]) for record in WHOLE)]
    )
    for report in (upserted, replaced):
        assert (report.embedded, report.written, report.deleted) == (0, 0, 0)
        assert report.unchanged == len(RECORDS)
    assert store.build_index() is False


def test_a_run_with_a_source_takes_over_what_has_none(store: Store) -> None:
    """And knows what has one."""
    documents = [(record.id, [record]) for record in WHOLE] + [(DOCUMENT, CHUNKS)]
    has_source = not list(store._documents_of(None))
    stored = store._stored_sources([document for document, _ in documents])
    assert {found.source for found in stored.values()} == ({SOURCE} if has_source else set())
    for expected in (0 if has_source else len(RECORDS), 0):
        sourced = [(document, records, SOURCE) for document, records in documents]
        report = store._ingest(sourced, [SOURCE], None)
        assert (report.embedded, report.written, report.deleted) == (0, expected, 0)
        assert report.unchanged == len(RECORDS) - expected
    changed = [(WHOLE[0].id, [replace(WHOLE[0], text="Rye bread keeps.")], "/srv/other")]
    with pytest.raises(SourceError, match=SOURCE):
        store._ingest(changed, ["/srv/other"], None)
    assert store.get([WHOLE[0].id]) == [WHOLE[0]]


@pytest.mark.parametrize("exact", [False, True])
def test_searches_find_the_best_first(store: Store, exact: bool) -> None:
    for query, best in BEST.items():
        assert store.search(query, exact=exact)[0].id == best
    for record in RECORDS:
        # The model has no prompts, so a text as a query has the vector that was stored for it.
        what = record.text if record.vector is None else record.vector
        (match,) = store.search(what, k=1, exact=exact)
        assert match.id == record.id
        assert match.score == pytest.approx(1, abs=PRECISION)


FILTERS: list[tuple[dict[str, str | int | float | bool], list[str]]] = [
    ({"lang": "de"}, ["Brötchen/Nr. 1"]),
    ({"year": 2024.0, "rating": 4.5}, ["rye"]),
    ({"tested": False}, ["ready"]),
    ({"tested": 1}, []),
    ({"title": "Starter", "lang": "en"}, ["doc#0", "doc#1"]),
]


@pytest.mark.parametrize("exact", [False, True])
def test_filters_see_the_metadata(store: Store, exact: bool) -> None:
    for condition, ids in FILTERS:
        found = store.search("bread", filter=condition, exact=exact)
        assert sorted(match.id for match in found) == ids


@pytest.mark.parametrize(
    "made", [path for path in SETS if path.name >= "format-3"], ids=lambda path: path.name
)
def test_chunks_that_hold_their_place_are_joined_as_they_were(
    made: Path, minilm: Embedder, request: pytest.FixtureRequest
) -> None:
    with chroma(made, minilm, request, collection=PLACED) as store:
        report = ingest([LONG], store)
        assert (report.embedded, report.written, report.deleted) == (0, 0, 0)
        assert report.unchanged == store.count() > 1
        assert list(store.document_ids()) == [LONG.id]
        (match,) = store.search(LONG.text[:200], k=1, neighbours=store.count())
        assert (match.context, match.metadata) == (LONG.text, LONG.metadata)


def test_a_change_replaces_what_is_stored(store: Store) -> None:
    first, second = CHUNKS
    changed = replace(first, text="Feed the starter at noon.")
    report = store.replace(DOCUMENT, [changed])
    assert (report.embedded, report.written, report.deleted) == (1, 1, 1)
    assert store.get([first.id, second.id]) == [changed, None]

    moved = replace(READY, metadata={"lang": "sv"})
    report = store.upsert([moved, replace(READY, id="new")])
    assert (report.embedded, report.written) == (0, 2)
    assert store.get([READY.id]) == [moved]
    assert store.delete([READY.id, "new"]) == 2
    assert store.delete(documents=[DOCUMENT]) == 1
    assert store.count() == len(WHOLE) - 1
