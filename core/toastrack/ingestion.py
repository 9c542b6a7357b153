"""Read, split, embed, write: a folder or a stream of records into a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal

from toastrack.embedder import Embedder
from toastrack.errors import SourceError
from toastrack.readers import Columns, Input
from toastrack.records import Record, Report
from toastrack.seen import SeenIds
from toastrack.sources import SourceFile, find_files
from toastrack.store import Document, Store

Path = str | os.PathLike[str]

_DELETE_PAGE = 1_000


@dataclass(frozen=True)
class Progress:
    """How far an ingest is; ``bytes_total`` is None for a stream of records."""

    report: Report
    bytes_done: int
    bytes_total: int | None


def ingest(
    sources: Path | Iterable[Path | Record],
    store: Store,
    *,
    prune: bool = False,
    overlap: int = 0,
    text_column: str = "text",
    id_column: str = "id",
    id_from: Literal["column", "content"] = "column",
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Put files or records into a store; run it again and only what changed is embedded.

        ingest("handbook/", store)

    A text that fits the model keeps its id; a longer one is split into ``id#0``, ``id#1``, ...
    What was written stays when a run is stopped, and the next one goes on from there.

    Args:
        sources: Folders and files (.txt, .md, .jsonl), or records; one or many.
        store: Where they go.
        prune: Delete the store's documents that these sources do not have.
        overlap: Tokens that neighbouring chunks of one document share.
        text_column: The field of a row that is embedded.
        id_column: The field of a row that names it.
        id_from: "content" names a row by the sha256 of its text instead.
        on_progress: Called after each write.

    Raises:
        SourceError: A source cannot be read, or two documents have one id; names the place.
        RecordError: The store cannot hold a record; names it.
    """
    started = time.monotonic()
    if id_from not in ("column", "content"):
        raise ValueError(f"id_from={id_from!r} is not 'column' or 'content'.")
    files, records = _sort_sources(sources)
    total = sum(file.size for file in files) if files else None
    columns = Columns(text=text_column, id=id_column, id_from=id_from)
    with closing(SeenIds()) as seen:
        run = _Run(store.embedder, seen, overlap)

        def on_write(report: Report, documents: Sequence[str]) -> None:
            run.bytes_done += sum(run.in_flight.pop(document, 0) for document in documents)
            if on_progress is not None:
                shown = replace(report, skipped=run.blank)
                on_progress(Progress(shown, run.bytes_done, total))

        documents = run.documents(_read(files, columns), records)
        report = store.replace_many(documents, on_write)
        report.skipped += run.blank
        if prune:
            report.deleted += _prune(store, seen)
    report.seconds = time.monotonic() - started
    return report


class _Run:
    """Turns inputs into the documents of one run."""

    def __init__(self, embedder: Embedder, seen: SeenIds, overlap: int) -> None:
        self.embedder = embedder
        self.seen = seen
        self.overlap = overlap
        self.blank = 0
        self.bytes_done = 0
        self.in_flight: dict[str, int] = {}

    def documents(self, inputs: Iterable[Input], records: Iterable[Record]) -> Iterator[Document]:
        for item in inputs:
            self.in_flight[item.id] = item.size
            yield self._document(Record(item.id, item.text, item.metadata), item.place)
        for number, record in enumerate(records, start=1):
            yield self._document(record, f"record {number}")

    def _document(self, record: Record, place: str) -> Document:
        self.seen.add(record.id, place, document=True)
        if not record.text.strip() and record.vector is None:
            self.blank += 1
            return record.id, []
        parts = [record.text]
        if record.vector is None:
            parts = self._split(record.text, place)
        if len(parts) == 1:
            return record.id, [record]
        chunks = [
            Record(f"{record.id}#{i}", part, record.metadata, document_id=record.id, chunk=i)
            for i, part in enumerate(parts)
        ]
        for chunk in chunks:
            self.seen.add(chunk.id, f"{place} (chunk {chunk.chunk})", document=False)
        return record.id, chunks

    def _split(self, text: str, place: str) -> list[str]:
        try:
            return self.embedder.split(text, overlap=self.overlap)
        except ValueError as error:
            raise SourceError(f"{place}: {error}") from None


def _sort_sources(
    sources: Path | Iterable[Path | Record],
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
    paths: list[Path] = []
    for item in (first, *items):
        if isinstance(item, Record):
            raise TypeError("ingest takes paths or records, not both in one call.")
        paths.append(item)
    return find_files(paths), iter(())


def _records(first: Record, others: Iterable[Path | Record]) -> Iterator[Record]:
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


def _read(files: Iterable[SourceFile], columns: Columns) -> Iterator[Input]:
    for file in files:
        try:
            yield from file.reader(file.path, file.name, columns)
        except OSError as error:
            raise SourceError(f"{file.path}: {error.strerror or error}.") from error


def _prune(store: Store, seen: SeenIds) -> int:
    if not seen.documents:
        raise SourceError("The sources hold no document; prune=True would empty the store.")
    gone = (id for id in store.document_ids() if not seen.is_document(id))
    deleted = 0
    while page := list(islice(gone, _DELETE_PAGE)):
        deleted += store.delete(documents=page)
    return deleted
