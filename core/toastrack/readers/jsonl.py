"""JSON Lines: one row, one document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toastrack.errors import SourceError
from toastrack.readers.base import Columns, Input


def read_jsonl(path: Path, name: str, columns: Columns) -> Iterator[Input]:
    """Yield one document a line; every other field of the row becomes metadata."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield row_input(_parse(line, place), columns, place=place, size=len(line))


def row_input(row: dict[str, Any], columns: Columns, *, place: str, size: int) -> Input:
    """Make a document of one row; a field ``metadata`` that is an object is merged in."""
    fields = dict(row)
    if columns.text not in fields:
        raise SourceError(
            f"{place}: there is no field {columns.text!r}, only {', '.join(map(repr, row))}. "
            "Name the one that holds the text with --text-column."
        )
    text = fields.pop(columns.text)
    if not isinstance(text, str):
        raise SourceError(f"{place}: {columns.text!r} is {type(text).__name__}, not text.")
    if columns.id_from == "content":
        id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    else:
        id = _id(fields, columns.id, place)
    nested = fields.pop("metadata", {})
    metadata = {**nested, **fields} if isinstance(nested, dict) else {**fields, "metadata": nested}
    return Input(id, text, place=place, size=size, metadata=metadata)


def _id(fields: dict[str, Any], column: str, place: str) -> str:
    if column not in fields:
        raise SourceError(
            f"{place}: there is no field {column!r} to take the id from. Name it with "
            "--id-column, or use --id-from content."
        )
    id = fields.pop(column)
    if isinstance(id, int) and not isinstance(id, bool):
        return str(id)
    if not isinstance(id, str) or not id:
        raise SourceError(f"{place}: the id {id!r:.60} is not text or a whole number.")
    return id


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SourceError(f"{place}: byte {error.start} of the line is not UTF-8.") from None
    except ValueError as error:
        raise SourceError(f"{place}: not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise SourceError(f"{place}: a row must be a JSON object, not {type(row).__name__}.")
    return row
