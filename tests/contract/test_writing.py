"""What every store writes, and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from at_once import at_once
from awaited import Awaited

from toastrack import Embedder, Record, Report, ingest
from toastrack.errors import RecordError, TruncationWarning
from toastrack.stores import windows
from toastrack.stores.protocol import Document, IngestStore, Store

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs
    from kinds import Kind

A = Record("a", "how do i feed my starter", {"lang": "en"})
B = Record("b", "rye bread keeps fresh", {"lang": "en"})
C = Record("c", "salt is in the dough", {"lang": "de"})
DIMENSIONS = 32


def numbers(report: Report) -> dict[str, int]:
    """What a report counted, without zeros."""
    return {key: value for key, value in asdict(report).items() if value and key != "seconds"}


def direction(position: int, size: int = DIMENSIONS) -> list[float]:
    """A vector along one axis."""
    return [float(number == position) for number in range(size)]


def chunks(document: str, *texts: str) -> list[Record]:
    return [
        Record(f"{document}#{number}", text, document_id=document, chunk=number)
        for number, text in enumerate(texts)
    ]


def ids(store: Store) -> set[str]:
    found = store.search(direction(0), k=10_000)
    return {match.id for match in found}


# -- upsert -------------------------------------------------------------------------------------


def test_a_second_upsert_embeds_nothing(store: Store, runs: Runs) -> None:
    first = store.upsert([A, B, C])
    assert numbers(first) == {"read": 3, "chunks": 3, "embedded": 3, "written": 3}
    assert first.seconds > 0
    assert sum(runs) == 3

    runs.clear()
    assert numbers(store.upsert([A, B, C])) == {"read": 3, "chunks": 3, "unchanged": 3}
    assert not runs


@pytest.mark.connection
def test_one_changed_text_embeds_one(store: Store, runs: Runs) -> None:
    store.upsert([A, B, C])
    runs.clear()
    changed = Record("b", "rye bread is sour", {"lang": "en"})

    report = store.upsert([A, changed, C])

    assert numbers(report) == {"read": 3, "chunks": 3, "embedded": 1, "unchanged": 2, "written": 1}
    assert sum(runs) == 1
    assert store.get(["a", "b", "c"]) == [A, changed, C]
    found = store.search(store.embedder.embed_documents([changed.text])[0], k=1)
    assert [match.id for match in found] == ["b"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(Record("a", A.text, {"lang": "de"}), id="value"),
        pytest.param(Record("a", A.text, {"lang": "en", "page": 7}), id="new key"),
        pytest.param(Record("a", A.text, {}), id="removed key"),
        pytest.param(Record("a", A.text, {"lang": ["en"]}), id="type"),
        pytest.param(Record("a", A.text, A.metadata, document_id="book"), id="document"),
        pytest.param(Record("a", A.text, A.metadata, chunk=2), id="chunk"),
    ],
)
def test_changed_metadata_is_written_without_embedding(
    store: Store, runs: Runs, changed: Record
) -> None:
    store.upsert([A, B])
    runs.clear()

    report = store.upsert([changed, B])

    assert numbers(report) == {"read": 2, "chunks": 2, "unchanged": 1, "written": 1}
    assert not runs
    assert store.get(["a"]) == [changed]
    found = store.search(store.embedder.embed_documents([A.text])[0], k=1)
    assert found[0].id == "a"
    assert found[0].score == pytest.approx(1, abs=2e-3)
    assert numbers(store.upsert([changed])) == {"read": 1, "chunks": 1, "unchanged": 1}


def test_each_record_of_a_window_is_compared_with_its_own_row(store: Store, runs: Runs) -> None:
    old = [Record(f"r{i}", f"rye bread {i}", {"page": i}) for i in range(8)]
    store.upsert(old[1:])
    runs.clear()
    text, page, both = (
        Record("r2", "rye and salt", {"page": 2}),
        Record("r4", old[4].text, {"page": 44}),
        Record("r6", "rye and flour", {"page": 66}),
    )
    mixed = [old[0], old[1], text, old[3], page, old[5], both, old[7]]

    report = store.upsert(mixed)

    assert numbers(report) == {"read": 8, "chunks": 8, "embedded": 3, "unchanged": 4, "written": 4}
    assert sum(runs) == 3
    assert store.get([record.id for record in mixed]) == mixed


def test_a_value_of_another_type_is_a_change(store: Store) -> None:
    values = [1, 1.0, True, 0, False, 0.0, "1", 1]
    for value in values:
        assert store.upsert([Record("a", "rye", {"v": value})]).written == 1
        (stored,) = store.get(["a"])
        assert stored is not None
        assert type(stored.metadata["v"]) is type(value)


def test_of_equal_ids_the_last_wins(store: Store, runs: Runs) -> None:
    first, last = Record("a", "rye", {"n": 1}), Record("a", "wheat flour", {"n": 2})

    report = store.upsert([first, B, last])

    assert numbers(report) == {"read": 3, "chunks": 2, "embedded": 2, "written": 2}
    assert sum(runs) == 2
    assert store.get(["a", "b"]) == [last, B]


def test_of_equal_ids_far_apart_the_last_wins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 2)
    last = Record("a", "wheat flour")

    report = store.upsert([A, B, C, last])

    assert report.read == 4
    assert store.get(["a", "b", "c"]) == [last, B, C]
    assert store.count() == 3


def test_a_record_that_is_put_back_while_it_is_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored of a window is not known before the one in front of it is written."""
    monkeypatch.setattr(windows, "WINDOW", 1)
    store.upsert([A, B])

    store.upsert([Record("a", "wheat flour"), A, Record("b", B.text, {"n": 9}), B])

    assert store.get(["a", "b"]) == [A, B]


