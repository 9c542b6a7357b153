"""What of a window of records must be embedded, and in which portions it is written.

No I/O happens here: a store says what it holds, writes what it is given, and does both in its
host's own words, sync or async.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from toastrack.embedding import Stream
from toastrack.records import Record, Report, checked, last_of_each_id, text_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toastrack.store import Document

State = Literal["changed", "metadata", "unchanged"]
"""How a stored record compares to ours: its text or vector differs, only the rest does, nothing does."""

# Records looked up, sorted by length and embedded together.
WINDOW = 512
# Finished rows wait no longer than this for company, so that a kill loses about a second.
_FLUSH_SECONDS = 1.0
_FLUSH_ROWS = 256


@dataclass(frozen=True)
class Row:
    """A record with what is stored beside it."""

    record: Record
    text_hash: bytes
    vector: NDArray[np.float32] | None = None
    """None in a row whose stored vector stays."""


@dataclass
class Write:
    """What goes to the host in one transaction, where it has any.

    Elsewhere in this order: rows, metadata_rows, and then what ``keep`` leaves out goes.
    """

    rows: list[Row] = field(default_factory=list)
    """Inserted, or updated as a whole."""
    metadata_rows: list[Row] = field(default_factory=list)
    """Stored already with their vector, which is None here; everything else is updated."""
    keep: dict[str, list[str]] = field(default_factory=dict)
    """Document id -> the record ids it consists of now; its other records are deleted."""
    documents: list[str] = field(default_factory=list)
    """The documents that are complete once this is written."""


@dataclass(frozen=True)
class Window:
    """Records that are looked up and embedded together."""

    records: Sequence[Record]
    exact: Collection[str] = ()
    """Documents of which these are all the records."""
    read: int = 0
    """How many inputs became these records."""


def record_windows(records: Iterable[Record], dimensions: int | None) -> Iterator[Window]:
    """Cut a stream of records into checked windows; the last of equal ids in a window wins."""
    window: list[Record] = []
    if isinstance(records, Record):
        raise TypeError("A list of records is wanted and one Record was given. Write [record].")
    for record in records:
        window.append(checked(record, dimensions=dimensions))
        if len(window) >= WINDOW:
            yield Window(last_of_each_id(window), read=len(window))
            window = []
    if window:
        yield Window(last_of_each_id(window), read=len(window))


def document_windows(documents: Iterable[Document], dimensions: int | None) -> Iterator[Window]:
    """Cut a stream of documents into checked windows; a document is never divided."""
    window: dict[str, list[Record]] = {}
    size = read = 0
    for document_id, records in documents:
        # The id is checked also when nothing remains of the document.
        checked(Record("replace()", "", document_id=document_id), dimensions=None)
        parts = [
            replace(checked(record, dimensions=dimensions), document_id=document_id)
            for record in records
        ]
        read += 1
        window[document_id] = last_of_each_id(parts)
        size += len(parts)
        if size >= WINDOW or len(window) >= WINDOW:
            yield _document_window(window, read)
            window, size, read = {}, 0, 0
    if window:
        yield _document_window(window, read)


def _document_window(window: Mapping[str, Sequence[Record]], read: int) -> Window:
    records = last_of_each_id(record for parts in window.values() for record in parts)
    return Window(records, exact=list(window), read=read)


class Portions:
    """One window on its way to the host: what of it needs a vector is with the engine already.

    ``states`` says how the host's copy compares, by id; an absent id is new.
    Raises ``TruncationError`` naming the record, if the embedder was told not to cut.
    """

    def __init__(
        self, window: Window, states: Mapping[str, State], stream: Stream, limit: int
    ) -> None:
        self.window = window
        self._states = states
        self._rows = [Row(record, text_hash(record, limit)) for record in window.records]
        self._to_embed = [row for row in self._rows if self._needs_vector(row)]
        self._batches = stream.add(
            [row.record.text for row in self._to_embed],
            lambda position: f"Record {self._to_embed[position].record.id!r}",
        )

    @property
    def waits(self) -> bool:
        """Tell whether the engine has something to do before all of it can be written."""
        return bool(self._to_embed)

    def _needs_vector(self, row: Row) -> bool:
        changed = self._states.get(row.record.id, "changed") == "changed"
        return changed and row.record.vector is None

    def writes(self, report: Report) -> Iterator[Write]:
        """Yield what to write as the vectors come; the numbers are added to ``report``.

        All of a document's rows come in one write, so that a reader sees its old text or its new
        one.
        """
        exact = dict.fromkeys(self.window.exact, 0)
        rows = Counter(exact)
        rows.update([row.record.document for row in self._rows])
        # Documents of which there is more to write than one row.
        held = {document: Write() for document, count in rows.items() if count > 1}
        held.update((document, Write(keep={document: []})) for document in exact)
        for row in self._rows:
            if row.record.document in exact:
                held[row.record.document].keep[row.record.document].append(row.record.id)

        report.read += self.window.read
        report.chunks += len(self._rows)
        pending = Write()
        last_flush = time.monotonic()

        def settle(row: Row, into: State) -> None:
            document = row.record.document
            part = held.get(document, pending)
            if into == "changed":
                part.rows.append(row)
            elif into == "metadata":
                part.metadata_rows.append(row)
            rows[document] -= 1
            if not rows[document]:
                finish(document)

        def finish(document: str) -> None:
            if document in held:
                done = held.pop(document)
                pending.rows.extend(done.rows)
                pending.metadata_rows.extend(done.metadata_rows)
                pending.keep.update(done.keep)
            pending.documents.append(document)

        for document in exact:
            if not rows[document]:
                finish(document)

        for row in self._rows:
            record = row.record
            state = self._states.get(record.id, "changed")
            if state != "changed":
                report.unchanged += state == "unchanged"
                settle(row, state)
            elif record.vector is not None:
                settle(Row(record, row.text_hash, _float32(record.vector)), state)

        for positions, vectors in self._batches:
            report.embedded += len(positions)
            for position, vector in zip(positions, vectors, strict=True):
                row = self._to_embed[position]
                settle(Row(row.record, row.text_hash, vector), "changed")
            waited = time.monotonic() - last_flush > _FLUSH_SECONDS
            if pending.documents and (waited or len(pending.rows) >= _FLUSH_ROWS):
                yield pending
                pending, last_flush = Write(), time.monotonic()
        if pending.documents:
            yield pending


def _float32(vector: object) -> NDArray[np.float32]:
    import numpy as np

    return np.asarray(vector, dtype=np.float32)
