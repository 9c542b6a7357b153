"""Records to Chroma's rows and back: scalars flat for ``where``, everything to the letter as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from toastrack import Record
from toastrack.errors import RecordError
from toastrack.stores import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metadata = Mapping[str, str | int | float | bool | None]

# What is ours among a row's metadata. A user's own key that starts so is kept in the JSON alone.
RESERVED = "toastrack_"
ROW = f"{RESERVED}row"
"""What we know of a row, in four words: the hash of its text and the head of its vector in base64,
"own" or "part", and its metadata as JSON. Each field costs Chroma as much as a good part of a row."""
DOCUMENT_ID = f"{RESERVED}document_id"
"""The row's document; left out of "own" rows, whose id it is, without a chunk."""
CHUNK = f"{RESERVED}chunk"
SOURCE = f"{RESERVED}source"
"""Where the row's document came from, if that is known."""
METADATA = f"{RESERVED}metadata"
TEXT_HASH = f"{RESERVED}text_hash"
VECTOR_HEAD = f"{RESERVED}vector_head"
"""Three of a row of formats 1 and 2, which has no ``ROW`` and always ``DOCUMENT_ID``."""
LARGE = f"{RESERVED}large"
"""True where a field is a number that Chroma cannot hold, and ranges of its own do not find it."""

# Numbers of Chroma's metadata are sqlite's: 64 bits.
MAX_INT = 2**63 - 1

# Chroma 1.5 accepts a row with 6,500 fields, then fails to read its own log: the collection
# answers nothing any more. Ours, and those that a new version removes, are counted too.
MAX_FIELDS = 2_500

_OWN = "own"

# So many of a vector's numbers are kept beside it, so that another one in its place is noticed.
_HEAD = 8
# float16 keeps 11 bits of a number.
_TOLERANCE = 2**-10


class Described(NamedTuple):
    """What was written beside a row; of one that somebody else wrote nothing."""

    text_hash: bytes = b""
    vector_head: str = ""
    """As ``vector_head`` gives it; empty where that is not known."""
    is_own: bool | None = None
    """It is its own document; None where ``DOCUMENT_ID`` alone tells."""
    metadata: str | None = None
    """As JSON."""


def described(stored: Metadata) -> Described:
    """Read what was written beside a row, in this format or an earlier one."""
    written = stored.get(ROW)
    if isinstance(written, str):
        text_hash, head, word, metadata = written.split(" ", 3)
        return Described(base64.b64decode(text_hash), head, word == _OWN, metadata)
    old_hash, old_head, exact = (stored.get(key) for key in (TEXT_HASH, VECTOR_HEAD, METADATA))
    return Described(
        bytes.fromhex(old_hash) if isinstance(old_hash, str) else b"",
        old_head if isinstance(old_head, str) else "",
        None,
        exact if isinstance(exact, str) else None,
    )


def check_record(record: Record) -> None:
    """Raise ``RecordError`` for what Chroma cannot store, before anything is sent."""
    if record.chunk is not None and abs(record.chunk) > MAX_INT:
        raise RecordError(f"Record {record.id!r}: chunk is {record.chunk}; 64 bits must hold it.")
    if len(record.metadata) <= MAX_FIELDS:
        return
    fields = sum(is_flat(key, value) for key, value in record.metadata.items())
    if fields > MAX_FIELDS:
        raise RecordError(
            f"Record {record.id!r}: its metadata has {fields:,} fields and Chroma can hold "
            f"{MAX_FIELDS:,}. Put some of them into one that is a dict."
        )


def row_metadata(row: Row) -> dict[str, str | int | float | bool]:
    """Return what is stored beside a record's text and vector."""
    record = row.record
    flat: dict[str, str | int | float | bool] = {
        key: value for key, value in record.metadata.items() if is_flat(key, value)
    }
    text_hash = base64.b64encode(row.text_hash).decode("ascii")
    head = "" if row.vector is None else vector_head(row.vector)
    word = _OWN if _is_own(record) else "part"
    flat[ROW] = f"{text_hash} {head} {word} {_written(record.metadata)}"
    if not _is_own(record):
        flat[DOCUMENT_ID] = record.document
    if record.chunk is not None:
        # None would be looked for in order to delete it, which takes as long as to write it.
        flat[CHUNK] = record.chunk
    if row.source is not None:
        flat[SOURCE] = row.source
    if _has_large(record.metadata):
        flat[LARGE] = True
    return flat


