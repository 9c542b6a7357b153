"""Plain text and Markdown: one file, one document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.ingestion.readers.base import BadInput, Columns, SourceDocument


def read_text(
    file: BinaryIO, *, location: str, name: str, columns: Columns
) -> Iterator[SourceDocument | BadInput]:
    """Yield the file as one document whose id is the file's name."""
    yield _read(file, location, name, {"source": name})


def read_markdown(
    file: BinaryIO, *, location: str, name: str, columns: Columns
) -> Iterator[SourceDocument | BadInput]:
    """Yield the file as one document; a heading in its first line is its title."""
    found = _read(file, location, name, {"source": name})
    if isinstance(found, SourceDocument):
        first = found.text.lstrip().partition("\n")[0]
        if first.startswith("# "):
            metadata = {**found.metadata, "title": first.removeprefix("# ").strip()}
            found = SourceDocument(found.id, found.text, found.location, metadata)
    yield found


def _read(
    file: BinaryIO, location: str, name: str, metadata: dict[str, Any]
) -> SourceDocument | BadInput:
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return BadInput(
            f"{location}: byte {error.start} is not UTF-8 text. Convert the file, e.g. with "
            "iconv -f latin1 -t utf-8."
        )
    return SourceDocument(name, text, location, metadata)
