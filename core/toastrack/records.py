"""What goes into a store and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from toastrack.utils import arrays


@dataclass(frozen=True)
class Record:
    """A text to be stored, under an id of the user's own.

    Args:
        id: Names the record; storing the same id again replaces it.
        text: What is embedded and found.
        metadata: Anything JSON can hold; filters see its top-level scalars.
        vector: A ready vector, which is normalised and stored instead of embedding the text.
        document_id: The document this is a part of; defaults to ``id``.
        chunk: Which part of the document, counted from 0; None if it is the whole.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: arrays.Vector | None = field(default=None, compare=False, repr=False)
    document_id: str | None = None
    chunk: int | None = None

    # For those who put records into a pydantic model: it knows no arrays by itself.
    __pydantic_config__: ClassVar[dict[str, bool]] = {"arbitrary_types_allowed": True}

    def __post_init__(self) -> None:
        if self.document_id is None:
            object.__setattr__(self, "document_id", self.id)

    @property
    def document(self) -> str:
        """The document's id, which is never None once the record exists."""
        return self.id if self.document_id is None else self.document_id


@dataclass(frozen=True)
class Match:
    """A record that a search found."""

    id: str
    text: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document_id: str = ""
    chunk: int | None = None
    score_kind: str = "cosine"


@dataclass
class Report:
    """What one call did, in numbers."""

    read: int = 0
    """Documents or records that came in."""
    chunks: int = 0
    """Records they became."""
    embedded: int = 0
    """Texts that went through the model."""
    unchanged: int = 0
    """Records that were stored already, to the letter."""
    written: int = 0
    """Rows inserted or updated."""
    truncated: int = 0
    """Embedded texts that were cut at the limit."""
    deleted: int = 0
    """Rows that went because their document no longer has them."""
    skipped: int = 0
    """Inputs that were left out: blank ones, and broken ones where that was asked for."""
    seconds: float = 0.0
    """Wall time."""
