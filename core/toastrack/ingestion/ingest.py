"""Read, split, embed, write: a folder or a stream of records into a store."""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from inspect import iscoroutinefunction
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from toastrack.errors import MissingExtraError, RecordError, SourceError
from toastrack.ingestion.objects import Row, Table, is_row, is_table, read_objects, rows_of
from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.base import Place
from toastrack.ingestion.readers.decoding import is_encoding
from toastrack.ingestion.readers.template import Template
from toastrack.ingestion.sources import SourceFile, find_files, lacking_for
from toastrack.records import Record, Report, Skip, SkipKind
from toastrack.stores.checks import checked
from toastrack.stores.chunk_places import place
from toastrack.stores.id_set import IdSet
from toastrack.stores.protocol import Document, IngestStore, SourcedDocument
from toastrack.utils.text import check_unicode

StrPath = str | os.PathLike[str]

_DELETE_PAGE = 1_000
# Documents of which a store is asked at once where they came from.
_SOURCE_PAGE = 500
# Of a report; more of them are only counted.
_SKIPS = 10_000


@dataclass(frozen=True)
class Progress:
    """How far an ingest is: what ``on_progress`` is called with.

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
    sources: StrPath | Table | Iterable[StrPath | Row],
    store: IngestStore,
    *,
    source: str | None = None,
    prefix: str | None = None,
    prune: bool = False,
    skip_bad: bool = False,
    overlap: int = 0,
    text_column: str = "text",
    text: str | None = None,
    id_column: str = "id",
    id_from: Literal["column", "content"] = "column",
    vector_column: str | None = None,
    metadata_columns: Sequence[str] | None = None,
    column_types: Mapping[str, type] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_skip: Callable[[Skip], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Report:
    """Put files or records into a store; run it again and only what changed is embedded.

        report = ingest("handbook/", store)
        print(report.read, "documents,", report.embedded, "chunks embedded")

    A text that fits the model keeps its id; a longer one is split into ``id#0``, ``id#1``, ...
    What was written stays when a run is stopped, and the next one goes on from there.

    Args:
        sources: Folders and files, or records; one or many. Files are text (.txt, .text, .rst),
            Markdown (.md, .markdown), rows (.jsonl, .ndjson, .json, .csv, .tsv, .parquet) and, with
            the extra ``files``, .html, .pdf and .docx; "-" is JSON Lines on standard input. In place
            of records there may be mappings, a frame of pandas or polars, an Arrow table,
            LangChain's documents or LlamaIndex' nodes.
        store: Where they go.
        source: Names where all of it comes from. None: of files the absolute path of the folder that
            was given, or in which a given file lies; of records and standard input nothing. A
            document that is stored from another source is taken over if its text is the same.
        prefix: Stands before each id, with a "/" between them: two folders whose files have the same
            names go into one store under two prefixes.
        prune: Delete the stored documents of the sources of this run that it does not have, of
            records and standard input without a name those without a source; with a prefix only
            those under it.
        skip_bad: Leave out what cannot be read or stored instead of stopping at it.
        overlap: Tokens that neighbouring chunks of one document share.
        text_column: The field of a row that is embedded.
        text: Makes that text of several fields, "{title}: {body}", which stay metadata, too.
        id_column: The field of a row that names it.
        id_from: "content" names a row by the sha256 of its text instead.
        vector_column: The field of a row that holds a ready vector, stored as it is.
        metadata_columns: The fields of a row to keep beside its text; None keeps all.
        column_types: What a field of a CSV is: int, float, bool, str, date or datetime; of the last
            two ISO 8601 is read and stored.
        delimiter: What stands between the fields of a CSV; None finds it in the header.
        encoding: Of text files that are not UTF-8 and have no byte order mark.
        on_progress: Called after each write, and each second while a long document is embedded.
        on_skip: Called with each input that is left out, and why; the report has them, too.
        on_note: Called with one sentence for what was found by itself, such as a delimiter.

    Raises:
        SourceError: A source cannot be read, or two documents have one id; names file and line. Or
            a document is stored from another source with another text; names both.
        MissingExtraError: There is a file of a format whose extra is not installed.
        RecordError: The store cannot hold a record, or has its id in another document; names it.
        SpaceMismatchError: The store was built in another embedding space.
        StoreError: The table or collection cannot be used as it is.
        ModelError: The model cannot be found, read or run, or its server does not answer.
        TypeError: A source is neither a path nor a record, nor many of one of them.
        ValueError: ``prune`` and ``skip_bad`` are both given, or an argument cannot be.
    """
    started = time.monotonic()
    options = _checked(
        ReadOptions(
            text=text_column,
            template=None if text is None else Template.parse(text),
            id=id_column,
            id_from=id_from,
            vector=vector_column,
            metadata=metadata_columns,
            types=column_types or {},
            delimiter=delimiter,
            encoding=encoding,
            say=on_note,
        )
    )
    if prune and skip_bad:
        raise ValueError(
            "prune=True and skip_bad=True cannot go together: a document that cannot be read today would be "
            "deleted from the store."
        )
    if prefix is not None and not prefix.strip("/"):
        raise ValueError(
            f"prefix={prefix!r} is no name. Leave it out, or write one like 'handbook'."
        )
    prefix = "" if prefix is None else prefix.rstrip("/") + "/"
    if source is not None:
        _check_source(source)
    found, objects = _sort_sources(sources)
    files = [
        item if source is None else replace(item, source=source)
        for item in found
        if isinstance(item, SourceFile)
    ]
    origins = {source} if not found else {file.source for file in files}
    named = {origin for origin in origins if origin is not None}
    _check_store(store)
    if not skip_bad:
        lacking = lacking_for(files)
        if lacking.packages:
            packages, extras = ", ".join(lacking.packages), ",".join(lacking.extras)
            raise MissingExtraError(packages, extras, lacking.hint)
    sizes = [file.size for file in files if file.size is not None]
    total = sum(sizes) if files and len(sizes) == len(files) else None
    with closing(IdSet()) as ids, closing(IdSet()) as documents:
        run = _Run(
            store,
            ids,
            documents,
            named,
            prefix=prefix,
            overlap=overlap,
            skip_bad=skip_bad,
            on_skip=on_skip,
        )
        for item in found:
            if isinstance(item, Skip):
                run.skip(item)

        def on_write(report: Report, documents: Sequence[str]) -> None:
            run.bytes_done += sum(run.in_flight.pop(document, 0) for document in documents)
            if on_progress is not None:
                on_progress(Progress(run.counted(report), run.bytes_done, total))

        inputs = chain(
            (
                _Input(item, file.source, size, file.name)
                for file in files
                for item, size in file.read(options)
            ),
            (_Input(item, source) for item in read_objects(objects, options)),
        )
        if prune and named:
            # Where nobody knows what came from where, that is said before anything is written.
            next(iter(store._documents_of(named)), None)
        # Files of rows would be read twice, which is asked for only where it can matter.
        has_rows = any(file.format.rows and file.path for file in files)
        if named and files and not (has_rows and not store._has_other_source(named)):
            store._check_sources(run.stored_elsewhere(files, options), named)
        report = run.counted(store._ingest(run.documents(inputs), named, on_write))
        if prune:
            beside = {file.path.parent for file in files if file.named and file.path}
            report.deleted += _prune(
                store, documents, prefix, origins, beside if source is None else ()
            )
    report.seconds = time.monotonic() - started
    return report


def _checked(options: ReadOptions) -> ReadOptions:
    if options.id_from not in ("column", "content"):
        raise ValueError(f"id_from={options.id_from!r} is not 'column' or 'content'.")
    if options.template is not None and options.text != "text":
        raise ValueError("text= and text_column= both say what is embedded. Give one of them.")
    for name, kind in options.types.items():
        if kind not in (int, float, bool, str, date, datetime):
            raise ValueError(
                f"column_types: {name!r} is {kind!r}, not int, float, bool, str, date or datetime."
            )
    if options.delimiter is not None and (
        len(options.delimiter) != 1 or options.delimiter in '"\r\n'
    ):
        raise ValueError(f"delimiter={options.delimiter!r} is not one sign, such as ';' or a tab.")
    if options.encoding is not None and not is_encoding(options.encoding):
        raise ValueError(
            f"encoding={options.encoding!r} is not known. Common ones are 'utf-8', 'utf-16', "
            "'latin-1' and 'cp1252'."
        )
    return options


def _check_store(store: object) -> None:
    if not hasattr(store, "_ingest"):
        raise TypeError(
            f"ingest takes a store, such as PostgresStore(...), not {type(store).__name__}."
        )
    if iscoroutinefunction(store._ingest):
        raise TypeError(
            f"{type(store).__name__} is awaited, and ingest is not. Give it the store without Async, in a "
            "program of asyncio's by asyncio.to_thread(ingest, ...)."
        )


def _check_source(source: str) -> None:
    if not isinstance(source, str):
        raise TypeError(f"source= takes a name, not {type(source).__name__}.")
    if not source.strip() or "\0" in source:
        raise ValueError(
            f"source={source!r} is no name. Leave it out, or write one like 'handbook'."
        )
    check_unicode(source, "source=")


class _Input(NamedTuple):
    """One input, and where it comes from."""

    item: SourceDocument | Record | BadInput
    source: str | None
    size: int = 0
    """How many bytes of its file it took."""
    name: str = ""
    """Of its file."""


class _Run:
    """Turns inputs into the documents of one run."""

    def __init__(
        self,
        store: IngestStore,
        ids: IdSet,
        documents: IdSet,
        sources: Collection[str],
        *,
        prefix: str,
        overlap: int,
        skip_bad: bool,
        on_skip: Callable[[Skip], None] | None,
    ) -> None:
        self.store = store
        self.ids = ids
        self.document_ids = documents
        self.sources = sources
        self.prefix = prefix
        self.overlap = overlap
        self.skip_bad = skip_bad
        self.on_skip = on_skip
        self.skips: list[Skip] = []
        self.kinds: Counter[SkipKind] = Counter()
        self.blank = 0
        self.bytes_done = 0
        self.in_flight: dict[str, int] = {}

    def counted(self, report: Report) -> Report:
        """Return a report of the store's with what was left out."""
        return replace(
            report,
            read=report.read - self.blank,
            skipped=sum(self.kinds.values()),
            skipped_by_kind=dict(self.kinds),
            skips=list(self.skips),
        )

    def skip(self, skip: Skip, error: type[ValueError] = SourceError) -> None:
        """Note what is left out; raises ``error`` if it may not be."""
        if skip.kind == "cannot be read" and not self.skip_bad:
            raise error(f"{skip} To leave it out: skip_bad=True.")
        self.kinds[skip.kind] += 1
        if len(self.skips) < _SKIPS:
            self.skips.append(skip)
        if self.on_skip is not None:
            self.on_skip(skip)

    def stored_elsewhere(
        self, files: Iterable[SourceFile], options: ReadOptions
    ) -> Iterator[SourcedDocument]:
        """Yield the documents of files that are stored from a source that is none of the run's.

        Only files of rows are read for it: of the others the name tells the id.
        """
        candidates = self._candidates(files, replace(options, say=None))
        while page := list(islice(candidates, _SOURCE_PAGE)):
            stored = self.store._stored_sources([id for id, _, _ in page])
            for id, file, read in page:
                if id in stored and stored[id].source not in self.sources:
                    yield from self._documents_in(read, file.source)

    def _candidates(
        self, files: Iterable[SourceFile], options: ReadOptions
    ) -> Iterator[tuple[str, SourceFile, Iterable[SourceDocument | BadInput]]]:
        for file in files:
            if file.path is None:
                continue  # it is read only once, and compared then
            read = (item for item, _ in file.read(options))
            if not file.format.rows:
                yield self.prefix + file.name, file, read
                continue
            for item in read:
                if isinstance(item, SourceDocument):
                    yield self.prefix + item.id, file, [item]

    def _documents_in(
        self, items: Iterable[SourceDocument | BadInput], source: str | None
    ) -> Iterator[SourcedDocument]:
        for item in items:
            # What cannot be read or stored is told of when it is its turn.
            with suppress(RecordError):
                if isinstance(item, SourceDocument):
                    record = self._record(item)
                    yield record.id, self._parts(record, item), source

    def documents(self, inputs: Iterable[_Input]) -> Iterator[SourcedDocument]:
        """Yield the documents of the run, noting what is left out."""
        for number, (item, source, size, name) in enumerate(inputs, start=1):
            if isinstance(item, BadInput):
                self.skip(Skip(name or item.location, item.location, item.reason, item.kind))
                document = None
            else:
                document = self._document(item, number)
            if document is None:
                self.bytes_done += size
            else:
                self.in_flight[document[0]] = size
                yield (*document, source)

    def _record(self, item: SourceDocument | Record) -> Record:
        """Return an input as one record; raises ``RecordError`` for what the store cannot hold."""
        if isinstance(item, Record):
            record = item
        else:
            record = Record(item.id, item.text, item.metadata, vector=item.vector)
        if self.prefix and isinstance(record.id, str) and record.id:
            record = replace(record, id=f"{self.prefix}{record.id}", document_id=None)
        record = checked(record, dimensions=self.store.embedder.dimensions)
        self.store._check(record)
        return record

    def _parts(self, record: Record, item: SourceDocument) -> list[Record]:
        """Return the records that a document becomes; none if there is no text in it."""
        if record.vector is not None:
            parts = [(0, record.text)]
        elif not record.text.strip():
            return []
        else:
            parts = self.store.embedder._chunks(
                record.text, overlap=self.overlap, markdown=item.markdown
            )
        if len(parts) == 1:
            blank = len(record.text) - len(record.text.lstrip())
            return [replace(record, metadata=_metadata(record, item.places, blank))]
        chunks = []
        end = 0
        for i, (offset, part) in enumerate(parts):
            metadata = _metadata(record, item.places, offset)
            kept = {**metadata, **place(offset, record.text[end:offset])}
            chunks.append(Record(f"{record.id}#{i}", part, kept, document_id=record.id, chunk=i))
            end = offset + len(part)
        return chunks

    def _document(self, item: SourceDocument | Record, number: int) -> Document | None:
        """Return the records of one document, or None if it is left out."""
        given: SourceDocument | Record = item
        if isinstance(item, Record):
            given = _whole(item)
            item = SourceDocument(item.id, item.text, f"record {number}")
        try:
            record = self._record(given)
        except RecordError as error:
            self.skip(Skip(str(item.id), item.location, str(error)), RecordError)
            return None
        self._note(record.id, item.location)
        self.document_ids.add([record.id])
        parts = self._parts(record, item)
        if not parts:
            # It is handed on, so that what is stored of it goes.
            self.blank += 1
            self.skip(Skip(record.id, item.location, "there is no text in it.", "nothing in it"))
        for part in parts:
            if part.id != record.id:
                self._note(part.id, f"{item.location} (chunk {part.chunk})")
        return record.id, parts

    def _note(self, id: str, location: str) -> None:
        """Raise ``SourceError`` naming both places if this run had the id already."""
        first = self.ids.add_at(id, location)
        if first == location:
            raise SourceError(f"{location} was given twice, as itself or in a folder.")
        if first is not None:
            raise SourceError(
                f"The id {id!r} comes twice: from {first} and from {location}. Ids must be unique "
                "within one run."
            )