def test_more_records_than_a_window_holds(store: Store) -> None:
    vectors = np.random.default_rng(0).normal(size=(1_100, DIMENSIONS))
    records = [Record(f"{n}", f"text {n}", vector=vector) for n, vector in enumerate(vectors)]

    report = store.upsert(iter(records))

    assert numbers(report) == {"read": 1_100, "chunks": 1_100, "written": 1_100}
    assert store.count() == 1_100
    assert numbers(store.upsert(records)) == {"read": 1_100, "chunks": 1_100, "unchanged": 1_100}


def test_windows_of_ready_vectors_mixed_with_those_to_embed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 4)
    vectors = np.random.default_rng(0).normal(size=(60, DIMENSIONS)).astype(np.float32)
    ready = [Record(f"v{n}", f"rye {n}", {"n": n}, vector) for n, vector in enumerate(vectors)]
    made = [Record(f"t{n}", f"bread {n}", {"n": n}) for n in range(12)]
    mixed = [*ready[:40], *made[:9], *ready[40:45], *made[9:], *ready[45:]]
    expected = {"read": len(mixed), "chunks": len(mixed)}

    report = store.upsert(mixed)

    assert numbers(report) == {**expected, "embedded": len(made), "written": len(mixed)}
    assert store.get([record.id for record in mixed]) == mixed
    assert store.search(vectors[7], k=1)[0].id == "v7"
    (vector,) = store.embedder.embed_documents(["bread 10"])
    assert store.search(vector, k=1)[0].score > 0.99
    assert numbers(store.upsert(reversed(mixed))) == {**expected, "unchanged": len(mixed)}


def test_any_iterable_will_do(store: Store) -> None:
    assert numbers(store.upsert(record for record in [A, B])) == {
        "read": 2,
        "chunks": 2,
        "embedded": 2,
        "written": 2,
    }
    assert store.upsert({"x": A, "y": C}.values()).written == 1
    assert store.get(["a", "b", "c"]) == [A, B, C]


def test_nothing_in_nothing_done(store: Store, runs: Runs) -> None:
    nothing: Iterator[Record] = iter(())
    assert numbers(store.upsert([])) == {}
    assert numbers(store.upsert(nothing)) == {}
    assert store.count() == 0
    assert not runs


def test_another_limit_embeds_anew(make_store: MakeStore, embedder: Embedder) -> None:
    make_store().upsert([A, B])
    shorter = make_store(Embedder(embedder.model, device="cpu", max_tokens=16))
    assert numbers(shorter.upsert([A, B])) == {
        "read": 2,
        "chunks": 2,
        "embedded": 2,
        "written": 2,
    }


