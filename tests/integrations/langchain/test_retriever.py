"""The retriever: LangChain's own suite, and what our stores' searches add to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from known_order import Given, fail, number_of
from langchain_tests.integration_tests import RetrieversIntegrationTests
from loaves import QUERY, RECORDS, loaves
from qdrant_client import AsyncQdrantClient, models

from toastrack import Embedder
from toastrack.errors import FilterError, ModelError
from toastrack_langchain import ToastrackRetriever
from toastrack_qdrant import AsyncQdrantStore, QdrantStore


@pytest.fixture
def store(embedder: Embedder) -> Iterator[QdrantStore]:
    with loaves(embedder) as store:
        yield store


class TestStandard(RetrieversIntegrationTests):
    """What LangChain asks of every retriever."""

    @pytest.fixture(autouse=True)
    def _keep(self, store: QdrantStore) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> type[ToastrackRetriever]:
        return ToastrackRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return QUERY


def test_documents_are_the_matches_of_the_store(store: QdrantStore) -> None:
    found = ToastrackRetriever(store=store, k=4).invoke(QUERY)
    matches = store.search(QUERY, k=4)
    assert [document.id for document in found] == [match.id for match in matches]
    for document, match in zip(found, matches, strict=True):
        assert document.page_content == match.text
        assert document.metadata == {
            **match.metadata,
            "document_id": match.document_id,
            "chunk": match.chunk,
            # The query was embedded for each, and numpy may add up in another order.
            "relevance_score": pytest.approx(match.score, abs=1e-6),
        }


@pytest.mark.skipif(not hasattr(models, "TextQuery"), reason="qdrant-client before 1.20")
def test_a_retriever_goes_by_words_or_by_both(store: QdrantStore) -> None:
    store.build_text_index()
    (only,) = ToastrackRetriever(store=store, mode="text").invoke("number 3")
    assert only.id == "r3"
    retriever = ToastrackRetriever(store=store, k=6, mode="hybrid", weights=(0, 1))
    found = asyncio.run(retriever.ainvoke("number 3"))
    matches = store.search("number 3", k=6, mode="hybrid", weights=(0, 1))
    assert [document.id for document in found] == [match.id for match in matches]
    assert found[0].metadata["relevance_score"] == pytest.approx(1 / 61)
    wrong: Any
    for wrong in ({"mode": "words"}, {"weights": (1,)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ToastrackRetriever(store=store, **wrong)


def test_a_call_may_ask_otherwise(store: QdrantStore) -> None:
    retriever = ToastrackRetriever(store=store, filter={"even": True})
    assert {document.metadata["even"] for document in retriever.invoke(QUERY)} == {True}
    assert {d.metadata["even"] for d in retriever.invoke(QUERY, filter={"even": False})} == {False}
    assert len(retriever.invoke(QUERY, filter=None)) == 6
    assert len(retriever.invoke(QUERY, k=2)) == 2
    with pytest.raises(FilterError):
        retriever.invoke(QUERY, filter={"$own": 1})


def test_a_reranker_orders_and_a_failing_one_raises(store: QdrantStore) -> None:
    retriever = ToastrackRetriever(store=store, k=2, rerank=Given(number_of))
    found = retriever.invoke(QUERY)
    assert [document.id for document in found] == ["r5", "r4"]
    assert [document.metadata["relevance_score"] for document in found] == [5.0, 4.0]
    few = ToastrackRetriever(store=store, k=1, rerank=Given(number_of), candidates=1)
    assert few.invoke(QUERY)[0].id == store.search(QUERY, k=1)[0].id
    with pytest.raises(ModelError, match="no order"):
        ToastrackRetriever(store=store, rerank=Given(fail)).invoke(QUERY)


def test_an_asynchronous_store_is_awaited(store: QdrantStore, embedder: Embedder) -> None:
    async def found() -> list[list[str | None]]:
        client = AsyncQdrantClient(":memory:")
        async with AsyncQdrantStore(client, "loaves", embedder=embedder) as awaited:
            await awaited.upsert(RECORDS)
            retriever = ToastrackRetriever(store=awaited, k=3, rerank=Given(number_of))
            with pytest.raises(TypeError, match="await ainvoke"):
                retriever.invoke(QUERY)
            one, other = await asyncio.gather(
                retriever.ainvoke(QUERY), retriever.ainvoke(QUERY, k=1, filter={"even": True})
            )
            return [[document.id for document in part] for part in (one, other)]

    assert asyncio.run(found()) == [["r5", "r4", "r3"], ["r4"]]
    retriever = ToastrackRetriever(store=store, k=3, rerank=Given(number_of))
    awaited = asyncio.run(retriever.ainvoke(QUERY))
    assert [document.id for document in awaited] == ["r5", "r4", "r3"]


def test_what_is_no_store_is_refused(store: QdrantStore) -> None:
    wrong: Any = {"store": "bread"}
    with pytest.raises(ValueError, match="takes a store of toastrack's, not str"):
        ToastrackRetriever(**wrong)
    with pytest.raises(ValueError, match="Extra inputs"):
        ToastrackRetriever(store=store, top_k=3)  # type: ignore[call-arg]