def _metadata(record: Record, places: Sequence[Place], offset: int) -> Mapping[str, Any]:
    """Return what is kept beside a chunk that begins here; the document's own fields win."""
    before = bisect_right(places, offset, key=lambda place: place.offset)
    return {**places[before - 1].metadata, **record.metadata} if before else record.metadata


def _sort_sources(
    sources: StrPath | Table | Iterable[StrPath | Row],
) -> tuple[list[SourceFile | Skip], Iterable[Any]]:
    """Return the files to read, or the stream of objects; a stream is not read ahead."""
    if isinstance(sources, (str, os.PathLike)):
        return find_files([sources]), ()
    if is_row(sources):
        raise TypeError(f"One {type(sources).__name__} was given. Write it in a list: [it].")
    items: Iterator[Any]
    if is_table(sources):
        items = rows_of(cast(Table, sources))
    elif isinstance(sources, Iterable) and not isinstance(sources, (bytes, bytearray)):
        items = iter(sources)
    else:
        raise TypeError(
            f"ingest takes paths or records, not {type(sources).__name__}. A lazy frame is "
            "collected first."
        )
    first = next(items, None)
    if first is None:
        raise SourceError("There is nothing to ingest: no source was given.")
    if not isinstance(first, (str, os.PathLike)):
        return [], chain([first], items)
    paths: list[StrPath] = [first]
    for item in items:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError("ingest takes paths or records, not both in one call.")
        paths.append(item)
    return find_files(paths), ()


