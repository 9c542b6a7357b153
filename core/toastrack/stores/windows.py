"""Records cut into windows: checked, with their ready vectors at length 1."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from toastrack.errors import RecordError
from toastrack.records import Record
from toastrack.stores.checks import checked_fields
from toastrack.stores.vectors import float32_vector, normalise, vector_of

if TYPE_CHECKING:
    from toastrack.stores.protocol import Document, SourcedDocument
    from toastrack.stores.runtime import Runtime

Item = TypeVar("Item")
Cut = Callable[[Iterable[Item], int], Iterator["Window"]]

# Records looked up, sorted by length and embedded together.
WINDOW = 512
# One that brings its vector takes a part of such a place: a fourth, or more of it where it is large.
_PARTS = 4
_PART_BYTES = 4096


@dataclass(frozen=True)
class Window:
    """Records that are looked up and embedded together."""

    records: Sequence[Record]
    exact: Collection[str] = ()
    """Documents of which these are all the records."""
    read: int = 0
    """How many inputs became these records."""
    moves: bool = True
    """A record may be taken from the document that it is stored under."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where its documents come from, by their ids; those without a source are left out."""
    run_sources: Collection[str] = ()
    """All sources of the run."""


def record_windows(records: Iterable[Record], dimensions: int) -> Iterator[Window]:
    """Cut a stream of records into checked windows; the last of equal ids in a window wins."""
    if isinstance(records, Record):
        raise TypeError("A list of records is wanted and one Record was given. Write [record].")
    window = _Records(dimensions)
    with _first_error(lambda: window):
        for record in records:
            window.add(record)
            if window.is_full:
                yield Window(window.chosen(range(len(window))), read=len(window))
                window = _Records(dimensions)
    if len(window):
        yield Window(window.chosen(range(len(window))), read=len(window))


def document_windows(documents: Iterable[Document], dimensions: int) -> Iterator[Window]:
    """Cut a stream of documents into checked windows; a document is never divided."""
    window = _Records(dimensions)
    parts: dict[str, range] = {}
    read = 0
    with _first_error(lambda: window):
        for document_id, records in documents:
            # The id is checked also when nothing remains of the document.
            if document_id is None:
                raise RecordError("A document's id is None, not str.")
            checked_fields(Record("replace()", "", document_id=document_id))
            start = len(window)
            for record in records:
                window.add(record, document_id)
            parts[document_id] = range(start, len(window))
            read += 1
            if window.is_full or len(parts) >= WINDOW * _PARTS:
                yield _document_window(window, parts, read)
                window, parts, read = _Records(dimensions), {}, 0
    if parts:
        yield _document_window(window, parts, read)


def _document_window(window: _Records, parts: Mapping[str, range], read: int) -> Window:
    records = window.chosen(chain.from_iterable(parts.values()))
    return Window(records, exact=list(parts), read=read)


def ingest_windows(
    documents: Iterable[SourcedDocument], dimensions: int, *, run_sources: Collection[str]
) -> Iterator[Window]:
    """Cut a stream of documents that take no record and no id from one another's."""
    sources: dict[str, str] = {}

    def pairs() -> Iterator[Document]:
        for document, records, source in documents:
            if source is not None:
                sources[document] = source
            yield document, records

    for window in document_windows(pairs(), dimensions):
        # The next document is asked for when this window is taken.
        ours = {id: sources.pop(id) for id in window.exact if id in sources}
        yield replace(window, moves=False, sources=ours, run_sources=run_sources)


@contextmanager
def _first_error(window: Callable[[], _Records]) -> Iterator[None]:
    """Before any other error leaves, look whether a record before it has a bad vector."""
    try:
        yield
    except Exception:
        window().normalise()
        raise


class _Records:
    """Records as they come: each is checked, and its vector copied in case its array is used again.

    Vectors are brought to length 1 in the end, all at once: numpy's calls for each would cost more
    than all the rest, and let go of the interpreter's lock several times a record.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._records: list[Record] = []
        self._with_vector: list[Record] = []
        self._vectors = bytearray()
        self._filled = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def is_full(self) -> bool:
        """Tell whether these are enough for a window."""
        return self._filled >= WINDOW * _PARTS

    def add(self, record: Record, document_id: str | None = None) -> None:
        """Take one more, as a part of this document if one is given."""
        record = checked_fields(record)
        if document_id is not None:
            # Nobody else has this record yet.
            record.__dict__["document_id"] = document_id
        if record.vector is not None:
            vector = float32_vector(record, self._dimensions)
            self._vectors += vector.data if vector.flags.c_contiguous else vector.tobytes()
            # The caller's own vector is let go, which can be a list of many objects.
            record.__dict__["vector"] = None
            self._with_vector.append(record)
            self._filled += _parts_of(record, self._dimensions)
        else:
            self._filled += _PARTS
        self._records.append(record)

    def chosen(self, positions: Iterable[int]) -> list[Record]:
        """Return the records in these positions, of equal ids the last."""
        self.normalise()
        records = self._records
        chosen = {records[position].id: position for position in positions}
        return [records[position] for position in chosen.values()]

    def normalise(self) -> None:
        """Give each record its vector; raises ``RecordError`` for one that has no direction."""
        if not self._with_vector:
            return
        import numpy as np

        rows = np.frombuffer(self._vectors, np.float32).reshape(-1, self._dimensions)
        normalise(rows, lambda row: vector_of(self._with_vector[row]))
        for record, vector in zip(self._with_vector, rows, strict=True):
            record.__dict__["vector"] = vector


def _parts_of(record: Record, dimensions: int) -> int:
    """Return how much of a place in a window a record takes that brings its vector."""
    size = dimensions * 4 + len(record.text)
    return min(max(1, size // _PART_BYTES), _PARTS)


class WindowReader(Protocol):
    """A source of windows."""

    async def read(self, runtime: Runtime, dimensions: int) -> Window | None:
        """Return the next window, None at the end; ready vectors must have this size."""
        ...


class IterableReader(Generic[Item]):
    """Reads an iterable off the event loop, since that may read files."""

    def __init__(self, cut: Cut[Item], items: Iterable[Item]) -> None:
        self._cut = cut
        self._items = items
        self._windows: Iterator[Window] | None = None

    async def read(self, runtime: Runtime, dimensions: int) -> Window | None:
        """Return the next window, None at the end."""
        if self._windows is None:
            self._windows = self._cut(self._items, dimensions)
        return await runtime.offload(next, self._windows, None)


class AsyncIterableReader(Generic[Item]):
    """Reads an asynchronous iterable on the event loop, a window's size at a time."""

    def __init__(self, cut: Cut[Item], items: AsyncIterable[Item]) -> None:
        self._cut = cut
        self._items = aiter(items)
        self._batch: IterableReader[Item] | None = None
        self._ended = False

    async def read(self, runtime: Runtime, dimensions: int) -> Window | None:
        """Return the next window, None at the end."""
        while True:
            if self._batch is not None:
                window = await self._batch.read(runtime, dimensions)
                if window is not None:
                    return window
            if self._ended:
                return None
            self._batch = IterableReader(self._cut, await self._next_batch(dimensions))

    async def _next_batch(self, dimensions: int) -> list[Item]:
        batch: list[Item] = []
        filled = 0
        while filled < WINDOW * _PARTS:
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                self._ended = True
                break
            batch.append(item)
            # A list of numbers, which is copied later, takes many times the memory of an array.
            if isinstance(item, Record) and hasattr(item.vector, "nbytes"):
                filled += _parts_of(item, dimensions)
            else:
                filled += _PARTS
        return batch
