"""Texts with the vectors that are stored beside them, compared with an embedder's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from toastrack.embedder import Embedder, EmbedderSettings
from toastrack.hosted.model import HostedModel
from toastrack.records import Record
from toastrack.utils import arrays

# What storage and precision leave of a cosine of 1, over MiniLM and BERT-large: halfvec and int8
# 1.0000, bfloat16 .9999. What is another vector has less: a short prompt .994 on average.
AGREES = 0.999


class Sampled(NamedTuple):
    """One text as it was embedded, and its vector."""

    text: str
    vector: arrays.FloatVector
    record: Record


def another(embedder: Embedder, changes: EmbedderSettings) -> Embedder:
    """Return an embedder with some other settings; of the same model it shares the engine."""
    settings = embedder.settings()
    settings.update(changes)
    return Embedder(**settings)


def counts_tokens(embedder: Embedder) -> bool:
    """Tell whether its tokens can be counted; a hosted model's tokenizer may not be had."""
    model = embedder._model
    return not isinstance(model, HostedModel) or model.why_no_tokenizer is None


def fits(embedder: Embedder, text: str) -> bool:
    """Tell whether all of a text is read; where tokens cannot be counted, by its characters."""
    if counts_tokens(embedder):
        return bool(embedder.count_tokens(text) <= embedder.max_tokens)
    model = embedder._model
    assert isinstance(model, HostedModel)
    return len(embedder.document_prompt) + len(text) <= model.most_characters


def cosines(embedder: Embedder, sampled: Sequence[Sampled], texts: Sequence[str]) -> Any:
    """Embed texts as documents; return the cosine of each with the vector that is stored.

    Of vectors that are longer than the stored ones the first numbers count.
    """
    import numpy as np

    quiet = another(embedder, {"on_truncate": "ignore"})
    ours = quiet.embed_documents(texts).astype(np.float64)
    theirs = np.stack([one.vector for one in sampled]).astype(np.float64)
    ours = ours[:, : theirs.shape[1]]
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
    return np.einsum("ij,ij->i", ours, theirs) / np.maximum(lengths, 1e-30)
