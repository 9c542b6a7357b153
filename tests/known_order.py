"""A reranker whose order is known, in the place of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from toastrack import Reranker
from toastrack.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Given(Reranker):
    """Scores by a function of the text, so that the order is known; remembers what it was given."""

    def __init__(self, score_of: Callable[[str], float]) -> None:
        super().__init__()
        self._score_of = score_of
        self.asked: list[tuple[str, list[str]]] = []

    def score(self, query: str, documents: Iterable[str]) -> NDArray[np.float32]:
        texts = list(documents)
        self.asked.append((query, texts))
        return np.array([self._score_of(text) for text in texts], dtype=np.float32)

    async def ascore(self, query: str, documents: Iterable[str]) -> NDArray[np.float32]:
        return self.score(query, documents)


def number_of(text: str) -> float:
    return float(text.rpartition(" ")[2])


def fail(text: str) -> float:
    """Score nothing, as a model does that cannot be read."""
    raise ModelError("no order")


def nearness(query: NDArray[np.float32]) -> Callable[[float], NDArray[np.float32]]:
    """Return what makes vectors: the query's own at 0, and across it at 1."""
    axis = np.eye(len(query), dtype=np.float32)[np.abs(query).argmin()]
    across = axis - (axis @ query) * query
    across /= np.linalg.norm(across)
    return lambda far: (1 - far) * query + far * across
