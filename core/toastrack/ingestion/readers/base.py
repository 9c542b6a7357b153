"""What a reader is given, and what it makes of it: one input a document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol


@dataclass(frozen=True)
class SourceDocument:
    """One document as its source gives it."""

    id: str
    text: str
    location: str
    """Where it stands, for people: a file, or a file and a line."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Sequence[float] | None = None


@dataclass(frozen=True)
class BadInput:
    """What stands where a document should be; ``message`` names the location and the fault."""

    message: str


@dataclass(frozen=True)
class Columns:
    """Which fields of a row are what."""

    text: str = "text"
    id: str = "id"
    id_from: Literal["column", "content"] = "column"
    """"content": the id is the sha256 of the text, for rows that have none."""
    vector: str | None = None
    """A field with a ready vector."""
    metadata: Sequence[str] | None = None
    """The fields to keep; None keeps all."""
    types: Mapping[str, type] = field(default_factory=dict)
    """What the text of a CSV field stands for: int, float, bool or str."""


class Reader(Protocol):
    """Reads the documents of one file, already unpacked."""

    def __call__(
        self, file: BinaryIO, *, location: str, name: str, columns: Columns
    ) -> Iterator[SourceDocument | BadInput]:
        """Yield one input a document; ``name`` is the file's id, ``location`` what people call it."""
        ...
