"""What a record may be that is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toastrack.errors import RecordError
from toastrack.records import Record
from toastrack.stores.hashes import vector_digest
from toastrack.stores.vectors import unit_vector, vector_of
from toastrack.utils.numbers import MAX_INT_BITS, plain
from toastrack.utils.text import check_unicode, shown

# A call of Python's for each level: it makes 1,000 in all.
_MAX_DEPTH = 700


def checked(record: Record, *, dimensions: int | None) -> Record:
    """Return the record with its vector normalised, or raise ``RecordError`` naming it.

    ``dimensions`` is the size a ready vector must have.
    """
    record = checked_fields(record)
    if record.vector is None:
        return record
    vector = unit_vector(record.vector, vector_of(record), dimensions)
    return replace(record, vector=vector)


def checked_fields(record: Record) -> Record:
    """Return a record of our own, its vector as it is, or raise ``RecordError`` naming it.

    Its metadata is a copy, as the caller's may be used again, with numpy's scalars as Python's.
    """
    if not isinstance(record, Record):
        raise TypeError(f"A store takes Record objects, not {type(record).__name__}.")
    if _is_plain(record):
        return _with(record, dict(record.metadata), record.chunk)
    name = f"Record {record.id!r}"
    for what, value in (("id", record.id), ("text", record.text), ("document_id", record.document)):
        if not isinstance(value, str):
            raise RecordError(f"{name}: {what} is {type(value).__name__}, not str.")
        _check_text(value, f"{name}: its {what}")
    if not record.id:
        raise RecordError("A record has an empty id. Give every record an id of its own.")
    chunk = plain(record.chunk)
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int)):
        raise RecordError(f"{name}: chunk is {record.chunk!r}, not a whole number or None.")
    if not isinstance(record.metadata, Mapping):
        raise RecordError(f"{name}: metadata is {type(record.metadata).__name__}, not a mapping.")
    try:
        metadata = _json(dict(record.metadata), f"{name}: metadata", 0)
    except RecursionError:
        raise RecordError(f"{name}: metadata holds itself, or is nested too deeply.") from None
    return _with(record, metadata, chunk)


def _with(record: Record, metadata: dict[str, Any], chunk: int | None) -> Record:
    # Not by its own constructor, which takes a call for each field of a frozen class.
    made = object.__new__(Record)
    fields = made.__dict__
    fields.update(record.__dict__)
    fields["metadata"] = metadata
    fields["chunk"] = chunk
    if record.document_id is None:
        fields["document_id"] = record.id
    from_text, reading, vector = record.vector_from_text, record.reading, record.vector
    if from_text is None and reading is None:
        return made
    fields["vector_from_text"] = fields["reading"] = None
    if from_text is False and vector is None:
        raise RecordError(
            f"Record {record.id!r} was read without the vector that was given for it, and would be "
            "embedded in its place. Read it by get(ids, vectors=True) or records(vectors=True)."
        )
    if from_text and reading is None:
        fields["vector"] = None  # nothing tells of which text it is
    # What is done with the vector from here on is no change.
    if reading and vector is not None and reading.vector in (None, vector_digest(vector)):
        fields["reading"] = replace(reading, vector=None)
        fields["vector_from_text"] = from_text
    return made


def _check_text(text: str, what: str) -> None:
    try:
        check_unicode(text, what)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _is_plain(record: Record) -> bool:
    """Tell at a glance that nothing is wrong with a usual record: ASCII, and small scalars."""
    for text in (record.id, record.text, record.document_id):
        if type(text) is not str or not text.isascii():
            return False
    if not record.id or not (record.chunk is None or type(record.chunk) is int):
        return False
    if type(record.metadata) is not dict:
        return False
    for key, value in record.metadata.items():
        kind = type(value)
        if type(key) is not str or not key.isascii():
            return False
        if kind is str:
            plain = value.isascii()
        elif kind is float:
            plain = math.isfinite(value)
        else:
            plain = value is None or kind is bool or (kind is int and -(2**63) <= value < 2**63)
        if not plain:
            return False
    return True


def _json(value: Any, where: str, depth: int) -> Any:
    """Return a copy, or raise ``RecordError`` for what JSON would give back as something else."""
    given, value = value, plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise RecordError(
                f"{where} holds an int of {value.bit_length()} bits. Store it as str."
            )
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} holds {value}, which JSON has no word for. Use None.")
        return value
    if isinstance(value, str):
        _check_text(value, where)
        return value
    if depth == _MAX_DEPTH:
        where = f"{where[:200]}..."
        raise RecordError(f"{where} holds itself, or is nested more than {_MAX_DEPTH} deep.")
    if isinstance(value, list):
        items = []
        for position, item in enumerate(value):
            items.append(_json(item, f"{where}[{position}]", depth + 1))
        return items
    if isinstance(value, dict):
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecordError(f"{where} has the key {shown(key)}; JSON keys are str.")
            _check_text(key, f"{where}, key {key!r},")
            copy[str.__str__(key)] = _json(item, f"{where}[{key!r}]", depth + 1)
        return copy
    raise RecordError(
        f"{where} holds {type(given).__name__} {shown(given, 40)}, which JSON cannot give back as "
        "it is. Use str, int, float, bool, None, list or dict."
    )
