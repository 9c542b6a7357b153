"""What the embedder asks of whatever runs the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from toastrack.tokens import Tokenizer, Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatMatrix = NDArray[np.float32]


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

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> FloatMatrix:
        """Return one raw vector a text: float32 of shape ``(len(batch), dimensions)``.

        ``prompt`` is already part of the texts; poolings that leave it out need to know it.
        """
        ...
