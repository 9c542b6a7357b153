"""What is kept of a record beside its text and vector, and what earlier versions kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")

from toastrack import Embedder, Record
from toastrack_chroma import ChromaStore
from toastrack_chroma.codec import (
    CHUNK,
    DOCUMENT_ID,
    LARGE,
    METADATA,
    ROW,
    SOURCE,
    TEXT_HASH,
    VECTOR_HEAD,
    described,
)

OWN = Record("rye", "rye bread keeps fresh", {"lang": "en", "n": 1, "note": None, "x": -0.0})
PART = Record("book#1", "salt is in the dough", {"lang": "de"}, document_id="book", chunk=1)
# Its document has its id, and yet it is a chunk of it.
FIRST = Record("book", "wheat is sown in autumn", {"lang": "de"}, chunk=0)
RECORDS = [OWN, PART, FIRST]


@pytest.fixture
def client(ephemeral: Any) -> Any:
    return ephemeral


@pytest.fixture
def store(client: Any, loaded: Embedder) -> Iterator[ChromaStore]:
    with ChromaStore(client, "docs", embedder=loaded) as store:
        yield store


def stored(client: Any) -> dict[str, dict[str, Any]]:
    """What Chroma keeps beside each row's text and vector."""
    found = client.get_collection("docs").get(include=["metadatas"])
    return dict(zip(found["ids"], map(dict, found["metadatas"]), strict=True))


def as_before(metadata: Mapping[str, Any], document: str) -> dict[str, Any]:
    """Say the same as versions up to format 2 did."""
    said = described(metadata)
    return {
        **metadata,
        ROW: None,
        DOCUMENT_ID: document,
        METADATA: said.metadata,
        TEXT_HASH: said.text_hash.hex(),
        VECTOR_HEAD: said.vector_head,
    }


def go_back(client: Any) -> None:
    """Leave a collection as versions up to format 2 did."""
    collection = client.get_collection("docs")
    documents = {record.id: record.document for record in RECORDS}
    rows = stored(client)
    collection.update(
        ids=list(rows),
        metadatas=[as_before(metadata, documents[id]) for id, metadata in rows.items()],
    )
    recorded = json.loads(collection.metadata["toastrack"])
    del recorded["format"]
    collection.modify(metadata={"toastrack": json.dumps(recorded)})


def test_a_plain_record_has_one_field_beside_its_own(client: Any, store: ChromaStore) -> None:
    store.upsert(RECORDS)
    rows = stored(client)
    assert set(rows["rye"]) == {"lang", "n", "x", ROW}
    assert set(rows["book#1"]) == set(rows["book"]) == {"lang", ROW, DOCUMENT_ID, CHUNK}
    store.upsert([replace(OWN, metadata={"n": 2**70})])
    assert set(stored(client)["rye"]) == {ROW, LARGE}
    store._ingest([("rye", [OWN], "/srv/bread")], ["/srv/bread"], None)
    assert set(stored(client)["rye"]) == {"lang", "n", "x", ROW, SOURCE}


def test_rows_of_an_earlier_format_are_read_and_brought_up_when_they_change(
    client: Any, store: ChromaStore, loaded: Embedder
) -> None:
    store.upsert(RECORDS)
    go_back(client)
    assert set(stored(client)["rye"]) == {
        *("lang", "n", "x"),
        *(DOCUMENT_ID, METADATA, TEXT_HASH, VECTOR_HEAD),
    }
    with ChromaStore(client, "docs", embedder=loaded) as later:
        assert later.get(record.id for record in RECORDS) == RECORDS
        assert sorted(later.document_ids()) == ["book", "rye"]
        assert later.search("rye", filter={"lang": "en"})[0].metadata == OWN.metadata
        assert later.audit() == []
        report = later.replace_many([("rye", [OWN]), ("book", [PART, FIRST])])
        assert (report.written, report.deleted, report.unchanged) == (0, 0, 3)
        assert set(stored(client)["rye"]) >= {METADATA, TEXT_HASH}

        changed = replace(OWN, metadata={"n": 2})
        report = later.upsert([changed, PART, FIRST])
        assert (report.embedded, report.written, report.unchanged) == (0, 1, 2)
        assert set(stored(client)["rye"]) == {"n", ROW}
        assert set(stored(client)["book"]) >= {METADATA, TEXT_HASH}
        recorded = client.get_collection("docs").metadata["toastrack"]
        assert json.loads(recorded)["format"] == 3
        assert later.audit() == []

        assert later.replace("book", [PART]).deleted == 1
        assert later.delete(filter={"lang": "de"}) == 1
        assert later.delete(documents=["rye"]) == 1
        assert later.count() == 0


def test_what_another_writer_left_of_a_document_or_chunk_counts_for_nothing(
    client: Any, store: ChromaStore
) -> None:
    store.upsert(RECORDS)
    # Chroma merges the fields of two who write a new record at once.
    client.get_collection("docs").update(ids=["rye"], metadatas=[{DOCUMENT_ID: "book", CHUNK: 7}])
    assert store.get(["rye"]) == [OWN]
    assert sorted(store.document_ids()) == ["book", "rye"]
    assert store.replace("book", [PART, FIRST]).unchanged == 2
    assert store.delete(documents=["book"]) == 2
    assert store.get(["rye"]) == [OWN]
    assert store.upsert([OWN]).written == 1
    assert set(stored(client)["rye"]) == {"lang", "n", "x", ROW}


def test_a_record_becomes_a_document_of_its_own_and_a_part_again(store: ChromaStore) -> None:
    store.upsert(RECORDS)
    alone = replace(PART, document_id=None, chunk=None)
    for record, documents in ((alone, ["book", "book#1", "rye"]), (PART, ["book", "rye"])):
        report = store.upsert([record])
        assert (report.embedded, report.written) == (0, 1)
        assert store.get(["book#1"]) == [record]
        assert sorted(store.document_ids()) == documents


def test_a_row_of_somebody_elses_is_a_document_that_can_be_deleted(
    client: Any, store: ChromaStore
) -> None:
    store.upsert([OWN])
    collection = client.get_collection("docs")
    (vector,) = collection.get(ids=["rye"], include=["embeddings"])["embeddings"]
    collection.add(ids=["theirs"], documents=["salt"], embeddings=[vector])
    assert sorted(store.document_ids()) == ["rye", "theirs"]
    assert store.delete(documents=["theirs"]) == 1
    assert list(store.document_ids()) == ["rye"]
