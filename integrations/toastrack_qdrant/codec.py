"""Records as Qdrant's points, and back to the letter."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, cast

from qdrant_client import models

from toastrack import Record
from toastrack.errors import RecordError
from toastrack.stores import Row
from toastrack_qdrant.hashes import UNNAMED, hash_key
from toastrack_qdrant.layouts import EXACT, OURS, Layout

SOURCE = "source"
"""Holds where its document came from, if that is known."""
# A request may have 32 MiB: `service.max_request_size_mb`,
# https://github.com/qdrant/qdrant/blob/master/config/config.yaml
# Half of it leaves room for what is estimated; more rows are no faster.
_BATCH_ROWS = 128
_BATCH_BYTES = 16 * 2**20
# What a letter takes at most, and all that is no text of a payload.
_LETTER_BYTES = 6
_REST_BYTES = 512
# A float32 is written as the shortest float64: 21.7 KB of JSON for 1,024 of them.
_NUMBER_BYTES = 22

# Protocol buffers refuse what is nested over 100 deep, and each level of JSON takes three.
_MAX_DEPTH = 20


def check_record(record: Record) -> None:
    """Raise ``RecordError`` for what Qdrant cannot store."""
    if record.chunk is not None and not -(2**63) <= record.chunk < 2**63:
        raise RecordError(f"Record {record.id!r}: chunk is {record.chunk}; it must fit 64 bits.")


def payload(row: Row, layout: Layout = OURS, own_hash: str = UNNAMED) -> dict[str, Any]:
    """Return what is stored beside the vector."""
    record = row.record
    metadata = dict(record.metadata)
    values: dict[str, Any] = {
        layout.id: record.id,
        layout.document_id: record.document,
        layout.chunk: record.chunk,
        layout.text: record.text,
        own_hash: row.text_hash.hex(),
        str(layout.metadata): metadata,
    }
    if row.source is not None:
        values[SOURCE] = row.source
    if not is_kept(metadata):
        values[str(layout.metadata)] = _nearest(metadata)
        values[EXACT] = json.dumps(metadata, ensure_ascii=False)
    return values


def batches(
    rows: Iterable[Row], vector_name: str, layout: Layout, copies: int = 1
) -> Iterator[list[models.PointStruct]]:
    """Yield points in portions that fit into a request, which holds so many copies of payloads."""
    batch: list[models.PointStruct] = []
    size = 0
    for row in rows:
        vector = [] if row.vector is None else row.vector.tolist()
        values = payload(row, layout, hash_key(vector_name))
        weight = _NUMBER_BYTES * len(vector) + copies * _weight(row, values, layout)
        if batch and (len(batch) == _BATCH_ROWS or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(
            # Validating would look at each number again, as the client does itself.
            models.PointStruct.model_construct(
                id=layout.point_of(row.record.id),
                vector={vector_name: vector} if vector_name else vector,
                payload=values,
            )
        )
        size += weight
    if batch:
        yield batch


def _weight(row: Row, values: Mapping[str, Any], layout: Layout) -> int:
    """Return how many bytes of JSON a payload takes at most."""
    record = row.record
    letters = len(record.id) + len(record.document) + len(record.text) + len(row.source or "")
    # Python writes no number or word shorter than JSON does.
    letters += len(repr(values[str(layout.metadata)])) + len(values.get(EXACT, ""))
    return _LETTER_BYTES * letters + _REST_BYTES


def is_kept(value: Any, depth: int = 0) -> bool:
    """Tell whether Qdrant gives a JSON value back to the letter.

    It parses numbers in a hurry: of random floats 3 in 10 come back with another last digit
    (serde_json without ``float_roundtrip``). One operation on two exact floats is right, so
    a number of at most 2**53 times a power of ten of at most 10**22 is safe:
    https://www.exploringbinary.com/fast-path-decimal-to-floating-point-conversion/
    """
    if value is None or isinstance(value, (bool, str)):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        _, digits, exponent = Decimal(float.__repr__(value)).as_tuple()
        mantissa = int("".join(map(str, digits)))
        return mantissa <= 2**53 and abs(cast(int, exponent)) <= 22
    if depth == _MAX_DEPTH:
        return False
    parts = value.values() if isinstance(value, Mapping) else value
    return all(is_kept(part, depth + 1) for part in parts)


def _nearest(value: Any, depth: int = 0) -> Any:
    """Return what Qdrant can hold instead, for its own filters: a float, or nothing."""
    if isinstance(value, int) and not is_kept(value):
        return as_float(value)
    if not isinstance(value, (Mapping, list)):
        return value
    if depth == _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {key: _nearest(part, depth + 1) for key, part in value.items()}
    return [_nearest(part, depth + 1) for part in value]


def as_float(value: float) -> float | None:
    """Return a number as a float, None for an int that is larger than any."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
