"""Rows of JSON Lines files, and errors that name the line."""

from __future__ import annotations

import hashlib
import io
import json
import re

import pytest

from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers import decoding as decoding_module
from toastrack.ingestion.readers import jsonl as jsonl_module
from toastrack.ingestion.readers.jsonl import read_json, read_jsonl
from toastrack.ingestion.readers.template import Template


def items(
    content: str | bytes, options: ReadOptions | None = None
) -> list[SourceDocument | BadInput]:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(
        read_jsonl(file, location="rows.jsonl", name="rows.jsonl", options=options or ReadOptions())
    )


def read(content: str | bytes, options: ReadOptions | None = None) -> list[SourceDocument]:
    found = items(content, options)
    assert all(isinstance(item, SourceDocument) for item in found), found
    return [item for item in found if isinstance(item, SourceDocument)]


def test_every_other_field_becomes_metadata() -> None:
    (row,) = read('{"id": "a", "text": "Rye.", "days": 7, "metadata": {"lang": "en"}}\n')
    assert (row.id, row.text, row.metadata) == ("a", "Rye.", {"lang": "en", "days": 7})


def test_a_metadata_field_that_is_no_object_is_kept_as_it_is() -> None:
    (row,) = read('{"id": "a", "text": "Rye.", "metadata": "plain"}\n')
    assert row.metadata == {"metadata": "plain"}


def test_whole_numbers_are_ids_too() -> None:
    assert [row.id for row in read('{"id": 42, "text": "x"}')] == ["42"]


def test_columns_can_be_named() -> None:
    options = ReadOptions(text="body", id="key")
    (row,) = read('{"key": "a", "body": "Rye.", "id": 1, "text": 2}', options)
    assert (row.id, row.text, row.metadata) == ("a", "Rye.", {"id": 1, "text": 2})


def test_ids_can_come_from_the_content() -> None:
    (row,) = read('{"text": "Rye.", "id": 1}', ReadOptions(id_from="content"))
    assert row.id == hashlib.sha256(b"Rye.").hexdigest()
    assert row.metadata == {"id": 1}


def test_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    rows = read(b'\xef\xbb\xbf{"id": "a", "text": "x"}\n\n  \n{"id": "b", "text": "y"}')
    assert [row.id for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"id": "b", "text": ', "not JSON"),
        (b'["b"]', "must be a JSON object, not list"),
        (b'{"id": "b", "body": "x"}', "no field 'text', only 'id', 'body'.*with text_column="),
        (b'{"id": "b", "text": 3}', "'text' is int, not text"),
        (b'{"text": "x"}', "no field 'id'.*id_column=.*id_from='content'"),
        (b'{"id": 1.5, "text": "x"}', "the id 1.5 is not text or a whole number"),
        (b'{"id": "", "text": "x"}', "the id '' is not text"),
        (b'{"id": true, "text": "x"}', "the id True is not text"),
        (b'{"id": "b", "text": "caf\xe9"}', "not UTF-8"),
    ],
)
def test_a_broken_line_is_named_and_the_next_one_is_read(line: bytes, says: str) -> None:
    row = b'{"id": "a", "text": "x"}'
    first, bad, last = items(row + b"\n" + line + b"\n" + row)
    assert isinstance(first, SourceDocument)
    assert isinstance(last, SourceDocument)
    assert isinstance(bad, BadInput)
    assert re.search(rf"^rows\.jsonl, line 2: .*{says}", str(bad))


def test_only_the_metadata_asked_for_is_kept() -> None:
    line = '{"id": "a", "text": "x", "lang": "en", "noise": 1}'
    (row,) = read(line, ReadOptions(metadata=["lang"]))
    assert row.metadata == {"lang": "en"}
    (bad,) = items(line, ReadOptions(metadata=["year"]))
    assert isinstance(bad, BadInput)
    assert "no field 'year'" in str(bad)


def test_a_ready_vector_is_taken_from_its_field() -> None:
    (row,) = read('{"id": "a", "text": "x", "v": [1, 2]}', ReadOptions(vector="v"))
    assert (row.vector, row.metadata) == ([1, 2], {})


