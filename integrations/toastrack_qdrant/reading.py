"""The points of a collection as records: read by their ids and page by page, and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from toastrack import Record
from toastrack.stores import Condition, Filter, IdSet, RetryingSession, Row, Span, matches, parsed
from toastrack_qdrant.collection import Collection
from toastrack_qdrant.filters import broad, of_spans
from toastrack_qdrant.points import Points, cut

# Conditions of two in one filter.
_SPANS = 250


async def is_empty(collection: Collection, session: RetryingSession) -> bool:
    """Tell whether no point has a vector of this name; another store's may be there."""
    points = collection.points
    wanted = None
    if collection.hashes.others:
        wanted = models.Filter(must=[models.HasVectorCondition(has_vector=points.vector_name)])
    answer = await points.call(session, "count", points.label, count_filter=wanted, exact=True)
    return not answer.count


async def read_sample(collection: Collection, session: RetryingSession, size: int) -> list[Row]:
    """Return points that Qdrant picks by chance."""
    points = collection.points
    wanted = models.Filter(must=[models.HasVectorCondition(has_vector=points.vector_name)])
    answer = await points.call(
        session,
        "query_points",
        points.label,
        query=models.SampleQuery(sample=models.Sample.RANDOM),
        query_filter=wanted if points.vector_name else None,
        limit=size,
        with_payload=True,
        with_vectors=points.with_vectors,
    )
    return [row_of(collection, point) for point in answer.points]


async def get(points: Points, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
    """Return records in the order asked."""
    found = await points.of_records(session, ids)
    records = {id: points.layout.record_of(point) for id, point in found.items()}
    return [records.get(id) for id in ids]


async def page_of(
    points: Points, session: RetryingSession, after: Any, condition: Condition, vectors: bool
) -> tuple[Sequence[models.Record], Any]:
    """Return the next points that may match, in the order of their ids, and what follows them."""
    page, following = await points.call(
        session,
        "scroll",
        points.label,
        scroll_filter=broad(condition, points.layout),
        limit=points.vectors_page if vectors else points.page,
        offset=after,
        with_payload=True,
        with_vectors=points.with_vectors if vectors else False,
    )
    return page, following


def rows_of(
    collection: Collection, found: Mapping[str, models.Record], ids: Sequence[str]
) -> list[Row | None]:
    """Return points that were found as rows, in the order asked."""
    rows = {id: row_of(collection, point) for id, point in found.items()}
    return [rows.get(id) for id in ids]


def matching_rows(
    collection: Collection, page: Sequence[models.Record], condition: Condition
) -> list[Row]:
    """Return those points as rows that match."""
    rows = (row_of(collection, point) for point in page)
    return [row for row in rows if matches(row.record.metadata, condition)]


def row_of(collection: Collection, point: models.Record) -> Row:
    """Return a point as a row, with its vector if it was brought along."""
    points = collection.points
    vector = points.vector_of(point)
    # What others call so in a layout of theirs is no hash of ours.
    kept = "" if points.layout.read_only else collection.hashes.in_payload(point.payload or {})
    return Row(
        points.layout.record_of(point),
        bytes.fromhex(kept or ""),
        None if vector is None else np.asarray(vector, dtype=np.float32),
    )


async def chunks(points: Points, session: RetryingSession, spans: Sequence[Span]) -> list[Record]:
    """Return the records of documents whose chunk numbers lie in one of these spans."""
    found: dict[str, Record] = {}

    def take(page: Sequence[models.Record]) -> None:
        found.update({str(point.id): points.layout.record_of(point) for point in page})

    for some in cut(list(dict.fromkeys(spans)), _SPANS):
        await points.scroll(session, of_spans(some, points.layout), True, take)
    return list(found.values())


async def count(points: Points, session: RetryingSession, documents: bool) -> int:
    """Count records, or documents by reading the name of each record's."""
    if documents:
        return len(await points.documents(session))
    return await points.count(session)


async def count_matching(
    points: Points, session: RetryingSession, filter: Filter, documents: bool
) -> int:
    """Count the points that match, or their documents, by reading metadata alone."""
    layout = points.layout
    condition = parsed(filter)
    found = IdSet()
    number = 0

    def look(page: Sequence[models.Record]) -> None:
        nonlocal number
        passing = [
            point for point in page if matches(layout.metadata_of(point.payload or {}), condition)
        ]
        number += len(passing)
        if documents:
            found.add(layout.document_of(point) for point in passing)

    keys = layout.metadata_keys
    selected = keys if isinstance(keys, bool) else [*layout.document_keys, *keys]
    await points.scroll(session, broad(condition, layout), selected, look)
    return len(found) if documents else number


async def document_page(
    points: Points, session: RetryingSession, after: Any
) -> tuple[list[str], Any]:
    """Return the next ids of a list that was taken at the first call."""
    documents, last = after or (await points.documents(session), None)
    return documents.page_and_next(last, points.page)
