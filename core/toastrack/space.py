"""The identity of an embedding space, compared and explained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from toastrack.errors import SpaceMismatchError


@dataclass(frozen=True)
class EmbeddingSpace:
    """What two vectors must have in common before their cosine means anything.

    Identity is by content: ``weights``, ``tokenizer`` and ``pooling`` are sha256 digests in hex.
    ``model`` and ``revision`` are kept for people and never compared.
    """

    weights: str
    tokenizer: str
    pooling: str
    query_prompt: str
    document_prompt: str
    dimensions: int
    model: str = field(default="", compare=False)
    revision: str | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """The sha256, in hex, of everything that is compared."""
        identity = {name: getattr(self, name) for name in _COMPARED}
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def to_dict(self) -> dict[str, str | int | None]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> EmbeddingSpace:
        """Read what ``to_dict`` wrote; keys of newer versions are left aside."""
        known: dict[str, object] = {
            item.name: values[item.name] for item in fields(cls) if item.name in values
        }
        missing = [name for name in _COMPARED if name not in known]
        if missing:
            raise ValueError(f"An embedding space lacks {', '.join(missing)}.")
        return cls(**known)  # type: ignore[arg-type]

    def differences(self, other: EmbeddingSpace) -> dict[str, tuple[object, object]]:
        """Return ``{field: (self's, other's)}`` for every compared field that differs."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in _COMPARED}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


_COMPARED = tuple(item.name for item in fields(EmbeddingSpace) if item.compare)

_MEANING = {
    "weights": "the model's weights",
    "tokenizer": "the tokenizer",
    "pooling": "the pooling",
    "query_prompt": "the query prompt",
    "document_prompt": "the document prompt",
    "dimensions": "the number of dimensions",
}


def check_same_space(stored: EmbeddingSpace, ours: EmbeddingSpace, *, where: str) -> None:
    """Raise ``SpaceMismatchError`` unless both are one space.

    ``where`` names the collection. The error lists each field with both values and what to do.
    """
    differences = stored.differences(ours)
    if not differences:
        return
    lines = [f"{where} was built in another embedding space:"]
    for name, (theirs, mine) in differences.items():
        lines.append(f"  {_MEANING[name]}: stored {_show(theirs)}, this embedder has {_show(mine)}")
    lines.extend(f"  {step}" for step in _next_steps(stored, ours, differences))
    raise SpaceMismatchError("\n".join(lines), stored=stored, ours=ours, differences=differences)


def missing_space(ours: EmbeddingSpace, *, where: str) -> SpaceMismatchError:
    """Return the error for a collection that holds rows and does not say who embedded them."""
    return SpaceMismatchError(
        f"{where} holds rows but does not say which model embedded them. If it was "
        f"{ours.model!r} with the same prompts, open it with adopt=True: that records this "
        "embedder's space and embeds nothing anew. If not, use a new one.",
        ours=ours,
    )


def _next_steps(
    stored: EmbeddingSpace,
    ours: EmbeddingSpace,
    differences: Mapping[str, tuple[object, object]],
) -> list[str]:
    model = stored.model or "the model it was built with"
    if {"weights", "tokenizer", "pooling"} & set(differences):
        also = "" if stored.model != ours.model else " as it was then"
        revision = f", revision {stored.revision}" if stored.revision else ""
        return [f"Open it with {model!r}{also}{revision}, or build a new one with {ours.model!r}."]
    arguments = ", ".join(f"{name}={pair[0]!r}" for name, pair in differences.items())
    return [f"Open it with Embedder({ours.model!r}, {arguments}), or build a new one."]


def _show(value: object) -> str:
    # Twelve hex digits tell two digests apart; a prompt is shown as it is.
    is_digest = isinstance(value, str) and len(value) == 64 and " " not in value
    return f"{str(value)[:12]}..." if is_digest else repr(value)
