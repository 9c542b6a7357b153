"""What goes into a store and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from toastrack.utils import arrays


@dataclass(frozen=True)
class Reading:
    """What a record was when it was read, and where: so is known what was changed since.

    Args:
        space: The digest of the store's embedding space.
        text_hash: What is stored beside it.
        text: The sha256 of its text.
        vector: The sha256 of its vector as float32; None where that was looked at already.
    """

    space: str
    text_hash: bytes
    text: bytes
    vector: bytes | None


@dataclass(frozen=True)
class Record:
    """A text to be stored, under an id of the user's own.

        rye = Record("rye", "Rye bread keeps for a week.", {"flour": "rye", "days": 7})
        store.upsert([rye])
        assert store.get(["rye"]) == [rye]

    Nothing is checked here; a store checks what it is given, and raises ``RecordError``.

    Args:
        id: Names the record, any text but an empty one; storing the same id again replaces it.
        text: What is embedded as a document, and found.
        metadata: Anything JSON can hold; filters see its top-level scalars.
        vector: A ready vector of the store's dimensions, which is brought to length 1 and stored
            in place of embedding the text; no part of equality.
        document_id: The id of the document this is a part of; None makes it ``id``.
        chunk: Which part of the document it is, counted from 0; None if it is the whole.
        vector_from_text: Set by a store's ``get`` and ``records``, and no part of equality. True: the
            stored vector is this text's, embedded; with it the record is not embedded again in a
            store of the same space and limit, unless its text was changed since. False: the vector
            was given, and the record is not stored without one. None: not known.
        reading: Set with it, for the stores alone.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: arrays.Vector | None = field(default=None, compare=False, repr=False)
    document_id: str | None = None
    chunk: int | None = None
    vector_from_text: bool | None = field(default=None, compare=False, repr=False)
    reading: Reading | None = field(default=None, compare=False, repr=False)

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
    """A record that a search found.

        for match in store.search("which bread stays fresh?", k=1):
            print(f"{match.score:.2f}", match.id, match.metadata)

    Attributes:
        id: The record's id.
        text: The record's text, to the letter.
        score: How well it matches, higher is better: the cosine similarity of query and record,
            from -1 to 1, unless ``score_kind`` names another.
        metadata: The record's metadata, to the letter.
        document_id: The id of the document that the record is a part of.
        chunk: Which part of the document it is, counted from 0; None if it is the whole.
        score_kind: What ``score`` is: "cosine", or "rerank" where a reranker gave it.
        scores: Every score on the way, by kind; of a reranked match also the cosine.
        context: The text with that of the chunks around it, where ``neighbours=`` asked for them.
    """

    id: str
    text: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document_id: str = ""
    chunk: int | None = None
    score_kind: str = "cosine"
    scores: Mapping[str, float] = field(default_factory=dict)
    context: str | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            object.__setattr__(self, "scores", {self.score_kind: self.score})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold, as ``json.dumps`` takes them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {
            "metadata": deepcopy(dict(self.metadata)),
            "scores": dict(self.scores),
        }


SkipKind = Literal["not for us", "nothing in it", "cannot be read"]


@dataclass(frozen=True)
class Skip:
    """An input of ``ingest`` that became no document, and why.

        report = ingest("handbook/", store)
        for skip in report.skips:
            print(skip.kind, skip.location, skip.reason)

    Attributes:
        input: What it is called: the id of a document, else the name of the file or folder.
        location: Where it stands: a path, with the line or row of what has one.
        reason: Why it was left out, a sentence.
        kind: "not for us" (an unknown ending, hidden, a link in a circle) and "nothing in it" (empty
            or blank) stop no run; "cannot be read" does without ``skip_bad``.
    """

    input: str
    location: str
    reason: str
    kind: SkipKind = "cannot be read"

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


@dataclass
class Report:
    """What one call did, in numbers.

        report = store.upsert([Record("rye", "Rye bread keeps for a week.")])
        print(report.embedded, "embedded,", report.unchanged, "unchanged")

    Attributes:
        read: How many documents came in; for ``upsert``, how many records. ``ingest`` counts those
            that it left out in ``skipped`` alone: both together are all inputs.
        chunks: How many records they became; of equal ids in one batch the last counts.
        embedded: How many texts went through the model.
        unchanged: How many records were stored already, to the letter.
        written: How many rows were inserted or updated.
        truncated: How many of the embedded texts were cut at the model's limit.
        deleted: How many rows went because their document no longer has them, or no source does.
        skipped: How many inputs ``ingest`` left out.
        skipped_by_kind: How many inputs of each ``Skip.kind``.
        skips: The first 10,000 of them, each with its reason.
        seconds: How long it took, in seconds of wall time.
    """

    read: int = 0
    chunks: int = 0
    embedded: int = 0
    unchanged: int = 0
    written: int = 0
    truncated: int = 0
    deleted: int = 0
    skipped: int = 0
    skipped_by_kind: dict[SkipKind, int] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    seconds: float = 0.0
