"""A row with named fields, from whatever format, to one document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from toastrack.ingestion.readers.base import BadInput, Columns, SourceDocument


def row_input(row: Mapping[str, Any], columns: Columns, location: str) -> SourceDocument | BadInput:
    """Make a document of one row.

    Every field that is not text, id or vector becomes metadata; a field ``metadata`` that is
    itself a mapping is merged in.
    """
    fields = dict(row)
    if columns.text not in fields:
        return BadInput(
            f"{location}: there is no field {columns.text!r}, only {_names(row)}. Name the one that "
            "holds the text with text_column=."
        )
    text = fields.pop(columns.text)
    if not isinstance(text, str):
        return BadInput(f"{location}: {columns.text!r} is {type(text).__name__}, not text.")
    vector = fields.pop(columns.vector, None) if columns.vector else None
    if columns.id_from == "content":
        id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    else:
        if columns.id not in fields:
            return BadInput(
                f"{location}: there is no field {columns.id!r} to take the id from, only "
                f"{_names(row)}. Name it with id_column=, or use id_from='content'."
            )
        found = fields.pop(columns.id)
        id = str(found) if isinstance(found, int) and not isinstance(found, bool) else found
        if not isinstance(id, str) or not id:
            return BadInput(f"{location}: the id {found!r:.60} is not text or a whole number.")
    if columns.metadata is not None:
        missing = [name for name in columns.metadata if name not in fields]
        if missing:
            return BadInput(f"{location}: there is no field {missing[0]!r}, only {_names(row)}.")
        fields = {name: fields[name] for name in columns.metadata}
    nested = fields.pop("metadata", {})
    metadata = {**nested, **fields} if isinstance(nested, dict) else {**fields, "metadata": nested}
    return SourceDocument(id, text, location=location, metadata=metadata, vector=vector)


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "an empty row"
