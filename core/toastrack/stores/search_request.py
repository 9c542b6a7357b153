"""What a search is asked for, whatever its host, and what it may be asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toastrack.filters import Filter, checked_filter
from toastrack.reranker import Reranker
from toastrack.stores.arguments import check_query, check_reranking, checked_k, checked_score
from toastrack.utils import arrays
from toastrack.utils.arguments import check_count
from toastrack.utils.numbers import plain


@dataclass(frozen=True)
class SearchRequest:
    """The arguments of ``search`` that every store has.

        request = SearchRequest("which bread stays fresh?", k=3, group_by_document=True)

    Args:
        query: A text, embedded as a query, or a ready vector.
        k: How many at most.
        filter: What the metadata must be.
        exact: Compare with every record instead of using an index.
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
        """How many records are fetched at first."""
        return self.k if self.rerank is None else max(self.candidates, self.k)


def checked_request(request: SearchRequest) -> SearchRequest:
    """Return a request with plain numbers, or raise for one that cannot be."""
    check_reranking(request.rerank, request.candidates, request.query)
    checked_score(request.min_score)
    neighbours = plain(request.neighbours)
    check_count("neighbours", neighbours)
    k, filter = checked_k(request.k), checked_filter(request.filter)
    check_query(request.query)
    return replace(request, k=k, filter=filter, neighbours=neighbours)
