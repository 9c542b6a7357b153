"""Rows of Parquet files."""

from __future__ import annotations

import io
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.parquet import read_parquet

pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")


def items(file: io.BytesIO, options: ReadOptions | None = None) -> list[SourceDocument | BadInput]:
    found = read_parquet(
        file, location="x.parquet", name="x.parquet", options=options or ReadOptions()
    )
    return list(found)


def test_rows_keep_their_types_and_vectors() -> None:
    from pyarrow import parquet

    rows = [
        {"id": n, "text": f"bread {n}", "year": 2000 + n, "v": [1.0, float(n)]} for n in range(3)
    ]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    file.seek(0)
    found = items(file, ReadOptions(vector="v"))
    assert found == [
        SourceDocument(
            str(n), f"bread {n}", f"x.parquet, row {n + 1}", {"year": 2000 + n}, [1.0, float(n)]
        )
        for n in range(3)
    ]


def written(table: object) -> io.BytesIO:
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(table, file)
    file.seek(0)
    return file


MOMENT = datetime(2024, 5, 1, 10, 30, 0, 250_000, tzinfo=timezone.utc)
TYPES = [
    ("timestamp", pyarrow.timestamp("us", "UTC"), MOMENT, "2024-05-01T10:30:00.250000+00:00"),
    ("nanoseconds", pyarrow.timestamp("ns"), 1_714_559_400_000_000_001, "2024-05-01T10:30:00"),
    ("date", pyarrow.date32(), date(2024, 5, 1), "2024-05-01"),
    ("time", pyarrow.time64("ns"), time(10, 30), "10:30:00"),
    ("duration", pyarrow.duration("ns"), timedelta(days=-1, seconds=3), "-PT86397S"),
    ("decimal", pyarrow.decimal128(9, 2), Decimal("1.50"), "1.50"),
    ("float", pyarrow.float64(), float("nan"), None),
    ("infinite", pyarrow.float32(), float("inf"), None),
    ("bytes", pyarrow.binary(), b"rye", "cnll"),
    (
        "map",
        pyarrow.map_(pyarrow.int32(), pyarrow.date32()),
        [(1, date(2024, 5, 1))],
        {"1": "2024-05-01"},
    ),
    (
        "list",
        pyarrow.list_(pyarrow.timestamp("ns")),
        [MOMENT.replace(tzinfo=None)],
        ["2024-05-01T10:30:00.250000"],
    ),
    (
        "struct",
        pyarrow.struct([("d", pyarrow.date32())]),
        {"d": date(2024, 5, 1)},
        {"d": "2024-05-01"},
    ),
    ("null", pyarrow.null(), None, None),
    ("dictionary", pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "rye", "rye"),
]


@pytest.mark.parametrize(
    ("kind", "value", "expected"), [t[1:] for t in TYPES], ids=[t[0] for t in TYPES]
)
def test_every_type_becomes_json(kind: object, value: object, expected: object) -> None:
    table = pyarrow.table(
        {
            "id": ["a"],
            "text": ["x"],
            "found": pyarrow.array([value], kind),
        }
    )
    (row,) = items(written(table))
    assert isinstance(row, SourceDocument), row
    assert row.metadata == {"found": expected}


def test_a_uuid_becomes_text() -> None:
    if not hasattr(pyarrow, "uuid"):
        pytest.skip("this pyarrow has no type for UUIDs")
    one = UUID(int=7)
    table = pyarrow.table(
        {"id": ["a"], "text": ["x"], "found": pyarrow.array([one.bytes], pyarrow.uuid())}
    )
    (row,) = items(written(table))
    assert isinstance(row, SourceDocument), row
    assert row.metadata == {"found": str(one)}


def test_a_column_that_lacks_is_said_once_and_no_rows_are_nothing() -> None:
    (bad,) = items(written(pyarrow.table({"id": ["a", "b"], "body": ["x", "y"]})))
    assert isinstance(bad, BadInput)
    assert str(bad).startswith("x.parquet: there is no field 'text', only 'id', 'body'")
    (none,) = items(
        written(
            pyarrow.table({"id": pyarrow.array([], "string"), "text": pyarrow.array([], "string")})
        )
    )
    assert isinstance(none, BadInput)
    assert none.kind == "nothing in it"


def test_what_is_not_parquet_is_named() -> None:
    (bad,) = items(io.BytesIO(b"not at all"))
    assert isinstance(bad, BadInput)
    assert str(bad).startswith("x.parquet: not Parquet: ")
