"""Plain text and Markdown: one file, one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toastrack.errors import SourceError
from toastrack.readers.base import Columns, Input


def read_text(path: Path, name: str, columns: Columns) -> Iterator[Input]:
    """Yield the file as one document whose id is the file's name."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: byte {error.start} is not UTF-8 text. Convert the file, e.g. with "
            "iconv -f latin1 -t utf-8."
        ) from None
    metadata: dict[str, Any] = {"source": name}
    title = _title(text)
    if title and path.suffix.lower() == ".md":
        metadata["title"] = title
    yield Input(name, text, place=str(path), size=len(data), metadata=metadata)


def _title(text: str) -> str | None:
    """Return the first line if it is a Markdown heading."""
    first = text.lstrip().partition("\n")[0]
    return first.removeprefix("# ").strip() if first.startswith("# ") else None
