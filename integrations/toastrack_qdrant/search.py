"""A search: by the index of the host, widened, or among the points that are known to match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qdrant_client import models

from toastrack import Match
from toastrack.stores import Condition, Filter, RetryingSession, TopK, matches, parsed, widened
from toastrack_qdrant.filters import both, broad
from toastrack_qdrant.points import Points, cut

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SearchOptions:
    """What only Qdrant's search knows."""

    where: models.Filter | None = None
    score_threshold: float | None = None
    search_params: models.SearchParams | None = None


async def search(
    points: Points,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    filter: Filter,
    exact: bool,
    options: SearchOptions,
) -> list[Match]:
    """Return the best ``min(k, matching)``; asked again exactly if an index gave fewer than there are."""
    layout = points.layout
    condition = parsed(filter)
    wanted = both(broad(condition, layout), options.where)
    threshold = options.score_threshold
    if k > points.page:  # a host may make room for so many
        k = min(k, await points.count(session))
        if not k:
            return []

    async def query(limit: int, exactly: bool) -> Sequence[models.ScoredPoint]:
        # A local client is always exact, and warns of being told so.
        parameters = options.search_params
        if exactly and not points.host.local:
            parameters = _exactly(parameters)
        answer = await points.call(
            session,
            "query_points",
            points.label,
            vector.tolist(),
            using=points.vector_name or None,
            query_filter=wanted,
            search_params=parameters,
            limit=limit,
            with_payload=True,
            score_threshold=threshold,
        )
        found: Sequence[models.ScoredPoint] = answer.points
        return found

    def passes(point: models.ScoredPoint) -> bool:
        return matches(layout.metadata_of(point.payload or {}), condition)

    # Behind a threshold what the index gives is taken as it is.
    as_it_is = threshold is not None
    best = await widened(
        lambda limit, exactly: query(limit, exact if as_it_is else exactly),
        passes,
        k,
        exact=exact or as_it_is or points.host.local,
        count=lambda: points.count(session),
    )
    if best is not None:
        found = [layout.match_of(point, float(point.score)) for point in best]
    else:
        found = await _among_matching(points, session, vector, k, condition, wanted)
        if threshold is not None:
            found = [match for match in found if match.score >= threshold]
    return sorted(found, key=lambda match: (-match.score, match.id))


async def _among_matching(
    points: Points,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    condition: Condition,
    wanted: models.Filter | None,
) -> list[Match]:
    """Find by their metadata alone the points that match, and compare with each of those."""
    ids = await points.matching(session, condition, wanted)
    found: list[Match] = []
    for some in cut(ids):
        found += await _compare_with(points, session, vector, k, some)
        # What was changed since it was read may not match any more.
        found = [match for match in found if matches(match.metadata, condition)]
        found = sorted(found, key=lambda match: (-match.score, match.id))[:k]
    return found


async def _compare_with(
    points: Points,
    session: RetryingSession,
    vector: NDArray[np.float32],
    k: int,
    among: Sequence[Any],
) -> list[Match]:
    """Return the best of some points, compared exactly."""
    if not points.host.local:
        answer = await points.call(
            session,
            "query_points",
            points.label,
            vector.tolist(),
            using=points.vector_name or None,
            query_filter=models.Filter(must=[models.HasIdCondition(has_id=list(among))]),
            search_params=_exactly(None),
            limit=k,
            with_payload=True,
            score_threshold=None,
        )
        return [points.layout.match_of(point, float(point.score)) for point in answer.points]
    # Its own search would look for each point that it has in the list of ids.
    stored = await points.retrieve_points(session, among, True, vectors=True)
    with_vector = {
        id: row for id, point in stored.items() if (row := points.vector_of(point)) is not None
    }
    best = TopK(vector, k)
    if with_vector:
        best.add(list(with_vector), np.array(list(with_vector.values()), dtype=np.float32))
    return [points.layout.match_of(stored[id], score) for id, score in best.scores().items()]


def _exactly(parameters: models.SearchParams | None) -> models.SearchParams:
    return (parameters or models.SearchParams()).model_copy(update={"exact": True})
