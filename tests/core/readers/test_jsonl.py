"""Rows of JSON Lines files, and errors that name the line."""

from __future__ import annotations

import hashlib
import io
import re

import pytest

from toastrack.ingestion.readers import BadInput, Columns, SourceDocument
from toastrack.ingestion.readers.jsonl import read_jsonl


def items(content: str | bytes, columns: Columns | None = None) -> list[SourceDocument | BadInput]:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(
        read_jsonl(file, location="rows.jsonl", name="rows.jsonl", columns=columns or Columns())
    )


def read(content: str | bytes, columns: Columns | None = None) -> list[SourceDocument]:
    found = items(content, columns)
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
    columns = Columns(text="body", id="key")
    (row,) = read('{"key": "a", "body": "Rye.", "id": 1, "text": 2}', columns)
    assert (row.id, row.text, row.metadata) == ("a", "Rye.", {"id": 1, "text": 2})


def test_ids_can_come_from_the_content() -> None:
    (row,) = read('{"text": "Rye.", "id": 1}', Columns(id_from="content"))
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
    assert re.search(rf"^rows\.jsonl, line 2: .*{says}", bad.message)


def test_only_the_metadata_asked_for_is_kept() -> None:
    line = '{"id": "a", "text": "x", "lang": "en", "noise": 1}'
    (row,) = read(line, Columns(metadata=["lang"]))
    assert row.metadata == {"lang": "en"}
    (bad,) = items(line, Columns(metadata=["year"]))
    assert isinstance(bad, BadInput)
    assert "no field 'year'" in bad.message


def test_a_ready_vector_is_taken_from_its_field() -> None:
    (row,) = read('{"id": "a", "text": "x", "v": [1, 2]}', Columns(vector="v"))
    assert (row.vector, row.metadata) == ([1, 2], {})
