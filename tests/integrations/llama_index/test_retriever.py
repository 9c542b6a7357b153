"""The retriever: what our stores find, as LlamaIndex' nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from known_order import Given, fail, number_of
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from loaves import QUERY, RECORDS, loaves
from qdrant_client import AsyncQdrantClient, models

from toastrack import Embedder
from toastrack.errors import ModelError
from toastrack_llama_index import ToastrackRetriever
from toastrack_qdrant import AsyncQdrantStore, QdrantStore


@pytest.fixture
def store(embedder: Embedder) -> Iterator[QdrantStore]:
    with loaves(embedder) as store:
        yield store


def test_nodes_are_the_matches_of_the_store(store: QdrantStore) -> None:
    found = ToastrackRetriever(store, similarity_top_k=4, filter={"even": True}).retrieve(QUERY)
    matches = store.search(QUERY, k=4, filter={"even": True})
    assert len(matches) == 3
    for scored, match in zip(found, matches, strict=True):
        assert scored.node.node_id == match.id
        # The query was embedded for each, and numpy may add up in another order.
        assert scored.score == pytest.approx(match.score, abs=1e-6)
        assert scored.node.get_content() == match.text
        assert scored.node.metadata == dict(match.metadata)
        assert scored.node.ref_doc_id == match.document_id


@pytest.mark.skipif(not hasattr(models, "TextQuery"), reason="qdrant-client before 1.20")
def test_a_retriever_goes_by_words_or_by_both(store: QdrantStore) -> None:
    store.build_text_index()
    (only,) = ToastrackRetriever(store, mode="text").retrieve("number 3")
    assert only.node.node_id == "r3"
    retriever = ToastrackRetriever(store, similarity_top_k=6, mode="hybrid", weights=(0, 1))
    found = asyncio.run(retriever.aretrieve("number 3"))
    matches = store.search("number 3", k=6, mode="hybrid", weights=(0, 1))
    assert [scored.node.node_id for scored in found] == [match.id for match in matches]
    assert found[0].score == pytest.approx(1 / 61)


def test_a_reranker_orders_and_a_failing_one_raises(store: QdrantStore) -> None:
    found = ToastrackRetriever(store, similarity_top_k=2, rerank=Given(number_of)).retrieve(QUERY)
    assert [(scored.node.node_id, scored.score) for scored in found] == [("r5", 5.0), ("r4", 4.0)]
    few = ToastrackRetriever(store, similarity_top_k=1, rerank=Given(number_of), candidates=1)
    assert few.retrieve(QUERY)[0].node.node_id == store.search(QUERY, k=1)[0].id
    with pytest.raises(ModelError, match="no order"):
        ToastrackRetriever(store, rerank=Given(fail)).retrieve(QUERY)


def test_an_asynchronous_store_is_awaited(store: QdrantStore, embedder: Embedder) -> None:
    async def found() -> list[str]:
        client = AsyncQdrantClient(":memory:")
        async with AsyncQdrantStore(client, "loaves", embedder=embedder) as awaited:
            await awaited.upsert(RECORDS)
            retriever = ToastrackRetriever(awaited, similarity_top_k=3, rerank=Given(number_of))
            with pytest.raises(TypeError, match="await aretrieve"):
                retriever.retrieve(QUERY)
            return [scored.node.node_id for scored in await retriever.aretrieve(QUERY)]

    assert asyncio.run(found()) == ["r5", "r4", "r3"]
    retriever = ToastrackRetriever(store, similarity_top_k=3, rerank=Given(number_of))
    awaited = asyncio.run(retriever.aretrieve(QUERY))
    assert [scored.node.node_id for scored in awaited] == ["r5", "r4", "r3"]


def test_it_feeds_a_query_engine(store: QdrantStore) -> None:
    retriever = ToastrackRetriever(store, similarity_top_k=2, rerank=Given(number_of))
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(QUERY)
    assert [scored.node.node_id for scored in answer.source_nodes] == ["r5", "r4"]
    assert "loaf 5" in str(answer)


def test_what_is_no_store_is_refused() -> None:
    wrong: Any = "bread"
    with pytest.raises(TypeError, match="takes a store of toastrack's, not str"):
        ToastrackRetriever(wrong)
