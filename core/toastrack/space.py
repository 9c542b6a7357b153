"""The identity of an embedding space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields


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
