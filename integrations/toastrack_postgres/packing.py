"""Rows in Postgres' binary forms, packed by hand: psycopg would take a call for each value.

https://www.postgresql.org/docs/current/sql-copy.html (Binary Format), and array_recv in
https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from toastrack.stores import Row
from toastrack_postgres.codec import ArrayParameter, VectorType, dump_json, vector_elements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Rows in one statement, or in one part of what is copied: enough to make it cheap, few enough that
# the server soon has work.
PART = 128

_length = struct.Struct(">i").pack
_NULL = _length(-1)
_INT = struct.Struct(">ii").pack

_COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = struct.pack(">h", -1)
_FIELDS = struct.Struct(">h").pack
_JSONB_VERSION = b"\1"

# Element type and array type, of pg_type.dat.
_TEXT, _INT4, _BYTEA = (25, 1009), (23, 1007), (17, 1001)


class Packer:
    """Packs rows for one table over one connection.

    Args:
        kind: What the table stores a vector as.
        vector_oid: The number of that type.
        array_oid: The number of the type of its arrays.
        encoding: Python's name for what the connection sends texts in.
    """

    def __init__(
        self, kind: VectorType, *, vector_oid: int, array_oid: int, encoding: str = "utf-8"
    ) -> None:
        self._kind = kind
        self._vector_types = vector_oid, array_oid
        self._encoding = encoding

    def texts(self, values: Sequence[str | None]) -> ArrayParameter:
        """Pack an array of texts."""
        encoding = self._encoding
        return _array(_TEXT, [None if one is None else one.encode(encoding) for one in values])

    def hashes(self, rows: Sequence[Row]) -> ArrayParameter:
        """Pack an array of what each row is compared by."""
        return _array(_BYTEA, [row.text_hash for row in rows])

    def rest(self, rows: Sequence[Row], *, sources: bool = True) -> dict[str, ArrayParameter]:
        """Pack all but ids, texts, hashes and vectors; without sources none is said."""
        return {
            "documents": self.texts([row.record.document for row in rows]),
            "chunks": _integers([row.record.chunk for row in rows]),
            "metadata": self.texts([dump_json(row.record.metadata) for row in rows]),
            "sources": self.texts([row.source if sources else None for row in rows]),
        }

    def arrays(self, rows: Sequence[Row]) -> dict[str, ArrayParameter]:
        """Pack whole rows as arrays."""
        vectors = self._vectors(rows)
        return {
            "ids": self.texts([row.record.id for row in rows]),
            "texts": self.texts([row.record.text for row in rows]),
            "hashes": self.hashes(rows),
            "vectors": ArrayParameter(*self._vector_types, len(rows), vectors.tobytes()),
            **self.rest(rows),
        }

    def copied(self, rows: Sequence[Row], *, sources: bool) -> Iterator[bytes]:
        """Pack whole rows as COPY takes them, a part at a time."""
        yield _COPY_BEGIN
        for part in parts(rows):
            yield self._copied(part, sources=sources)
        yield _COPY_END

    def _copied(self, rows: Sequence[Row], *, sources: bool) -> bytes:
        begin, encoding = _FIELDS(8 if sources else 7), self._encoding
        vectors = self._vectors(rows).view("u1").data
        size = len(vectors) // len(rows)
        pieces: list[bytes | memoryview] = []
        for number, row in enumerate(rows):
            record = row.record
            id, text = record.id.encode(encoding), record.text.encode(encoding)
            document = id if record.document == record.id else record.document.encode(encoding)
            metadata = dump_json(record.metadata).encode(encoding)
            pieces += (
                begin,
                _length(len(id)),
                id,
                _length(len(document)),
                document,
                _NULL if record.chunk is None else _INT(4, record.chunk),
                _length(len(text)),
                text,
                _length(len(metadata) + 1),
                _JSONB_VERSION,
                metadata,
                _length(len(row.text_hash)),
                row.text_hash,
                vectors[number * size : (number + 1) * size],
            )
            if sources:
                source = None if row.source is None else row.source.encode(encoding)
                pieces += (_NULL,) if source is None else (_length(len(source)), source)
        return b"".join(pieces)

    def _vectors(self, rows: Sequence[Row]) -> NDArray[np.void]:
        return vector_elements([row.vector for row in rows if row.vector is not None], self._kind)


def parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut rows into those of one statement each."""
    return (rows[start : start + PART] for start in range(0, len(rows), PART))


def _integers(values: Sequence[int | None]) -> ArrayParameter:
    packed = [_NULL if one is None else _INT(4, one) for one in values]
    return ArrayParameter(*_INT4, len(values), b"".join(packed), has_null=None in values)


def _array(types: tuple[int, int], values: Sequence[bytes | None]) -> ArrayParameter:
    if None in values:
        nulls = [_NULL if one is None else _length(len(one)) + one for one in values]
        return ArrayParameter(*types, len(values), b"".join(nulls), has_null=True)
    pieces = [piece for one in values if one is not None for piece in (_length(len(one)), one)]
    return ArrayParameter(*types, len(values), b"".join(pieces))
