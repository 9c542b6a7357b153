"""A search: by Chroma's index, widened, or among the rows that are known to match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toastrack import Match
from toastrack.stores import Condition, Filter, RetryingSession, TopK, matches, parsed, widened
from toastrack_chroma.codec import to_metadata
from toastrack_chroma.filters import Where, all_of, broad
from toastrack_chroma.rows import Rows, batches

if TYPE_CHECKING:
    from numpy.typing import NDArray


# What float32 leaves of a length of 1, and more.
_OF_LENGTH_1 = 1e-3


@dataclass(frozen=True)
class SearchOptions:
    """What only Chroma's search knows."""

    where: Where | None = None
    where_document: Where | None = None


@dataclass(frozen=True)
class _Hit:
    """A row that the index found."""

    id: str
    score: float
    metadata: Mapping[str, Any]


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
        scores = None if exact else await _query(rows, session, vector, k, chosen)
        if scores is None or (
            len(scores) < k and len(scores) < await _there(rows, session, k, chosen)
        ):
            scores = await _read_all(rows, session, vector, k, chosen)
        return await _matches(rows, session, scores, condition)
    hits: list[_Hit] | None = None
    if not exact and rows.distance == "cosine":
        hits = await widened(
            lambda limit, _: _hits(rows, session, vector, limit, chosen),
            lambda hit: matches(hit.metadata, condition),
            k,
            exact=False,
            has_exact=False,
            count=lambda: rows.count(session),
        )
    if hits is not None:
        scores = {hit.id: hit.score for hit in hits}
    else:
        ids = await rows.matching(session, condition, chosen)
        scores = await _compare_with(rows, session, vector, k, ids)
    return await _matches(rows, session, scores, condition)


async def _hits(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    limit: int,
    chosen: Mapping[str, Any],
) -> list[_Hit]:
    """Ask the index for rows with their metadata."""
    answer = await session.call(
        rows.host.query,
        query_embeddings=[vector],
        n_results=limit,
        include=["distances", "metadatas"],
        **chosen,
    )
    return [
        _Hit(id, 1.0 - float(distance), to_metadata(metadata or {}))
        for id, distance, metadata in zip(
            answer["ids"][0], answer["distances"][0], answer["metadatas"][0], strict=True
        )
    ]


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
        await session.runtime.offload(best.add, answer["ids"], np.asarray(answer["embeddings"]))
    return best.scores()


async def _query(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    chosen: Mapping[str, Any],
) -> dict[str, float] | None:
    """Ask the index; None where its distance may have put others first than a cosine would."""
    if rows.distance != "cosine":
        return await _query_unit(rows, session, vector, k, chosen)
    answer = await session.call(
        rows.host.query,
        query_embeddings=[vector],
        n_results=k,
        include=["distances"],
        **chosen,
    )
    distances = zip(answer["ids"][0], answer["distances"][0], strict=True)
    return {id: 1.0 - float(distance) for id, distance in distances}


async def _query_unit(
    rows: Rows,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    chosen: Mapping[str, Any],
) -> dict[str, float] | None:
    """Ask an index of another distance, and compute the cosines; None unless all have length 1.

    Among vectors of one length every distance gives one order.
    """
    answer = await session.call(
        rows.host.query, query_embeddings=[vector], n_results=k, include=["embeddings"], **chosen
    )
    found = np.asarray(answer["embeddings"][0], dtype=np.float64).reshape(-1, len(vector))
    if not (np.abs(np.linalg.norm(found, axis=1) - 1) < _OF_LENGTH_1).all():
        return None
    best = TopK(vector, k)
    best.add(answer["ids"][0], found)
    return best.scores()


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
        await session.runtime.offload(best.add, answer["ids"], np.asarray(answer["embeddings"]))
        if len(answer["ids"]) < rows.vectors_page:
            return best.scores()
        offset += rows.vectors_page


async def _matches(
    rows: Rows, session: RetryingSession, scores: Mapping[str, float], condition: Condition
) -> list[Match]:
    records = await rows.get(session, list(scores))
    found = [
        Match(
            record.id,
            record.text,
            scores[record.id],
            record.metadata,
            record.document,
            record.chunk,
        )
        for record in records
        # Deleted or changed since it was found.
        if record is not None and matches(record.metadata, condition)
    ]
    return sorted(found, key=lambda match: (-match.score, match.id))
