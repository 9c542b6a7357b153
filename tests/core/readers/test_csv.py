"""Rows of CSV files, with types by option, and errors that name the line."""

from __future__ import annotations

import io
import re

import pytest

from toastrack.ingestion.readers import BadInput, Columns, SourceDocument
from toastrack.ingestion.readers.csv import read_csv


def items(content: str | bytes, columns: Columns | None = None) -> list[SourceDocument | BadInput]:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(read_csv(file, location="rows.csv", name="rows.csv", columns=columns or Columns()))


def test_every_other_field_is_metadata_and_text() -> None:
    assert items('\ufeffid,text,year\na,"Rye, dark",2024\n') == [
        SourceDocument("a", "Rye, dark", "rows.csv, line 2", {"year": "2024"})
    ]


def test_fields_have_the_types_that_were_asked_for() -> None:
    types = {"year": int, "price": float, "fresh": bool}
    (row, empty) = items(
        "id,text,year,price,fresh\na,x,2024,1.5,Yes\nb,y,,,\n", Columns(types=types)
    )
    assert isinstance(row, SourceDocument)
    assert isinstance(empty, SourceDocument)
    assert row.metadata == {"year": 2024, "price": 1.5, "fresh": True}
    assert empty.metadata == {"year": None, "price": None, "fresh": None}


def test_a_field_may_span_lines_and_be_long() -> None:
    long = "bread\n" * 50_000
    (row,) = items(f'id,text\na,"{long}"\n')
    assert isinstance(row, SourceDocument)
    assert row.text == long


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("b", "1 fields, but the header names 3"),
        ("b,x,1,2", "4 fields, but the header names 3"),
        ("b,x,old", "year is 'old', which is no int"),
        (",x,1", "the id '' is not text"),
    ],
)
def test_a_broken_row_is_named_and_the_next_one_is_read(line: str, says: str) -> None:
    content = f"id,text,year\n{line}\na,x,1\n"
    bad, row = items(content, Columns(types={"year": int}))
    assert isinstance(row, SourceDocument)
    assert isinstance(bad, BadInput)
    assert re.search(rf"^rows\.csv, line 2: .*{says}", bad.message)


@pytest.mark.parametrize("content", [b"id,text\na,caf\xe9\n", b'id,text\na,"x"y\n'])
def test_what_is_not_csv_ends_the_file_with_its_place(content: bytes) -> None:
    last = items(content)[-1]
    assert isinstance(last, BadInput)
    assert last.message.startswith("rows.csv, after line")
