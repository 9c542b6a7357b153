"""Token ids of texts of many lengths as the rectangles that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toastrack.models.tokenizer import Tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rectangle = NDArray[np.int64]


@dataclass(frozen=True)
class Padded:
    """A batch: ids, 1 where they are of a text, and which of two texts they are of.

    Each is int64 of shape ``(texts, tokens of the longest)``.
    """

    ids: Rectangle
    mask: Rectangle
    types: Rectangle

    def named(self) -> dict[str, Rectangle]:
        """Return them under the names that transformers gives them."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.mask,
            "token_type_ids": self.types,
        }


def padded(batch: Sequence[Tokens], *, pad: int, left: bool = False) -> Padded:
    """Fill up the shorter texts with the number of the padding token, behind or before them."""
    import numpy as np

    longest = max(len(tokens.ids) for tokens in batch)
    shape = (len(batch), longest)
    ids, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    types = np.zeros(shape, np.int64)
    for row, tokens in enumerate(batch):
        size = len(tokens.ids)
        columns = slice(longest - size, None) if left else slice(size)
        ids[row, columns] = tokens.ids
        mask[row, columns] = 1
        if tokens.types:
            types[row, columns] = tokens.types
    return Padded(ids, mask, types)
