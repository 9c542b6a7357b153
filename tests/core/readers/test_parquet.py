"""Rows of Parquet files."""

from __future__ import annotations

import io

import pytest

from toastrack.ingestion.readers import BadInput, Columns, SourceDocument
from toastrack.ingestion.readers.parquet import read_parquet

pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")


def items(file: io.BytesIO, columns: Columns | None = None) -> list[SourceDocument | BadInput]:
    found = read_parquet(file, location="x.parquet", name="x.parquet", columns=columns or Columns())
    return list(found)


def test_rows_keep_their_types_and_vectors() -> None:
    from pyarrow import parquet

    rows = [
        {"id": n, "text": f"bread {n}", "year": 2000 + n, "v": [1.0, float(n)]} for n in range(3)
    ]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    file.seek(0)
    found = items(file, Columns(vector="v"))
    assert found == [
        SourceDocument(
            str(n), f"bread {n}", f"x.parquet, row {n + 1}", {"year": 2000 + n}, [1.0, float(n)]
        )
        for n in range(3)
    ]


def test_what_is_not_parquet_is_named() -> None:
    (bad,) = items(io.BytesIO(b"not at all"))
    assert isinstance(bad, BadInput)
    assert bad.message.startswith("x.parquet: not Parquet: ")
