"""Vectors and metadata on the wire, against Postgres and against pgvector's own encoding."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from toastrack import Record
from toastrack.errors import RecordError
from toastrack_postgres.codec import (
    VectorArrayParameter,
    VectorParameter,
    VectorType,
    check_record,
    dump_json,
    register_parameters,
)

KINDS: list[VectorType] = ["vector", "halfvec"]


@pytest.fixture
def connection(postgres_dsn: str, schema: str) -> Iterator[Any]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


def oids(connection: Any, kind: str) -> tuple[int, int]:
    row: tuple[int, int] = connection.execute(
        "select oid::int, typarray::int from pg_type where typname = %s", [kind]
    ).fetchone()
    return row


def expected(vectors: Any, kind: str) -> Any:
    return vectors.astype(np.float16).astype(np.float32) if kind == "halfvec" else vectors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 7, 1_024])
def test_vectors_arrive_as_they_are(connection: Any, kind: VectorType, size: int) -> None:
    vectors = np.random.default_rng(size).normal(size=(5, size)).astype(np.float32)
    vectors[0, 0] = -0.0
    vectors[1, 0] = 6e-8  # the smallest half that is not zero
    oid, array_oid = oids(connection, kind)
    parameters = [
        VectorParameter(vectors[3], kind, oid),
        VectorArrayParameter(list(vectors), kind, oid=oid, array_oid=array_oid),
        VectorArrayParameter([vectors[4][::-1]], kind, oid=oid, array_oid=array_oid),
    ]
    cursor = connection.cursor()
    register_parameters(cursor.adapters)

    one, many, reverse = cursor.execute(
        "select %b::real[], array(select v::real[] from unnest(%b) v), (%b)[1]::real[]",
        parameters,
    ).fetchone()

    assert np.array_equal(np.array(one, np.float32), expected(vectors[3], kind))
    assert np.array_equal(np.array(many, np.float32), expected(vectors, kind))
    assert np.array_equal(np.array(reverse, np.float32), expected(vectors[4][::-1], kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_is_packed_as_pgvector_packs_one(kind: VectorType) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    packed = VectorArrayParameter(list(vectors), kind, oid=1, array_oid=2)
    single = [VectorParameter(vector, kind, 1).data for vector in vectors]
    elements = b"".join(len(data).to_bytes(4, "big") + data for data in single)
    assert packed.data[20:] == elements


def test_only_the_cursor_learns_the_parameters(connection: Any) -> None:
    cursor = connection.cursor()
    register_parameters(cursor.adapters)
    oid, _ = oids(connection, "vector")
    parameter = VectorParameter(np.ones(3, np.float32), "vector", oid)
    assert cursor.execute("select %b::text", [parameter]).fetchone() == ("[1,1,1]",)
    with pytest.raises(psycopg.ProgrammingError, match="VectorParameter"):
        connection.execute("select %b::text", [parameter])


NUMBERS = [
    0.0,
    0.1,
    1.0,
    -1.0,
    100.0,
    1e15,
    1e16,
    1e17,
    -1e22,
    1e23,
    123456789012345680.0,
    1.7976931348623157e308,
    1e-4,
    1e-5,
    1e-7,
    2.5e-300,
    5e-324,
    math.pi,
    2**53 + 1,
    -(2**64),
    10**100,
    True,
    None,
    "1e23",
]


def test_jsonb_gives_numbers_back_to_the_letter(connection: Any) -> None:
    for value in ({"a": number} for number in NUMBERS):
        (text,) = connection.execute("select %s::jsonb::text", [dump_json(value)]).fetchone()
        assert repr(json.loads(text)) == repr(value)
    everything = {"a": NUMBERS, "1e5": {"b": NUMBERS}}
    (text,) = connection.execute("select %s::jsonb::text", [dump_json(everything)]).fetchone()
    assert repr(json.loads(text)) == repr(everything)


def test_json_is_json(connection: Any) -> None:
    for value in (
        {},
        {"a": 1e300, "ключ": 'e\u0301 "x" \\ \n \u2028 🍞', "": [[], {}, None, True, False]},
        {"1e5": 1, "a": "1e5"},
        {"numpy": np.float64(1e23)},
    ):
        assert json.loads(dump_json(value)) == value


REFUSED: dict[str, tuple[Record, str]] = {
    "NUL in text": (Record("bad", "ry\0e"), "text holds NUL .* offset 2"),
    "NUL in id": (Record("ba\0d", "rye"), "id holds NUL .* offset 2"),
    "NUL in document": (Record("bad", "rye", document_id="\0"), "document_id holds NUL"),
    "NUL in value": (Record("bad", "rye", {"a": [{"b": "\0"}]}), "metadata holds NUL"),
    "NUL in key": (Record("bad", "rye", {"a": {"\0": 1}}), "metadata holds NUL"),
    "long id": (Record("x" * 2_601, "rye"), "id is over 2600 bytes"),
    "long document": (Record("bad", "rye", document_id="é" * 1_301), "document_id is over 2600"),
    "negative chunk": (Record("bad", "rye", chunk=-1), "chunk is -1"),
    "large chunk": (Record("bad", "rye", chunk=2**31), "chunk is 2147483648"),
}


@pytest.mark.parametrize(("record", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_postgres_cannot_store_is_named(record: Record, message: str) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        check_record(record)
    assert repr(record.id)[:20] in str(caught.value)


def test_what_postgres_can_store_passes() -> None:
    check_record(Record("x" * 2_600, "", {"a": "\\u0000"}, document_id="é" * 1_300, chunk=0))
    check_record(Record("a", "\x01\ufeff", {"\x01": ["\\0"]}, chunk=2**31 - 1))
