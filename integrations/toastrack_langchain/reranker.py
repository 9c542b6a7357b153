"""LangChain's document compressor over the reranker."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from pydantic import ConfigDict, Field

from toastrack import Reranker

# New in langchain-core 1.2.19.
if TYPE_CHECKING or find_spec("langchain_core.cross_encoders") is not None:
    from langchain_core.cross_encoders import BaseCrossEncoder
else:
    from abc import ABC as BaseCrossEncoder


class ToastrackReranker(BaseDocumentCompressor, BaseCrossEncoder):
    """Puts the documents that a retriever found into a better order, and keeps the best.

        from langchain_core.documents import Document

        found = [Document("Salt the dough."), Document("Rye bread keeps for a week.")]
        compressor = ToastrackReranker(top_n=1)
        compressor.compress_documents(found, "which bread stays fresh?")

    It goes into LangChain's ``ContextualCompressionRetriever(base_compressor=...)``. Documents are
    copied, with the score in ``metadata["relevance_score"]``: the model's own logit, higher is
    better. ``reranker=`` is shared by whatever takes it; building one is free. It is LangChain's
    ``BaseCrossEncoder``, too, for what asks for one, ``CrossEncoderReranker(model=...)``, where
    langchain-core has that (1.2.19 and newer).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    reranker: Reranker = Field(default_factory=Reranker)
    top_n: int | None = Field(default=None, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return copies of the best ``top_n`` documents, best first; all of them if it is None.

        Raises:
            ModelError: The model cannot be found, read or run, is no reranker, or its server does not
                answer.
            TruncationError: A document is over the limit and ``on_truncate="error"``.
            ValueError: The query is blank.
        """
        texts = [document.page_content for document in documents]
        return _copies(documents, self.reranker.rank(query, texts, self.top_n))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """``compress_documents``, awaited; the model never runs on the event loop.

        Raises:
            ModelError: The model cannot be found, read or run, is no reranker, or its server does not
                answer.
            TruncationError: A document is over the limit and ``on_truncate="error"``.
            ValueError: The query is blank.
        """
        texts = [document.page_content for document in documents]
        return _copies(documents, await self.reranker.arank(query, texts, self.top_n))

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs of a query and a document: one logit each, in the order given.

        Raises:
            ModelError: The model cannot be found, read or run, is no reranker, or its server does not
                answer.
            TruncationError: A document is over the limit and ``on_truncate="error"``.
            ValueError: A query is blank.
        """
        of_query: dict[str, list[int]] = {}
        for position, (query, _) in enumerate(text_pairs):
            of_query.setdefault(query, []).append(position)
        scores = [0.0] * len(text_pairs)
        for query, positions in of_query.items():
            documents = [text_pairs[position][1] for position in positions]
            found = self.reranker.score(query, documents).tolist()
            for position, score in zip(positions, found, strict=True):
                scores[position] = score
        return scores


def _copies(
    documents: Sequence[Document], ranked: Sequence[tuple[int, float]]
) -> Sequence[Document]:
    copies = []
    for position, score in ranked:
        metadata = {**documents[position].metadata, "relevance_score": score}
        copies.append(documents[position].model_copy(update={"metadata": metadata}))
    return copies
