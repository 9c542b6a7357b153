"""The best of all vectors that a host hands out, for hosts that cannot search exactly themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TopK:
    """Keeps the ``k`` ids nearest to a query while pages of vectors go by.

    Args:
        vector: The query, float32 of shape ``(dimensions,)`` and length 1.
        k: How many ids are kept.
    """

    def __init__(self, vector: NDArray[np.float32], k: int) -> None:
        self._vector = vector
        self._k = k
        self._found: list[tuple[float, str]] = []

    def add(self, ids: Sequence[str], vectors: NDArray[np.floating]) -> None:
        """Look at a page: ``vectors`` has shape ``(len(ids), dimensions)``, of any length.

        A vector of length 0 has no direction and is left out.
        """
        import numpy as np

        if not len(ids):
            return
        rows = np.asarray(vectors, dtype=np.float32)
        lengths = np.linalg.norm(rows, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = (rows @ self._vector) / lengths
        page = [
            (float(score), id)
            for score, id, length in zip(scores, ids, lengths, strict=True)
            if length
        ]
        # Equal scores stand in the order of their ids, as in every store.
        self._found = sorted([*self._found, *page], key=lambda pair: (-pair[0], pair[1]))[: self._k]

    def scores(self) -> dict[str, float]:
        """Return ``{id: cosine similarity}``, best first."""
        return {id: score for score, id in self._found}
