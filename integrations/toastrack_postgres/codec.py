"""Vectors and metadata in the form Postgres wants them on the wire."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from psycopg import adapt, pq

from toastrack import Record
from toastrack.errors import RecordError, needs_extra

with needs_extra("postgres", "pgvector"):
    try:
        from pgvector import HalfVector, Vector
    except ImportError:  # pgvector < 0.4, which langchain-postgres asks for
        from pgvector.psycopg import HalfVector, Vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatVector = NDArray[np.float32]

VectorType = Literal["vector", "halfvec"]

_FLOAT = {"vector": ">f4", "halfvec": ">f2"}


def _json_writer() -> Callable[[Any], str]:
    """Return what writes JSON; json.dumps and JSONEncoder would build an encoder for each row."""
    slow = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return slow.encode
    encode = make(
        None, slow.default, json.encoder.encode_basestring, None, ":", ",", False, False, True
    )
    return lambda value: "".join(encode(value, 0))


as_json = _json_writer()
_ODD_NUMBER = re.compile(r"\de[+-]?\d|-0\.0")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+(?:e[+-]?[0-9]+)?')

# jsonb knows no -0.0. This is nearer to it than to any other float, so it is what is read again.
MINUS_ZERO = f"-0.{'0' * 399}1"

_SCALARS = frozenset((int, float, bool, type(None)))

# btree refuses keys over a third of a page: 2,704 bytes, before compression.
# https://www.postgresql.org/docs/current/btree.html
_MAX_ID_BYTES = 2_600


class VectorParameter:
    """One vector as a query parameter."""

    def __init__(self, vector: FloatVector, kind: VectorType, oid: int) -> None:
        self.oid = oid
        self.data: bytes = (HalfVector if kind == "halfvec" else Vector)(vector).to_binary()
        self._kind = kind

    def as_text(self) -> str:
        """Write it as pgvector reads it."""
        return _written(vector_of(self.data, self._kind))


class VectorArrayParameter:
    """Many vectors as one array parameter.

    Packed as one numpy structure: a list of pgvector's objects costs several times the rest of
    the insert.
    """

    def __init__(
        self, vectors: Sequence[FloatVector], kind: VectorType, *, oid: int, array_oid: int
    ) -> None:
        self.oid = array_oid
        self.data = _array_head(oid, len(vectors)) + vector_elements(vectors, kind).tobytes()
        self._vectors = vectors

    def as_text(self) -> str:
        """Write it as Postgres reads an array."""
        return "{" + ",".join(f'"{_written(vector)}"' for vector in self._vectors) + "}"


class ArrayParameter:
    """Elements that are packed already, each with its length before it, as one array parameter."""

    def __init__(
        self, oid: int, array_oid: int, size: int, elements: bytes, *, has_null: bool = False
    ) -> None:
        self.oid = array_oid
        self.data = _array_head(oid, size, has_null=has_null) + elements


def _array_head(oid: int, size: int, *, has_null: bool = False) -> bytes:
    """Begin an array of one dimension.

    Layout: https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c (array_send)
    """
    return struct.pack(">iiIii", 1, has_null, oid, size, 1)


def vector_elements(vectors: Sequence[FloatVector], kind: VectorType) -> NDArray[np.void]:
    """Return vectors as pgvector's halfvec_send or vector_send writes them, with their lengths."""
    size = len(vectors[0])
    rows = np.empty(
        len(vectors),
        [
            ("bytes", ">i4"),
            ("size", ">i2"),
            ("unused", ">i2"),
            ("values", _FLOAT[kind], (size,)),
        ],
    )
    rows["bytes"] = rows.dtype.itemsize - 4
    rows["size"] = size
    rows["unused"] = 0
    rows["values"] = vectors
    return rows


def vector_of(sent: bytes, kind: VectorType) -> FloatVector:
    """Return a vector that the server sent, as pgvector's halfvec_send or vector_send writes it."""
    return np.frombuffer(sent, _FLOAT[kind], offset=4).astype(np.float32)


def _written(vector: FloatVector) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


