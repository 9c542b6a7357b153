"""A search: by Chroma's index, widened, or among the rows that are known to match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toastrack import Match, Record
from toastrack.stores import Condition, Filter, RetryingSession, TopK, matches, parsed, widened
from toastrack_chroma.codec import to_record
from toastrack_chroma.filters import Where, all_of, broad
from toastrack_chroma.rows import Rows, batches

if TYPE_CHECKING:
    from numpy.typing import NDArray


# What float32 leaves of a length of 1, and more.
_OF_LENGTH_1 = 1e-3
# Rows and their nearness come in one answer, so that nobody is between them.
_WHOLE = ("documents", "metadatas")


@dataclass(frozen=True)
class SearchOptions:
    """What only Chroma's search knows."""

    where: Where | None = None
    where_document: Where | None = None


async def search(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    filter: Filter,
    exact: bool,
    options: SearchOptions,
) -> list[Match]:
    """Return the best ``min(k, matching)`` rows; compared here if the index gives fewer."""
    if k > rows.page and not (k := min(k, await rows.count(session))):
        return []  # a host's number has 32 bits, and it would make room for so many
    condition = parsed(filter)
    conditions = [where for where in (broad(condition), options.where) if where]
    chosen = {"where": all_of(conditions), "where_document": options.where_document or None}
    if not filter:
        found = None if exact else await _query(rows, session, vector, k, chosen)
        if found is None or (
            len(found) < k and len(found) < await _there(rows, session, k, chosen)
        ):
            scores = await _read_all(rows, session, vector, k, chosen)
            found = await _read(rows, session, scores, condition)
        return _sorted(found)
    asked = k

    async def ask(limit: int, _: bool) -> list[Match]:
        nonlocal asked
        asked = limit
        # The texts of those that are only looked at would be many.
        include = _WHOLE if limit == k else ("metadatas",)
        return await _nearest(rows, session, vector, limit, chosen, include)

    hits: list[Match] | None = None
    if not exact and rows.distance == "cosine":
        hits = await widened(
            ask,
            lambda hit: matches(hit.metadata, condition),
            k,
            exact=False,
            has_exact=False,
            count=lambda: rows.count(session),
        )
    if hits is None:
        ids = await rows.matching(session, condition, chosen)
        scores = await _compare_with(rows, session, vector, k, ids)
        return _sorted(await _read(rows, session, scores, condition))
    if asked > k:
        hits = await _read(rows, session, {hit.id: hit.score for hit in hits}, condition)
    return _sorted(hits)


async def _nearest(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    limit: int,
    chosen: Mapping[str, Any],
    include: Sequence[str] = _WHOLE,
) -> list[Match]:
    """Ask the index of cosines; without "documents" the texts are empty."""
    answer = await session.call(
        rows.host.query,
        query_embeddings=[vector],
        n_results=limit,
        include=["distances", *include],
        **chosen,
    )
    scores = [1.0 - float(distance) for distance in answer["distances"][0]]
    return _matches(answer, scores)


async def _compare_with(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    ids: Sequence[str],
) -> dict[str, float]:
    """Compare with the vectors of some rows; Chroma has no exact search."""
    best = TopK(vector, k)
    for page in batches(ids, rows.vectors_page):
        answer = await session.call(rows.host.get, ids=page, include=["embeddings"])
        await _add(session, best, answer)
    return best.scores()


async def _add(session: RetryingSession, best: TopK, answer: Mapping[str, Any]) -> None:
    """Compare with the vectors of an answer, which may have none, as ``vectors_in`` says."""
    if len(answer["embeddings"]):
        await session.runtime.offload(best.add, answer["ids"], np.asarray(answer["embeddings"]))


async def _query(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    chosen: Mapping[str, Any],
) -> list[Match] | None:
    """Ask the index; None where its distance may have put others first than a cosine would.

    Among vectors of length 1 every distance gives one order.
    """
    if rows.distance == "cosine":
        return await _nearest(rows, session, vector, k, chosen)
    answer = await session.call(
        rows.host.query,
        query_embeddings=[vector],
        n_results=k,
        include=["embeddings", *_WHOLE],
        **chosen,
    )
    found = np.asarray(answer["embeddings"][0], dtype=np.float64).reshape(-1, len(vector))
    if not (np.abs(np.linalg.norm(found, axis=1) - 1) < _OF_LENGTH_1).all():
        return None
    best = TopK(vector, k)
    best.add(answer["ids"][0], found)
    scores = best.scores()
    return _matches(answer, [scores[id] for id in answer["ids"][0]])


async def _there(rows: Rows, session: RetryingSession, k: int, chosen: Mapping[str, Any]) -> int:
    """Count the rows that a search may find, up to k."""
    if any(chosen.values()):
        answer = await session.call(rows.host.get, limit=k, include=[], **chosen)
        return len(answer["ids"])
    return min(k, await rows.count(session))


async def _read_all(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    chosen: Mapping[str, Any],
) -> dict[str, float]:
    """Read the vectors and compare each; Chroma has no exact search."""
    best = TopK(vector, k)
    offset = 0
    while True:
        answer = await session.call(
            rows.host.get, limit=rows.vectors_page, offset=offset, include=["embeddings"], **chosen
        )
        await _add(session, best, answer)
        if len(answer["ids"]) < rows.vectors_page:
            return best.scores()
        offset += rows.vectors_page


async def _read(
    rows: Rows, session: RetryingSession, scores: Mapping[str, float], condition: Condition
) -> list[Match]:
    records = await rows.get(session, list(scores))
    return [
        _match(record, scores[record.id])
        for record in records
        # Deleted or changed since it was found.
        if record is not None and matches(record.metadata, condition)
    ]


def _matches(answer: Mapping[str, Any], scores: Sequence[float]) -> list[Match]:
    """Read the answer to one query."""
    ids, metadatas = answer["ids"][0], answer["metadatas"][0]
    texts = answer["documents"][0] if answer["documents"] else [None] * len(ids)
    return [
        _match(to_record(id, text, metadata), score)
        for id, text, metadata, score in zip(ids, texts, metadatas, scores, strict=True)
    ]


def _match(record: Record, score: float) -> Match:
    return Match(record.id, record.text, score, record.metadata, record.document, record.chunk)


def _sorted(found: Sequence[Match]) -> list[Match]:
    return sorted(found, key=lambda match: (-match.score, match.id))
