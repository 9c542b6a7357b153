"""The rows of a collection: read by their ids and page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from toastrack import Record
from toastrack.stores import Condition, IdSet, RetryingSession, matches
from toastrack_chroma.codec import DOCUMENT_ID, Metadata, document_of, to_metadata, to_record
from toastrack_chroma.filters import Where

Item = TypeVar("Item")

# The server refuses requests over 40 MiB (its setting max_payload_size_bytes).
MAX_BYTES = 24 * 2**20


class Rows:
    """Reads one collection; ``host`` is ``chromadb.Collection``, or its asynchronous twin."""

    # Chroma puts each id or document asked for into a variable of sqlite's, of which there are
    # 32,766. Vectors come as float64.
    page = 5_000
    """Rows in one request."""
    vectors_page = 2_000
    """The same, with their vectors."""

    def __init__(self, host: Any, distance: str = "cosine") -> None:
        self.host = host
        self.distance = distance

    async def count(self, session: RetryingSession) -> int:
        """Count them all."""
        return int(await session.call(self.host.count))

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        found: dict[str, Record] = {}
        for page in batches(storable(ids), Rows.page):
            answer = await session.call(self.host.get, ids=page, include=["documents", "metadatas"])
            for id, text, metadata in zip(
                answer["ids"], answer["documents"], answer["metadatas"], strict=True
            ):
                found[id] = to_record(id, text, metadata)
        return [found.get(id) for id in ids]

    async def metadatas(
        self, session: RetryingSession, ids: Sequence[str]
    ) -> dict[str, Mapping[str, Any] | None]:
        """Return the stored metadata of those ids that are there."""
        found: dict[str, Mapping[str, Any] | None] = {}
        for page in batches(storable(ids), self.page):
            answer = await session.call(self.host.get, ids=page, include=["metadatas"])
            found.update(zip(answer["ids"], answer["metadatas"], strict=True))
        return found

    async def of_documents(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, Metadata]:
        """Return the stored metadata of the rows of a page of documents, by their ids."""
        where = {DOCUMENT_ID: {"$in": list(documents)}}
        answer = await session.call(self.host.get, where=where, include=["metadatas"])
        found = dict(zip(answer["ids"], answer["metadatas"], strict=True))
        # Later than those: one that was its own document and got another's name is none of it.
        found.update(await self.metadatas(session, documents))
        wanted = set(documents)
        return {id: row or {} for id, row in found.items() if document_of(id, row) in wanted}

    async def look_at(
        self,
        session: RetryingSession,
        chosen: Mapping[str, Any],
        look: Callable[[str, Metadata], None],
    ) -> None:
        """Hand on the id and the metadata of every row that Chroma finds."""
        offset = 0
        while True:
            answer = await session.call(
                self.host.get, limit=self.page, offset=offset, include=["metadatas"], **chosen
            )
            for id, metadata in zip(answer["ids"], answer["metadatas"], strict=True):
                look(id, metadata or {})
            if len(answer["ids"]) < self.page:
                return
            offset += self.page

    async def look_at_matching(
        self,
        session: RetryingSession,
        condition: Condition,
        chosen: Mapping[str, Any],
        look: Callable[[str, Metadata], None],
    ) -> None:
        """Hand on the id and the metadata of every row that matches."""

        def look_if(id: str, metadata: Metadata) -> None:
            if matches(to_metadata(metadata), condition):
                look(id, metadata)

        await self.look_at(session, chosen, look_if)

    async def matching(
        self, session: RetryingSession, condition: Condition, chosen: Mapping[str, Any]
    ) -> list[str]:
        """Find by their metadata alone the rows that match."""
        found: list[str] = []
        await self.look_at_matching(session, condition, chosen, lambda id, row: found.append(id))
        return found

    async def documents(self, session: RetryingSession, where: Where | None = None) -> IdSet:
        """Return the id of every document that there is, or that has such a row."""
        seen = IdSet()
        await self.look_at(
            session, {"where": where}, lambda id, row: seen.add([document_of(id, row)])
        )
        return seen


def storable(ids: Sequence[str], *, empty: bool = False) -> list[str]:
    """Leave out what no row can have as its id: Chroma would refuse the whole call."""
    return [
        id
        for id in dict.fromkeys(ids)
        if (id or empty) and not any("\ud800" <= letter <= "\udfff" for letter in id)
    ]


def batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut ids, or texts asked for, into pages that go into one request each."""
    return cut(ids, size, lambda id: 6 * len(id))


def cut(items: Iterable[Item], most: int, size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut where a number of items or a request's bytes would be passed."""
    page: list[Item] = []
    size = 0
    for item in items:
        bytes_of_item = size_of(item)
        if page and (len(page) >= most or size + bytes_of_item > MAX_BYTES):
            yield page
            page, size = [], 0
        page.append(item)
        size += bytes_of_item
    if page:
        yield page


def vectors_in(answer: Mapping[str, Any]) -> Sequence[Any]:
    """Return the vectors of what ``get`` answers, None for each that is not there.

    While the first rows of a collection are written, Chroma may have their ids and no vectors.
    """
    vectors: Sequence[Any] = list(answer["embeddings"])
    return vectors or [None] * len(answer["ids"])
