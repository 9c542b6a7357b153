"""The compressor: LangChain's documents in the reranker's order."""

from __future__ import annotations

import asyncio
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from known_order import Given, fail, number_of
from langchain_core.documents import Document

from toastrack import Reranker
from toastrack.errors import ModelError
from toastrack_langchain import ToastrackReranker

TEXTS = ["salt the dough", "rye bread keeps fresh", "bake it", "sour rye"]
QUERY = "which bread keeps fresh"


@pytest.fixture
def reranker(cross_encoder_folder: Path) -> Reranker:
    return Reranker(cross_encoder_folder, device="cpu")


def documents() -> list[Document]:
    return [Document(text, id=str(i), metadata={"at": i}) for i, text in enumerate(TEXTS)]


@pytest.mark.parametrize("top_n", [None, 2, 9])
def test_documents_come_back_in_the_order_of_the_reranker(
    reranker: Reranker, top_n: int | None
) -> None:
    given = documents()
    compressor = ToastrackReranker(reranker=reranker, top_n=top_n)
    found = compressor.compress_documents(given, QUERY)
    expected = reranker.rank(QUERY, TEXTS, top_n)
    assert [document.id for document in found] == [str(position) for position, _ in expected]
    for document, (position, score) in zip(found, expected, strict=True):
        assert document.metadata == {"at": position, "relevance_score": score}
    assert given == documents()  # the caller's stay as they are
    awaited = asyncio.run(compressor.acompress_documents(given, QUERY))
    assert [document.id for document in awaited] == [document.id for document in found]


def test_nothing_found_is_nothing_reranked(reranker: Reranker) -> None:
    assert ToastrackReranker(reranker=reranker).compress_documents([], QUERY) == []


def test_it_works_in_a_compression_retriever(reranker: Reranker) -> None:
    retrievers = pytest.importorskip(
        "langchain_classic.retrievers", reason="langchain_classic is not installed"
    )
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.retrievers import BaseRetriever

    class All(BaseRetriever):
        def _get_relevant_documents(
            self, query: str, *, run_manager: CallbackManagerForRetrieverRun
        ) -> list[Document]:
            return documents()

    retriever = retrievers.ContextualCompressionRetriever(
        base_compressor=ToastrackReranker(reranker=reranker, top_n=1), base_retriever=All()
    )
    ((best, _),) = reranker.rank(QUERY, TEXTS, 1)
    assert [document.id for document in retriever.invoke(QUERY)] == [str(best)]
    awaited = asyncio.run(retriever.ainvoke(QUERY))
    assert [document.id for document in awaited] == [str(best)]


def test_a_copy_shares_the_settings_and_a_pickle_is_small(reranker: Reranker) -> None:
    compressor = ToastrackReranker(reranker=reranker.load(), top_n=2)
    assert len(pickle.dumps(compressor)) < 2_000
    for other in (copy.deepcopy(compressor), pickle.loads(pickle.dumps(compressor))):
        assert other.reranker.settings() == reranker.settings()
        assert other.top_n == 2


def test_a_wrong_argument_is_refused(reranker: Reranker) -> None:
    with pytest.raises(ValueError, match="top_n"):
        ToastrackReranker(reranker=reranker, top_n=0)
    with pytest.raises(ValueError, match="blank query"):
        ToastrackReranker(reranker=reranker).compress_documents(documents(), " ")


def test_the_order_is_the_rerankers_and_an_error_is_no_order() -> None:
    given = [Document(f"loaf {number}") for number in (2, 9, 5, 9)]
    found = ToastrackReranker(reranker=Given(number_of), top_n=3).compress_documents(given, QUERY)
    assert [document.page_content for document in found] == ["loaf 9", "loaf 9", "loaf 5"]
    assert [document.metadata["relevance_score"] for document in found] == [9.0, 9.0, 5.0]
    failing = ToastrackReranker(reranker=Given(fail))
    with pytest.raises(ModelError, match="no order"):
        failing.compress_documents(given, QUERY)
    with pytest.raises(ModelError, match="no order"):
        asyncio.run(failing.acompress_documents(given, QUERY))
    with pytest.raises(ModelError, match="no order"):
        failing.score([(QUERY, "loaf 1")])


@pytest.fixture
def cross_encoders() -> Any:
    """LangChain's module of that name."""
    return pytest.importorskip(
        "langchain_core.cross_encoders", reason="langchain-core is older than 1.2.19"
    )


def test_it_is_a_cross_encoder_of_langchain(cross_encoders: Any, reranker: Reranker) -> None:
    assert isinstance(ToastrackReranker(reranker=reranker), cross_encoders.BaseCrossEncoder)


def test_pairs_are_scored_in_the_order_given(reranker: Reranker) -> None:
    encoder = ToastrackReranker(reranker=reranker)
    pairs = [(QUERY, TEXTS[0]), ("salt", TEXTS[1]), (QUERY, TEXTS[2]), ("salt", TEXTS[0])]
    expected = [float(reranker.score(query, [text])[0]) for query, text in pairs]
    assert encoder.score(pairs) == pytest.approx(expected, abs=1e-4)
    assert encoder.score([]) == []


@pytest.mark.usefixtures("cross_encoders")
def test_langchains_own_compressor_takes_it() -> None:
    compressors = pytest.importorskip(
        "langchain_classic.retrievers.document_compressors",
        reason="langchain_classic is not installed",
    )
    given = [Document(f"loaf {number}") for number in (2, 9, 5)]
    theirs = compressors.CrossEncoderReranker(
        model=ToastrackReranker(reranker=Given(number_of)), top_n=2
    )
    found = theirs.compress_documents(given, QUERY)
    assert [document.page_content for document in found] == ["loaf 9", "loaf 5"]
