"""Reading, embedding and writing at the same time, in a store that holds its rows in a dict."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from awaited import Awaited, running_loop

from toastrack import Embedder, Record
from toastrack.batching.jobs import StreamedJob
from toastrack.batching.truncation import TruncationCounter
from toastrack.engines.sentence_transformers import SentenceTransformersEngine
from toastrack.errors import ModelError, RecordError, StoreError
from toastrack.stores import (
    AsyncBaseStore,
    BaseStore,
    RetryingBackend,
    RetryingSession,
    Row,
    Status,
    Store,
    WriteBatch,
    WriteResult,
)

WINDOW = 4
# Of records that bring their vectors.
READY = 4 * WINDOW
LONG = 30.0


class Rows(RetryingBackend):
    """The collection of a host that does not compare, and whose calls can be held up."""

    label = "rows"

    def __init__(self, embedder: Embedder) -> None:
        self.dimensions: int = embedder.dimensions
        self.space = embedder.space
        self.ids: list[str] = []
        self.before_write: Callable[[], None] = lambda: None

    async def find(self, session: RetryingSession) -> bool:
        return True

    def check(self, record: Record) -> None:
        if "\0" in record.text:
            raise RecordError(f"Record {record.id!r} holds NUL.")

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        return {}

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        await self.runtime.offload(self.before_write)
        self.ids += [row.record.id for row in batch.rows]
        return WriteResult(len(batch.rows), 0)

    def is_away(self, error: BaseException) -> bool:
        return False

    def is_collection_gone(self, error: BaseException) -> bool:
        return False


def dict_store(rows: Any, embedder: Embedder) -> BaseStore[Any, Any]:
    return BaseStore(rows, embedder=embedder, create=False, adopt=False)


def async_dict_store(rows: Any, embedder: Embedder) -> AsyncBaseStore[Any, Any]:
    return AsyncBaseStore(rows, embedder=embedder, create=False, adopt=False)


@pytest.fixture
def rows(embedder: Embedder) -> Rows:
    return Rows(embedder)


@pytest.fixture(params=["sync", "async"])
def store(
    request: pytest.FixtureRequest,
    embedder: Embedder,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", WINDOW)
    if request.param == "sync":
        yield dict_store(rows, embedder)
    else:
        with running_loop() as loop:
            yield Awaited(async_dict_store(rows, embedder), loop)


def records(count: int) -> Iterator[Record]:
    return (Record(f"r{number}", f"bread {number}") for number in range(count))


def names(count: int) -> list[str]:
    return [f"r{number}" for number in range(count)]


def on_model(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    """Call ``before`` at each batch that enters the model."""
    run = SentenceTransformersEngine.run

    def watched(self: SentenceTransformersEngine, *args: Any, **options: Any) -> Any:
        before()
        return run(self, *args, **options)

    monkeypatch.setattr(SentenceTransformersEngine, "run", watched)


def test_all_three_go_on_at_once(store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write does not end before the second window is embedded and the third is read."""
    embedded, read = threading.Event(), threading.Event()
    batches: list[int] = []
    late: list[str] = []

    def count() -> None:
        batches.append(len(batches))
        if len(batches) == 2:
            embedded.set()

    def wait() -> None:
        for what, event in (("embedded", embedded), ("read", read)):
            if not event.wait(LONG):
                late.append(what)

    def source() -> Iterator[Record]:
        for number, record in enumerate(records(4 * WINDOW)):
            if number == 3 * WINDOW - 1:
                read.set()
            yield record

    on_model(monkeypatch, count)
    rows.before_write = wait
    report = store.upsert(source())

    assert not late
    assert report.written == 4 * WINDOW
    assert sorted(rows.ids) == sorted(names(4 * WINDOW))


def test_what_needs_no_model_is_written_while_the_source_is_waited_for(
    store: Store, rows: Rows
) -> None:
    """A source that gives nothing more, as a queue, holds nothing back that is ready."""
    written = threading.Event()
    rows.before_write = written.set
    in_time: list[bool] = []
    vector = [1.0] * rows.dimensions

    def source() -> Iterator[Record]:
        for record in records(READY):
            yield replace(record, vector=vector)
        in_time.append(written.wait(LONG))

    store.upsert(source())
    assert in_time == [True]


def test_nothing_runs_far_ahead(store: Store, rows: Rows) -> None:
    read = 0
    ahead: list[int] = []

    def source() -> Iterator[Record]:
        nonlocal read
        for record in records(40 * WINDOW):
            read += 1
            yield record

    rows.before_write = lambda: ahead.append(read - len(rows.ids))
    store.upsert(source())

    assert len(rows.ids) == 40 * WINDOW
    assert max(ahead) <= 6 * WINDOW


