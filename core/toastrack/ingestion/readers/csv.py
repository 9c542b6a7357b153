"""CSV and TSV with a header: one row, one document."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from itertools import chain
from typing import Any, BinaryIO

from toastrack.ingestion.readers.base import MAX_DOCUMENT, BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.decoding import TOO_LONG, Lines, decoded
from toastrack.ingestion.readers.json_values import as_json
from toastrack.ingestion.readers.rows import lacking, row_input

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What Excel writes in front of the header, and reads.
_SEPARATOR = re.compile(r"sep=(.)\r?\n?")


def read_csv(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document a row; a field is text unless ``options.types`` says otherwise.

    An empty field of another type is None. A row may span lines; it is named by its last one. Where
    a quote is wrong, that row is lost and the next line begins another.
    """
    # The default allows 128 kB a field, less than a chapter.
    csv.field_size_limit(MAX_DOCUMENT)
    with decoded(file, options.encoding, newline="") as lines:
        try:
            yield from _rows(lines, location, options)
        except UnicodeDecodeError as error:
            yield BadInput(location, f"not {lines.encoding.upper()}: {error.reason}.")


def read_tsv(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """``read_csv`` with tabs between the fields."""
    options = replace(options, delimiter=options.delimiter or "\t")
    return read_csv(file, location=location, name=name, options=options)


def _rows(lines: Lines, location: str, options: ReadOptions) -> Iterator[SourceDocument | BadInput]:
    skipped, first = 0, next(lines, "")
    separator = _SEPARATOR.fullmatch(first)
    if separator:
        skipped, first = 1, next(lines, "")
    while first and not first.strip():
        skipped, first = skipped + 1, next(lines, "")
    if not first:
        yield BadInput(location, "there is no row in it.", "nothing in it")
        return
    delimiter = options.delimiter or (separator[1] if separator else _delimiter(first, options))
    if delimiter != "," and not options.delimiter and options.say is not None:
        options.say(
            f"{location}: {_DELIMITERS.get(delimiter, repr(delimiter))} stand between the fields. "
            "If not, say what does with delimiter=."
        )
    records = _Records(chain([first], lines), lines, delimiter, skipped)
    header = next(records)
    fault = records.fault or _header_fault(header, options)
    if fault:
        yield BadInput(f"{location}, line {records.number}", fault)
        return
    names = [name or f"column_{number}" for number, name in enumerate(header, start=1)]
    empty = True
    for row in records:
        here = f"{location}, line {records.number}"
        if not row and not records.fault:
            continue
        empty = False
        if records.fault:
            yield BadInput(here, records.fault)
        elif len(row) != len(header):
            yield BadInput(here, f"{len(row)} fields, but the header names {len(header)}.")
        else:
            cells = {
                name: cell
                for name, cell, named in zip(names, row, header, strict=True)
                if named or cell
            }
            fields = _typed(cells, options.types, here)
            yield fields if isinstance(fields, BadInput) else row_input(fields, options, here)
    if empty:
        yield BadInput(location, "there is a header and no row in it.", "nothing in it")


class _Records:
    """The records of the lines; after each, ``fault`` says what is wrong with it, if anything."""

    def __init__(self, source: Iterator[str], lines: Lines, delimiter: str, skipped: int) -> None:
        self.number = skipped
        """The line that the last record ended at."""
        self.fault: str | None = None
        self._source = source
        self._lines = lines
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self._size = 0
        self._reader = csv.reader(_Feed(self._line), delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        self._taken.clear()
        self._size, self.fault = 0, None
        row: list[str] = []
        try:
            row = next(self._reader)
        except csv.Error as error:
            # A quote that is not closed takes in what follows, which is not its own.
            self._again.extendleft(reversed(self._taken[1:]))
            self.number -= len(self._taken) - 1
            self.fault = f"not CSV: {error}."
        else:
            faults = (self._lines.fault(line) for line in self._taken)
            self.fault = next((fault for fault in faults if fault), None)
        return row

    def _line(self) -> str:
        line = self._again.popleft() if self._again else next(self._source)
        self.number += 1
        self._taken.append(line)
        self._size += len(line)
        if self._size > MAX_DOCUMENT or len(line) == MAX_DOCUMENT:
            raise csv.Error(f"the row is {TOO_LONG}")
        return line


class _Feed:
    """Goes on after an exception, as a generator would not."""

    def __init__(self, line: Any) -> None:
        self._line = line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return str(self._line())


def _delimiter(header: str, options: ReadOptions) -> str:
    """Return what makes the fields of the header that are asked for, or else stands there most."""
    fitting = [
        delimiter
        for delimiter in _DELIMITERS
        if lacking(next(csv.reader([header], delimiter=delimiter), []), options) is None
    ]
    if fitting:
        return fitting[0]
    outside = Counter(re.sub(r'"[^"]*"', "", header))
    return max(_DELIMITERS, key=lambda delimiter: outside[delimiter])


def _header_fault(header: Sequence[str], options: ReadOptions) -> str | None:
    twice = [name for name, count in Counter(filter(None, header)).items() if count > 1]
    if twice:
        return f"two columns are called {twice[0]!r}. Give each a name of its own."
    if not any(header):
        return "no column has a name. The first line must name them."
    unknown = [name for name in options.types if name not in header]
    if unknown:
        return f"there is no field {unknown[0]!r} to read as {options.types[unknown[0]].__name__}."
    named = [name or f"column_{number}" for number, name in enumerate(header, start=1)]
    return lacking(named, options)


def _typed(
    row: dict[str, str], types: Mapping[str, type], location: str
) -> Mapping[str, Any] | BadInput:
    result: dict[str, Any] = dict(row)
    for name, kind in types.items():
        try:
            result[name] = None if row[name] == "" else _value(row[name].strip(), kind)
        except (KeyError, ValueError):
            return BadInput(
                location,
                f"{name} is {row[name]!r:.60}, which is no {kind.__name__}"
                f"{_EXAMPLES.get(kind, '.')}",
            )
    return result


_AS_TEXT = "Write it so, or take it as text: leave its type out."
_EXAMPLES: Mapping[type, str] = {
    date: f" like 2024-12-31. {_AS_TEXT}",
    datetime: f" like 2024-12-31T23:59:59Z. {_AS_TEXT}",
}


def _value(text: str, kind: type) -> Any:
    if kind is bool:
        return _BOOLEANS[text.lower()]
    if kind is datetime:
        # Python 3.10 knows no Z.
        return as_json(datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text)))
    if kind is date:
        return date.fromisoformat(text).isoformat()
    return kind(text)
