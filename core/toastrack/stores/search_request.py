"""What a search is asked for, whatever its host, and what it may be asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

from toastrack.filters import Filter, checked_filter
from toastrack.reranker import Reranker
from toastrack.stores.arguments import check_query, check_reranking, checked_k, checked_score
from toastrack.stores.text_query import SearchMode, TextSyntax
from toastrack.utils import arrays
from toastrack.utils.arguments import check_choice, check_count
from toastrack.utils.numbers import plain
from toastrack.utils.text import shown


@dataclass(frozen=True)
class SearchRequest:
    """The arguments of ``search`` that every store has.

        request = SearchRequest("which bread stays fresh?", k=3, group_by_document=True)

    Args:
        query: A text, embedded as a query, or a ready vector.
        k: How many at most.
        filter: What the metadata must be.
        exact: Compare with every record instead of using an index.
        mode: By meaning, by the words of the texts, or by both.
        weights: How much the list by vectors and that by words count in "hybrid".
        text_syntax: How the words of the query are read.
        min_score: Leave out what is less similar, from -1 to 1.
        rerank: Puts what was found into a better order.
        candidates: How many it reads at least; k, if that is more.
        group_by_document: Return the best record of each document alone.
        neighbours: How many chunks on each side go into ``Match.context``.
    """

    query: str | arrays.Vector
    k: int = 10
    filter: Filter | None = None
    exact: bool = False
    mode: SearchMode = "vector"
    weights: tuple[float, float] = (1.0, 1.0)
    text_syntax: TextSyntax = "any"
    min_score: float | None = None
    rerank: Reranker | None = None
    candidates: int = 50
    group_by_document: bool = False
    neighbours: int = 0

    @property
    def lowest(self) -> float:
        """What the cosine of a match must be at least."""
        return checked_score(self.min_score)

    @property
    def candidates_wanted(self) -> int:
        """How many records are fetched at first, of each list that is fused."""
        if self.mode == "vector" and self.rerank is None:
            return self.k
        return max(self.candidates, self.k)


def checked_request(request: SearchRequest) -> SearchRequest:
    """Return a request with plain numbers, or raise for one that cannot be."""
    check_reranking(request.rerank, request.candidates, request.query)
    checked_score(request.min_score)
    check_choice("mode", request.mode, get_args(SearchMode))
    check_choice("text_syntax", request.text_syntax, get_args(TextSyntax))
    if request.mode != "vector":
        _check_text_mode(request)
    neighbours = plain(request.neighbours)
    check_count("neighbours", neighbours)
    k, filter = checked_k(request.k), checked_filter(request.filter)
    check_query(request.query)
    return replace(
        request,
        k=k,
        filter=filter,
        neighbours=neighbours,
        weights=_checked_weights(request.weights),
    )


def _check_text_mode(request: SearchRequest) -> None:
    if not isinstance(request.query, str):
        raise ValueError(
            f"mode={request.mode!r} searches by words, and a vector has none. Give the query as text."
        )
    if request.min_score is not None:
        raise ValueError(
            f"min_score= is a cosine similarity, and mode={request.mode!r} ranks by something else. "
            "Leave one of both out."
        )


def _checked_weights(weights: tuple[float, float]) -> tuple[float, float]:
    """Return two plain numbers, not both 0."""
    numbers = [plain(weight) for weight in weights] if isinstance(weights, (tuple, list)) else []
    if (
        len(numbers) != 2
        or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers)
        or not all(0 <= n < math.inf for n in numbers)
        or not any(numbers)
    ):
        raise ValueError(
            f"weights={shown(weights)} are not two numbers of at least 0, of which one is more: those "
            "of the list by vectors and of the list by words."
        )
    return float(numbers[0]), float(numbers[1])
