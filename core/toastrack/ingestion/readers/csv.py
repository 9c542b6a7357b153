"""CSV with a header: one row, one document."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from toastrack.ingestion.readers.base import BadInput, Columns, SourceDocument
from toastrack.ingestion.readers.rows import row_input

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_csv(
    file: BinaryIO, *, location: str, name: str, columns: Columns
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document a row; a field is text unless ``columns.types`` says otherwise.

    An empty field of another type is None. A row may span lines; it is named by its last one.
    """
    # The default allows 128 kB a field, less than a chapter.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text, strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            here = f"{location}, line {rows.line_num}"
            if header is None:
                header = row
            elif not row:
                continue
            elif len(row) != len(header):
                yield BadInput(f"{here}: {len(row)} fields, but the header names {len(header)}.")
            else:
                fields = _typed(dict(zip(header, row, strict=True)), columns.types, here)
                yield fields if isinstance(fields, BadInput) else row_input(fields, columns, here)
    except (csv.Error, UnicodeDecodeError) as error:
        # Where a quote or a byte is wrong, nobody knows where the next row starts.
        yield BadInput(f"{location}, after line {rows.line_num}: not CSV in UTF-8: {error}.")
    finally:
        text.detach()


def _typed(
    row: dict[str, str], types: Mapping[str, type], location: str
) -> Mapping[str, Any] | BadInput:
    result: dict[str, Any] = dict(row)
    for name, kind in types.items():
        if name not in row:
            return BadInput(f"{location}: there is no field {name!r} to read as {kind.__name__}.")
        try:
            result[name] = None if row[name] == "" else _value(row[name], kind)
        except (KeyError, ValueError):
            return BadInput(
                f"{location}: {name} is {row[name]!r:.60}, which is no {kind.__name__}."
            )
    return result


def _value(text: str, kind: type) -> Any:
    return _BOOLEANS[text.strip().lower()] if kind is bool else kind(text)
