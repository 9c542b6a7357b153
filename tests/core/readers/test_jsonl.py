"""Rows of JSON Lines files, and errors that name the line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from toastrack.errors import SourceError
from toastrack.readers import Columns, Input
from toastrack.readers.jsonl import read_jsonl


def read(tmp_path: Path, content: str | bytes, columns: Columns | None = None) -> list[Input]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return list(read_jsonl(path, "rows.jsonl", columns or Columns()))


def test_every_other_field_becomes_metadata(tmp_path: Path) -> None:
    (row,) = read(tmp_path, '{"id": "a", "text": "Rye.", "days": 7, "metadata": {"lang": "en"}}\n')
    assert (row.id, row.text, row.metadata) == ("a", "Rye.", {"lang": "en", "days": 7})


def test_a_metadata_field_that_is_no_object_is_kept_as_it_is(tmp_path: Path) -> None:
    (row,) = read(tmp_path, '{"id": "a", "text": "Rye.", "metadata": "plain"}\n')
    assert row.metadata == {"metadata": "plain"}


def test_whole_numbers_are_ids_too(tmp_path: Path) -> None:
    assert [row.id for row in read(tmp_path, '{"id": 42, "text": "x"}')] == ["42"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    columns = Columns(text="body", id="key")
    (row,) = read(tmp_path, '{"key": "a", "body": "Rye.", "id": 1, "text": 2}', columns)
    assert (row.id, row.text, row.metadata) == ("a", "Rye.", {"id": 1, "text": 2})


def test_ids_can_come_from_the_content(tmp_path: Path) -> None:
    (row,) = read(tmp_path, '{"text": "Rye.", "id": 1}', Columns(id_from="content"))
    assert row.id == hashlib.sha256(b"Rye.").hexdigest()
    assert row.metadata == {"id": 1}


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    rows = read(tmp_path, b'\xef\xbb\xbf{"id": "a", "text": "x"}\n\n  \n{"id": "b", "text": "y"}')
    assert [row.id for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"id": "b", "text": ', "not JSON"),
        (b'["b"]', "must be a JSON object, not list"),
        (b'{"id": "b", "body": "x"}', "no field 'text', only 'id', 'body'.*--text-column"),
        (b'{"id": "b", "text": 3}', "'text' is int, not text"),
        (b'{"text": "x"}', "no field 'id'.*--id-column.*--id-from content"),
        (b'{"id": 1.5, "text": "x"}', "the id 1.5 is not text or a whole number"),
        (b'{"id": "", "text": "x"}', "the id '' is not text"),
        (b'{"id": true, "text": "x"}', "the id True is not text"),
        (b'{"id": "b", "text": "caf\xe9"}', "not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    with pytest.raises(SourceError, match=rf"rows\.jsonl, line 2: .*{says}"):
        read(tmp_path, b'{"id": "a", "text": "x"}\n' + line)