def test_cut_texts_are_counted_and_warned_of_once(store: Store) -> None:
    long = [Record(f"long{n}", "rye bread " * (40 + n)) for n in range(3)]

    with pytest.warns(TruncationWarning) as warnings:
        report = store.upsert([A, *long, B])

    assert numbers(report) == {
        "read": 5,
        "chunks": 5,
        "embedded": 5,
        "written": 5,
        "truncated": 3,
    }
    assert len(warnings) == 1
    # Nothing is embedded now, so nothing is cut and nobody is warned.
    assert numbers(store.upsert([A, *long, B])) == {"read": 5, "chunks": 5, "unchanged": 5}


def test_cuts_are_counted_once_over_many_batches(store: Store, runs: Runs) -> None:
    with pytest.warns(TruncationWarning, match="150 of 300"):
        report = store.upsert(
            Record(f"{n}", "rye bread " * (40 if n % 2 else 20)) for n in range(300)
        )
    assert len(runs) > 1, "one batch held them all: the test says nothing"
    assert (report.embedded, report.truncated) == (300, 150)


def test_the_warning_points_at_the_caller(store: Store) -> None:
    with pytest.warns(TruncationWarning) as warnings:
        store.upsert([Record("long", "rye bread " * 40)])
    if not isinstance(store, Awaited):  # whose caller is the event loop
        assert warnings[0].filename == __file__


def test_a_cut_is_counted_without_a_warning_too(make_store: MakeStore, embedder: Embedder) -> None:
    store = make_store(Embedder(embedder.model, device="cpu", on_truncate="ignore"))
    assert store.upsert([A, Record("long", "rye bread " * 40)]).truncated == 1


# -- ready vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param([3.0, -4.0] + [0.0] * 30, id="list"),
        pytest.param(tuple([3, -4] + [0] * 30), id="ints"),
        pytest.param(np.array([3.0, -4.0] + [0.0] * 30), id="float64"),
        pytest.param(np.array([3.0, -4.0] + [0.0] * 30, dtype=np.float32), id="float32"),
        pytest.param(np.array([3.0, -4.0] + [0.0] * 30, dtype=np.float16), id="float16"),
        pytest.param(np.array([3e-20, -4e-20] + [0.0] * 30), id="short"),
        pytest.param(np.array([3e200, -4e200] + [0.0] * 30), id="long"),
    ],
)
def test_a_ready_vector_is_normalised_and_not_embedded(
    store: Store, runs: Runs, vector: Any
) -> None:
    record = Record("a", "rye", {"n": 1}, vector=vector)

    assert numbers(store.upsert([record])) == {"read": 1, "chunks": 1, "written": 1}
    assert not runs
    assert store.get(["a"]) == [record]
    for axis, score in [(0, 0.6), (1, -0.8), (2, 0.0)]:
        (match,) = store.search(direction(axis))
        assert match.score == pytest.approx(score, abs=2e-3)
    assert numbers(store.upsert([record])) == {"read": 1, "chunks": 1, "unchanged": 1}


def test_only_another_direction_is_another_vector(store: Store) -> None:
    store.upsert([Record("a", "rye", vector=direction(0))])
    longer = Record("a", "rye", vector=[4 * number for number in direction(0)])
    assert store.upsert([longer]).unchanged == 1
    assert store.upsert([Record("a", "rye", vector=direction(1))]).written == 1
    assert store.search(direction(1))[0].score == pytest.approx(1, abs=2e-3)


def test_a_text_beside_its_vector_can_change(store: Store) -> None:
    store.upsert([Record("a", "rye", vector=direction(0))])
    changed = Record("a", "wheat", vector=direction(0))
    assert numbers(store.upsert([changed])) == {"read": 1, "chunks": 1, "written": 1}
    assert store.get(["a"]) == [changed]