def test_a_source_that_fails_leaves_what_it_gave_before(store: Store, rows: Rows) -> None:
    def source() -> Iterator[Record]:
        yield from records(3 * WINDOW + 1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        store.upsert(source())
    assert sorted(rows.ids) == sorted(names(3 * WINDOW))


def test_a_record_that_is_refused_leaves_what_came_before(store: Store, rows: Rows) -> None:
    given = [*records(3 * WINDOW), Record("bad", "rye\0"), *records(1)]
    with pytest.raises(RecordError, match="'bad' holds NUL"):
        store.upsert(given)
    assert sorted(rows.ids) == sorted(names(3 * WINDOW))


def test_a_model_that_fails_leaves_what_came_before(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def fail() -> None:
        batches.append(0)
        if len(batches) == 3:
            raise ModelError("out of memory")

    on_model(monkeypatch, fail)
    with pytest.raises(ModelError, match="out of memory"):
        store.upsert(records(9 * WINDOW))
    assert sorted(rows.ids) == sorted(names(2 * WINDOW))


def test_a_host_that_fails_ends_it(store: Store, rows: Rows) -> None:
    read = 0

    def source() -> Iterator[Record]:
        nonlocal read
        for record in records(40 * WINDOW):
            read += 1
            yield record

    def fail() -> None:
        if rows.ids:
            raise StoreError("the disk is full")

    rows.before_write = fail
    with pytest.raises(StoreError, match="the disk is full"):
        store.upsert(source())
    assert sorted(rows.ids) == sorted(names(WINDOW))
    assert read < 10 * WINDOW


def test_the_first_of_two_errors_is_the_one_that_is_raised(store: Store, rows: Rows) -> None:
    """The source fails, and then the host, when it is given what came before."""

    def source() -> Iterator[Record]:
        yield from records(WINDOW)
        raise OSError("the disk is gone")

    def fail() -> None:
        raise StoreError("the server is gone")

    rows.before_write = fail
    with pytest.raises(OSError, match="the disk is gone") as caught:
        store.upsert(source())
    assert isinstance(caught.value.__context__, StoreError)


def test_who_is_told_can_end_it(store: Store, rows: Rows) -> None:
    def source() -> Iterator[tuple[str, list[Record]]]:
        for number in range(40 * WINDOW):
            yield f"r{number}", [Record(f"r{number}", "bread")]

    told: list[str] = []

    def stop(report: object, documents: Sequence[str]) -> None:
        told.extend(documents)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        store.replace_many(source(), stop)
    assert sorted(told) == sorted(names(WINDOW))
    assert set(told) <= set(rows.ids) < set(names(10 * WINDOW))
    assert not [thread for thread in threading.enumerate() if "writing" in thread.name]


def test_a_slow_source_does_not_hold_back_what_is_finished(
    store: Store, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.pipeline._SLOW_SECONDS", -1.0)  # each one is
    there: list[int] = []

    def source() -> Iterator[Record]:
        for number, record in enumerate(records(4 * WINDOW)):
            if number % WINDOW == 0:
                there.append(len(rows.ids))
            yield record

    store.upsert(source())
    assert there == [0, WINDOW, 2 * WINDOW, 3 * WINDOW]


def test_an_error_is_told_once(
    embedder: Embedder, rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The event loop has nothing to add to what the caller was told."""
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", WINDOW)
    store = async_dict_store(rows, embedder)

    def fail() -> None:
        raise StoreError("the disk is full")

    rows.before_write = fail
    with pytest.raises(StoreError):
        asyncio.run(store.upsert(records(40 * WINDOW)))
    gc.collect()
    assert not caplog.records


def test_source_and_callback_stay_on_the_callers_thread(
    embedder: Embedder, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", WINDOW)
    store = dict_store(rows, embedder)
    threads: set[threading.Thread] = set()

    def source() -> Iterator[tuple[str, list[Record]]]:
        for record in records(3 * WINDOW):
            threads.add(threading.current_thread())
            yield record.id, [record]

    store.replace_many(source(), lambda *_: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_a_call_that_is_cancelled_ends(
    embedder: Embedder, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", WINDOW)
    store = async_dict_store(rows, embedder)
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(LONG)

    on_model(monkeypatch, wait)

    async def main() -> None:
        task = asyncio.create_task(store.upsert(records(9 * WINDOW)))
        await asyncio.to_thread(begun.wait, LONG)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(main())  # waits for every thread that it lent
    assert not rows.ids


@pytest.mark.parametrize("call", ["upsert", "aembed_documents"])
def test_many_who_wait_for_the_model_leave_the_loops_threads_to_others(
    embedder: Embedder, rows: Rows, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = async_dict_store(rows, embedder)
    go_on = threading.Event()
    waiting = threading.Semaphore(0)
    take = StreamedJob.results

    def noted(self: StreamedJob) -> Iterator[Any]:
        waiting.release()
        return take(self)

    monkeypatch.setattr(StreamedJob, "results", noted)

    def wait() -> None:
        go_on.wait(LONG)

    on_model(monkeypatch, wait)

    def begin() -> Any:
        if call == "upsert":
            return store.upsert(records(2))
        return embedder.aembed_documents(["bread"] * 70)

    async def main() -> None:
        await store.open()
        tasks = [asyncio.create_task(begin()) for _ in range(64)]
        try:
            for _ in tasks:
                while not waiting.acquire(blocking=False):
                    await asyncio.sleep(0.001)
            others = [asyncio.to_thread(lambda: 1) for _ in range(64)]
            assert sum(await asyncio.wait_for(asyncio.gather(*others), LONG)) == 64
        finally:
            go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(main(), 4 * LONG))


def test_texts_enter_the_model_in_the_order_they_were_added(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer texts go first only among those that were added together."""
    monkeypatch.setattr(embedder.load()._engine(), "batch_tokens", 20)
    sizes: list[int] = []
    run = SentenceTransformersEngine.run

    def watched(self: SentenceTransformersEngine, batch: Any, **options: Any) -> Any:
        sizes.extend(len(tokens.ids) for tokens in batch)
        return run(self, batch, **options)

    monkeypatch.setattr(SentenceTransformersEngine, "run", watched)
    stream = embedder._stream("document", TruncationCounter("ignore"))
    short, long = stream.add(["rye"] * 20), stream.add(["rye rye rye rye"] * 20)
    after = [position for positions, _ in long for position in positions]
    before = [position for positions, _ in short for position in positions]
    assert sorted(before) == sorted(after) == list(range(20))
    assert sizes == sorted(sizes)
    assert len(sizes) == 40
