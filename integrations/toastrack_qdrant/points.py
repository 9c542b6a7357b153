"""The points of a collection: read by their ids and page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from qdrant_client import models

from toastrack.stores import Condition, IdSet, RetryingSession, matches
from toastrack_qdrant.host import Host
from toastrack_qdrant.layouts import Layout, named_by

# Ids in one request.
_IDS = 1_000


class Points:
    """Reads one collection, and of its vectors the one of a name; "" is the unnamed one."""

    page = 1_000
    """Points in one request."""
    vectors_page = 256
    """The same, with their vectors."""

    def __init__(self, host: Host, label: str, vector_name: str, layout: Layout) -> None:
        self.host = host
        self.label = label
        self.layout = layout
        self.vector_name = vector_name

    async def call(self, session: RetryingSession, name: str, /, *args: Any, **options: Any) -> Any:
        """Call a method of the client."""
        return await self.host.call(session, name, *args, **options)

    async def count(self, session: RetryingSession) -> int:
        """Count them all."""
        answer = await self.call(session, "count", self.label, exact=True)
        return int(answer.count)

    async def retrieve(
        self, session: RetryingSession, ids: Sequence[str], selected: Any
    ) -> dict[str, models.Record]:
        """Return ``{point id: point}`` of the records that are there, as ours are written."""
        points = [self.layout.point_of(id) for id in dict.fromkeys(ids) if is_text(id)]
        return await self.retrieve_points(session, points, selected)

    async def of_records(
        self, session: RetryingSession, ids: Sequence[str], *, vectors: bool = False
    ) -> dict[str, models.Record]:
        """Return ``{id as it was asked: point}`` of the records that are there."""
        layout = self.layout
        asked = [id for id in dict.fromkeys(ids) if is_text(id)]
        if layout.point_id is None:
            return await self._with_ids(session, asked, vectors=vectors)
        places = {id: layout.points_of(id) for id in asked}
        wanted = dict.fromkeys(place for some in places.values() for place in some)
        found = await self.retrieve_points(session, list(wanted), True, vectors=vectors)
        return {
            id: found[str(place)]
            for id, some in places.items()
            for place in reversed(some)
            if str(place) in found
        }

    async def _with_ids(
        self, session: RetryingSession, ids: Sequence[str], *, vectors: bool
    ) -> dict[str, models.Record]:
        """Find records by what their payload says, and those that say nothing by their points."""
        found: dict[str, models.Record] = {}

        def take(page: Sequence[models.Record]) -> None:
            found.update({self.layout.id_of(point): point for point in page})

        for some in cut(ids, self.vectors_page):
            await self.scroll(session, self.layout.with_ids(some), True, take, vectors=vectors)
        missing = [place for id in ids if id not in found for place in named_by(id)]
        there = await self.retrieve_points(session, missing, True, vectors=vectors)
        take([point for id, point in there.items() if self.layout.id_of(point) == id])
        return {id: found[id] for id in ids if id in found}

    async def retrieve_points(
        self,
        session: RetryingSession,
        points: Sequence[Any],
        selected: Any,
        *,
        vectors: bool = False,
    ) -> dict[str, models.Record]:
        """Return ``{point id: point}`` of those that are there."""
        found: dict[str, models.Record] = {}
        for some in cut(points, self.vectors_page if vectors else _IDS):
            answer = await self.call(
                session,
                "retrieve",
                self.label,
                list(some),
                with_payload=selected,
                with_vectors=self.with_vectors if vectors else False,
            )
            found.update({str(point.id): point for point in answer})
        return found

    async def scroll(
        self,
        session: RetryingSession,
        wanted: models.Filter | None,
        selected: Any,
        take: Callable[[Sequence[models.Record]], None],
        *,
        vectors: bool = False,
    ) -> None:
        """Hand on every point in pages, in the order of their ids."""
        offset = None
        while True:
            page, offset = await self.call(
                session,
                "scroll",
                self.label,
                scroll_filter=wanted,
                limit=self.vectors_page if vectors else self.page,
                offset=offset,
                with_payload=selected,
                with_vectors=self.with_vectors if vectors else False,
            )
            take(page)
            if offset is None:
                return

    async def documents(
        self, session: RetryingSession, wanted: models.Filter | None = None
    ) -> IdSet:
        """Return the id of every document that there is, or that has such a point."""
        documents = IdSet()
        await self.scroll(
            session,
            wanted,
            self.layout.document_keys,
            lambda page: documents.add(self.layout.document_of(point) for point in page),
        )
        return documents

    async def matching(
        self, session: RetryingSession, condition: Condition, wanted: models.Filter | None
    ) -> list[Any]:
        """Return the ids of the points whose metadata matches; somebody else's may be numbers."""
        found: list[Any] = []

        def look(page: Sequence[models.Record]) -> None:
            found.extend(
                point.id
                for point in page
                if matches(self.layout.metadata_of(point.payload or {}), condition)
            )

        await self.scroll(session, wanted, self.layout.metadata_keys, look)
        return found

    @property
    def with_vectors(self) -> bool | list[str]:
        """How a host is told which vectors to bring along."""
        return [self.vector_name] if self.vector_name else True

    def vector_of(self, point: models.Record) -> Any:
        """Return a point's vector, None if it has none of the name."""
        vectors: Any = point.vector
        return (vectors or {}).get(self.vector_name) if self.vector_name else vectors


def cut(items: Sequence[Any], most: int = _IDS) -> Iterator[Sequence[Any]]:
    """Cut ids, or what else there is for each, into what goes into one request."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


def is_text(id: str) -> bool:
    """Tell whether an id can be anyone's: a lone surrogate is in no payload."""
    return not any("\ud800" <= letter <= "\udfff" for letter in id)
