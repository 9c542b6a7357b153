"""Reading, embedding and writing at the same time.

While the host writes one window, the engine has the next and the one behind that is read. The host
is asked in a queue of its own, one call after another; nothing runs more than a window ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from toastrack.batching.truncation import TruncationCounter
from toastrack.embedder import Embedder
from toastrack.errors import RecordError, SourceError
from toastrack.records import Record, Report
from toastrack.stores.backend import Backend
from toastrack.stores.document_sources import check_sources, not_as_stored
from toastrack.stores.plan import (
    Row,
    Status,
    WindowPlan,
    WriteBatch,
    WriteResult,
    rows_of,
    with_vectors,
)
from toastrack.stores.runtime import Runtime
from toastrack.stores.settling import TRIES, another_writer, pause
from toastrack.stores.windows import Window
from toastrack.stores.write_queue import Call, WriteQueue
from toastrack.utils import arrays

T = TypeVar("T")

# Batches that may wait for a host that is slower than the engine; more would only hold memory.
_QUEUED = 1
# A source that takes this long for a window gains nothing from being read ahead.
_SLOW_SECONDS = 5.0

# What is stored, and not to the letter.
_DIFFERING: Collection[Status | None] = ("changed", "metadata")

Read = Callable[[], Awaitable[Window | None]]
"""Take the next window of the source; None at its end."""

OnWrite = Callable[[Report, Sequence[str]], Any]
"""``toastrack.stores.OnWrite``, which may also be a coroutine function."""


class Flow(Protocol):
    """What is needed of ``StoreFlow`` here."""

    backend: Backend[Any, Any]
    runtime: Runtime

    @property
    def embedder(self) -> Embedder:
        """What embeds."""
        ...

    def perform(
        self, method: Callable[..., Awaitable[T]], *args: Any, reads: bool = False
    ) -> Coroutine[Any, Any, T]:
        """Run a method of the backend in a session of its own."""
        ...


async def write_all(flow: Flow, read: Read, on_write: OnWrite | None) -> Report:
    """Write every window that is read; ``on_write`` as in ``toastrack.stores.Store``.

    If the source or the model fails, what was ready before is written first. An error of the host,
    or of ``on_write``, ends it at once. Over a connection of the caller's, which source and
    ``on_write`` may use as well, they are only called while the host rests.
    """
    async with flow.runtime.write_queue(flow.perform, flow.backend.interrupt) as queue:
        run = _Run(flow, read, on_write, queue)
        try:
            await run.write()
        finally:
            run.stream.close()
    run.truncation.warn()
    return run.report


# Records that are chunks of one document keep together.
_REMEDY = "ingest(), or store.replace() with a record for each of embedder.split(text)"


class _Run:
    """The windows that are under way in one call."""

    def __init__(self, flow: Flow, read: Read, on_write: OnWrite | None, queue: WriteQueue) -> None:
        self.report = Report()
        self.truncation = TruncationCounter(flow.embedder.on_truncate, _REMEDY)
        self.stream = flow.embedder._stream("document", self.truncation)
        self._backend = flow.backend
        self._embedder = flow.embedder
        self._runtime = flow.runtime
        self._read_source = read
        self._on_write = on_write
        self._queue = queue
        self._queued = 0 if flow.backend.callers_connection else _QUEUED
        self._brought_up = False
        self._started = self._runtime.monotonic()
        self._slow_source = False
        self._embedding: WindowPlan | None = None
        self._writing: deque[tuple[Call | None, WriteBatch]] = deque()
        """With no call for what only has to be told of."""

    async def write(self) -> None:
        limit = await self._runtime.offload(lambda: self._embedder._text_limit)
        while (window := await self._read()) is not None:
            following = await self._start(window, limit)
            await self._finish()
            self._embedding = following
            if not following.waits:
                await self._finish()
        await self._settle()

    async def _read(self) -> Window | None:
        if self._slow_source:
            # It would hold back for long what is finished.
            await self._settle()
        started = self._runtime.monotonic()
        window = await self._saving(self._read_source())
        self._slow_source = self._runtime.monotonic() - started > _SLOW_SECONDS
        return window

    async def _saving(self, step: Awaitable[T], kind: type[Exception] = Exception) -> T:
        """Await a step; should it fail, what is under way is written before that is said."""
        try:
            return await step
        except kind as error:
            try:
                await self._settle()
            except Exception:
                raise error  # noqa: B904 - it was the first
            raise

    async def _start(self, window: Window, limit: int) -> WindowPlan:
        """Ask what is stored of a window, and hand the engine what of it needs a vector."""
        if self._embedding is not None and _share(window, self._embedding.window):
            await self._settle()
        rows = await self._saving(self._runtime.offload(self._checked_rows, window, limit))
        leaves = self._embedding is not None and bool(self._embedding.window.exact)
        statuses = await self._compare(rows)
        if leaves and "metadata" in statuses.values():
            # A record that comes from another document may be one of those that go with it.
            await self._settle()
            statuses = await self._compare(rows)
        if not window.moves:
            await self._saving(self._check_documents(rows, statuses), RecordError)
        if window.sources:
            await self._saving(self._check_sources(window, rows, statuses), SourceError)
        return await self._saving(
            self._runtime.offload(WindowPlan, window, rows, statuses, self.stream)
        )

    async def _check_documents(self, rows: Sequence[Row], statuses: Mapping[str, Status]) -> None:
        """Raise ``RecordError`` for a record that is stored under another document."""
        differing = [row.record for row in rows if statuses.get(row.record.id) in _DIFFERING]
        if not await self._elsewhere(differing):
            return
        # It may be one of those that go with a document that is written just now.
        await self._settle()
        for record, document in await self._elsewhere(differing):
            raise RecordError(
                f"The id {record.id!r}, of document {record.document!r}, is stored already as a "
                f"record of document {document!r}. Give one of them another id, for instance with "
                "prefix=, or delete the stored document first."
            )

    async def _check_sources(
        self, window: Window, rows: Sequence[Row], statuses: Mapping[str, Status]
    ) -> None:
        """Raise ``SourceError`` for a document that another source has, with another text."""
        documents = not_as_stored(window, rows, statuses)
        if documents:
            call = self._queue.submit(self._backend.stored_sources, documents, reads=True)
            stored = await self._queue.wait(call)
            check_sources(window, rows, statuses, stored, self._backend.kind)

    async def _elsewhere(self, records: Sequence[Record]) -> list[tuple[Record, str]]:
        """Return those that are stored under another document, with that."""
        if not records:
            return []
        ids = [record.id for record in records]
        found = await self._queue.wait(self._queue.submit(self._backend.get, ids, reads=True))
        return [
            (record, stored.document)
            for record, stored in zip(records, found, strict=True)
            if stored is not None and stored.document != record.document
        ]

    def _checked_rows(self, window: Window, limit: int) -> list[Row]:
        for record in window.records:
            self._backend.check(record)
        space = self._backend.space
        return rows_of(window, limit, space.digest if space else "")

    async def _compare(self, rows: Sequence[Row]) -> Mapping[str, Status]:
        if not rows:
            return {}
        call = self._queue.submit(self._backend.compare, rows, reads=True)
        # Any other error is the host's, to which nothing more can be written.
        statuses: Mapping[str, Status] = await self._saving(self._queue.wait(call), RecordError)
        return statuses

    async def _finish(self) -> None:
        """Write the window that is with the engine, as its vectors come."""
        plan, self._embedding = self._embedding, None
        if plan is None:
            return
        batches = plan.batches(self.report, self._runtime.monotonic)
        while batch := await self._saving(self._runtime.offload(next, batches, None)):
            if batch.documents:
                await self._write(batch)
            else:
                await self._tell([])

    async def _write(self, batch: WriteBatch) -> None:
        if not self._brought_up and self._backend.needs_bring_up(batch):
            self._brought_up = True
            await self._queue.wait(self._queue.submit(self._backend.bring_up))
        call = self._queue.submit(self._backend.write, batch) if batch.writes else None
        self._writing.append((call, batch))
        while self._writing and (len(self._writing) > self._queued or self._is_next_done()):
            await self._collect()

    def _is_next_done(self) -> bool:
        call, _ = self._writing[0]
        return call is None or call.done()

    async def _collect(self) -> None:
        """Wait for the oldest write and tell of it."""
        call, batch = self._writing.popleft()
        result: WriteResult = WriteResult(0, 0) if call is None else await self._queue.wait(call)
        self.report.deleted += result.deleted
        for attempt in range(TRIES):
            if not result.missed:
                break
            await self._runtime.sleep(pause(attempt))
            batch = await self._with_vectors(batch, result.missed)
            call = self._queue.submit(self._backend.write, batch)
            result = await self._queue.wait(call)
            self.report.deleted += result.deleted
        if result.missed:
            raise another_writer(next(iter(result.missed)), batch.documents)
        self.report.written += result.written
        await self._tell(batch.documents)

    async def _tell(self, documents: Sequence[str]) -> None:
        self._count()
        if self._on_write is not None:
            await self._runtime.call(self._on_write, self.report, documents)

    async def _with_vectors(self, batch: WriteBatch, missed: Collection[str]) -> WriteBatch:
        """Embed what was taken for stored already, and another writer changed or deleted."""
        rows = [*batch.metadata_rows, *batch.unchanged_rows]
        made = [row for row in rows if row.record.id in missed]
        self.report.unchanged -= sum(row.record.id in missed for row in batch.unchanged_rows)
        to_embed = [row for row in made if row.record.vector is None]
        vectors: dict[str, Any] = await self._runtime.offload(self._embed, to_embed)
        self.report.embedded += len(to_embed)
        return with_vectors(
            batch,
            [row._replace(vector=vectors.get(row.record.id, row.record.vector)) for row in made],
        )

    def _embed(self, rows: Sequence[Row]) -> dict[str, arrays.FloatVector]:
        stream = self._embedder._stream("document", self.truncation)
        parts = stream.add(
            [row.record.text for row in rows],
            lambda position: f"Record {rows[position].record.id!r}",
        )
        return {
            rows[position].record.id: vector
            for positions, vectors in parts
            for position, vector in zip(positions, vectors, strict=True)
        }

    async def _settle(self) -> None:
        """Write all that is under way."""
        await self._finish()
        while self._writing:
            await self._collect()
        self._count()

    def _count(self) -> None:
        self.report.truncated = self.truncation.cut
        self.report.seconds = self._runtime.monotonic() - self._started


def _share(window: Window, earlier: Window) -> bool:
    """Tell whether what is stored of one window depends on the write of another."""
    ids = {record.id for record in earlier.records}
    documents = {*earlier.exact, *(record.document for record in earlier.records)}
    return any(
        record.id in ids or record.document in documents for record in window.records
    ) or not documents.isdisjoint(window.exact)
