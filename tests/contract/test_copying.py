"""Records come back with their vectors, and go into a store again without being embedded anew."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from toastrack import Embedder, Record, ingest
from toastrack.errors import FilterError, RecordError
from toastrack.stores.protocol import Store

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs
    from kinds import Kind

DIMENSIONS = 32
GIVEN = [float(number + 1) for number in range(DIMENSIONS)]


def source(count: int = 30) -> list[Record]:
    return [
        Record(
            f"r{n:02}", f"rye bread {n}", {"n": n, "list": [n]}, document_id=f"d{n % 4}", chunk=n
        )
        for n in range(count)
    ]


def own() -> Record:
    return Record("own", "a vector of mine", {"n": 99}, vector=GIVEN)


@pytest.fixture
def filled(store: Store) -> Store:
    store.upsert([*source(), own()])
    return store


def everything(store: Store, *, vectors: bool = False) -> dict[str, Record]:
    found = list(store.records(vectors=vectors))
    by_id = {record.id: record for record in found}
    assert len(by_id) == len(found)
    return by_id


@pytest.mark.connection
def test_vectors_come_back(filled: Store, kind: Kind) -> None:
    embedder = filled.embedder
    expected = dict(
        zip(
            [record.id for record in source()],
            embedder.embed_documents([record.text for record in source()]),
            strict=True,
        )
    )
    expected["own"] = np.array(GIVEN, np.float32) / np.float32(np.linalg.norm(GIVEN))
    found = filled.get([*expected, "nobody"], vectors=True)
    assert found[-1] is None
    assert found[:-1] == [*source(), own()]
    for record in found[:-1]:
        assert record is not None
        assert isinstance(record.vector, np.ndarray)
        assert record.vector.dtype == np.float32
        assert record.vector == pytest.approx(expected[record.id], abs=kind.precision)
        assert record.vector_from_text is (record.id != "own")
    for record in filled.get(["r00", "own"]):
        assert record is not None
        assert record.vector is None
        assert record.vector_from_text is (record.id != "own")
    assert Record("a", "mine").vector_from_text is None


def test_what_was_read_changes_nothing(filled: Store, runs: Runs) -> None:
    for _ in range(2):
        report = filled.upsert(filled.records(vectors=True))
        assert (report.unchanged, report.written, report.embedded) == (31, 0, 0)
    ids = [record.id for record in source()]
    read = [record for record in filled.get([*ids, "own"], vectors=True) if record]
    assert filled.upsert(read).unchanged == 31
    assert filled.upsert(record for record in filled.get(ids) if record).unchanged == 30
    assert filled.upsert([*source(), own()]).unchanged == 31
    # And what only went through a copy, a pickle or a function of dataclasses' is the same.
    for again in (copy.deepcopy(read), pickle.loads(pickle.dumps(read)), map(replace, read)):
        assert filled.upsert(again).unchanged == 31
    runs.clear()
    changed = [replace(record, metadata={"n": -1}) for record in read]
    report = filled.upsert(changed)
    assert (report.embedded, report.written) == (0, 31)
    assert not runs


def test_a_copy_counts_as_embedded(filled: Store, make_store: MakeStore, runs: Runs) -> None:
    runs.clear()
    copied = make_store(collection="copied")
    report = copied.upsert(filled.records(vectors=True))
    assert (report.written, report.embedded) == (31, 0)
    assert not runs
    assert everything(copied) == everything(filled)
    assert copied.upsert(source()).unchanged == 30
    assert copied.upsert([own()]).unchanged == 1
    for document in range(4):
        records = [record for record in source() if record.document_id == f"d{document}"]
        assert copied.replace(f"d{document}", records).unchanged == len(records)
    assert not runs
    vectors = [record.vector for record in copied.get(["r03", "own"], vectors=True) if record]
    assert [
        round(float(np.linalg.norm(vector)), 2) for vector in vectors if vector is not None
    ] == [1, 1]


def test_the_source_of_what_was_copied_is_unchanged(make_store: MakeStore, runs: Runs) -> None:
    long = "rye bread keeps fresh. " * 40
    whole = [Record("short", "rye", {"n": 1}), Record("long", long, {"n": 2})]
    original: Any = make_store()
    copied: Any = make_store(collection="copied")
    ingest(whole, original)
    assert original.count() > 2
    runs.clear()
    copied.upsert(original.records(vectors=True))
    report = ingest(whole, copied)
    assert (report.embedded, report.written, report.deleted) == (0, 0, 0)
    # And whole records go through ingest with their vectors as well.
    again: Any = make_store(collection="again")
    assert ingest(original.records({"n": 1}, vectors=True), again).embedded == 0
    assert ingest(whole[:1], again).unchanged == 1
    assert not runs


def test_a_changed_text_is_embedded_anew(
    filled: Store, make_store: MakeStore, embedder: Embedder, kind: Kind
) -> None:
    (read,) = filled.get(["r00"], vectors=True)
    assert read is not None
    for store in (filled, make_store(collection="other")):
        report = store.upsert([replace(read, text="salt")])
        assert report.embedded == 1
        (found,) = store.get(["r00"], vectors=True)
        assert found is not None
        assert found.vector_from_text is True
        (expected,) = embedder.embed_documents(["salt"])
        assert found.vector == pytest.approx(expected, abs=kind.precision)
        assert store.upsert([Record("r00", "salt", found.metadata, None, "d0", 0)]).unchanged == 1


def test_a_vector_that_took_another_s_place_is_a_given_one(filled: Store, kind: Kind) -> None:
    (read,) = filled.get(["r00"], vectors=True)
    assert read is not None
    report = filled.upsert([replace(read, vector=GIVEN)])
    assert (report.embedded, report.written) == (0, 1)
    (found,) = filled.get(["r00"], vectors=True)
    assert found is not None
    assert found.vector_from_text is False
    expected = np.array(GIVEN) / np.linalg.norm(GIVEN)
    assert found.vector == pytest.approx(expected, abs=kind.precision)


def test_another_limit_or_space_embeds_anew(
    filled: Store, make_store: MakeStore, embedder: Embedder
) -> None:
    shorter = Embedder(embedder.model, device="cpu", max_tokens=16, on_truncate="ignore")
    prompted = Embedder(embedder.model, device="cpu", document_prompt="what: ")
    for number, other in enumerate((shorter, prompted)):
        store = make_store(other, collection=f"other{number}")
        report = store.upsert(filled.records(vectors=True))
        assert (report.written, report.embedded) == (31, 30)
        assert store.upsert(source()).unchanged == 30


def test_a_given_vector_is_not_lost_unsaid(filled: Store, make_store: MakeStore) -> None:
    read = filled.get(["own"])
    for store in (filled, make_store(collection="other")):
        with pytest.raises(RecordError, match=r"'own'.*get\(ids, vectors=True\)"):
            store.upsert(record for record in read if record)
        with pytest.raises(RecordError, match=r"vectors=True"):
            store.replace("own", [record for record in read if record])
    assert filled.upsert([own()]).unchanged == 1
    # One that the user makes is a wish.
    assert filled.upsert([Record("own", "a vector of mine", {"n": 99})]).embedded == 1


def test_a_vector_of_nothing_that_is_known_is_none(store: Store) -> None:
    store.upsert([Record("a", "rye", vector=GIVEN, vector_from_text=True)])
    assert store.upsert([Record("a", "rye")]).unchanged == 1


@pytest.mark.connection
def test_records_are_every_record_once(
    filled: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {record.id: record for record in [*source(), own()]}
    assert everything(filled) == expected
    if kind.page_size:
        for size in (1, 7, 31, 32):
            monkeypatch.setattr(kind.page_size, size)
            assert everything(filled) == expected
    assert {r.id for r in filled.records({"n": {"$gte": 28}})} == {"r28", "r29", "own"}
    assert [r.id for r in filled.records({"n": 3}, vectors=True) if r.vector is not None] == ["r03"]
    assert list(filled.records({"n": "3"})) == []
    with pytest.raises(FilterError):
        next(iter(filled.records({"n": None})))


def test_records_while_they_go(filled: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind.page_size:
        monkeypatch.setattr(kind.page_size, 5)

    def read() -> Iterator[str]:
        for record in filled.records():
            yield record.id
            filled.delete([record.id])

    seen = list(read())
    assert sorted(seen) == sorted([*(record.id for record in source()), "own"])
    assert filled.count() == 0
