"""Whether points that somebody else wrote can be read."""

from __future__ import annotations

from qdrant_client import models

from toastrack.errors import StoreError
from toastrack.stores import RetryingSession
from toastrack_qdrant.layouts import OURS, advice
from toastrack_qdrant.points import Points


async def check_adoptable(points: Points, session: RetryingSession) -> None:
    """Raise ``StoreError`` if points are there that somebody else described."""
    is_ours = points.layout is OURS
    needed = ("id", "document_id", "text") if is_ours else (points.layout.text_path,)
    foreign = models.Filter(
        should=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in needed]
    )
    answer = await points.call(session, "count", points.label, count_filter=foreign, exact=True)
    # In another's layout some may have no text, such as pictures.
    if not answer.count or not (is_ours or answer.count == await points.count(session)):
        return
    page, _ = await points.call(
        session,
        "scroll",
        points.label,
        scroll_filter=foreign,
        limit=1,
        offset=None,
        with_payload=True,
        with_vectors=False,
    )
    keys = sorted((page[0].payload or {}) if page else ())
    raise StoreError(
        f"Collection {points.label!r} holds {answer.count} points whose payload lacks "
        f"{', '.join(needed)}, or one of them; there is {', '.join(keys) or 'nothing'}. "
        f"{advice(keys)}"
    )