class ParameterDumper(adapt.Dumper):
    """Sends a parameter's bytes as they are, under its own oid."""

    format = pq.Format.BINARY

    def get_key(self, obj: Any, format: adapt.PyFormat) -> tuple[type, int]:  # type: ignore[override]
        """Tell parameters of one oid from those of another."""
        return (self.cls, obj.oid)

    def upgrade(self, obj: Any, format: adapt.PyFormat) -> ParameterDumper:
        """Return a dumper for the oid of a parameter."""
        dumper = type(self)(self.cls)
        dumper.oid = obj.oid
        return dumper

    def dump(self, obj: Any) -> bytes:
        """Return a parameter's bytes."""
        data: bytes = obj.data
        return data


def register_parameters(adapters: adapt.AdaptersMap) -> None:
    """Teach one cursor our parameters; the connection stays as its owner made it."""
    adapters.register_dumper(VectorParameter, ParameterDumper)
    adapters.register_dumper(VectorArrayParameter, ParameterDumper)
    adapters.register_dumper(ArrayParameter, ParameterDumper)


def check_record(record: Record) -> None:
    """Raise ``RecordError`` for what Postgres cannot store, before anything is sent."""
    if _is_plain(record):
        return
    name = f"Record {record.id!r}"
    for what, text in (("id", record.id), ("text", record.text), ("document_id", record.document)):
        if "\0" in text:
            raise RecordError(
                f"{name}: its {what} holds NUL (\\x00) at offset {text.index(chr(0))}, which "
                "Postgres text cannot store. Remove it."
            )
    for what, text in (("id", record.id), ("document_id", record.document)):
        if len(text) > _MAX_ID_BYTES // 4 and len(text.encode("utf-8")) > _MAX_ID_BYTES:
            raise RecordError(f"{name:.60}...: its {what} is over {_MAX_ID_BYTES} bytes long.")
    if record.chunk is not None and not 0 <= record.chunk < 2**31:
        raise RecordError(f"{name}: chunk is {record.chunk}; it must fit a Postgres int.")
    if _holds_nul(record.metadata):
        raise RecordError(
            f"{name}: its metadata holds NUL (\\x00), which Postgres jsonb cannot store. Remove it."
        )


def _is_plain(record: Record) -> bool:
    """Tell at a glance that nothing is wrong with a usual record: short ids, and flat metadata."""
    id, document, chunk = record.id, record.document, record.chunk
    if len(id) > _MAX_ID_BYTES // 4 or len(document) > _MAX_ID_BYTES // 4:
        return False
    if "\0" in id or "\0" in document or "\0" in record.text:
        return False
    if chunk is not None and not 0 <= chunk < 2**31:
        return False
    for key, value in record.metadata.items():
        if "\0" in key:
            return False
        kind = type(value)
        if kind is str:
            if "\0" in value:
                return False
        elif kind not in _SCALARS:
            return False
    return True


def dump_json(value: Mapping[str, Any]) -> str:
    """Write JSON that jsonb gives back to the letter.

    jsonb keeps numbers as decimals and prints them without an exponent, so a float that Python
    writes as ``1e+23`` would come back as an int. Those are written out, with a ``.0``.
    """
    text = as_json(dict(value))
    return _TOKEN.sub(_spelled_out, text) if _ODD_NUMBER.search(text) else text


def metadata_of(written: str | None) -> dict[str, Any]:
    """Read a row's metadata; there is none in what is no object, which others' tables may hold."""
    found = json.loads(written or "{}")
    return found if isinstance(found, dict) else {}


def _spelled_out(token: re.Match[str]) -> str:
    written = token[0]
    if written[0] == '"':
        return written
    if written == "-0.0":
        return MINUS_ZERO
    if "e" not in written:
        return written
    digits = f"{Decimal(written):f}"
    return digits if "." in digits else f"{digits}.0"


def _holds_nul(value: Any) -> bool:
    # Not by recursion: what is nested deeper than Python calls itself can be stored all the same.
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            if "\0" in one:
                return True
        elif isinstance(one, Mapping):
            if "\0" in "".join(one):
                return True
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
    return False