def test_ready_and_embedded_vectors_follow_each_other(store: Store) -> None:
    assert store.upsert([Record("a", "rye", vector=direction(0)), B]).embedded == 1
    assert store.upsert([Record("a", "rye"), B]).embedded == 1
    found = store.search(store.embedder.embed_documents(["rye"])[0], k=1)
    assert found[0].id == "a"
    assert found[0].score == pytest.approx(1, abs=2e-3)
    assert numbers(store.upsert([Record("a", "rye", vector=direction(0))])) == {
        "read": 1,
        "chunks": 1,
        "written": 1,
    }


# -- what cannot be stored ----------------------------------------------------------------------

LONE = "\ud800"
REFUSED = {
    "empty id": Record("", "rye"),
    "surrogate in id": Record(f"bad{LONE}", "rye"),
    "surrogate in text": Record("bad", f"rye {LONE}"),
    "surrogate in document": Record("bad", "rye", document_id=LONE),
    "surrogate in value": Record("bad", "rye", {"a": {"b": [LONE]}}),
    "surrogate in key": Record("bad", "rye", {"a": {LONE: 1}}),
    "NaN": Record("bad", "rye", {"a": math.nan}),
    "nested NaN": Record("bad", "rye", {"a": [{"b": math.nan}]}),
    "infinity": Record("bad", "rye", {"a": -math.inf}),
    "date": Record("bad", "rye", {"a": date(2026, 1, 1)}),
    "bytes": Record("bad", "rye", {"a": b"b"}),
    "tuple": Record("bad", "rye", {"a": (1, 2)}),
    "set": Record("bad", "rye", {"a": {1}}),
    "int key": Record("bad", "rye", {"a": {1: 2}}),
    "vector too short": Record("bad", "rye", vector=[1.0] * 31),
    "vector too long": Record("bad", "rye", vector=[1.0] * 33),
    "empty vector": Record("bad", "rye", vector=[]),
    "matrix": Record("bad", "rye", vector=np.ones((1, DIMENSIONS))),
    "NaN in vector": Record("bad", "rye", vector=[math.nan] + [1.0] * 31),
    "infinity in vector": Record("bad", "rye", vector=np.array([1.0] * 31 + [math.inf])),
    "zero vector": Record("bad", "rye", vector=[0.0] * DIMENSIONS),
}
WRONG_TYPES: dict[str, dict[str, Any]] = {
    "id": {"id": 7, "text": "rye"},
    "text": {"id": "bad", "text": None},
    "document": {"id": "bad", "text": "rye", "document_id": 7},
    "metadata": {"id": "bad", "text": "rye", "metadata": ["lang"]},
    "chunk": {"id": "bad", "text": "rye", "chunk": "1"},
    "bool chunk": {"id": "bad", "text": "rye", "chunk": True},
    "vector": {"id": "bad", "text": "rye", "vector": ["x"] * DIMENSIONS},
}
REFUSED |= {f"wrong {name}": Record(**fields) for name, fields in WRONG_TYPES.items()}


@pytest.mark.connection
def test_a_record_that_cannot_be_stored_is_named(store: Store, runs: Runs) -> None:
    store.upsert([A, *chunks("book", "rye")])
    runs.clear()

    for why, bad in REFUSED.items():
        with pytest.raises(RecordError) as caught:
            store.upsert([B, bad, C])
        assert isinstance(caught.value, ValueError), why
        if bad.id:
            assert repr(bad.id) in str(caught.value), why

    assert store.get(["a", "b", "c"]) == [A, None, None]
    assert ids(store) == {"a", "book#0"}
    assert not runs


def test_replace_refuses_the_same_and_keeps_the_old(store: Store, runs: Runs) -> None:
    store.replace("book", chunks("book", "rye"))
    runs.clear()

    for why, bad in REFUSED.items():
        if "document" in why:
            continue  # replace says itself which document it is
        with pytest.raises(RecordError) as caught:
            store.replace("book", [B, bad])
        if bad.id:
            assert repr(bad.id) in str(caught.value), why

    with pytest.raises(RecordError):
        store.replace(LONE, [B])
    assert ids(store) == {"book#0"}
    assert not runs


