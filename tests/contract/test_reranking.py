"""What a search found in the order of a reranker, in every store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from known_order import Given, fail, nearness, number_of

from toastrack import Embedder, Record, Reranker
from toastrack.errors import ModelError

if TYPE_CHECKING:
    from toastrack.stores.protocol import Store

DIMENSIONS = 32


@pytest.fixture
def filled(store: Store, embedder: Embedder) -> Store:
    """Twelve records, the first the most similar to the query of the tests."""
    near = nearness(embedder.embed_query("which loaf"))
    store.upsert(
        Record(f"r{i}", f"loaf {i}", {"even": i % 2 == 0}, vector=near(i / 12)) for i in range(12)
    )
    return store


@pytest.mark.connection
def test_candidates_are_put_into_the_order_of_the_reranker(filled: Store) -> None:
    reranker = Given(number_of)
    found = filled.search("which loaf", k=3, rerank=reranker, candidates=5)
    assert [match.id for match in found] == ["r4", "r3", "r2"]
    assert [match.score for match in found] == [4.0, 3.0, 2.0]
    assert {match.score_kind for match in found} == {"rerank"}
    plain = {match.id: match.score for match in filled.search("which loaf", k=5)}
    for match in found:
        assert match.scores["rerank"] == match.score
        assert match.scores["cosine"] == pytest.approx(plain[match.id], abs=1e-6)
    assert reranker.asked == [("which loaf", [f"loaf {i}" for i in range(5)])]


def test_as_many_as_are_wanted_are_candidates_at_least(filled: Store) -> None:
    reranker = Given(number_of)
    found = filled.search("which loaf", k=8, rerank=reranker, candidates=2)
    assert [match.id for match in found] == [f"r{i}" for i in reversed(range(8))]
    everything = filled.search("which loaf", k=100, rerank=reranker)
    assert [match.id for match in everything] == [f"r{i}" for i in reversed(range(12))]


def test_filter_and_lowest_cosine_hold_and_ties_stay_in_the_order_of_the_search(
    filled: Store,
) -> None:
    found = filled.search("which loaf", k=3, filter={"even": True}, rerank=Given(lambda text: -7))
    assert [match.id for match in found] == ["r0", "r2", "r4"]
    assert [match.score for match in found] == [-7.0] * 3
    similar = filled.search("which loaf", min_score=0.9)
    reranked = filled.search("which loaf", min_score=0.9, rerank=Given(number_of))
    assert [match.id for match in reranked] == [match.id for match in reversed(similar)]
    assert 0 < len(reranked) < 10


def test_a_failing_reranker_raises(filled: Store) -> None:
    with pytest.raises(ModelError, match="no order"):
        filled.search("which loaf", rerank=Given(fail))


def test_a_real_reranker_orders_by_its_own_logits(
    filled: Store, cross_encoder_folder: Path
) -> None:
    reranker = Reranker(cross_encoder_folder, device="cpu")
    found = filled.search("which loaf", k=12, rerank=reranker)
    texts = [f"loaf {i}" for i in range(12)]
    expected = reranker.rank("which loaf", texts)
    assert [match.text for match in found] == [texts[position] for position, _ in expected]
    assert [match.score for match in found] == pytest.approx(
        [score for _, score in expected], abs=1e-4
    )


def test_what_cannot_be_reranked_for_is_refused(filled: Store) -> None:
    reranker, wrong = Given(number_of), {"rerank": "mxbai-rerank"}
    with pytest.raises(ValueError, match="a vector has no text"):
        filled.search([1.0] * DIMENSIONS, rerank=reranker)
    with pytest.raises(TypeError, match="takes a Reranker, not str"):
        filled.search("which loaf", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="candidates=0"):
        filled.search("which loaf", rerank=reranker, candidates=0)
    assert reranker.asked == []


def test_without_a_reranker_the_score_is_the_cosine(filled: Store) -> None:
    for match in filled.search("which loaf", k=2):
        assert match.score_kind == "cosine"
        assert match.scores == {"cosine": match.score}
