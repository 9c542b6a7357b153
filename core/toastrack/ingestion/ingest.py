"""Read, split, embed, write: a folder or a stream of records into a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal

from toastrack.errors import RecordError, SourceError
from toastrack.ingestion.readers import BadInput, Columns, SourceDocument
from toastrack.ingestion.sources import SourceFile, find_files
from toastrack.records import Record, Report
from toastrack.stores.checks import checked
from toastrack.stores.id_set import IdSet
from toastrack.stores.protocol import Document, IngestStore, Store

StrPath = str | os.PathLike[str]

_DELETE_PAGE = 1_000


@dataclass(frozen=True)
class Progress:
    """How far an ingest is: what ``on_progress`` is called with after each write.

        def show(progress: Progress) -> None:
            print(progress.report.embedded, "texts embedded so far")

        ingest([Record("rye", "Rye bread keeps for a week.")], store, on_progress=show)

    Attributes:
        report: The numbers so far.
        bytes_done: How many bytes of the sources were read and written.
        bytes_total: How many bytes the sources have; None for records and standard input.
    """

    report: Report
    bytes_done: int
    bytes_total: int | None


def ingest(
    sources: StrPath | Iterable[StrPath | Record],
    store: IngestStore,
    *,
    prune: bool = False,
    skip_bad: bool = False,
    overlap: int = 0,
    text_column: str = "text",
    id_column: str = "id",
    id_from: Literal["column", "content"] = "column",
    vector_column: str | None = None,
    metadata_columns: Sequence[str] | None = None,
    column_types: Mapping[str, type] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_bad: Callable[[str], None] | None = None,
) -> Report:
    """Put files or records into a store; run it again and only what changed is embedded.

        report = ingest("handbook/", store)
        print(report.read, "documents,", report.embedded, "chunks embedded")

    A text that fits the model keeps its id; a longer one is split into ``id#0``, ``id#1``, ...
    What was written stays when a run is stopped, and the next one goes on from there.

    Args:
        sources: Folders and files (.txt, .md, .jsonl, .csv, .parquet; .gz of the first four), or
            records; one or many. "-" is JSON Lines on standard input.
        store: Where they go.
        prune: Delete the store's documents that these sources do not have.
        skip_bad: Count what cannot be read or stored instead of stopping at it.
        overlap: Tokens that neighbouring chunks of one document share.
        text_column: The field of a row that is embedded.
        id_column: The field of a row that names it.
        id_from: "content" names a row by the sha256 of its text instead.
        vector_column: The field of a row that holds a ready vector, stored as it is.
        metadata_columns: The fields of a row to keep beside its text; None keeps all.
        column_types: What a field of a CSV is: int, float, bool or str.
        on_progress: Called after each write.
        on_bad: Called with one sentence for each input that ``skip_bad`` left out.

    Raises:
        SourceError: A source cannot be read, or two documents have one id; names file and line.
        RecordError: The store cannot hold a record; names it and where it stands.
        SpaceMismatchError: The store was built in another embedding space.
        StoreError: The table or collection cannot be used as it is.
        ModelError: The model cannot be found, read or run.
        ValueError: ``prune`` and ``skip_bad`` are both given, or an argument cannot be.
    """
    started = time.monotonic()
    columns = _columns(
        Columns(
            text=text_column,
            id=id_column,
            id_from=id_from,
            vector=vector_column,
            metadata=metadata_columns,
            types=column_types or {},
        )
    )
    if prune and skip_bad:
        raise ValueError(
            "prune=True and skip_bad=True cannot go together: a document that cannot be read today would be "
            "deleted from the store."
        )
    files, records = _sort_sources(sources)
    sizes = [file.size for file in files if file.size is not None]
    total = sum(sizes) if files and len(sizes) == len(files) else None
    with closing(IdSet()) as ids, closing(IdSet()) as documents:
        run = _Run(store, ids, documents, overlap=overlap, on_bad=on_bad, skip_bad=skip_bad)

        def on_write(report: Report, documents: Sequence[str]) -> None:
            run.bytes_done += sum(run.in_flight.pop(document, 0) for document in documents)
            if on_progress is not None:
                shown = replace(report, skipped=run.skipped)
                on_progress(Progress(shown, run.bytes_done, total))

        inputs = (item for file in files for item in file.read(columns))
        report = store.replace_many(run.documents(inputs, records), on_write)
        report.skipped += run.skipped
        if prune:
            report.deleted += _prune(store, documents)
    report.seconds = time.monotonic() - started
    return report


def _columns(columns: Columns) -> Columns:
    if columns.id_from not in ("column", "content"):
        raise ValueError(f"id_from={columns.id_from!r} is not 'column' or 'content'.")
    for name, kind in columns.types.items():
        if kind not in (int, float, bool, str):
            raise ValueError(f"column_types: {name!r} is {kind!r}, not int, float, bool or str.")
    return columns


class _Run:
    """Turns inputs into the documents of one run."""

    def __init__(
        self,
        store: IngestStore,
        ids: IdSet,
        documents: IdSet,
        *,
        overlap: int,
        skip_bad: bool,
        on_bad: Callable[[str], None] | None,
    ) -> None:
        self.store = store
        self.ids = ids
        self.document_ids = documents
        self.overlap = overlap
        self.skip_bad = skip_bad
        self.on_bad = on_bad
        self.skipped = 0
        self.bytes_done = 0
        self.in_flight: dict[str, int] = {}

    def documents(
        self, inputs: Iterable[tuple[SourceDocument | BadInput, int]], records: Iterable[Record]
    ) -> Iterator[Document]:
        for item, size in inputs:
            if isinstance(item, BadInput):
                self._bad(SourceError(item.message))
                self.bytes_done += size
                continue
            record = Record(item.id, item.text, item.metadata, vector=item.vector)
            document = self._document(record, item.location)
            if document is None:
                self.bytes_done += size
            else:
                self.in_flight[document[0]] = size
                yield document
        for number, record in enumerate(records, start=1):
            document = self._document(record, f"record {number}")
            if document is not None:
                yield document

    def _document(self, record: Record, location: str) -> Document | None:
        """Return the records of one document, or None if it is bad and may be left out."""
        try:
            record = checked(record, dimensions=self.store.embedder.dimensions)
            self.store._check(record)
        except RecordError as error:
            self._bad(RecordError(f"{location}: {error}"))
            return None
        self._note(record.id, location)
        self.document_ids.add([record.id])
        if not record.text.strip() and record.vector is None:
            self.skipped += 1
            return record.id, []
        parts = [record.text]
        if record.vector is None:
            parts = self.store.embedder.split(record.text, overlap=self.overlap)
        if len(parts) == 1:
            return record.id, [record]
        chunks = [
            Record(f"{record.id}#{i}", part, record.metadata, document_id=record.id, chunk=i)
            for i, part in enumerate(parts)
        ]
        for chunk in chunks:
            self._note(chunk.id, f"{location} (chunk {chunk.chunk})")
        return record.id, chunks

    def _note(self, id: str, location: str) -> None:
        """Raise ``SourceError`` naming both places if this run had the id already."""
        first = self.ids.add_at(id, location)
        if first is not None:
            raise SourceError(
                f"The id {id!r} comes twice: from {first} and from {location}. Ids must be unique "
                "within one run."
            )

    def _bad(self, error: SourceError | RecordError) -> None:
        if not self.skip_bad:
            raise error
        self.skipped += 1
        if self.on_bad is not None:
            self.on_bad(str(error))


def _sort_sources(
    sources: StrPath | Iterable[StrPath | Record],
) -> tuple[list[SourceFile], Iterator[Record]]:
    """Return the files to read, or the stream of records; a stream is not read ahead."""
    if isinstance(sources, (str, os.PathLike)):
        return find_files([sources]), iter(())
    items = iter(sources)
    first = next(items, None)
    if first is None:
        raise SourceError("There is nothing to ingest: no source was given.")
    if isinstance(first, Record):
        return [], _records(first, items)
    paths: list[StrPath] = []
    for item in (first, *items):
        if isinstance(item, Record):
            raise TypeError("ingest takes paths or records, not both in one call.")
        paths.append(item)
    return find_files(paths), iter(())


def _records(first: Record, others: Iterable[StrPath | Record]) -> Iterator[Record]:
    for record in chain([first], others):
        if not isinstance(record, Record):
            raise TypeError("ingest takes paths or records, not both in one call.")
        yield _whole(record)


def _whole(record: Record) -> Record:
    if record.document != record.id:
        raise SourceError(
            f"Record {record.id!r} is a part of {record.document!r}; ingest takes whole documents "
            "and splits them itself. Store ready parts with store.replace()."
        )
    return record


def _prune(store: Store, documents: IdSet) -> int:
    if not len(documents):
        raise SourceError("The sources hold no document; prune=True would empty the store.")
    gone = (id for id in store.document_ids() if id not in documents)
    deleted = 0
    while page := list(islice(gone, _DELETE_PAGE)):
        deleted += store.delete(documents=page)
    return deleted