def test_an_int_that_python_cannot_write_is_refused(store: Store) -> None:
    with pytest.raises(RecordError, match="'bad'"):
        store.upsert([A, Record("bad", "rye", {"n": 10**5_000})])
    assert store.count() == 0


def test_nul_is_stored_or_refused(store: Store) -> None:
    for bad in (
        Record("bad", "ry\0e"),
        Record("ba\0d", "rye"),
        Record("bad", "rye", document_id="\0"),
        Record("bad", "rye", {"a": ["\0"]}),
        Record("bad", "rye", {"a": {"\0": 1}}),
    ):
        message = ""
        try:
            store.upsert([A, bad])
        except RecordError as error:
            message = str(error)
        if message:
            assert repr(bad.id) in message
            assert store.count() == 0
        else:
            assert store.get(["a", bad.id]) == [A, bad]
            store.delete(["a", bad.id])


def test_only_records_are_taken(store: Store) -> None:
    other: Any = {"id": "a", "text": "rye"}
    with pytest.raises(TypeError, match="dict"):
        store.upsert([B, other])
    assert store.count() == 0


def test_any_mapping_can_be_metadata(store: Store) -> None:
    store.upsert([Record("a", "rye", MappingProxyType({"lang": "en"}))])
    assert store.get(["a"]) == [Record("a", "rye", {"lang": "en"})]


# -- replace ------------------------------------------------------------------------------------


@pytest.mark.connection
def test_replace_deletes_stale_chunks(store: Store, runs: Runs) -> None:
    old = chunks("book", "rye is sour", "wheat is sweet", "salt")
    new = chunks("book", "rye is sour", "spelt is sweet")
    assert numbers(store.replace("book", old)) == {
        "read": 1,
        "chunks": 3,
        "embedded": 3,
        "written": 3,
    }
    runs.clear()

    assert numbers(store.replace("book", new)) == {
        "read": 1,
        "chunks": 2,
        "embedded": 1,
        "unchanged": 1,
        "written": 1,
        "deleted": 1,
    }
    assert sum(runs) == 1
    assert store.get([record.id for record in old]) == [*new, None]
    assert ids(store) == {"book#0", "book#1"}


def test_replace_deletes_stale_chunks_when_nothing_else_changed(store: Store, runs: Runs) -> None:
    old = chunks("book", "rye", "wheat", "salt")
    store.replace("book", old)
    runs.clear()
    assert numbers(store.replace("book", old[:2])) == {
        "read": 1,
        "chunks": 2,
        "unchanged": 2,
        "deleted": 1,
    }
    assert not runs
    assert ids(store) == {"book#0", "book#1"}


def test_replace_with_nothing_removes_the_document(store: Store) -> None:
    store.upsert([A])
    store.replace("book", chunks("book", "rye", "wheat"))
    assert numbers(store.replace("book", [])) == {"read": 1, "deleted": 2}
    assert numbers(store.replace("book", [])) == {"read": 1}
    assert store.count() == store.count(documents=True) == 1
    assert ids(store) == {"a"}


def test_replace_leaves_other_documents_alone(store: Store) -> None:
    others = ["book", "Book", "book2", "b%k", "b__k", "", " book", "boo\\k", "bööK"]
    for name in others:
        store.replace(name, chunks(name, "rye", "wheat"))
    store.upsert([Record("b", "salt"), Record("b%", "salt")])

    assert store.replace("b%", []).deleted == 1
    assert store.replace("b__k", []).deleted == 2
    assert store.replace("book", []).deleted == 2

    left = set(others) - {"b__k", "book"}
    assert set(store.document_ids()) == left | {"b"}
    assert store.count() == 2 * len(left) + 1


def test_replace_decides_whose_the_records_are(store: Store) -> None:
    given = Record("x", "rye", {"n": 1}, document_id="elsewhere", chunk=0)
    store.replace("book", (record for record in [given, B]))
    (x, b) = store.get(["x", "b"])
    assert x == Record("x", "rye", {"n": 1}, document_id="book", chunk=0)
    assert b == Record("b", B.text, B.metadata, document_id="book")
    assert list(store.document_ids()) == ["book"]


