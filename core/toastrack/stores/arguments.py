"""What ``k``, a score, ids and a filter may be that a store is called with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from toastrack.errors import FilterError
from toastrack.filters import Filter, checked_filter
from toastrack.reranker import Reranker
from toastrack.utils.arguments import check_positive
from toastrack.utils.numbers import plain
from toastrack.utils.text import check_unicode, shown

# What hosts count in: 64 bits, with a sign.
MAX_K = 2**63 - 1


def checked_k(k: int) -> int:
    """Return how many are wanted, or raise ``ValueError`` before a model is loaded for it."""
    number = plain(k)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"k={shown(k)} must be a whole number of at least 0.")
    if number > MAX_K:
        raise ValueError(f"k={shown(k)} is more than a host can count; take {MAX_K:,} for all.")
    return number


def check_query(query: object) -> None:
    """Raise ``ValueError`` for what is neither a text nor a vector, such as a list of questions."""
    if isinstance(query, str):
        check_unicode(query, "The query")
        return
    texts = isinstance(query, (list, tuple)) and any(isinstance(part, str) for part in query)
    if texts or query is None or isinstance(query, (bytes, Mapping)):
        what = f"{type(query).__name__} of texts" if texts else type(query).__name__
        raise ValueError(f"A query is one text or one vector, not {what}.")


def check_reranking(rerank: Reranker | None, candidates: int, query: object) -> None:
    """Raise for what cannot rerank, or cannot be reranked for: a query that is a vector."""
    check_positive("candidates", candidates)
    if rerank is None:
        return
    if not isinstance(rerank, Reranker):
        raise TypeError(f"rerank= takes a Reranker, not {type(rerank).__name__}.")
    if not isinstance(query, str):
        raise ValueError(
            "rerank= reads the query, and a vector has no text. Leave one of both out."
        )


def checked_score(score: float | None) -> float:
    """Return what a score must be at least, or raise ``ValueError`` for what can be none.

    None and -1 are of every record: a host may compute a little less.
    """
    if score is None:
        return -math.inf
    number = plain(score)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not -1 <= number <= 1:
        raise ValueError(f"min_score={shown(score)} is no cosine similarity: they go from -1 to 1.")
    return number if number > -1 else -math.inf


def ids_to_delete(
    ids: Iterable[str] | None, documents: Iterable[str] | None
) -> tuple[list[str], list[str]]:
    """Return both as lists; neither is a mistake."""
    if ids is None and documents is None:
        raise ValueError("Say what to delete: ids=, documents= or filter=.")
    return listed("ids", ids or ()), listed("documents", documents or ())


def filter_to_delete(
    filter: Filter, ids: Iterable[str] | None, documents: Iterable[str] | None
) -> dict[str, Any]:
    """Return a checked filter; one that filters nothing is a mistake, and so are ids beside it."""
    if ids is not None or documents is not None:
        raise ValueError("delete() takes ids= and documents=, or a filter=, and never both.")
    checked = checked_filter(filter)
    if not checked:
        raise FilterError(
            "An empty filter would delete every record. Say which by a filter, or delete them by "
            "their documents: delete(documents=store.document_ids())."
        )
    return checked


def listed(name: str, values: Iterable[str]) -> list[str]:
    """Return a list of ids; one str is a mistake, not a list of letters."""
    if isinstance(values, str):
        raise TypeError(f"{name} takes a list of str and was given one str. Write [id].")
    found = list(values)
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} takes str and was given {value!r:.60}.")
    return found
