"""How well stored vectors agree with the texts beside them, and what that proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toastrack.stores.sampled import AGREES

Adopt = bool | Literal["unchecked"]
"""Whether a filled collection may be taken over that says nothing of its model, and on what grounds."""

NEEDED = 8
"""Texts that make a proof."""

# Of a length, as halfvec and bfloat16 keep it.
_ROUNDING = 0.01


@dataclass(frozen=True)
class Proof:
    """How well stored vectors agree with the texts beside them."""

    compared: int
    """Texts that were embedded again."""
    agreeing: int = 0
    """Those of them whose cosine says that the vectors are the same."""
    lowest: float = 1.0
    mean: float = 1.0
    lengths: tuple[float, float] = (1.0, 1.0)
    """Of the shortest stored vector, and of the longest."""
    too_long: int = 0
    """Texts that were left out because this embedder would cut them."""
    found: str = ""
    """What is known of vectors that do not agree: sentences; "" where all do."""

    @property
    def refuted(self) -> bool:
        """Whether some vector is not this embedder's."""
        return self.agreeing < self.compared or bool(self.found)

    @property
    def proven(self) -> bool:
        """Whether enough texts agree, and all that were compared."""
        return not self.refuted and self.compared >= NEEDED

    def __str__(self) -> str:
        numbers = f"cosines from {self.lowest:.4f}, on average {self.mean:.4f}"
        if self.refuted and not self.compared:
            return "no text could be compared"
        if self.refuted:
            return (
                f"of {self.compared} texts that were embedded again {self.agreeing} agree with "
                f"their vectors ({numbers}; {AGREES} is the same vector)"
            )
        left_out = f"; {self.too_long} are longer than it reads" if self.too_long else ""
        if not 1 - _ROUNDING < self.lengths[0] <= self.lengths[1] < 1 + _ROUNDING:
            left_out += "; they are not normalised, which a cosine does not mind"
        if not self.compared:
            return f"none of its texts can be compared{left_out}"
        return (
            f"{self.compared} texts embedded again agree with their vectors ({numbers}){left_out}"
        )
