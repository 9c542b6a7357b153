"""What tells that a text or a vector is another one than was stored."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from toastrack.records import Reading, Record
from toastrack.utils import arrays

if TYPE_CHECKING:
    import numpy as np


def text_hash(record: Record, max_tokens: int) -> bytes:
    """Return 32 bytes that change whenever the stored vector would.

    sha256 over the text's sha256, the effective limit, and either "embedded" or the bytes of a
    ready vector.
    """
    made = hashlib.sha256(text_digest(record.text) + b"%d" % max_tokens)
    made.update(b"embedded" if record.vector is None else _bytes_of(record.vector))
    return made.digest()


def vector_digest(vector: arrays.Vector) -> bytes | None:
    """Return the sha256 of a vector as float32, None for what is none."""
    try:
        return hashlib.sha256(_bytes_of(vector)).digest()
    except (TypeError, ValueError, OverflowError):
        return None


def _bytes_of(vector: arrays.Vector) -> memoryview:
    """Return a vector's numbers as float32, in the same bytes on every machine."""
    import numpy as np

    return np.ascontiguousarray(vector, dtype=_float32()).reshape(-1).data


@cache
def _float32() -> np.dtype[np.float32]:
    import numpy as np

    return np.dtype("<f4")


def text_digest(text: str) -> bytes:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def stored_hash(record: Record, max_tokens: int, space: str) -> bytes | None:
    """Return the hash of a record whose vector is still what a store gave with it, else None.

    One that was embedded is taken so only in the same space, with the same limit and text.
    """
    reading = record.reading
    if reading is None or record.vector is None or reading.space != space:
        return None
    if record.vector_from_text:
        embedded = text_hash(replace(record, vector=None), max_tokens)
        return embedded if embedded == reading.text_hash else None
    return reading.text_hash if reading.text == text_digest(record.text) else None


def read_record(
    record: Record,
    stored: bytes,
    vector: arrays.FloatVector | None,
    *,
    space: str,
    limits: Collection[int],
) -> Record:
    """Return a record as a store hands it out.

    Args:
        record: As the host gives it.
        stored: Its hash; empty where somebody else wrote it.
        vector: Its vector, if that was asked for.
        space: The digest of the store's embedding space.
        limits: The numbers of tokens that its text may have been cut at; none if nobody knows.
    """
    if not stored or not limits:
        return replace(record, vector=vector)
    digest = None if vector is None else vector_digest(vector)
    return replace(
        record,
        vector=vector,
        vector_from_text=any(text_hash(record, limit) == stored for limit in limits),
        reading=Reading(space, stored, text_digest(record.text), digest),
    )
