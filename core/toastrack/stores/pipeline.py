"""Reading, embedding and writing at the same time, as one piece of work for both faces.

While the host writes one window, the engine has the next and the one behind that is read. The host
is asked on a line of its own, one call after another; nothing runs more than a window ahead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from toastrack.batching.truncation import TruncationCounter
from toastrack.embedder import Embedder
from toastrack.errors import RecordError
from toastrack.records import Report
from toastrack.stores.plan import Row, Status, WindowPlan, WriteBatch, rows_of
from toastrack.stores.steps import Slow, Steps
from toastrack.stores.windows import Window

# WindowPlan that may wait for a host that is slower than the engine; more would only hold memory.
_QUEUED = 1
# A source that takes this long for a window gains nothing from being read ahead.
_SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Read:
    """Take the next window of the source; None at its end."""


class Call(Protocol):
    """A call of the host under way: a future of threads or of an event loop."""

    def done(self) -> bool:
        """Tell whether there is an answer, or an error."""
        ...


@dataclass(frozen=True)
class Start:
    """Queue an operation behind those before it, and go on; answered with a ``Call``.

    Where one that writes failed, those behind it fail in the same way.
    """

    operation: Callable[[Any], Steps[Any]]
    reads: bool = False


@dataclass(frozen=True)
class Wait:
    """Wait for the answer to a call."""

    call: Any


@dataclass(frozen=True)
class Tell:
    """Call somebody back, who may be a coroutine function."""

    function: Callable[[], Any]


OnWrite = Callable[[Report, Sequence[str]], Any]


def write_all(
    embedder: Embedder, on_write: OnWrite | None, *, shared: bool = False
) -> Steps[Report]:
    """Write every window that is read; ``on_write`` as in ``toastrack.stores.protocol.Store``.

    If the source or the model fails, what was ready before is written first. An error of the host,
    or of ``on_write``, ends it at once. What is written to a host is ``shared`` if source and
    ``on_write`` may use it as well: then they are only called while it rests.
    """
    run = _Run(embedder, on_write, queued=0 if shared else _QUEUED)
    try:
        yield from run.steps()
    finally:
        run.stream.close()
    run.truncation.warn()
    return run.report


class _Run:
    """The windows that are under way in one call."""

    def __init__(self, embedder: Embedder, on_write: OnWrite | None, *, queued: int) -> None:
        self._queued = queued
        self.report = Report()
        self.truncation = TruncationCounter(embedder.on_truncate)
        self.stream = embedder._stream("document", self.truncation)
        self._embedder = embedder
        self._on_write = on_write
        self._started = time.monotonic()
        self._slow_source = False
        self._embedding: WindowPlan | None = None
        self._writing: deque[tuple[Call, WriteBatch]] = deque()

    def steps(self) -> Steps[None]:
        limit = yield Slow(lambda: self._embedder.max_tokens)
        while (window := (yield from self._read())) is not None:
            following = yield from self._start(window, limit)
            yield from self._finish()
            self._embedding = following
            if not following.waits:
                yield from self._finish()
        yield from self._settle()

    def _read(self) -> Steps[Window | None]:
        if self._slow_source:
            # It would hold back for long what is finished.
            yield from self._settle()
        started = time.monotonic()
        window: Window | None = yield from self._saving(Read())
        self._slow_source = time.monotonic() - started > _SLOW_SECONDS
        return window

    def _saving(self, step: object, kind: type[Exception] = Exception) -> Steps[Any]:
        """Do a step; should it fail, what is under way is written before that is said."""
        try:
            return (yield step)
        except kind as error:
            try:
                yield from self._settle()
            except Exception:
                raise error  # noqa: B904 - it was the first
            raise

    def _start(self, window: Window, limit: int) -> Steps[WindowPlan]:
        """Ask what is stored of a window, and hand the engine what of it needs a vector."""
        if self._embedding is not None and _share(window, self._embedding.window):
            yield from self._finish()
        rows: list[Row] = yield from self._saving(Slow(lambda: rows_of(window.records, limit)))
        leaves = self._embedding is not None and bool(self._embedding.window.exact)
        states = yield from self._states(rows)
        if leaves and "metadata" in states.values():
            # A record that comes from another document may be one of those that go with it.
            yield from self._finish()
            states = yield from self._states(rows)
        start = Slow(lambda: WindowPlan(window, rows, states, self.stream))
        portions: WindowPlan = yield from self._saving(start)
        return portions

    def _states(self, rows: Sequence[Row]) -> Steps[Mapping[str, Status]]:
        call = yield Start(lambda collection: collection.states(rows), reads=True)
        # Any other error is the host's, to which nothing more can be written.
        states: Mapping[str, Status] = yield from self._saving(Wait(call), RecordError)
        return states

    def _finish(self) -> Steps[None]:
        """Write the window that is with the engine, as its vectors come."""
        portions, self._embedding = self._embedding, None
        if portions is None:
            return
        writes = portions.writes(self.report)
        while write := (yield from self._saving(Slow(lambda: next(writes, None)))):
            yield from self._write(write)

    def _write(self, write: WriteBatch) -> Steps[None]:
        call = yield Start(lambda collection: collection.write(write))
        self._writing.append((call, write))
        while self._writing and (len(self._writing) > self._queued or self._writing[0][0].done()):
            yield from self._collect()

    def _collect(self) -> Steps[None]:
        """Wait for the oldest write and tell of it."""
        call, write = self._writing.popleft()
        written, deleted = yield Wait(call)
        self.report.written += written
        self.report.deleted += deleted
        self._count()
        if self._on_write is not None:
            on_write = self._on_write
            yield Tell(lambda: on_write(self.report, write.documents))

    def _settle(self) -> Steps[None]:
        """Write all that is under way."""
        yield from self._finish()
        while self._writing:
            yield from self._collect()
        self._count()

    def _count(self) -> None:
        self.report.truncated = self.truncation.cut
        self.report.seconds = time.monotonic() - self._started


def _share(window: Window, earlier: Window) -> bool:
    """Tell whether what is stored of one window depends on the write of another."""
    ids = {record.id for record in earlier.records}
    documents = {*earlier.exact, *(record.document for record in earlier.records)}
    return any(
        record.id in ids or record.document in documents for record in window.records
    ) or not documents.isdisjoint(window.exact)
