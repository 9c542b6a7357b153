"""What a model in int8 loses, measured on texts that it was not made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toastrack.embedder import Embedder
from toastrack.int8.texts import query_of
from toastrack.utils import arrays

# Texts between two signs of life.
_STEP = 20
_FIRST = 10
# What a good model keeps: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 in int8 has
# .989, .997 and .94, and finds as well as in float32.
LEAST_COSINE, LEAST_MEAN, LEAST_OVERLAP = 0.98, 0.995, 0.90


@dataclass(frozen=True)
class Loss:
    """How close a model in int8 is to itself in float32.

    Args:
        texts: How many were embedded with both.
        cosine_min: The worst agreement of a text's two vectors.
        cosine_mean: The agreement on average.
        overlap: The share of the first 10 that both find, for the first sentence of each text.
    """

    texts: int
    cosine_min: float
    cosine_mean: float
    overlap: float

    @property
    def is_small(self) -> bool:
        """Whether the model may be used without another look."""
        return (
            self.cosine_min >= LEAST_COSINE
            and self.cosine_mean >= LEAST_MEAN
            and self.overlap >= LEAST_OVERLAP
        )

    def __str__(self) -> str:
        return (
            f"on {self.texts} texts held back the cosine to float32 is {self.cosine_min:.4f} at worst "
            f"and {self.cosine_mean:.4f} on average, and of the first {_FIRST} found "
            f"{self.overlap:.0%} are the same"
        )


LIMITS = f"{LEAST_COSINE} at worst, {LEAST_MEAN} on average and {LEAST_OVERLAP:.0%}"


def embed_both(
    embedder: Embedder, texts: Sequence[str], on_step: Callable[[str], None], label: str
) -> tuple[Any, Any]:
    """Return the vectors of texts as documents, and of what asks for them as queries."""
    import numpy as np

    documents: list[Any] = []
    queries: list[Any] = []
    for start in range(0, len(texts), _STEP):
        on_step(f"{label}, {start} of {len(texts)} texts")
        part = texts[start : start + _STEP]
        documents.append(embedder.embed_documents(part))
        queries.append(embedder.embed_queries([query_of(text) for text in part]))
    return np.concatenate(documents), np.concatenate(queries)


def loss(exact: tuple[Any, Any], small: tuple[Any, Any]) -> Loss:
    """Compare the documents and queries of two models."""
    cosines = (exact[0] * small[0]).sum(axis=1)
    pairs = zip(_found(*exact), _found(*small), strict=True)
    shares = [len(ours & theirs) / len(theirs) for theirs, ours in pairs]
    return Loss(
        texts=len(cosines),
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        overlap=sum(shares) / len(shares),
    )


def _found(documents: arrays.FloatMatrix, queries: arrays.FloatMatrix) -> list[set[int]]:
    import numpy as np

    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    return [set(row[:_FIRST].tolist()) for row in order]