def test_replace_takes_a_record_over_from_another_document(store: Store) -> None:
    store.replace("old", [A, B])
    report = store.replace("new", [A])
    assert numbers(report) == {"read": 1, "chunks": 1, "written": 1}
    assert store.get(["a"]) == [Record("a", A.text, A.metadata, document_id="new")]
    assert store.replace("old", []).deleted == 1
    assert ids(store) == {"a"}


def test_a_record_goes_over_to_another_document_in_one_call(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 1)
    store.replace("old", [A, B])

    store.replace_many([("old", [B]), ("new", [A])])

    assert store.get(["a"]) == [Record("a", A.text, A.metadata, document_id="new")]
    assert store.get(["b"]) == [Record("b", B.text, B.metadata, document_id="old")]
    assert ids(store) == {"a", "b"}


def test_replace_keeps_the_last_of_equal_ids(store: Store) -> None:
    store.replace("book", [Record("a", "rye"), Record("a", "wheat")])
    assert store.get(["a"]) == [Record("a", "wheat", document_id="book")]


# -- replace_many -------------------------------------------------------------------------------


def library(count: int) -> list[Document]:
    return [
        (f"book{n}", chunks(f"book{n}", *(f"rye {n} {part}" for part in range(n % 4))))
        for n in range(count)
    ]


def test_replace_many_reports_each_document_once_it_is_complete(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 4)
    documents = library(60)
    store.replace("book1", chunks("book1", "rye 1 0", "stale"))
    store.replace("book4", chunks("book4", "stale"))
    asked: list[str] = []
    reported: list[str] = []
    written: list[int] = []
    asked_at_first_write: list[int] = []

    def stream() -> Iterator[Document]:
        for document, records in documents:
            asked.append(document)
            yield document, records

    def on_write(report: Report, complete: Sequence[str]) -> None:
        asked_at_first_write.append(len(asked))
        reported.extend(complete)
        written.append(report.written)
        for document, records in documents:
            if document in complete:
                assert store.get([record.id for record in records]) == records

    report = store.replace_many(stream(), on_write)

    assert sorted(reported) == sorted(document for document, _ in documents)
    assert asked_at_first_write[0] < len(documents), "the first write waited for the last document"
    assert written == sorted(written)
    assert written[-1] == report.written
    assert numbers(report) == {
        "read": 60,
        "chunks": 90,
        "embedded": 89,
        "unchanged": 1,
        "written": 89,
        "deleted": 2,
    }
    assert store.count() == 90


@pytest.mark.connection
@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_replace_many_goes_on_where_it_was_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    monkeypatch.setattr(windows, "WINDOW", 4)
    documents = library(12)
    calls: list[list[str]] = []

    def stop(report: Report, complete: Sequence[str]) -> None:
        calls.append(list(complete))
        if len(calls) == stop_after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        store.replace_many(documents, stop)

    # What was reported is there, to the last chunk. More may be, but only whole documents.
    given = {document: records for document, records in documents if records}
    there = {document: given[document] for document in store.document_ids()}
    assert given.keys() & {document for call in calls for document in call} <= there.keys()
    parts = sum(map(len, there.values()))
    assert store.count() == parts > 0
    for records in there.values():
        assert store.get([record.id for record in records]) == records

    report = store.replace_many(documents)
    assert report.unchanged == parts
    assert report.embedded == report.chunks - parts


def test_replace_many_of_nothing(store: Store) -> None:
    assert numbers(store.replace_many(iter(()))) == {}


# -- delete -------------------------------------------------------------------------------------