def _is_own(record: Record) -> bool:
    return record.document == record.id and record.chunk is None


def others(stored: Metadata) -> dict[str, Any]:
    """Return what ``row_metadata`` does not say of a row: what others know of it, and its source."""
    return {key: v for key, v in stored.items() if key == SOURCE or not key.startswith(RESERVED)}


def is_flat(key: str, value: object) -> bool:
    """Tell whether Chroma can hold a field of the user's metadata as it is."""
    if not is_field(key) or not isinstance(value, (str, int, float)):
        return False
    return not isinstance(value, int) or abs(value) <= MAX_INT


def is_field(key: str) -> bool:
    """Tell whether Chroma takes a name for a field, and it is not one of ours."""
    return bool(key) and key[0] not in "$#" and not key.startswith((RESERVED, "chroma:"))


def to_record(id: str, text: str | None, metadata: Metadata | None) -> Record:
    """Read a row; one that somebody else wrote has its own metadata and is its own document."""
    stored = metadata or {}
    # One that a writer left there who came between is none of its own.
    chunk = None if described(stored).is_own else stored.get(CHUNK)
    return Record(
        id,
        text or "",
        to_metadata(stored),
        document_id=document_of(id, stored),
        chunk=chunk if isinstance(chunk, int) else None,
    )


def to_metadata(stored: Metadata) -> dict[str, Any]:
    """Return the user's own metadata of a row."""
    written = described(stored).metadata
    if written is not None:
        found: dict[str, Any] = json.loads(written)
        return found
    return {key: value for key, value in stored.items() if not key.startswith(RESERVED)}


def document_of(id: str, stored: Metadata | None) -> str:
    """Return the document that a row belongs to."""
    if stored is None or is_own(stored):
        return id
    return str(stored[DOCUMENT_ID])


def is_own(stored: Metadata) -> bool:
    """Tell whether a row is its own document."""
    # A writer that came between may have left its document's id there.
    return bool(described(stored).is_own) or not isinstance(stored.get(DOCUMENT_ID), str)


def same_rest(stored: Metadata, row: Row) -> bool:
    """Tell whether everything but text and vector is stored already, to the letter."""
    record = row.record
    said = described(stored).is_own
    # In an earlier format every row names its document.
    document = None if said is not None and _is_own(record) else record.document
    return (
        row.source in (None, stored.get(SOURCE))
        and stored.get(DOCUMENT_ID) == document
        and said in (None, _is_own(record))
        and stored.get(CHUNK) == record.chunk
        and _same_metadata(stored, record.metadata)
        # Chroma merges the fields of two writers, and a filter would find those of the other one.
        and _same_fields(stored, record.metadata)
        and bool(stored.get(LARGE)) == _has_large(record.metadata)
    )


def _has_large(metadata: Mapping[str, Any]) -> bool:
    return any(isinstance(value, int) and abs(value) > MAX_INT for value in metadata.values())


def _same_metadata(stored: Metadata, metadata: Mapping[str, Any]) -> bool:
    # As JSON, because 1 == 1.0 == True in Python.
    return described(stored).metadata == _written(metadata) or (
        json.dumps(to_metadata(stored), sort_keys=True) == json.dumps(metadata, sort_keys=True)
    )


def _same_fields(stored: Metadata, metadata: Mapping[str, Any]) -> bool:
    number = 0
    for key, value in metadata.items():
        if is_flat(key, value):
            kept = stored.get(key)
            # Chroma takes the sign from -0.0, which is equal to 0.0.
            if kept != value or type(kept) is not type(value):
                return False
            number += 1
    return number == sum(is_flat(key, value) for key, value in stored.items())


_written = json.JSONEncoder(ensure_ascii=False).encode
"""Writes metadata down as it is stored."""


def vector_head(vector: NDArray[np.float32]) -> str:
    """Return the first numbers of a vector, as float16 in base64."""
    return base64.b64encode(vector[:_HEAD].astype("<f2").tobytes()).decode("ascii")


def is_vector(vector: NDArray[np.floating[Any]], stored: Metadata | None) -> bool:
    """Tell whether a stored vector can be the one that was written with this row."""
    row = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(row)) if np.isfinite(row).all() else 0.0
    if not length:
        return False
    head = described(stored or {}).vector_head
    if not head:
        return True
    expected = np.frombuffer(base64.b64decode(head), dtype="<f2").astype(np.float32)
    return bool(np.allclose(row[:_HEAD] / length, expected, rtol=_TOLERANCE, atol=1e-6))