def test_a_text_is_made_of_several_fields_which_stay_metadata() -> None:
    template = Template.parse("{title}: {body} ({n}, {no}, {{x}})")
    line = '{"id": "a", "title": "Rye", "body": "Dark.", "n": 7, "no": null, "text": "mine"}'
    (row,) = read(line, ReadOptions(template=template))
    assert row.text == "Rye: Dark. (7, , {x})"
    assert row.metadata == {"title": "Rye", "body": "Dark.", "n": 7, "no": None, "text": "mine"}
    for bad, says in (
        ('{"id": "a", "title": "Rye"}', "no field 'body' for text="),
        (line.replace("7", "[7]"), "'n' is list, which makes no text"),
    ):
        (item,) = items(bad, ReadOptions(template=template))
        assert isinstance(item, BadInput)
        assert says in str(item)


def test_a_vector_that_was_asked_for_and_is_not_there_is_named() -> None:
    (bad,) = items('{"id": "a", "text": "x"}', ReadOptions(vector="v"))
    assert isinstance(bad, BadInput)
    assert "no field 'v' to take the vector from" in str(bad)


def test_a_line_over_the_limit_is_named_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (jsonl_module, decoding_module):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 100)
    bad, row = items('{"id": "b", "text": "' + "x" * 5_000 + '"}\n{"id": "a", "text": "x"}\n')
    assert isinstance(bad, BadInput)
    assert str(bad).startswith("rows.jsonl, line 1: the line is over")
    assert isinstance(row, SourceDocument)
    assert row.location == "rows.jsonl, line 2"


def test_deep_nesting_is_named() -> None:
    bad, _ = items("[" * 100_000 + '\n{"id": "a", "text": "x"}')
    assert isinstance(bad, BadInput)
    assert str(bad).startswith("rows.jsonl, line 1: not JSON")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings_are_read(encoding: str) -> None:
    content = '{"id": "a", "text": "Röggen"}\n{"id": "b", "text": "ü"}\n'.encode(encoding)
    rows = read(content, ReadOptions(encoding="latin-1"))
    assert [row.text for row in rows] == ["Röggen", "ü"]


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_a_file_without_rows_has_nothing_in_it(content: str) -> None:
    (item,) = items(content)
    assert isinstance(item, BadInput)
    assert item.kind == "nothing in it"


def array(content: str | bytes) -> list[SourceDocument | BadInput]:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(read_json(file, location="x.json", name="x.json", options=ReadOptions()))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [10, 100_000])
def test_an_array_holds_a_row_an_object(indent: int | None, size: int) -> None:
    rows = [{"id": str(n), "text": f"Röggen {n} " + "x" * size, "n": n} for n in range(5)]
    content = " \n" + json.dumps(rows, indent=indent, ensure_ascii=False) + "\n"
    for encoded in (content.encode(), ("\ufeff" + content).encode("utf-8")):
        found = array(encoded)
        assert found == [
            SourceDocument(str(row["id"]), str(row["text"]), f"x.json, row {n}", {"n": row["n"]})
            for n, row in enumerate(rows, start=1)
        ]


def test_an_array_is_read_piece_by_piece() -> None:
    rows = json.dumps([{"id": str(n), "text": "bread"} for n in range(50_000)]).encode()
    file = io.BytesIO(rows)
    next(iter(read_json(file, location="x.json", name="x.json", options=ReadOptions())))
    assert file.tell() < len(rows) / 4


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        ('{"name": "a package"}', "not for us", "no array of objects"),
        ('"text"', "not for us", "no array of objects"),
        ("[]", "nothing in it", "no row"),
        (" \n", "nothing in it", "no row"),
        ("[1]", "cannot be read", "row 1: a row must be a JSON object, not int"),
        ("[{]", "cannot be read", "row 1: not JSON: .*The rows behind it are lost"),
        ('[{"id": "a"', "cannot be read", "row 1: not JSON"),
        ("[" * 100_000, "cannot be read", "row 1: not JSON"),
        (b'[{"id": "a", "text": "caf\xe9"}]', "cannot be read", r"row 1.*\(0xE9\) is not UTF-8"),
    ],
)
def test_json_that_is_no_array_of_rows(content: str | bytes, kind: str, says: str) -> None:
    (item,) = array(content)
    assert isinstance(item, BadInput)
    assert item.kind == kind
    assert re.search(f"^x\\.json.*{says}", str(item))


def test_the_rows_before_a_broken_one_are_kept() -> None:
    row, other, bad = array('[{"id": "a", "text": "x"}, 7, {"id": }, {"id": "b", "text": "y"}]')
    assert isinstance(row, SourceDocument)
    assert isinstance(other, BadInput)
    assert isinstance(bad, BadInput)
