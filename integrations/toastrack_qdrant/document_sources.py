"""Where the documents of a collection came from, as far as its points say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from toastrack.stores import IdSet, RetryingSession, StoredSource
from toastrack_qdrant.codec import SOURCE
from toastrack_qdrant.filters import of_documents, of_sources, with_source
from toastrack_qdrant.points import Points, cut, is_text


async def stored_sources(
    points: Points, session: RetryingSession, documents: Sequence[str]
) -> dict[str, StoredSource]:
    """Return where documents came from, of those that are stored with a source."""
    layout = points.layout
    numbers: Counter[str] = Counter()
    sources: dict[str, str] = {}

    def look(page: Sequence[models.Record]) -> None:
        for point in page:
            document = layout.document_of(point)
            numbers[document] += 1
            if isinstance(source := (point.payload or {}).get(SOURCE), str):
                sources[document] = source

    for some in cut([document for document in documents if is_text(document)]):
        keys = [*layout.document_keys, SOURCE]
        await points.scroll(session, of_documents(some, layout), keys, look)
    return {id: StoredSource(source, numbers[id]) for id, source in sources.items()}


async def has_other_source(
    points: Points, session: RetryingSession, sources: Sequence[str]
) -> bool:
    """Tell whether a point is stored from a source that is none of these."""
    page, _ = await points.call(
        session,
        "scroll",
        points.label,
        scroll_filter=with_source(but=sources),
        limit=1,
        offset=None,
        with_payload=False,
        with_vectors=False,
    )
    return bool(page)


async def source_page(
    points: Points, session: RetryingSession, after: Any, sources: Sequence[str] | None
) -> tuple[list[str], Any]:
    """Return the next documents of a list that was taken at the first call."""
    documents: IdSet
    last: str | None = None
    if after is not None:
        documents, last = after
    elif sources is not None:
        documents = await points.documents(session, of_sources(sources))
    else:
        documents = await points.documents(session)
        documents.remove(await points.documents(session, with_source()))
    return documents.page_and_next(last, points.page)
