"""LlamaIndex' node postprocessor over the reranker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from toastrack import Reranker


class ToastrackRerank(BaseNodePostprocessor):
    """Puts the nodes that a retriever found into a better order, and keeps the best.

        from llama_index.core.schema import NodeWithScore, TextNode

        texts = ["Salt the dough.", "Rye bread keeps for a week."]
        found = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
        rerank = ToastrackRerank(top_n=1)
        rerank.postprocess_nodes(found, query_str="which bread stays fresh?")

    It goes into a query engine as ``node_postprocessors=[...]``. Nodes are read as they are
    embedded, with their metadata. What comes back are new ``NodeWithScore``s around the same nodes,
    the score the model's own logit, higher is better.

    Args:
        reranker: What scores; it is shared by whatever takes it. None makes one, which is free.
        top_n: How many are kept at most; None keeps all.
    """

    model_config = ConfigDict(extra="forbid")

    top_n: int | None = Field(default=None, ge=1)

    _reranker: Reranker = PrivateAttr()

    def __init__(self, reranker: Reranker | None = None, *, top_n: int | None = None) -> None:
        fields: dict[str, Any] = {"top_n": top_n}  # their constructor names none
        super().__init__(**fields)
        self._reranker = Reranker() if reranker is None else reranker

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps beside the settings."""
        return "ToastrackRerank"

    @property
    def reranker(self) -> Reranker:
        """The reranker that does the work."""
        return self._reranker

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        ranked = self._reranker.rank(_query(query_bundle), _texts(nodes), self.top_n)
        return _in_order(nodes, ranked)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        ranked = await self._reranker.arank(_query(query_bundle), _texts(nodes), self.top_n)
        return _in_order(nodes, ranked)


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise ValueError("There is no query to rerank for. Give query_str= or query_bundle=.")
    return bundle.query_str


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [scored.node.get_content(MetadataMode.EMBED) for scored in nodes]


def _in_order(
    nodes: Sequence[NodeWithScore], ranked: Sequence[tuple[int, float]]
) -> list[NodeWithScore]:
    # The caller's are shared: their scores stay those of the search.
    return [NodeWithScore(node=nodes[position].node, score=score) for position, score in ranked]
