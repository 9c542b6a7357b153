"""Where the documents of a collection came from, as far as its rows say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from toastrack.stores import IdSet, RetryingSession, StoredSource
from toastrack_chroma.codec import SOURCE, Metadata, document_of
from toastrack_chroma.rows import Rows, batches, storable


async def stored_sources(
    rows: Rows, session: RetryingSession, documents: Sequence[str]
) -> dict[str, StoredSource]:
    """Return where documents came from, of those that are stored with a source."""
    numbers: Counter[str] = Counter()
    sources: dict[str, str] = {}
    for page in batches(storable(documents), Rows.page):
        for id, metadata in (await rows.of_documents(session, page)).items():
            document = document_of(id, metadata)
            numbers[document] += 1
            if isinstance(source := metadata.get(SOURCE), str):
                sources[document] = source
    return {id: StoredSource(source, numbers[id]) for id, source in sources.items()}


async def has_other_source(rows: Rows, session: RetryingSession, sources: Sequence[str]) -> bool:
    """Tell whether a row is stored from a source that is none of these."""
    offset = 0
    while True:
        # Chroma's own "not in" finds the rows without a source, too.
        where = {SOURCE: {"$nin": list(sources)}}
        answer = await session.call(
            rows.host.get, limit=Rows.page, offset=offset, include=["metadatas"], where=where
        )
        if any((metadata or {}).get(SOURCE) is not None for metadata in answer["metadatas"]):
            return True
        if len(answer["ids"]) < Rows.page:
            return False
        offset += Rows.page


async def source_page(
    rows: Rows, session: RetryingSession, after: Any, sources: Sequence[str] | None
) -> tuple[list[str], Any]:
    """Return the next documents; all are read first, as pages shift when rows go."""
    documents: IdSet
    last: str | None = None
    if after is not None:
        documents, last = after
    elif sources is not None:
        documents = await rows.documents(session, {SOURCE: {"$in": list(sources)}})
    else:
        documents, with_source = IdSet(), IdSet()

        def look(id: str, metadata: Metadata) -> None:
            chosen = documents if metadata.get(SOURCE) is None else with_source
            chosen.add([document_of(id, metadata)])

        await rows.look_at(session, {}, look)
        documents.remove(with_source)
    return documents.page_and_next(last, Rows.page)
