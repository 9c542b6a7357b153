"""Rows of CSV files, with types by option, and errors that name the line."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, datetime

import pytest

from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers import csv as csv_module
from toastrack.ingestion.readers import decoding as decoding_module
from toastrack.ingestion.readers.csv import read_csv, read_tsv


def items(
    content: str | bytes, options: ReadOptions | None = None
) -> list[SourceDocument | BadInput]:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(
        read_csv(file, location="rows.csv", name="rows.csv", options=options or ReadOptions())
    )


def test_every_other_field_is_metadata_and_text() -> None:
    assert items('\ufeffid,text,year\na,"Rye, dark",2024\n') == [
        SourceDocument("a", "Rye, dark", "rows.csv, line 2", {"year": "2024"})
    ]


def test_fields_have_the_types_that_were_asked_for() -> None:
    types = {"year": int, "price": float, "fresh": bool}
    (row, empty) = items(
        "id,text,year,price,fresh\na,x,2024,1.5,Yes\nb,y,,,\n", ReadOptions(types=types)
    )
    assert isinstance(row, SourceDocument)
    assert isinstance(empty, SourceDocument)
    assert row.metadata == {"year": 2024, "price": 1.5, "fresh": True}
    assert empty.metadata == {"year": None, "price": None, "fresh": None}


@pytest.mark.parametrize("part", [1, 2, 7, 2**20])
def test_rows_that_are_utf8_stay_so_whatever_others_are(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding_module, "_PART", part)
    options = ReadOptions(encoding="latin-1")
    (row,) = items("id,text\na,Rye and Brötchen\n", options)
    (other,) = items("id,text\na,Rye and Brötchen\n".encode("latin-1"), options)
    (marked,) = items("\ufeffid,text\na,Rye and Brötchen\n", options)
    assert row == other == marked
    assert isinstance(row, SourceDocument)
    assert row.text == "Rye and Brötchen"


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
    bad, row = items(content, ReadOptions(types={"year": int}))
    assert isinstance(row, SourceDocument)
    assert isinstance(bad, BadInput)
    assert re.search(rf"^rows\.csv, line 2: .*{says}", str(bad))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b'b,"x"y', "not CSV: ',' expected after '\"'"),
        (b"b,caf\xe9", r"character 6 \(0xE9\) is not UTF-8.*encoding='latin-1'"),
        (b'b,"never closed', "not CSV: "),
    ],
)
def test_a_wrong_quote_or_byte_loses_its_row_alone(broken: bytes, says: str) -> None:
    first, bad, *others = items(
        b'id,text\na,"x\n1"\n'
        + broken
        + b'\nc,"y\n2"\nd,z\n'
        + b"".join(b"e%d,w\n" % n for n in range(9))
    )
    assert isinstance(first, SourceDocument)
    assert isinstance(bad, BadInput)
    assert re.search(rf"^rows\.csv, line 4: {says}", str(bad))
    assert [(d.id, d.text, d.location) for d in others if isinstance(d, SourceDocument)][:3] == [
        ("c", "y\n2", "rows.csv, line 6"),
        ("d", "z", "rows.csv, line 7"),
        ("e0", "w", "rows.csv, line 8"),
    ]
    assert len(others) == 11


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("id;text;year", ";"),
        ("id\ttext\tyear", "\t"),
        ("id|text|year", "|"),
        ('"a;b",id,text', ","),
        ("id;text;a,b,c,d", ";"),
    ],
)
def test_the_delimiter_is_found_in_the_header_and_said(header: str, delimiter: str) -> None:
    said: list[str] = []
    row = delimiter.join(
        ["a", "b", "c", "d"][: len(next(csv.reader([header], delimiter=delimiter)))]
    )
    (item,) = items(f"{header}\n{row}\n", ReadOptions(say=said.append))
    assert isinstance(item, SourceDocument)
    assert len(said) == (delimiter != ",")
    assert all("rows.csv: " in note and "delimiter=" in note for note in said)


def test_a_delimiter_can_be_named_and_excels_own_line_is_read() -> None:
    (item,) = items("id#text\na#Rye, dark; very\n", ReadOptions(delimiter="#"))
    assert isinstance(item, SourceDocument)
    assert item.text == "Rye, dark; very"
    (item,) = items("sep=;\r\nid;text\r\na;Rye\r\n")
    assert isinstance(item, SourceDocument)
    assert item.location == "rows.csv, line 3"


def test_tsv_has_tabs() -> None:
    file = io.BytesIO(b"id\ttext\na\tRye, dark\n")
    (item,) = read_tsv(file, location="x.tsv", name="x.tsv", options=ReadOptions())
    assert isinstance(item, SourceDocument)
    assert item.text == "Rye, dark"


@pytest.mark.parametrize(
    ("header", "options", "says"),
    [
        ("id,text,x,x", ReadOptions(), "line 1: two columns are called 'x'"),
        (
            "id,txt",
            ReadOptions(),
            "line 1: there is no field 'text', only 'id', 'txt'.*text_column=",
        ),
        ("key,text", ReadOptions(), "line 1: there is no field 'id' to take the id from"),
        (
            "id,text",
            ReadOptions(vector="v"),
            "no field 'v' to take the vector from.*vector_column=",
        ),
        ("id,text", ReadOptions(types={"n": int}), "no field 'n' to read as int"),
        ("id,text", ReadOptions(metadata=["n"]), "no field 'n' to keep"),
        (",,", ReadOptions(), "no column has a name"),
    ],
)
def test_a_header_that_lacks_something_is_said_once(
    header: str, options: ReadOptions, says: str
) -> None:
    (bad,) = items(f"{header}\n" + "a,b,c,d\n" * 5, options)
    assert isinstance(bad, BadInput)
    assert re.search(f"^rows\\.csv, {says}" if says.startswith("line") else says, str(bad))


def test_columns_without_a_name_are_numbered_and_dropped_where_empty() -> None:
    full, empty = items(",id,text,,\n0,a,x,,\n,b,y,,z\n")
    assert isinstance(full, SourceDocument)
    assert isinstance(empty, SourceDocument)
    assert (full.metadata, empty.metadata) == ({"column_1": "0"}, {"column_5": "z"})


@pytest.mark.parametrize("content", ["", "\n\n", "id,text\n", "id,text\n\n\n"])
def test_a_file_without_rows_has_nothing_in_it(content: str) -> None:
    (item,) = items(content)
    assert isinstance(item, BadInput)
    assert item.kind == "nothing in it"


def test_dates_are_iso() -> None:
    types = {"day": date, "at": datetime}
    good, empty, bad = items(
        "id,text,day,at\na,x,2024-05-01,2024-05-01T10:00:00Z\nb,y,,\nc,z,1.5.2024,\n",
        ReadOptions(types=types),
    )
    assert isinstance(good, SourceDocument)
    assert isinstance(empty, SourceDocument)
    assert good.metadata == {"day": "2024-05-01", "at": "2024-05-01T10:00:00+00:00"}
    assert empty.metadata == {"day": None, "at": None}
    assert isinstance(bad, BadInput)
    assert "day is '1.5.2024', which is no date like 2024-12-31" in str(bad)


@pytest.mark.parametrize("cell", ["[1, 2.5]", "1 2.5", "{1,2.5}", "[1.  2.5]", "1e0,2.5"])
def test_a_cell_may_hold_a_vector(cell: str) -> None:
    (item,) = items(f'id,text,v\na,x,"{cell}"\n', ReadOptions(vector="v"))
    assert isinstance(item, SourceDocument)
    assert item.vector == [1.0, 2.5]


def test_a_cell_that_holds_no_vector_is_named_and_an_empty_one_is_none() -> None:
    bad, none = items('id,text,v\na,x,"[1, ...]"\nb,y,\n', ReadOptions(vector="v"))
    assert isinstance(bad, BadInput)
    assert "'v' is '[1, ...]', which is no vector" in str(bad)
    assert isinstance(none, SourceDocument)
    assert none.vector is None


def test_utf16_is_read() -> None:
    (item,) = items("id,text\na,Röggen\n".encode("utf-16"))
    assert isinstance(item, SourceDocument)
    assert item.text == "Röggen"


def test_a_row_over_the_limit_is_named_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (csv_module, decoding_module):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 100)
    long = "x" * 1_000
    many = 'c,"' + "y\n" * 100
    found = items(f"id,text\na,{long}\nb,z\n{many}")
    assert isinstance(found[0], BadInput)
    assert "line 2: not CSV: the row is over" in str(found[0])
    assert isinstance(found[1], SourceDocument)
    assert all(isinstance(item, BadInput) for item in found[2:])
