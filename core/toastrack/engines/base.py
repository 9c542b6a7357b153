"""What the embedder asks of whatever runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from toastrack.models.tokenizer import Tokenizer, Tokens
from toastrack.utils import arrays


class Engine(Protocol):
    """Runs one model on one device in one precision; knows no roles."""

    name: str
    tokenizer: Tokenizer
    dimensions: int
    batch_tokens: int
    """The budget of padded tokens at which this engine is fastest on this device."""

    def prepare(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise texts, prompt included, and cut them at ``max_tokens``."""
        ...

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one raw vector a text: float32 of shape ``(len(batch), dimensions)``.

        ``prompt`` is already part of the texts; poolings that leave it out need to know it.
        """
        ...
