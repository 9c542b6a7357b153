"""The postprocessor: LlamaIndex' nodes in the reranker's order."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
from known_order import Given, fail, number_of
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from toastrack import Reranker
from toastrack.errors import ModelError
from toastrack_llama_index import ToastrackRerank

TEXTS = ["salt the dough", "rye bread keeps fresh", "bake it", "sour rye"]
QUERY = "which bread keeps fresh"


@pytest.fixture
def reranker(cross_encoder_folder: Path) -> Reranker:
    return Reranker(cross_encoder_folder, device="cpu")


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(i), text=text, metadata={"flour": "rye"}), score=0.5)
        for i, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("top_n", [None, 2, 9])
def test_nodes_come_back_in_the_order_of_the_reranker(
    reranker: Reranker, top_n: int | None
) -> None:
    given = nodes()
    rerank = ToastrackRerank(reranker, top_n=top_n)
    found = rerank.postprocess_nodes(given, query_str=QUERY)
    texts = [scored.node.get_content(MetadataMode.EMBED) for scored in given]
    assert all("flour: rye" in text for text in texts)
    expected = reranker.rank(QUERY, texts, top_n)
    assert [(scored.node.node_id, scored.score) for scored in found] == [
        (str(position), score) for position, score in expected
    ]
    assert [scored.score for scored in given] == [0.5] * 4  # the caller's stay as they are
    awaited = asyncio.run(rerank.apostprocess_nodes(given, QueryBundle(QUERY)))
    assert [scored.node.node_id for scored in awaited] == [scored.node.node_id for scored in found]


def test_without_a_query_it_raises(reranker: Reranker) -> None:
    with pytest.raises(ValueError, match="no query to rerank for"):
        ToastrackRerank(reranker).postprocess_nodes(nodes())
    with pytest.raises(ValueError, match="top_n"):
        ToastrackRerank(reranker, top_n=0)


def test_it_is_described_by_its_settings(reranker: Reranker) -> None:
    rerank = ToastrackRerank(reranker.load(), top_n=3)
    assert rerank.to_dict() == {"top_n": 3, "class_name": "ToastrackRerank"}
    again = pickle.loads(pickle.dumps(rerank))
    assert again.top_n == 3
    assert again.reranker.settings() == reranker.settings()
    assert len(pickle.dumps(rerank)) < 5_000


def test_the_order_is_the_rerankers_and_an_error_is_no_order() -> None:
    given = [NodeWithScore(node=TextNode(text=f"loaf {number}")) for number in (2, 9, 5, 9)]
    found = ToastrackRerank(Given(number_of), top_n=3).postprocess_nodes(given, query_str=QUERY)
    assert [scored.score for scored in found] == [9.0, 9.0, 5.0]
    assert [scored.node for scored in found] == [given[1].node, given[3].node, given[2].node]
    failing = ToastrackRerank(Given(fail))
    with pytest.raises(ModelError, match="no order"):
        failing.postprocess_nodes(given, query_str=QUERY)
    with pytest.raises(ModelError, match="no order"):
        asyncio.run(failing.apostprocess_nodes(given, QueryBundle(QUERY)))


def test_it_works_in_a_query_engine() -> None:
    from llama_index.core import get_response_synthesizer
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.retrievers import BaseRetriever

    class All(BaseRetriever):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            return [NodeWithScore(node=TextNode(text=f"loaf {number}")) for number in (2, 9, 5)]

    engine = RetrieverQueryEngine(
        All(),
        response_synthesizer=get_response_synthesizer(llm=MockLLM()),
        node_postprocessors=[ToastrackRerank(Given(number_of), top_n=1)],
    )
    (best,) = engine.query(QUERY).source_nodes
    assert best.node.get_content() == "loaf 9"
