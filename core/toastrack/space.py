"""The identity of an embedding space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class EmbeddingSpace:
    """What two vectors must have in common before their cosine means anything.

        space = embedder.space
        assert space != Embedder(query_prompt="").space
        assert EmbeddingSpace.from_dict(space.to_dict()) == space

    Identity is by content. A store records a space, and refuses an embedder of another.

    Args:
        weights: The sha256 of the model's weights, in hex.
        tokenizer: The sha256 of the tokenizer's files, in hex.
        pooling: The sha256 of what makes one vector of many, in hex.
        query_prompt: The text put in front of queries.
        document_prompt: The text put in front of documents.
        dimensions: How many numbers a vector has.
        model: The model's name, for people; never compared.
        revision: The hub's commit, for people; never compared.
        max_tokens: How many tokens of a text are read, for ``Embedder.from_space``; never compared,
            and None where it was not recorded.
        equals: Weights, tokenizer and pooling of other models whose vectors were proven to be the
            same: they differ in nothing of these three.
        unproven: The fields that somebody said of vectors that were there already, and nothing
            shows; never compared.
        base_url: The server that the model ran on, for ``Embedder.from_space``; never compared, and
            None for one that ran here.
    """

    weights: str
    tokenizer: str
    pooling: str
    query_prompt: str
    document_prompt: str
    dimensions: int
    model: str = field(default="", compare=False)
    revision: str | None = field(default=None, compare=False)
    max_tokens: int | None = field(default=None, compare=False)
    equals: tuple[tuple[str, str, str], ...] = field(default=(), compare=False)
    unproven: tuple[str, ...] = field(default=(), compare=False)
    base_url: str | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """The sha256, in hex, of everything that is compared."""
        identity = {name: getattr(self, name) for name in COMPARED_FIELDS}
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    @property
    def model_identity(self) -> tuple[str, str, str]:
        """Its weights, tokenizer and pooling."""
        return self.weights, self.tokenizer, self.pooling

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = {**asdict(self), "equals": [list(model) for model in self.equals]}
        values["unproven"] = list(self.unproven)
        later = ("equals", "unproven", "base_url")
        return {name: value for name, value in values.items() if value or name not in later}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> EmbeddingSpace:
        """Read what ``to_dict`` wrote; keys of newer versions are left aside.

        Raises:
            ValueError: A field that is compared is missing.
        """
        known: dict[str, Any] = {
            item.name: values[item.name] for item in fields(cls) if item.name in values
        }
        missing = [name for name in COMPARED_FIELDS if name not in known]
        if missing:
            raise ValueError(f"An embedding space lacks {', '.join(missing)}.")
        known["equals"] = tuple(
            (str(weights), str(tokenizer), str(pooling))
            for weights, tokenizer, pooling in known.get("equals") or ()
        )
        known["unproven"] = tuple(map(str, known.get("unproven") or ()))
        return cls(**known)

    def differences(self, other: EmbeddingSpace) -> dict[str, tuple[object, object]]:
        """Return ``{field: (self's, other's)}`` for every compared field that differs.

        A model that is among ``equals`` does not.
        """
        excused = MODEL_FIELDS if other.model_identity in self.equals else ()
        names = [name for name in COMPARED_FIELDS if name not in excused]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


MODEL_FIELDS = ("weights", "tokenizer", "pooling")
"""The fields that say which model it is, whatever it is asked."""
COMPARED_FIELDS = tuple(item.name for item in fields(EmbeddingSpace) if item.compare)
