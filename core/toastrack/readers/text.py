"""Plain text and Markdown: one file, one document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.readers.base import Bad, Columns, Input


def read_text(file: BinaryIO, *, place: str, name: str, columns: Columns) -> Iterator[Input | Bad]:
    """Yield the file as one document whose id is the file's name."""
    yield _read(file, place, name, {"source": name})


def read_markdown(
    file: BinaryIO, *, place: str, name: str, columns: Columns
) -> Iterator[Input | Bad]:
    """Yield the file as one document; a heading in its first line is its title."""
    found = _read(file, place, name, {"source": name})
    if isinstance(found, Input):
        first = found.text.lstrip().partition("\n")[0]
        if first.startswith("# "):
            metadata = {**found.metadata, "title": first.removeprefix("# ").strip()}
            found = Input(found.id, found.text, found.place, metadata)
    yield found


def _read(file: BinaryIO, place: str, name: str, metadata: dict[str, Any]) -> Input | Bad:
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Bad(
            f"{place}: byte {error.start} is not UTF-8 text. Convert the file, e.g. with "
            "iconv -f latin1 -t utf-8."
        )
    return Input(name, text, place, metadata)
