"""What a reader makes of a file: one input a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Input:
    """One document as its source gives it."""

    id: str
    text: str
    place: str
    """Where it stands, for people: a file, or a file and a line."""
    size: int
    """Bytes of the source it took, for progress."""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """Which fields of a row are what."""

    text: str = "text"
    id: str = "id"
    id_from: Literal["column", "content"] = "column"
    """"content": the id is the sha256 of the text, for rows that have none."""


class Reader(Protocol):
    """Reads the documents of one file; raises ``SourceError`` naming file and line."""

    def __call__(self, path: Path, name: str, columns: Columns) -> Iterator[Input]:
        """Yield one input a document; ``name`` is the file's id."""
        ...
