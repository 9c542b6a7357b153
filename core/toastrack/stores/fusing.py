"""Two lists of matches made one, for a host that does not do it in its own statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toastrack.records import Match
from toastrack.stores.text_query import RRF, TextQuery


def fused(near: Sequence[Match], texts: Sequence[Match], query: TextQuery, k: int) -> list[Match]:
    """Return the best k of both lists by reciprocal rank, equal scores by id.

    Args:
        near: What a search by vectors found, best first.
        texts: What a search by words found, best first.
        query: What was asked, with the weights of the two.
        k: How many at most.

    Returns:
        Matches of the kind "rrf", each with its score in the lists that have it.
    """
    found: dict[str, Match] = {}
    for weight, matches in ((query.vector_weight, near), (query.text_weight, texts)):
        for place, match in enumerate(matches, start=1):
            before = found.get(match.id)
            score = weight / (RRF + place) + (before.score if before else 0.0)
            scores = {**(before.scores if before else {}), **match.scores, "rrf": score}
            found[match.id] = replace(match, score=score, score_kind="rrf", scores=scores)
    return sorted(found.values(), key=lambda match: (-match.score, match.id))[:k]
