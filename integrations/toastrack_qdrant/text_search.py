"""A search by the words of texts, which Qdrant ranks by BM25 over its text index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdrant_client import models

from toastrack import Match
from toastrack.stores import (
    Filter,
    RetryingSession,
    TextHits,
    TextQuery,
    fused,
    matches,
    parsed,
    widened,
)
from toastrack_qdrant.filters import both, broad
from toastrack_qdrant.points import Points, cut
from toastrack_qdrant.search import SearchOptions, search

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Texts of which the longest is taken, and words of it.
_SAMPLE = 20

# A phrase or a word, and whether it must not be there.
_PART = re.compile(r'(-?)"([^"]*)"|(-?)([^\s"]+)')


def check_threshold(options: SearchOptions) -> None:
    """Raise ``ValueError`` for a least score, which no search by words has."""
    if options.score_threshold is not None:
        raise ValueError(
            "score_threshold= is a cosine similarity, and a search by words ranks by something "
            "else. Leave one of both out."
        )


async def search_text(
    points: Points,
    session: RetryingSession,
    query: TextQuery,
    vector: NDArray[np.float32] | None,
    *,
    k: int,
    filter: Filter,
    exact: bool,
    options: SearchOptions,
    language: str,
) -> TextHits:
    """Return the best k records by their words, or with a vector by both, fused here.

    A fusion of the host's would give neither score, and would fuse what does not match, where
    it cannot say a filter exactly.
    """
    texts = await search_words(points, session, query, k, filter, options.where)
    if vector is not None:
        near = await search(points, session, vector, k, filter, exact, options)
        return TextHits(fused(near, texts, query, k))
    wordless = not texts and await is_wordless(points, session, query)
    return TextHits(texts, language if wordless else None)


async def search_words(
    points: Points,
    session: RetryingSession,
    query: TextQuery,
    k: int,
    filter: Filter,
    where: models.Filter | None,
) -> list[Match]:
    """Return the best k records by their words; each has the kind "text"."""
    layout = points.layout
    condition = parsed(filter)
    text, needed = query.text, None
    if query.syntax == "web":
        text, needed = read_web(query.text, layout.text_path)
    if not _has_words(text):
        return []
    wanted = both(both(broad(condition, layout), where), needed)
    if k > points.page:  # a host may make room for so many
        k = min(k, await points.count(session))

    def passes(point: models.ScoredPoint) -> bool:
        return matches(layout.metadata_of(point.payload or {}), condition)

    best = await widened(
        lambda limit, _: _ask(points, session, text, wanted, limit),
        passes,
        k,
        exact=True,
        count=lambda: points.count(session),
    )
    if best is None:
        best = []
        for some in cut(await points.matching(session, condition, wanted)):
            among = models.Filter(must=[models.HasIdCondition(has_id=list(some))])
            found = await _ask(points, session, text, among, k)
            # What was changed since it was read may not match any more.
            best += [point for point in found if passes(point)]
    ranked = [layout.match_of(point, float(point.score), kind="text") for point in best]
    return sorted(ranked, key=lambda match: (-match.score, match.id))[:k]


async def is_wordless(points: Points, session: RetryingSession, query: TextQuery) -> bool:
    """Tell whether a query that found nothing has no word at all; what a stop word is, the host knows.

    A text that has no word of the query's is asked for by its own words and the query's. Stop
    words are left out of what a text must have, so that it is found if there was no other word.
    """
    if not _has_words(query.text):
        return True
    field = points.layout.text_path
    text = read_web(query.text, field)[0] if query.syntax == "web" else query.text
    if not _has_words(text):  # all that it says is what must not be there
        return False
    if await _ask(points, session, text, None, 1):  # it was the filter that left nothing
        return False
    page, _ = await points.call(
        session,
        "scroll",
        points.label,
        scroll_filter=None,
        limit=_SAMPLE,
        offset=None,
        with_payload=[field],
        with_vectors=False,
    )
    own = {point.id: str((point.payload or {}).get(field) or "").split() for point in page}
    id = max(own, key=lambda id: len(own[id]), default=None)
    if id is None:
        return False
    words = " ".join([*own[id][:_SAMPLE], text])
    both_words = models.Filter(
        must=[models.HasIdCondition(has_id=[id]), _text(field, models.MatchText(text=words))]
    )
    answer = await points.call(session, "count", points.label, count_filter=both_words, exact=True)
    return bool(answer.count)


def read_web(text: str, field: str = "text") -> tuple[str, models.Filter]:
    """Read a query as web search does; return what ranks, and what a text must have and have not.

    Every word is needed, quotes make a phrase of theirs, ``-`` leaves out, and "or" stands between
    alternatives.
    """
    ranks: list[str] = []
    alternatives: list[models.Filter] = []
    words: list[str] = []
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []

    def close() -> None:
        if words:
            # One condition: of each alone a server would find nothing for a stop word.
            must.append(_text(field, models.MatchText(text=" ".join(words))))
        if must or must_not:
            alternatives.append(models.Filter(must=[*must], must_not=[*must_not]))
        for kept in (words, must, must_not):
            kept.clear()

    for minus, phrase, other_minus, word in _PART.findall(text):
        part = phrase or word
        if not _has_words(part):
            continue
        match = models.MatchPhrase(phrase=part) if phrase else models.MatchText(text=part)
        if minus or other_minus:
            must_not.append(_text(field, match))
        elif word.lower() == "or":
            close()
        else:
            ranks.append(part)
            if phrase:
                must.append(_text(field, match))
            else:
                words.append(part)
    close()
    return " ".join(ranks), models.Filter(should=[*alternatives] or None)


def _text(field: str, match: models.MatchText | models.MatchPhrase) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=match)


def _has_words(text: str) -> bool:
    return any(letter.isalnum() for letter in text)


async def _ask(
    points: Points,
    session: RetryingSession,
    text: str,
    wanted: models.Filter | None,
    limit: int,
) -> Sequence[models.ScoredPoint]:
    answer = await points.call(
        session,
        "query_points",
        points.label,
        models.TextQuery(text=text),
        using=points.layout.text_path,
        query_filter=wanted,
        search_params=None,
        limit=limit,
        with_payload=True,
        score_threshold=None,
    )
    found: Sequence[models.ScoredPoint] = answer.points
    return found