def _is_file(folder: Path, name: str) -> bool:
    try:
        return not Path(name).is_absolute() and (folder / name).is_file()
    except (OSError, ValueError):  # it is too long for a file's name, or has what none can have
        return False


def _whole(record: Record) -> Record:
    if record.document != record.id:
        raise SourceError(
            f"Record {record.id!r} is a part of {record.document!r}; ingest takes whole documents "
            "and splits them itself. Store ready parts with store.replace()."
        )
    return record


def _prune(
    store: IngestStore,
    documents: IdSet,
    prefix: str,
    origins: Collection[str | None],
    beside: Collection[Path],
) -> int:
    """Delete what is stored of the run's sources, under its prefix, and is not in the run.

    In the folders ``beside`` the run looked at some files only, so that the others stay.
    """
    if not len(documents):
        raise SourceError(
            "The sources hold no document; prune=True would delete all that is stored."
        )
    named = [origin for origin in origins if origin is not None]
    stored = chain(
        store._documents_of(named) if named else (),
        store._documents_of(None) if None in origins else (),
    )
    gone = (
        id
        for id in stored
        if id.startswith(prefix)
        and id not in documents
        and not any(_is_file(folder, id.removeprefix(prefix)) for folder in beside)
    )
    deleted = 0
    while page := list(islice(gone, _DELETE_PAGE)):
        deleted += store.delete(documents=page)
    return deleted
