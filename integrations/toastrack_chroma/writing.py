"""What changes the rows of a collection: compared, written and deleted beside other writers."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toastrack.stores import Filter, Look, RetryingSession, Row, Status, matches, parsed
from toastrack_chroma.codec import (
    DOCUMENT_ID,
    METADATA,
    ROW,
    SOURCE,
    Metadata,
    described,
    document_of,
    is_own,
    is_vector,
    row_metadata,
    same_rest,
    to_metadata,
)
from toastrack_chroma.filters import Where, all_of, broad
from toastrack_chroma.rows import Rows, batches, cut, storable, vectors_in
from toastrack_chroma.sending import Limits, StoredRow, upsert

# Rows deleted in one request.
_DELETED = 1_000
# How often what others change at this moment is looked at again.
_ROUNDS = 5


def compared(
    stored: Mapping[str, Mapping[str, Any] | None], rows: Sequence[Row]
) -> dict[str, Status]:
    """Say how each row compares to the metadata that is stored under its id."""
    return {
        row.record.id: _status_of(stored[row.record.id] or {}, row)
        for row in rows
        if row.record.id in stored
    }


async def put(
    there: Rows,
    session: RetryingSession,
    rows: Sequence[Row],
    metadata_rows: Sequence[Row],
    limits: Limits,
) -> None:
    """Write whole rows; of the others with the vector that is stored, where the text is as it was.

    Chroma cannot compare and set, so a row is always written as a whole: whoever comes last,
    its text, hash, vector and metadata are of one version.
    """
    before = await there.metadatas(session, [row.record.id for row in rows])
    await upsert(session, there.host, [_stored(row, before) for row in rows], limits)
    for page in batches([row.record.id for row in metadata_rows], Rows.vectors_page):
        include = ["metadatas", "embeddings"]
        answer = await session.call(there.host.get, ids=page, include=include)
        before = dict(zip(answer["ids"], answer["metadatas"], strict=True))
        vectors = dict(zip(answer["ids"], vectors_in(answer), strict=True))
        whole = [
            _stored(row._replace(vector=np.asarray(vectors[id], dtype=np.float32)), before)
            for row in metadata_rows
            # One whose vector is another's, torn or written just now, is embedded anew.
            if _has_text(before.get(id := row.record.id), row)
            and is_vector(vectors[id], before[id])
        ]
        await upsert(session, there.host, whole, limits)


async def look(
    there: Rows, session: RetryingSession, documents: Sequence[str], rows: Mapping[str, Row]
) -> Look:
    """Read what is stored of documents, and compare it with the rows they should have."""
    statuses: dict[str, Status] = {}
    stale: list[str] = []
    for page in batches(storable(documents, empty=True), Rows.page):
        for id, metadata in (await there.of_documents(session, page)).items():
            if id in rows:
                statuses[id] = _status_of(metadata, rows[id])
            else:
                stale.append(id)
    return Look(statuses, stale)


async def remove(
    rows: Rows, session: RetryingSession, stale: abc.Collection[str], documents: Sequence[str]
) -> None:
    """Delete rows that are still of one of these documents."""
    wanted = set(documents)
    of_them = {DOCUMENT_ID: {"$in": storable(documents, empty=True)}}
    for page in batches(stale, Rows.page):
        there = (await rows.metadatas(session, page)).items()
        doomed = {id: row or {} for id, row in there if document_of(id, row) in wanted}
        own = {id: row for id, row in doomed.items() if is_own(row)}
        named = {id: row for id, row in doomed.items() if id not in own}
        await _delete_unchanged(rows, session, own)
        await _delete_unchanged(rows, session, named, of_them)


async def delete(rows: Rows, session: RetryingSession, ids: Sequence[str]) -> abc.Collection[str]:
    """Delete records by id; return the ids of those that went."""
    there = await rows.metadatas(session, ids)
    for page in batches(there, Rows.page):
        await session.call(rows.host.delete, ids=page)
    return there


async def delete_matching(rows: Rows, session: RetryingSession, filter: Filter) -> int:
    """Delete the rows that match when they are deleted; return how many went."""
    condition = parsed(filter)
    deleted = 0
    chosen = {"where": broad(condition)}
    for page in batches(await rows.matching(session, condition, chosen), _DELETED):
        for _ in range(_ROUNDS):
            there = await rows.metadatas(session, page)
            doomed = {
                id: row or {}
                for id, row in there.items()
                if matches(to_metadata(row or {}), condition)
            }
            if not doomed:
                break
            await _delete_unchanged(rows, session, doomed)
        else:
            there = await rows.metadatas(session, page)
        deleted += len(page) - len(there)
    return deleted


async def _delete_unchanged(
    there: Rows,
    session: RetryingSession,
    rows: Mapping[str, Mapping[str, Any]],
    where: Where | None = None,
) -> None:
    """Delete rows that meet a condition, if what we wrote beside them is what one of them had."""
    conditions = [where] if where else []
    for key in (ROW, METADATA):
        written = {id: row[key] for id, row in rows.items() if isinstance(row.get(key), str)}
        rows = {id: row for id, row in rows.items() if id not in written}
        for some in cut(written.items(), _DELETED, lambda item: 6 * len("".join(item))):
            texts = list({text for _, text in some})
            as_it_was = all_of([{key: {"$in": texts}}, *conditions])
            await session.call(there.host.delete, ids=[id for id, _ in some], where=as_it_was)
    # Of what others wrote nothing says all that it is.
    for page in batches(rows, _DELETED):
        await session.call(there.host.delete, ids=page, where=where)


def _has_text(stored: Mapping[str, Any] | None, row: Row) -> bool:
    return stored is not None and described(stored).text_hash == row.text_hash


def _status_of(stored: Metadata, row: Row) -> Status:
    if not _has_text(stored, row):
        return "changed"
    return "unchanged" if same_rest(stored, row) else "metadata"


def _stored(row: Row, before: Mapping[str, Mapping[str, Any] | None]) -> StoredRow:
    return StoredRow(row.record.id, row.record.text, _replacing(row, before), row.vector)


def _replacing(row: Row, before: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return a row's metadata; Chroma merges, so what is there no longer is said to be None."""
    now = row_metadata(row)
    stored = before.get(row.record.id) or {}
    gone = {key: None for key in stored if key not in now}
    if document_of(row.record.id, stored) == row.record.document:
        gone.pop(SOURCE, None)
    return {**gone, **now}
