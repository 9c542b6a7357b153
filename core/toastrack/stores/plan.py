"""What of a window of records is embedded, and in which batches it is written.

No I/O happens here: a store says what it holds, writes what it is given, and does both in its
host's own words, sync or async.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from toastrack.batching.encoder import EncodingStream
from toastrack.records import Record, Report
from toastrack.stores.hashes import stored_hash, text_hash
from toastrack.stores.windows import Window
from toastrack.utils import arrays

Status = Literal["changed", "metadata", "unchanged"]
"""How a stored record compares to ours: its text or vector differs, only the rest does, nothing does."""

# Finished rows wait no longer than this for company, so that a kill loses about a second.
_FLUSH_SECONDS = 1.0
_FLUSH_ROWS = 256


class Row(NamedTuple):
    """A record with what is stored beside it."""

    record: Record
    text_hash: bytes
    vector: arrays.FloatVector | None = None
    """None where it is still to be made, and in a row whose stored vector stays."""
    source: str | None = None
    """Where its document comes from; None says nothing, and what is stored of it stays."""


@dataclass
class WriteBatch:
    """What goes to the host in one transaction, where it has any.

    Elsewhere in this order: rows, metadata_rows, and then what ``replaced`` leaves out goes. Each of
    them may be empty, no id comes twice, and the rows are of one window: some hundred, some thousand
    that brought their vectors, or one long document.
    """

    rows: list[Row] = field(default_factory=list)
    """Inserted, or updated as a whole."""
    metadata_rows: list[Row] = field(default_factory=list)
    """Stored already with their vector, which is None here; everything else is updated."""
    unchanged_rows: list[Row] = field(default_factory=list)
    """Of documents that are replaced: stored already to the letter, when they were compared."""
    replaced: dict[str, list[str]] = field(default_factory=dict)
    """Document id -> the record ids it consists of now; its other records are deleted."""
    new: set[str] = field(default_factory=set)
    """Ids of rows under which nothing was stored when they were compared."""
    documents: list[str] = field(default_factory=list)
    """The documents that are complete once this is written."""

    @property
    def writes(self) -> bool:
        """Tell whether the host has anything to do; where all is unchanged it has been compared."""
        return bool(self.rows or self.metadata_rows or self.replaced)


class WriteResult(NamedTuple):
    """What a write did."""

    written: int
    """Rows that were inserted or updated."""
    deleted: int
    """Rows of replaced documents that went."""
    missed: Collection[str] = ()
    """Ids of rows without a vector that are not stored any more, or with another text.

    Another writer was there since they were compared. The batch is written again with their vectors;
    a host with transactions has written nothing of it.
    """


def rows_of(window: Window, max_tokens: int, space: str = "") -> list[Row]:
    """Return the records of a window as rows, those with a ready vector complete.

    ``space`` is the digest of the store's: a vector that another store made of its text is taken in
    place of embedding it, if it would be the same.
    """
    return [
        _row(record, max_tokens, space, window.sources.get(record.document))
        for record in window.records
    ]


def _row(record: Record, max_tokens: int, space: str, source: str | None) -> Row:
    stored = None if record.reading is None else stored_hash(record, max_tokens, space)
    if stored is None and record.vector_from_text:
        record = replace(record, vector=None)
    made = text_hash(record, max_tokens) if stored is None else stored
    return Row(record, made, record.vector, source)  # type: ignore[arg-type]


class WindowPlan:
    """One window on its way to the host: what of it needs a vector is with the engine already.

    ``statuses`` says how the host's copy compares, by id; an absent id is new.
    Raises ``TruncationError`` naming the record, if the embedder was told not to cut.
    """

    def __init__(
        self,
        window: Window,
        rows: Sequence[Row],
        statuses: Mapping[str, Status],
        stream: EncodingStream,
    ) -> None:
        self.window = window
        self._statuses = statuses
        self._rows = rows
        self._to_embed = [row for row in rows if row.vector is None and self._is_changed(row)]
        self._vectors = stream.add(
            [row.record.text for row in self._to_embed],
            lambda position: f"Record {self._to_embed[position].record.id!r}",
        )

    @property
    def waits(self) -> bool:
        """Tell whether the engine has something to do before all of it can be written."""
        return bool(self._to_embed)

    def _is_changed(self, row: Row) -> bool:
        return self._statuses.get(row.record.id, "changed") == "changed"

    def batches(self, report: Report, monotonic: Callable[[], float]) -> Iterator[WriteBatch]:
        """Yield what to write as the vectors come; the numbers are added to ``report``.

        All of a document's rows come in one write, so that a reader sees its old text or its new
        one. An empty batch says that a long document is still being embedded.
        """
        report.read += self.window.read
        report.chunks += len(self._rows)
        if not self.window.exact and not self._to_embed:
            if self._rows:
                yield self._ready_batch(report)
            return
        exact = dict.fromkeys(self.window.exact, 0)
        rows = Counter(exact)
        rows.update([row.record.document for row in self._rows])
        # Documents of which there is more to write than one row.
        held = {document: WriteBatch() for document, count in rows.items() if count > 1}
        held.update((document, WriteBatch(replaced={document: []})) for document in exact)
        for row in self._rows:
            if row.record.document in exact:
                held[row.record.document].replaced[row.record.document].append(row.record.id)

        pending = WriteBatch()
        last_flush = monotonic()

        def settle(row: Row, into: Status) -> None:
            document = row.record.document
            part = held.get(document, pending)
            if into == "changed":
                part.rows.append(row)
                if row.record.id not in self._statuses:
                    part.new.add(row.record.id)
            elif into == "metadata":
                part.metadata_rows.append(row)
            elif document in exact:
                part.unchanged_rows.append(row)
            rows[document] -= 1
            if not rows[document]:
                finish(document)

        def finish(document: str) -> None:
            if document in held:
                done = held.pop(document)
                pending.rows.extend(done.rows)
                pending.new |= done.new
                pending.metadata_rows.extend(done.metadata_rows)
                pending.unchanged_rows.extend(done.unchanged_rows)
                pending.replaced.update(done.replaced)
            pending.documents.append(document)

        for document in exact:
            if not rows[document]:
                finish(document)

        for row in self._rows:
            status = self._statuses.get(row.record.id, "changed")
            if status != "changed":
                report.unchanged += status == "unchanged"
                settle(Row(row.record, row.text_hash, None, row.source), status)
            elif row.vector is not None:
                settle(row, status)

        for positions, vectors in self._vectors:
            report.embedded += len(positions)
            for position, vector in zip(positions, vectors, strict=True):
                row = self._to_embed[position]
                settle(row._replace(vector=vector), "changed")
            waited = monotonic() - last_flush > _FLUSH_SECONDS
            if waited or len(pending.rows) >= _FLUSH_ROWS:
                yield pending
                pending, last_flush = WriteBatch(), monotonic()
        if pending.documents:
            yield pending

    def _ready_batch(self, report: Report) -> WriteBatch:
        """Return what there is to write where nothing has to wait, and no document to be kept whole."""
        batch = WriteBatch(documents=list({row.record.document: None for row in self._rows}))
        statuses = self._statuses
        for row in self._rows:
            status = statuses.get(row.record.id)
            if status is None:
                batch.rows.append(row)
                batch.new.add(row.record.id)
            elif status == "changed":
                batch.rows.append(row)
            elif status == "metadata":
                batch.metadata_rows.append(row._replace(vector=None))
            else:
                report.unchanged += 1
        return batch


def with_vectors(batch: WriteBatch, made: Sequence[Row]) -> WriteBatch:
    """Return a batch in which some rows have their vector now."""
    ids = {row.record.id for row in made}

    def others(rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if row.record.id not in ids]

    return replace(
        batch,
        rows=[*batch.rows, *made],
        metadata_rows=others(batch.metadata_rows),
        unchanged_rows=others(batch.unchanged_rows),
    )
