"""What changes the points of a collection: compared, written and deleted beside other writers."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from toastrack.stores import (
    Filter,
    Look,
    RetryingSession,
    Row,
    Status,
    another_writer,
    matches,
    parsed,
)
from toastrack_qdrant.changes import new_metadata, new_texts
from toastrack_qdrant.codec import batches
from toastrack_qdrant.collection import Collection
from toastrack_qdrant.comparing import status_of, texts_differ
from toastrack_qdrant.filters import broad, fields_of, of_documents, unchanged
from toastrack_qdrant.host_errors import is_point_gone, naming_too_large
from toastrack_qdrant.points import Points, cut, is_text

# How often what others change at this moment is looked at again.
_ROUNDS = 5

# An update of points that are none of these is made to new points only.
_NO_POINT = models.Filter(must=[models.HasIdCondition(has_id=[])])


async def stored(
    points: Points, session: RetryingSession, rows: Sequence[Row]
) -> dict[str, models.Record]:
    """Return what is there of these rows, to be compared: all but the texts."""
    ids = [row.record.id for row in rows]
    return await points.retrieve(session, ids, points.layout.all_but_text)


def compared(
    collection: Collection, found: Mapping[str, models.Record], rows: Sequence[Row]
) -> dict[str, Status]:
    """Say how each row compares to what ``stored`` found under its id."""
    result: dict[str, Status] = {}
    for row in rows:
        point = found.get(str(collection.points.layout.point_of(row.record.id)))
        if point is None:
            continue
        result[row.record.id] = status_of(collection, point.payload or {}, row)
    return result


async def put(
    collection: Collection,
    session: RetryingSession,
    rows: Sequence[Row],
    metadata_rows: Sequence[Row],
) -> None:
    """Write whole points; of the others the payload, where the text is as it was."""
    hashes, points = collection.hashes, collection.points
    layout = points.layout
    by_id = {layout.point_of(row.record.id): row for row in rows}
    copies = 3 if hashes.others else 1
    for batch in batches(rows, points.vector_name, layout, copies):
        await _put(collection, session, batch, by_id)
    for batch in batches(metadata_rows, points.vector_name, layout):
        changes = [change for point in batch for change in new_metadata(point, hashes, layout)]
        with naming_too_large(batch):
            await points.host.update(session, points.label, [], changes)


async def _put(
    collection: Collection,
    session: RetryingSession,
    batch: Sequence[models.PointStruct],
    rows: Mapping[Any, Row],
) -> None:
    """Write vectors, texts and all else; in points that are there what is others' stays."""
    hashes, points = collection.hashes, collection.points
    layout = points.layout
    written = False
    for _ in range(_ROUNDS):
        selected = True if written else layout.all_but_text
        found = await points.retrieve_points(session, [point.id for point in batch], selected)
        new: list[models.PointStruct] = []
        changed: list[models.PointStruct] = []
        described: list[models.PointStruct] = []
        for point in batch:
            there = found.get(str(point.id))
            if there is None:
                new.append(point)
                continue
            status = status_of(collection, there.payload or {}, rows[point.id])
            if status == "changed" and not (written and texts_differ(layout, there, point)):
                changed.append(point)
            elif status == "metadata":
                described.append(point)
        if written:
            # What went or was changed since, or described, is of somebody who came later. But
            # one who gave it the same text took our hash away and left it without.
            new, described = [], []
        operations, changes = new_texts(changed, hashes, layout) if changed else ([], [])
        changes += [change for point in described for change in new_metadata(point, hashes, layout)]
        with naming_too_large(batch):
            if new:
                # One that somebody else wrote since is left as it is.
                await points.call(
                    session, "upsert", points.label, new, update_filter=_NO_POINT, wait=True
                )
            if changes:
                try:
                    await points.host.update(session, points.label, operations, changes)
                except Exception as error:
                    if not is_point_gone(error):
                        raise
                    written = False
                    continue
        batch = [*new, *changed] if hashes.others else []
        if not batch:
            return
        written = True
    raise another_writer(rows[batch[0].id].record.document)


async def look(
    collection: Collection,
    session: RetryingSession,
    documents: Sequence[str],
    rows: Mapping[str, Row],
) -> Look:
    """Read the payloads of documents, and compare them with the rows they should have."""
    layout = collection.points.layout
    statuses: dict[str, Status] = {}
    stale: list[Any] = []
    wanted = {str(layout.point_of(id)): row for id, row in rows.items()}

    def compare(page: Sequence[models.Record]) -> None:
        for point in page:
            row = wanted.get(str(point.id))
            if row is None:
                stale.append(point.id)
            else:
                statuses[row.record.id] = status_of(collection, point.payload or {}, row)

    for some in cut([document for document in documents if is_text(document)]):
        wanted_points = of_documents(some, layout)
        await collection.points.scroll(session, wanted_points, layout.all_but_text, compare)
    return Look(statuses, stale)


async def remove(
    points: Points, session: RetryingSession, stale: abc.Collection[Any], documents: Sequence[str]
) -> None:
    """Delete points that are still of one of these documents."""
    for some in cut(list(stale)):
        among = of_documents(documents, points.layout, among=some)
        selector = models.FilterSelector(filter=among)
        await points.call(session, "delete", points.label, selector, wait=True)


async def delete(points: Points, session: RetryingSession, ids: Sequence[str]) -> set[Any]:
    """Delete records by id; return the points that went."""
    found = await points.retrieve(session, ids, False)
    doomed = {point.id for point in found.values()}
    for some in cut(list(doomed)):
        selector = models.PointIdsList(points=list(some))
        await points.call(session, "delete", points.label, selector, wait=True)
    return doomed


async def delete_matching(points: Points, session: RetryingSession, filter: Filter) -> int:
    """Delete the points that match when they are deleted; return how many went."""
    layout = points.layout
    condition = parsed(filter)
    deleted = 0
    matching = await points.matching(session, condition, broad(condition, layout))
    for some in cut(matching):
        for _ in range(_ROUNDS):
            there = await points.retrieve_points(session, some, layout.metadata_keys)
            doomed = [
                point
                for point in there.values()
                if matches(layout.metadata_of(point.payload or {}), condition)
            ]
            if not doomed:
                break
            still = unchanged(doomed, fields_of(condition), layout)
            selector = models.FilterSelector(filter=still)
            await points.call(session, "delete", points.label, selector, wait=True)
        else:
            there = await points.retrieve_points(session, some, False)
        deleted += len(some) - len(there)
    return deleted
