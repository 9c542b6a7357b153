"""The rows of a collection as records: read by their ids and page by page, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toastrack import Record
from toastrack.stores import Condition, Filter, IdSet, RetryingSession, Row, Span, matches, parsed
from toastrack_chroma.codec import Metadata, described, document_of, is_vector, to_record
from toastrack_chroma.filters import broad, of_spans
from toastrack_chroma.rows import Rows, batches, cut, storable, vectors_in

# Three conditions each; sqlite takes expressions 1,000 deep.
_SPANS = 50
# Requests for a sample.
_SAMPLED_PLACES = 16


async def read_sample(there: Rows, session: RetryingSession, size: int) -> list[Row]:
    """Return rows from places at equal distances."""
    number = await there.count(session)
    places = min(_SAMPLED_PLACES, max(1, number // size))
    rows: list[Row] = []
    for place in range(places):
        answer = await session.call(
            there.host.get,
            limit=-(-size // places),
            offset=place * number // places,
            include=["documents", "metadatas", "embeddings"],
        )
        rows += [
            _row(id, text, metadata or {}, vector)
            for id, text, metadata, vector in zip(
                answer["ids"],
                answer["documents"],
                answer["metadatas"],
                vectors_in(answer),
                strict=True,
            )
        ]
    return rows[:size]


async def chunks(rows: Rows, session: RetryingSession, spans: Sequence[Span]) -> list[Record]:
    """Return the records of documents whose chunk numbers lie in one of these spans."""
    ids: list[str] = []
    for some in cut(dict.fromkeys(spans), _SPANS, lambda span: 6 * len(span.document)):
        where = {"where": of_spans(some)}
        await rows.look_at(session, where, lambda id, row: ids.append(id))
    return [record for record in await rows.get(session, ids) if record is not None]


async def read(
    rows: Rows, session: RetryingSession, ids: Sequence[str], vectors: bool
) -> list[Row | None]:
    """Return records in the order asked, with their hashes and vectors."""
    found: dict[str, Row] = {}
    include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
    for page in batches(storable(ids), Rows.vectors_page if vectors else Rows.page):
        answer = await session.call(rows.host.get, ids=page, include=include)
        embeddings = vectors_in(answer) if vectors else [None] * len(answer["ids"])
        for id, text, metadata, vector in zip(
            answer["ids"], answer["documents"], answer["metadatas"], embeddings, strict=True
        ):
            found[id] = _row(id, text, metadata or {}, vector)
    return [found.get(id) for id in ids]


async def matching_ids(rows: Rows, session: RetryingSession, condition: Condition) -> IdSet:
    """Return the ids of all rows that match, in a list that does not shift as pages do."""
    ids = IdSet()
    await rows.look_at_matching(
        session, condition, {"where": broad(condition)}, lambda id, row: ids.add([id])
    )
    return ids


async def page_of(
    rows: Rows, session: RetryingSession, after: Any, condition: Condition, vectors: bool
) -> tuple[list[Row], Any]:
    """Return the next records of such a list that match still, and what follows them."""
    ids, last = after
    size = Rows.vectors_page if vectors else Rows.page
    page, following = ids.page_and_next(last, size)
    found = [row for row in await read(rows, session, page, vectors) if row is not None]
    matching = [row for row in found if matches(row.record.metadata, condition)]
    return matching, following


async def count(rows: Rows, session: RetryingSession, documents: bool) -> int:
    """Count records, or documents by reading the name of each record's."""
    if documents:
        return len(await rows.documents(session))
    return await rows.count(session)


async def count_matching(
    rows: Rows, session: RetryingSession, filter: Filter, documents: bool
) -> int:
    """Count the rows that match, or their documents, by reading metadata alone."""
    condition = parsed(filter)
    chosen = {"where": broad(condition)}
    if not documents:
        return len(await rows.matching(session, condition, chosen))
    found = IdSet()
    await rows.look_at_matching(
        session, condition, chosen, lambda id, row: found.add([document_of(id, row)])
    )
    return len(found)


async def document_page(rows: Rows, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
    """Return the next documents' ids; all are read first, as pages shift when rows go."""
    documents, last = after or (await rows.documents(session), None)
    return documents.page_and_next(last, Rows.page)


def _row(id: str, text: str | None, metadata: Metadata, vector: Any) -> Row:
    is_good = vector is not None and is_vector(np.asarray(vector), metadata)
    return Row(
        to_record(id, text, metadata),
        described(metadata).text_hash,
        np.asarray(vector, dtype=np.float32) if is_good else None,
    )
