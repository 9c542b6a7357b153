"""Text and Markdown files."""

from __future__ import annotations

import io

from toastrack.ingestion.readers import BadInput, Columns, Reader, SourceDocument
from toastrack.ingestion.readers.text import read_markdown, read_text


def read(reader: Reader, content: str | bytes) -> SourceDocument | BadInput:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    (item,) = reader(file, location="docs/rye.md", name="rye.md", columns=Columns())
    return item


def test_a_file_is_one_document_with_its_source() -> None:
    item = read(read_text, "\ufeff# Röggen\n")
    assert item == SourceDocument("rye.md", "# Röggen\n", "docs/rye.md", {"source": "rye.md"})


def test_a_markdown_heading_is_the_title() -> None:
    item = read(read_markdown, "# Rye\n\nKeeps long.\n")
    assert isinstance(item, SourceDocument)
    assert item.metadata == {"source": "rye.md", "title": "Rye"}
    assert item.text.startswith("# Rye")


def test_a_file_that_is_not_utf8_is_named_with_the_byte() -> None:
    item = read(read_markdown, b"caf\xe9")
    assert isinstance(item, BadInput)
    assert item.message.startswith("docs/rye.md: byte 3 is not UTF-8 text. Convert")
