"""A row with named fields, from whatever format, to one document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any

from toastrack.ingestion.readers.base import BadInput, ReadOptions, SourceDocument

_NAME_ID = ", and the id with id_column=, or use id_from='content'"


def row_input(
    row: Mapping[str, Any], options: ReadOptions, location: str
) -> SourceDocument | BadInput:
    """Make a document of one row.

    Every field that is not text, id or vector becomes metadata; a field ``metadata`` that is
    itself a mapping is merged in. Fields that a template makes the text of stay metadata, too.
    """
    missing = lacking(row, options)
    if missing:
        return BadInput(location, missing)
    fields = dict(row)
    try:
        if options.template is not None:
            text = options.template.fill(row)
        else:
            text = fields.pop(options.text)
            if not isinstance(text, str):
                raise ValueError(f"{options.text!r} is {type(text).__name__}, not text")
        vector = _vector(fields.pop(options.vector), options.vector) if options.vector else None
    except ValueError as error:
        return BadInput(location, f"{error}.")
    if options.id_from == "content":
        id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    else:
        found = fields.pop(options.id)
        id = str(found) if isinstance(found, int) and not isinstance(found, bool) else found
        if not isinstance(id, str) or not id:
            return BadInput(location, f"the id {found!r:.60} is not text or a whole number.")
    if options.metadata is not None:
        fields = {name: row[name] for name in options.metadata}
    nested = fields.pop("metadata", {})
    metadata = {**nested, **fields} if isinstance(nested, dict) else {**fields, "metadata": nested}
    return SourceDocument(id, text, location=location, metadata=metadata, vector=vector)


def lacking(names: Collection[str], options: ReadOptions) -> str | None:
    """Say which field is asked for and not among these names; None if all are there."""
    if options.template is not None:
        for name in options.template.names:
            if name not in names:
                return f"there is no field {name!r} for text=, only {_shown(names)}."
    elif options.text not in names:
        id_too = options.id_from == "column" and options.id not in names
        return (
            f"there is no field {options.text!r}{f' and no {options.id!r}' if id_too else ''}, only "
            f"{_shown(names)}. Name the one that holds the text with text_column=, or several with "
            "text='{title}: {body}'"
            f"{_NAME_ID if id_too else ''}."
        )
    if options.id_from == "column" and options.id not in names:
        return (
            f"there is no field {options.id!r} to take the id from, only {_shown(names)}. Name it "
            "with id_column=, or use id_from='content'."
        )
    if options.vector is not None and options.vector not in names:
        return (
            f"there is no field {options.vector!r} to take the vector from, only {_shown(names)}. "
            "Name it with vector_column=."
        )
    for name in options.metadata or ():
        if name not in names:
            return f"there is no field {name!r} to keep, only {_shown(names)}."
    return None


def _vector(cell: Any, name: str) -> Any:
    """Return the numbers of a cell; text may hold them as pgvector, JSON and numpy write them."""
    if not isinstance(cell, str):
        return cell
    if not cell.strip():
        return None
    numbers = re.split(r"\s*,\s*|\s+", cell.strip().strip("[]{}()").strip())
    try:
        return [float(number) for number in numbers]
    except ValueError:
        raise ValueError(
            f"{name!r} is {cell!r:.60}, which is no vector like '[0.1, 0.2]'"
        ) from None


def _shown(names: Collection[str]) -> str:
    return ", ".join(map(repr, names)) or "an empty row"