def fill(store: Store) -> None:
    """Two records of their own, and documents of two and three chunks."""
    store.upsert([A, B])
    store.replace("one", chunks("one", "rye", "wheat"))
    store.replace("two", chunks("two", "rye", "wheat", "salt"))


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with what ``fill`` puts into it."""
    fill(store)
    return store


DELETIONS: list[tuple[dict[str, Any], set[str]]] = [
    ({"ids": ["a"]}, {"a"}),
    ({"ids": ["a", "one#1", "a"]}, {"a", "one#1"}),
    ({"ids": ["nobody"]}, set()),
    ({"ids": []}, set()),
    ({"documents": []}, set()),
    ({"ids": [], "documents": []}, set()),
    ({"documents": ["two"]}, {"two#0", "two#1", "two#2"}),
    ({"documents": ["a", "one", "nobody"]}, {"a", "one#0", "one#1"}),
    ({"ids": ["two"]}, set()),
    ({"documents": ["two#0"]}, set()),
    ({"ids": ["b", "two#0"], "documents": ["two"]}, {"b", "two#0", "two#1", "two#2"}),
]


def test_delete(store: Store) -> None:
    for arguments, gone in DELETIONS:
        fill(store)
        before = ids(store)
        assert store.delete(**arguments) == len(gone), arguments
        assert ids(store) == before - gone, arguments
        assert store.count() == 7 - len(gone)
        assert store.delete(**arguments) == 0


def test_delete_takes_any_iterable(filled: Store) -> None:
    assert filled.delete(iter(["a"]), iter(["one"])) == 3


def test_delete_wants_to_know_what(filled: Store) -> None:
    with pytest.raises(ValueError, match="ids"):
        filled.delete()
    with pytest.raises(TypeError):
        filled.delete("ab")
    with pytest.raises(TypeError):
        filled.delete(documents="ab")
    assert filled.count() == 7


def test_what_was_deleted_is_embedded_anew(store: Store) -> None:
    store.upsert([A, B])
    store.delete(["a"])
    assert numbers(store.upsert([A, B])) == {
        "read": 2,
        "chunks": 2,
        "embedded": 1,
        "unchanged": 1,
        "written": 1,
    }


# -- count and document_ids ---------------------------------------------------------------------


def test_count(filled: Store) -> None:
    assert filled.count() == 7
    assert filled.count(documents=True) == 4


def test_document_ids_are_complete(
    filled: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.page_size is not None:
        monkeypatch.setattr(kind.page_size, 3)
    filled.upsert([Record(f"ü {n}\n'", "rye") for n in range(8)])
    filled.upsert([Record("e\u0301", "rye"), Record("\u00e9", "rye"), Record("A", "rye")])

    found = list(filled.document_ids())

    assert len(found) == len(set(found)) == filled.count(documents=True) == 15
    assert {"a", "A", "b", "one", "two", "ü 0\n'", "e\u0301", "\u00e9"} < set(found)


def test_documents_may_go_while_they_are_listed(
    filled: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.page_size is not None:
        monkeypatch.setattr(kind.page_size, 3)
    filled.upsert([Record(f"{n}", "rye") for n in range(8)])
    for document in filled.document_ids():
        assert filled.delete(documents=[document]) > 0
    assert filled.count() == 0
    assert list(filled.document_ids()) == []


def test_two_writers_of_the_same_new_ids_leave_one_record_each(make_store: MakeStore) -> None:
    stores = [make_store() for _ in range(3)]
    stores[0].open()
    records = [Record(f"r{number}", "rye", vector=[1.0] * 32) for number in range(20)]
    at_once(*(lambda store=store: store.upsert(records) for store in stores))
    assert stores[0].count() == len(records)
    assert stores[0].get(["r0", "r19"]) == [records[0], records[19]]
    assert len(stores[0].search([1.0] * 32, k=100)) == len(records)


def test_ingest_takes_no_record_from_another_document(store: IngestStore) -> None:
    """A chunk's id, ``a#1``, may be another document's name."""
    store.replace("a", [Record("a#0", "rye"), Record("a#1", "bread")])
    before = store.get(["a#0", "a#1"])
    for text in ("salt", "bread"):  # another text, and the same one
        with pytest.raises(RecordError, match=r"'a#1', of document 'a#1', .* document 'a'"):
            ingest([Record("a#1", text)], store)
    assert store.get(["a#0", "a#1"]) == before
    assert ingest([Record("a", "rye"), Record("b", "bread")], store).deleted == 2
    assert ingest([Record("a#1", "salt")], store).written == 1
    store.replace("c", [Record("a#1", "salt")])  # which moves it on purpose
    assert store.get(["a#1"]) == [Record("a#1", "salt", document_id="c")]
