"""Text and Markdown files."""

from __future__ import annotations

from pathlib import Path

import pytest

from toastrack.errors import SourceError
from toastrack.readers import Columns
from toastrack.readers.text import read_text


def test_a_file_is_one_document_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "rye.txt"
    path.write_bytes("\ufeffRöggen\n".encode())
    (item,) = read_text(path, "flour/rye.txt", Columns())
    assert (item.id, item.text) == ("flour/rye.txt", "Röggen\n")
    assert item.metadata == {"source": "flour/rye.txt"}


def test_a_markdown_heading_is_the_title(tmp_path: Path) -> None:
    path = tmp_path / "rye.md"
    path.write_text("# Rye\n\nKeeps long.\n")
    (item,) = read_text(path, "rye.md", Columns())
    assert item.metadata == {"source": "rye.md", "title": "Rye"}
    assert item.text.startswith("# Rye")


def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(SourceError, match=r"old\.txt: byte 3 is not UTF-8.*iconv"):
        list(read_text(path, "old.txt", Columns()))
