"""LlamaIndex' retriever over a store of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from inspect import iscoroutinefunction
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from toastrack import Match, Reranker
from toastrack.stores import AsyncStore, Filter, SearchMode, Store


class ToastrackRetriever(BaseRetriever):
    """Finds nodes in a store of toastrack's, with its exact filters and a reranker.

        retriever = ToastrackRetriever(store, similarity_top_k=3)
        retriever.retrieve("which bread stays fresh?")

    It goes into a query engine: ``RetrieverQueryEngine.from_args(retriever, llm=...)``. An
    asynchronous store goes with ``aretrieve``. A node has the record's id and metadata; its
    ``ref_doc_id`` is the record's document.

    Args:
        store: Where to look: any store of toastrack's.
        similarity_top_k: How many nodes at most.
        mode: "vector" goes by meaning, "text" by the words of the texts, "hybrid" by both; for words the
            store needs its ``build_text_index``.
        weights: How much the list by vectors and that by words count in "hybrid".
        filter: Conditions on the metadata, those of the store's ``search``.
        rerank: Puts the best ``candidates`` into its order; None leaves that of the search.
        candidates: How many the reranker reads, ``similarity_top_k`` at least.
        callback_manager: LlamaIndex' own; None makes one.

    Raises:
        TypeError: ``store`` is none.
    """

    def __init__(
        self,
        store: Store | AsyncStore,
        *,
        similarity_top_k: int = 10,
        mode: SearchMode = "vector",
        weights: tuple[float, float] = (1.0, 1.0),
        filter: Filter | None = None,
        rerank: Reranker | None = None,
        candidates: int = 50,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if not callable(getattr(store, "search", None)):
            raise TypeError(f"store= takes a store of toastrack's, not {type(store).__name__}.")
        super().__init__(callback_manager=callback_manager)
        self._search: Any = store.search
        self._store_kind = type(store).__name__
        self._options: dict[str, Any] = {
            "k": similarity_top_k,
            "mode": mode,
            "weights": weights,
            "filter": filter,
            "rerank": rerank,
            "candidates": candidates,
        }

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if iscoroutinefunction(self._search):
            raise TypeError(
                f"{self._store_kind} is asynchronous: await aretrieve(), or give a synchronous "
                "store."
            )
        return _nodes(self._search(query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if iscoroutinefunction(self._search):
            return _nodes(await self._search(query_bundle.query_str, **self._options))
        return _nodes(
            await asyncio.to_thread(self._search, query_bundle.query_str, **self._options)
        )


def _nodes(matches: Sequence[Match]) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(
                id_=match.id,
                text=match.text,
                metadata=dict(match.metadata),
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=match.document_id)},
            ),
            score=match.score,
        )
        for match in matches
    ]
