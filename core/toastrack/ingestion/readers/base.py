"""What a reader is given, and what it makes of it: one input a document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

from toastrack.ingestion.readers.template import Template
from toastrack.records import SkipKind

# More than eight long novels; to split as much takes minutes.
MAX_DOCUMENT = 16 * 2**20
"""How many bytes or characters one document, one row or one line may have, unpacked."""


@dataclass(frozen=True)
class Place:
    """From here on, a text stands under this heading or on this page."""

    offset: int
    """In characters."""
    metadata: Mapping[str, Any]
    """What a chunk that begins here gets."""


@dataclass(frozen=True)
class SourceDocument:
    """One document as its source gives it."""

    id: str
    text: str
    location: str
    """Where it stands, for people: a file, or a file and a line."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Any = None
    places: Sequence[Place] = ()
    """Where its parts begin, in the order of the text."""
    markdown: bool = False
    """It is split at headings first, then at paragraphs."""


@dataclass(frozen=True)
class BadInput:
    """What stands where a document should be, and why."""

    location: str
    reason: str
    kind: SkipKind = "cannot be read"

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


@dataclass(frozen=True)
class ReadOptions:
    """How files are written, and which fields of a row are what."""

    text: str = "text"
    template: Template | None = None
    """Makes the text of several fields."""
    id: str = "id"
    id_from: Literal["column", "content"] = "column"
    """"content": the id is the sha256 of the text, for rows that have none."""
    vector: str | None = None
    """A field with a ready vector."""
    metadata: Sequence[str] | None = None
    """The fields to keep; None keeps all."""
    types: Mapping[str, type] = field(default_factory=dict)
    """What the text of a CSV field stands for: int, float, bool, str, date or datetime."""
    delimiter: str | None = None
    """What stands between the fields of a CSV; None finds it in the header."""
    encoding: str | None = None
    """Of text that is not UTF-8 and has no byte order mark."""
    say: Callable[[str], None] | None = None
    """Told what was found by itself."""


class Reader(Protocol):
    """Reads the documents of one file, already unpacked."""

    def __call__(
        self, file: BinaryIO, *, location: str, name: str, options: ReadOptions
    ) -> Iterator[SourceDocument | BadInput]:
        """Yield one input a document; ``name`` is the file's id, ``location`` what people call it."""
        ...
