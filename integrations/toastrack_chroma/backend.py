"""A Chroma collection as a store's backend: which part of the adapter does what."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chromadb.errors import ChromaError

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import ConnectionLostError, StoreError
from toastrack.stores import (
    CollectionChangedError,
    Description,
    Filter,
    Look,
    OwnClient,
    RetryingBackend,
    RetryingSession,
    Row,
    Span,
    Status,
    StoredSource,
    WriteBatch,
    WriteResult,
    check_usable,
    delete_documents,
    parsed,
    write_batch,
)
from toastrack_chroma import document_sources, finding, reading, writing
from toastrack_chroma.codec import check_record
from toastrack_chroma.collection import Collection
from toastrack_chroma.finding import distance_of, get_collection, size_of
from toastrack_chroma.host_errors import is_away, is_collection_gone, no_answer
from toastrack_chroma.recorded import SPACE, recorded_in, recorded_text
from toastrack_chroma.rows import Rows
from toastrack_chroma.search import SearchOptions, search
from toastrack_chroma.sending import Limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ChromaBackend(RetryingBackend):
    """One collection of one client, synchronous or asynchronous.

    Args:
        client: The user's own, or an ``OwnClient``.
        collection: The collection's name.
        function: Returns the embedding function that a new collection records for its space.
        configuration: Chroma's own settings of a new collection.
    """

    no_words = (
        "Chroma says 'Search is not implemented for Local Chroma', and its servers, but for its own "
        "cloud, refuse an index of words. where_document={'$contains': ...} keeps what holds a text, "
        "letter by letter."
    )
    writes_format = 3
    collection: Collection
    """As it was found last."""

    def __init__(
        self,
        client: Any,
        collection: str,
        *,
        function: Callable[[EmbeddingSpace], Any],
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(collection, str):
            raise TypeError(f"A collection's name is str, not {type(collection).__name__}.")
        self._client = client
        self.label = collection
        self._function = function
        self._configuration = dict(configuration or {})
        distance = distance_of(self._configuration)
        if distance not in (None, "cosine"):
            raise StoreError(
                f"configuration= asks for the distance {distance!r}; toastrack's scores are cosine "
                "similarities. Leave it out."
            )

    @property
    def client(self) -> Any:
        """The user's client, or that of the store's own."""
        return self._client.get() if isinstance(self._client, OwnClient) else self._client

    @property
    def rows(self) -> Rows:
        """What is in the collection that was found."""
        return self.collection.rows

    @property
    def host(self) -> Any:
        """``chromadb.Collection``, or its asynchronous twin."""
        return self.rows.host

    @property
    def limits(self) -> Limits:
        """What Chroma takes in one request."""
        by_http = bool(self.client.get_settings().chroma_server_host)
        return Limits(self.collection.max_rows, self.dimensions or 0, by_http)

    # -- the collection -------------------------------------------------------------------------

    async def find(self, session: RetryingSession) -> bool:
        """Look for the collection, or for the complete copy of it that a kill left behind."""
        host = await self.lookup(session, self.label)
        if host is None:
            host = await finding.finish_rebuild(self.client, session, self.label)
        if host is None:
            return False
        await self._learn(session, host)
        return True

    async def create(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Create the collection with the space in its metadata."""
        configuration = dict(self._configuration)
        index = "spann" if configuration.get("spann") else "hnsw"
        configuration[index] = {**(configuration.get(index) or {}), "space": "cosine"}
        try:
            # Of two that create at once the second gets the first one's collection.
            await session.call(
                self.client.get_or_create_collection,
                self.label,
                configuration=configuration,
                metadata={SPACE: recorded_text(space, self.writes_format)},
                embedding_function=self._function(space),
            )
        except ChromaError as error:
            raise StoreError(f"Collection {self.label!r} cannot be created: {error}") from error
        await self.find(session)

    async def record_space(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Put the space into the collection's metadata, beside what the user keeps there."""
        metadata = {**self.collection.own_metadata, SPACE: recorded_text(space, self.writes_format)}
        await session.call(self.host.modify, metadata=metadata)
        # Of two that write at once the last one's is there; both must see it.
        await self._learn(session, await get_collection(self.client, session, self.label))

    async def bring_up(self, session: RetryingSession) -> None:
        """Put the newer format into the collection's metadata."""
        await self._learn(session, await get_collection(self.client, session, self.label))
        if self.space is not None and self.format < self.writes_format:
            await self.record_space(session, self.space)

    async def lookup(self, session: RetryingSession, name: str) -> Any:
        """Return Chroma's collection of a name, or None."""
        return await finding.lookup(self.client, session, name)

    async def _learn(self, session: RetryingSession, host: Any) -> None:
        """Read what a collection says of itself; refuse one that cannot be used."""
        metadata = dict(host.metadata or {})
        space, format = recorded_in(metadata, self.label)
        stored = None if space else await size_of(session, host)
        is_filled = space is not None or stored is not None
        problems, instead = self.problems_of(host.configuration_json, is_filled)
        check_usable(f"Collection {self.label!r}", problems, instead=instead)
        dimensions = space.dimensions if space else stored
        max_rows = await session.call(self.client.get_max_batch_size)
        # All at once, as others may be in the middle of a call.
        rows = Rows(host, distance_of(host.configuration_json) or "l2")
        self.collection = Collection(self.label, rows, metadata, max_rows)
        self.space, self.format, self.dimensions = space, format, dimensions

    def problems_of(
        self, configuration: Mapping[str, Any], is_filled: bool
    ) -> tuple[list[str], str]:
        """Return what is wrong with a collection of this configuration, and what else to do.

        One that is filled is read, whatever its distance.
        """
        distance = distance_of(configuration) or "l2"
        if distance == "cosine" or is_filled:
            return [], ""
        return [
            f"it compares by {distance!r}, which cannot be changed, and toastrack's scores are "
            "cosine similarities"
        ], "Use a new one, and read the texts of this one into it."

    async def _check_found(self, session: RetryingSession) -> None:
        """Raise ``CollectionChangedError`` unless the name stands for the collection that was found.

        One that was deleted says so itself at each call; one that was renamed would go on.
        """
        now = await self.lookup(session, self.label)
        found = self.host
        if (
            now is None
            or now.id != found.id
            or recorded_in(now.metadata or {}, self.label)[0] != self.space
        ):
            raise CollectionChangedError(self.kind, self.label)

    async def describe(self, session: RetryingSession) -> Description:
        """Say which Chroma this is, and how its index is set."""
        version = await session.call(self.client.get_version)
        for kind in ("hnsw", "spann"):
            settings = dict((self.host.configuration_json or {}).get(kind) or {})
            if settings:
                told = ("ef_construction", "max_neighbors", "ef_search")
                said = ", ".join(f"{key}={settings[key]}" for key in told if key in settings)
                return Description(self.label, f"Chroma {version}", "float32", f"{kind} ({said})")
        return Description(self.label, f"Chroma {version}", "float32")

    # -- writing --------------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` for what Chroma cannot store."""
        check_record(record)

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        self.collection.check_writable()
        stored = await self.rows.metadatas(session, [row.record.id for row in rows])
        await self._check_found(session)
        return writing.compared(stored, rows)

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        """Write new rows, then the others' metadata; what is stale goes last."""
        await self._check_before_change(session)
        return await write_batch(self, session, batch)

    async def put(
        self, session: RetryingSession, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole rows; of the others with the vector that is stored, where the text is as it was."""
        await writing.put(self.rows, session, rows, metadata_rows, self.limits)

    async def look(
        self, session: RetryingSession, documents: Sequence[str], rows: Mapping[str, Row]
    ) -> Look:
        """Read what is stored of documents, and compare it with the rows they should have."""
        return await writing.look(self.rows, session, documents, rows)

    async def remove(
        self, session: RetryingSession, stale: abc.Collection[str], documents: Sequence[str]
    ) -> None:
        """Delete rows that are still of one of these documents."""
        await writing.remove(self.rows, session, stale, documents)

    async def delete(
        self, session: RetryingSession, ids: Sequence[str], documents: Sequence[str]
    ) -> int:
        """Delete records by id and whole documents; return how many records went."""
        await self._check_before_change(session)
        there = await writing.delete(self.rows, session, ids)
        return len({*there, *await delete_documents(self, session, documents)})

    async def delete_matching(self, session: RetryingSession, filter: Filter) -> int:
        """Delete the rows that match when they are deleted; return how many went."""
        await self._check_before_change(session)
        return await writing.delete_matching(self.rows, session, filter)

    async def _check_before_change(self, session: RetryingSession) -> None:
        self.collection.check_writable()
        await self._check_found(session)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        return await self.rows.get(session, ids)

    async def read_sample(self, session: RetryingSession, size: int) -> list[Row]:
        """Return rows from places at equal distances."""
        return await reading.read_sample(self.rows, session, size)

    async def chunks(self, session: RetryingSession, spans: Sequence[Span]) -> list[Record]:
        """Return the records of documents whose chunk numbers lie in one of these spans."""
        return await reading.chunks(self.rows, session, spans)

    async def read(
        self, session: RetryingSession, ids: Sequence[str], vectors: bool
    ) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        if vectors:
            await self._check_found(session)
        return await reading.read(self.rows, session, ids, vectors)

    async def read_page(
        self, session: RetryingSession, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match; their ids are read first, as pages shift."""
        condition = parsed(filter)
        if after is None:
            after = (await reading.matching_ids(self.rows, session, condition), None)
        if vectors:
            await self._check_found(session)
        return await reading.page_of(self.rows, session, after, condition, vectors)

    async def count(self, session: RetryingSession, documents: bool) -> int:
        """Count records, or documents by reading the name of each record's."""
        return await reading.count(self.rows, session, documents)

    async def count_matching(
        self, session: RetryingSession, filter: Filter, documents: bool
    ) -> int:
        """Count the rows that match, or their documents, by reading metadata alone."""
        return await reading.count_matching(self.rows, session, filter, documents)

    async def document_page(self, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
        """Return the next documents' ids; all are read first, as pages shift when rows go."""
        return await reading.document_page(self.rows, session, after)

    # -- where documents came from --------------------------------------------------------------

    async def stored_sources(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        return await document_sources.stored_sources(self.rows, session, documents)

    async def has_other_source(self, session: RetryingSession, sources: Sequence[str]) -> bool:
        """Tell whether a row is stored from a source that is none of these."""
        return await document_sources.has_other_source(self.rows, session, sources)

    async def source_page(
        self, session: RetryingSession, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Return the next documents; all are read first, as pages shift when rows go."""
        return await document_sources.source_page(self.rows, session, after, sources)

    # -- searching ------------------------------------------------------------------------------

    async def search(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` rows; compared here if the index gives fewer."""
        await self._check_found(session)
        return await search(self.rows, session, vector, k, filter, exact, options)

    # -- the host -------------------------------------------------------------------------------

    def given(self) -> object | None:
        """Return the user's client; None if the store makes its own."""
        return None if isinstance(self._client, OwnClient) else self._client

    def leave_to_parent(self) -> None:
        """In a forked child: leave a client of our own to the parent."""
        if isinstance(self._client, OwnClient):
            self._client.leave_to_parent()

    async def close(self) -> None:
        """Close a client of our own; the user's is theirs."""
        if isinstance(self._client, OwnClient):
            self._client.close()

    def is_away(self, error: BaseException) -> bool:
        """Tell whether a server could not be reached, or went away before it answered."""
        return is_away(error)

    def explain(self, error: Exception) -> ConnectionLostError:
        """Say which server it is that does not answer."""
        return no_answer(self.client, error)

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether Chroma says that there is no such collection."""
        return is_collection_gone(error)
