"""Records cut into windows: what is in which, and what became of their vectors."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from toastrack import Record
from toastrack.errors import RecordError
from toastrack.stores.runtime import AsyncRuntime
from toastrack.stores.windows import (
    AsyncIterableReader,
    Window,
    document_windows,
    record_windows,
)

SIZE = 4
READY = 4 * SIZE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", SIZE)


def ids(windows: Iterator[Window]) -> list[list[str]]:
    return [[record.id for record in window.records] for window in windows]


def test_records_are_cut_where_a_window_is_full() -> None:
    records = [Record(str(number), "x") for number in range(2 * SIZE + 1)]
    windows = list(record_windows(records, 3))
    assert ids(iter(windows)) == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8"]]
    assert [window.read for window in windows] == [4, 4, 1]
    assert list(record_windows([], 3)) == []


def ready(count: int, dimensions: int = 3, text: str = "x") -> Iterator[Record]:
    vector = np.ones(dimensions, np.float32)
    return (Record(str(number), text, vector=vector) for number in range(count))


def sizes(windows: Iterable[Window]) -> list[int]:
    return [len(window.records) for window in windows]


def test_a_window_holds_more_that_bring_their_vectors() -> None:
    assert sizes(record_windows(ready(2 * READY + 1), 3)) == [READY, READY, 1]
    documents = [(record.id, [record]) for record in ready(READY + 1)]
    assert sizes(document_windows(documents, 3)) == [READY, 1]


@pytest.mark.parametrize(
    ("dimensions", "text", "size"),
    [(1024, "x" * 500, READY), (2048, "x", READY // 2), (4096, "x", SIZE), (3, "x" * 9_000, 8)],
)
def test_large_ones_fill_a_window_sooner(dimensions: int, text: str, size: int) -> None:
    windows = list(record_windows(ready(READY, dimensions, text), dimensions))
    assert sizes(windows) == [size] * (READY // size)


def test_a_window_of_both_kinds() -> None:
    mixed = [
        record
        for number, record in enumerate(ready(2 * READY))
        for record in ([record, Record(f"text {number}", "x")] if number % 4 == 0 else [record])
    ]
    windows = list(record_windows(mixed, 3))
    to_embed = [sum(record.vector is None for record in one.records) for one in windows]
    assert sum(sizes(windows)) == len(mixed)
    assert max(to_embed) < SIZE < max(sizes(windows)) < READY


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (list(ready(READY + 1)), [READY, 1]),
        ([Record(str(number), "x", vector=[1.0, 0, 0]) for number in range(SIZE + 1)], [SIZE, 1]),
        ([Record(str(number), "x") for number in range(SIZE + 1)], [SIZE, 1]),
    ],
    ids=["arrays", "lists", "texts"],
)
def test_an_asynchronous_source_is_cut_alike(records: list[Record], expected: list[int]) -> None:
    async def source() -> AsyncIterator[Record]:
        for record in records:
            yield record

    async def cut() -> list[Window]:
        reader: AsyncIterableReader[Record] = AsyncIterableReader(record_windows, source())
        windows = []
        while (window := await reader.read(AsyncRuntime(), 3)) is not None:
            windows.append(window)
        return windows

    assert sizes(asyncio.run(cut())) == expected


def test_the_last_record_of_an_id_stays() -> None:
    one, two, three = Record("a", "1"), Record("b", "2"), Record("a", "3")
    (window,) = record_windows([one, two, three], 3)
    assert window.records == [three, two]
    assert window.read == 3


def test_one_record_is_no_stream() -> None:
    one: Any = Record("a", "1")
    with pytest.raises(TypeError, match="Write \\[record\\]"):
        next(record_windows(one, 3))


def test_a_document_is_never_divided() -> None:
    parts = [Record(f"a#{number}", "x") for number in range(2 * SIZE)]
    windows = list(document_windows([("a", parts), ("b", [Record("b", "y")])], 3))
    assert [list(window.exact) for window in windows] == [["a"], ["b"]]
    assert {record.document for record in windows[0].records} == {"a"}
    assert [window.read for window in windows] == [1, 1]


def test_the_last_of_equal_documents_stays() -> None:
    first = [Record("a#0", "old"), Record("a#1", "old")]
    (window,) = document_windows([("a", first), ("b", []), ("a", [Record("a#0", "new")])], 3)
    assert [(record.id, record.text) for record in window.records] == [("a#0", "new")]
    assert list(window.exact) == ["a", "b"]
    assert window.read == 3


def test_vectors_of_a_window_are_each_normalised() -> None:
    given: list[Any] = [
        np.array([3, 0, 4], np.float32),
        None,
        [0, 5, 0],
        np.array([0.6, 0, 0.8], np.float32),
        np.array([1.5e38, 0, 2e38], np.float32),
        np.array([1, 0, 0], np.dtype(">f4")),
        np.array([9, 1, 0, 1, 9, 1], np.float32)[1::2],
    ]
    records = [Record(str(n), "x", {"n": n}, vector, "d", n) for n, vector in enumerate(given)]
    windows = record_windows(records, 3)
    made = [record for window in windows for record in window.records]
    expected = [[0.6, 0, 0.8], None, [0, 1, 0], [0.6, 0, 0.8], [0.6, 0, 0.8], [1, 0, 0]]
    for record, before, wanted in zip(made, records, [*expected, np.full(3, 3**-0.5)], strict=True):
        assert record == before  # but for its vector
        if wanted is None:
            assert record.vector is None
            continue
        assert isinstance(record.vector, np.ndarray)
        assert record.vector.dtype == np.float32
        np.testing.assert_allclose(record.vector, wanted, rtol=0, atol=1e-6)


def test_a_vector_of_length_1_stays_to_the_bit() -> None:
    vectors = np.random.default_rng(0).standard_normal((SIZE, 1024)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    records = [Record(str(number), "x", vector=vector) for number, vector in enumerate(vectors)]
    (once,) = record_windows(records, 1024)
    (twice,) = record_windows(once.records, 1024)
    for one, other in zip(once.records, twice.records, strict=True):
        assert np.array_equal(one.vector, other.vector)  # type: ignore[arg-type]


def test_an_array_may_be_used_again_for_the_next_record() -> None:
    array = np.zeros(3, np.float32)

    def records() -> Iterator[Record]:
        for number in range(3):
            array[:] = 0
            array[number] = 2
            yield Record(str(number), "x", vector=array)

    (window,) = record_windows(records(), 3)
    assert [np.argmax(record.vector) for record in window.records] == [0, 1, 2]  # type: ignore[arg-type]
    assert array.tolist() == [0, 0, 2]


def test_the_first_vector_without_a_direction_is_named() -> None:
    nothing = np.zeros(3, np.float32)
    records = [
        Record("a", "x", vector=[1, 0, 0]),
        Record("b", "x"),
        Record("c", "x", vector=nothing),
    ]
    with pytest.raises(RecordError, match="Record 'c': its vector has length 0"):
        list(record_windows(records, 3))


@pytest.mark.parametrize("later", ["a record", "the source"])
def test_the_first_error_is_the_one_that_is_raised(later: str) -> None:
    def records() -> Iterator[Record]:
        yield Record("first", "x", vector=np.zeros(3, np.float32))
        yield Record("good", "x", vector=np.ones(3, np.float32))
        if later == "a record":
            yield Record("later", "x", vector=[1.0])
        raise OSError("the file is gone")

    with pytest.raises(RecordError, match="'first'"):
        list(record_windows(records(), 3))
    with pytest.raises(RecordError, match="'first'"):
        list(document_windows(((record.id, [record]) for record in records()), 3))


def test_an_error_behind_good_vectors_is_raised_as_it_is() -> None:
    def records() -> Iterator[Record]:
        yield Record("good", "x", vector=np.ones(3, np.float32))
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="gone"):
        list(record_windows(records(), 3))


def test_the_callers_vectors_are_let_go_one_after_the_other() -> None:
    class Array(np.ndarray[Any, Any]):
        """One that can be watched."""

    given: list[weakref.ref[Any]] = []
    most = 0

    def parts() -> Iterator[Record]:
        nonlocal most
        for number in range(50):
            vector = Array((3,), np.float32)
            vector[:] = 1
            given.append(weakref.ref(vector))
            most = max(most, sum(one() is not None for one in given))
            yield Record(f"a#{number}", "x", vector=vector)
            del vector

    (window,) = document_windows([("a", parts())], 3)  # type: ignore[list-item]
    assert len(window.records) == 50
    assert most <= 3


def test_a_document_without_an_id_is_refused() -> None:
    nobody: Any = None
    with pytest.raises(RecordError, match="None"):
        list(document_windows([(nobody, [Record("a", "x")])], 3))
