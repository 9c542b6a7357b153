"""LangChain's retriever over a store of ours."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import iscoroutinefunction
from types import EllipsisType
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, SkipValidation, model_validator
from typing_extensions import Self

from toastrack import Match, Reranker
from toastrack.stores import AsyncStore, Filter, SearchMode, Store


class ToastrackRetriever(BaseRetriever):
    """Finds documents in a store of toastrack's, with its exact filters and a reranker.

        retriever = ToastrackRetriever(store=store, k=3)
        retriever.invoke("which bread stays fresh?")

    A call may ask otherwise: ``retriever.invoke(query, k=1, filter=None)``. An asynchronous store
    goes with ``ainvoke``. What comes back has the record's id and metadata, with the score in
    ``metadata["relevance_score"]`` and, unless your metadata has keys of these names, the record's
    ``document_id`` and ``chunk``.

    Args:
        store: Where to look: any store of toastrack's.
        k: How many documents at most.
        mode: "vector" goes by meaning, "text" by the words of the texts, "hybrid" by both; for words the
            store needs its ``build_text_index``.
        weights: How much the list by vectors and that by words count in "hybrid".
        filter: Conditions on the metadata, those of the store's ``search``.
        rerank: Puts the best ``candidates`` into its order; None leaves that of the search.
        candidates: How many the reranker reads, ``k`` at least.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    store: SkipValidation[Store | AsyncStore] = Field(exclude=True, repr=False)
    k: int = Field(default=10, ge=0)
    mode: SearchMode = "vector"
    weights: tuple[float, float] = (1.0, 1.0)
    filter: SkipValidation[Filter | None] = None
    rerank: Reranker | None = None
    candidates: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        if not callable(getattr(self.store, "search", None)):
            raise ValueError(
                f"store= takes a store of toastrack's, not {type(self.store).__name__}."
            )
        return self

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | EllipsisType | None = ...,
    ) -> list[Document]:
        if self._is_async():
            raise TypeError(
                f"{type(self.store).__name__} is asynchronous: await ainvoke(), or give a "
                "synchronous store."
            )
        found: Any = self.store.search(query, **self._options(k, filter))
        return _documents(found)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | EllipsisType | None = ...,
    ) -> list[Document]:
        options = self._options(k, filter)
        search: Any = self.store.search
        if self._is_async():
            return _documents(await search(query, **options))
        return _documents(await run_in_executor(None, search, query, **options))

    def _is_async(self) -> bool:
        return iscoroutinefunction(self.store.search)

    def _options(self, k: int | None, filter: Any) -> dict[str, Any]:
        return {
            "k": self.k if k is None else k,
            "mode": self.mode,
            "weights": self.weights,
            "filter": self.filter if filter is ... else filter,
            "rerank": self.rerank,
            "candidates": self.candidates,
        }


def _documents(matches: Sequence[Match]) -> list[Document]:
    return [
        Document(
            match.text,
            id=match.id,
            metadata={
                "document_id": match.document_id,
                "chunk": match.chunk,
                **match.metadata,
                "relevance_score": match.score,
            },
        )
        for match in matches
    ]
