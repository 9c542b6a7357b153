"""What is asked of whatever runs a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from toastrack.models.tokenizer import Tokenizer, Tokens
from toastrack.utils import arrays


class Engine(Protocol):
    """Runs one model on one device in one precision."""

    name: str
    batch_tokens: int
    """The budget of padded tokens at which this engine is fastest on this device."""
    may_be_left: bool
    """Whether the program may end while it runs: one that runs here would abort it."""

    @property
    def batch_texts(self) -> int | None:
        """How many texts a batch holds at most, however short; None for any number."""
        ...

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one row a text: float32 of shape ``(len(batch), numbers of a row)``.

        ``prompt`` is already part of the texts; poolings that leave it out need to know it.
        """
        ...


class EmbeddingEngine(Engine, Protocol):
    """Its rows are raw vectors; it knows no roles."""

    tokenizer: Tokenizer
    dimensions: int

    def prepare(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise texts, prompt included, and cut them at ``max_tokens``."""
        ...


class RerankingEngine(Engine, Protocol):
    """Its rows hold one number: the model's own logit of a query with a document."""

    tokenizer: Tokenizer

    def prepare_pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise a query with each of the documents, and cut them at ``max_tokens``."""
        ...

    def room_for_pairs(self, max_tokens: int) -> int:
        """Return how many tokens of query and document fit, beside what stands around them."""
        ...
