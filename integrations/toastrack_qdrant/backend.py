"""A Qdrant collection as a store's backend: which part of the adapter does what."""

from __future__ import annotations

from collections import abc
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from grpc import RpcError, StatusCode
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import ConnectionLostError, StoreError
from toastrack.stores import (
    Description,
    Filter,
    Look,
    OnProgress,
    OwnClient,
    RetryingBackend,
    RetryingSession,
    Row,
    Span,
    Status,
    StoredSource,
    TextHits,
    TextQuery,
    WriteBatch,
    WriteResult,
    delete_documents,
    parsed,
    write_batch,
)
from toastrack_qdrant import adoption, document_sources, indexes, reading, text_index, writing
from toastrack_qdrant.codec import check_record
from toastrack_qdrant.collection import KIND, Collection
from toastrack_qdrant.creation import Creation, create_collection
from toastrack_qdrant.host import Client, Host
from toastrack_qdrant.host_errors import (
    is_away,
    is_collection_gone,
    is_forbidden,
    is_silent,
    no_answer,
)
from toastrack_qdrant.layouts import Fields, layout_of
from toastrack_qdrant.points import Points
from toastrack_qdrant.recorded import also_equal, dimensions_in, to_metadata
from toastrack_qdrant.search import SearchOptions, search
from toastrack_qdrant.text_search import check_threshold, search_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

# Since then each named vector has a hash of its own.
_FORMAT_OF_NAMED = 2


class QdrantBackend(RetryingBackend):
    """One collection, and of its vectors the one of a name; "" is the unnamed one."""

    kind = KIND
    collection: Collection
    """As it was read last."""

    def __init__(
        self,
        client: Client | OwnClient,
        collection: str,
        *,
        vector_name: str = "",
        fields: Fields | None = None,
        create: bool = False,
        creation: Creation | None = None,
        text_index: str | None = None,
    ) -> None:
        self.label = collection
        self._use_points(Points(Host(client), collection, vector_name, layout_of(fields)))
        self._may_create = create
        self._creation = creation or Creation()
        self._wanted_language = text_index

    def _use_points(self, points: Points) -> None:
        self.collection = Collection.unread(points)
        self.writes_format = _FORMAT_OF_NAMED if points.vector_name else 1

    @property
    def points(self) -> Points:
        """What is in it."""
        return self.collection.points

    @property
    def host(self) -> Host:
        """Where it is."""
        return self.points.host

    # -- the collection -------------------------------------------------------------------------

    async def find(self, session: RetryingSession) -> bool:
        """Look for the collection, and read what it says of itself."""
        if not await self._exists(session):
            return False
        info = await self._read_info(session)
        self.dimensions = dimensions_in(info, self.label, self.points.vector_name)
        if self._may_create and not self.host.local and not self.points.layout.read_only:
            await indexes.build_documents(self.points, session, info)
        return True

    async def create(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Create the collection with the space in its metadata, and an index of words if wanted."""
        self.collection.check_writable()
        if self._wanted_language is not None:
            await text_index.check_host(self.points, session)
        try:
            await create_collection(
                self.points,
                session,
                self._creation,
                dimensions=space.dimensions,
                metadata=self._metadata_of(space),
            )
        except (ValueError, UnexpectedResponse, RpcError):
            # A local client, REST and gRPC each say "already exists" in their own way.
            if not await self._exists(session):
                raise
        await self.find(session)
        if self._wanted_language is not None and self.collection.language is None:
            await self._build_text_index(session, self._wanted_language, rebuild=False)

    async def record_space(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Put the space into the collection's metadata, beside all else that is there."""
        info = await self._read_info(session)
        if self.space is None:
            metadata = self._metadata_of(space)
        elif self.space == space:
            metadata = also_equal(info, self.points.vector_name, space)
        else:
            return  # somebody was faster
        await self.points.call(session, "update_collection", self.label, metadata=metadata)
        await self._read_info(session)
        if self.space is None:
            raise StoreError(
                f"Collection {self.label!r}: this Qdrant server does not keep the metadata of a "
                "collection, where the embedding space is recorded. Use Qdrant 1.16 or newer."
            )

    async def bring_up(self, session: RetryingSession) -> None:
        """Put the newer format into the collection's metadata, and whose the one hash was."""
        await self._read_info(session)
        if self.space is None or self.format >= self.writes_format:
            return
        metadata = self._metadata_of(self.space, earlier=self.collection.hashes.earlier or "")
        try:
            await self.points.call(session, "update_collection", self.label, metadata=metadata)
        except (UnexpectedResponse, RpcError) as error:
            if not is_forbidden(error):
                raise
        else:
            self.format = self.writes_format

    async def is_empty(self, session: RetryingSession) -> bool:
        """Tell whether no point has a vector of this name; another store's may be there."""
        return await reading.is_empty(self.collection, session)

    async def check_adoptable(self, session: RetryingSession) -> None:
        """Raise ``StoreError`` if points are there that somebody else described."""
        await adoption.check_adoptable(self.points, session)

    async def read_sample(self, session: RetryingSession, size: int) -> list[Row]:
        """Return points that Qdrant picks by chance."""
        return await reading.read_sample(self.collection, session, size)

    async def _exists(self, session: RetryingSession) -> bool:
        try:
            found: bool = await self.points.call(session, "collection_exists", self.label)
        except (ResponseHandlingException, RpcError) as error:
            if isinstance(error, RpcError) and error.code() != StatusCode.UNAVAILABLE:
                raise
            raise self.explain(error) from None
        return found

    async def _read_info(self, session: RetryingSession) -> models.CollectionInfo:
        info: models.CollectionInfo = await self.points.call(session, "get_collection", self.label)
        self._use(Collection.read_in(info, self.points))
        return info

    async def _check_found(self, session: RetryingSession) -> Collection:
        """Raise ``CollectionChangedError`` unless it is of that space; else use it as it is now."""
        self._use(await self.collection.check_found(session))
        return self.collection

    def _use(self, collection: Collection) -> None:
        self.collection = collection
        self.space, self.format = collection.space, collection.format

    def _metadata_of(self, space: EmbeddingSpace, earlier: str | None = None) -> dict[str, Any]:
        name = self.points.vector_name
        return to_metadata(space, name, format=self.writes_format, earlier=earlier)

    # -- writing --------------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` for what Qdrant cannot store."""
        check_record(record)

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        self.collection.check_writable()
        stored = await writing.stored(self.points, session, rows)
        return writing.compared(await self._check_found(session), stored, rows)

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        """Write new points, then the others' payloads; what is stale goes last."""
        await self._check_before_change(session)
        return await write_batch(self, session, batch)

    async def put(
        self, session: RetryingSession, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole points; of the others the payload, where the text is as it was."""
        await writing.put(self.collection, session, rows, metadata_rows)

    async def look(
        self, session: RetryingSession, documents: Sequence[str], rows: Mapping[str, Row]
    ) -> Look:
        """Read the payloads of documents, and compare them with the rows they should have."""
        return await writing.look(self.collection, session, documents, rows)

    async def remove(
        self, session: RetryingSession, stale: abc.Collection[Any], documents: Sequence[str]
    ) -> None:
        """Delete points that are still of one of these documents."""
        await writing.remove(self.points, session, stale, documents)

    async def delete(
        self, session: RetryingSession, ids: Sequence[str], documents: Sequence[str]
    ) -> int:
        """Delete records by id and whole documents; return how many went."""
        await self._check_before_change(session)
        doomed = await writing.delete(self.points, session, ids)
        return len(doomed | await delete_documents(self, session, documents))

    async def delete_matching(self, session: RetryingSession, filter: Filter) -> int:
        """Delete the points that match when they are deleted; return how many went."""
        await self._check_before_change(session)
        return await writing.delete_matching(self.points, session, filter)

    async def _check_before_change(self, session: RetryingSession) -> None:
        self.collection.check_writable()
        await self._check_found(session)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        return await reading.get(self.points, session, ids)

    async def read(
        self, session: RetryingSession, ids: Sequence[str], vectors: bool
    ) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        found = await self.points.of_records(session, ids, vectors=vectors)
        collection = await self._check_found(session) if vectors else self.collection
        return reading.rows_of(collection, found, ids)

    async def read_page(
        self, session: RetryingSession, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match, in the order of their points."""
        condition = parsed(filter)
        page, following = await reading.page_of(self.points, session, after, condition, vectors)
        collection = await self._check_found(session) if vectors else self.collection
        return reading.matching_rows(collection, page, condition), following

    async def chunks(self, session: RetryingSession, spans: Sequence[Span]) -> list[Record]:
        """Return the records of documents whose chunk numbers lie in one of these spans."""
        return await reading.chunks(self.points, session, spans)

    async def count(self, session: RetryingSession, documents: bool) -> int:
        """Count records, or documents by reading the name of each record's."""
        return await reading.count(self.points, session, documents)

    async def count_matching(
        self, session: RetryingSession, filter: Filter, documents: bool
    ) -> int:
        """Count the points that match, or their documents, by reading metadata alone."""
        return await reading.count_matching(self.points, session, filter, documents)

    async def document_page(self, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
        """Return the next ids of a list that was taken at the first call."""
        return await reading.document_page(self.points, session, after)

    # -- where documents came from --------------------------------------------------------------

    async def stored_sources(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        return await document_sources.stored_sources(self.points, session, documents)

    async def has_other_source(self, session: RetryingSession, sources: Sequence[str]) -> bool:
        """Tell whether a point is stored from a source that is none of these."""
        return await document_sources.has_other_source(self.points, session, sources)

    async def source_page(
        self, session: RetryingSession, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Return the next documents of a list that was taken at the first call."""
        return await document_sources.source_page(self.points, session, after, sources)

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
        """Return the best ``min(k, matching)`` records, having made sure of whose they are."""
        return await self._found(
            session, search(self.points, session, vector, k, filter, exact, options)
        )

    async def search_text(
        self,
        session: RetryingSession,
        query: TextQuery,
        vector: NDArray[np.float32] | None,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> TextHits:
        """Return the best k records by their words, or with a vector by both, fused here."""
        check_threshold(options)
        text_index.check_layout(self.points)
        if self.collection.language is None:
            await self._read_info(session)  # somebody may have built it since
        language = self.collection.language
        if language is None:
            # Nobody is told to build what this client or server would refuse.
            await text_index.check_host(self.points, session)
            raise text_index.no_index(self.label)
        hits = search_text(
            self.points,
            session,
            query,
            vector,
            k=k,
            filter=filter,
            exact=exact,
            options=options,
            language=language,
        )
        try:
            return await self._found(session, hits)
        except (UnexpectedResponse, RpcError):
            if self.collection.language is None:  # it was deleted since
                raise text_index.no_index(self.label) from None
            raise

    async def _found(self, session: RetryingSession, found: Awaitable[T]) -> T:
        """Return what a search finds, having made sure of whose it is."""
        try:
            result = await found
        except (UnexpectedResponse, RpcError, ValueError) as error:
            # As of a vector that has another size by now.
            if not is_away(error) and not is_silent(error):
                await self._check_found(session)
            raise
        await self._check_found(session)
        return result

    # -- the index ------------------------------------------------------------------------------

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Sequence[str] = (),
    ) -> bool:
        """Bring the collection to the settings that were given, and give fields an index."""
        if self.host.local:  # it has no indexes, and warns of being told to make one
            return False
        wanted = {name: self._creation.get(name) for name in ("hnsw_config", "quantization_config")}

        async def build(session: RetryingSession) -> bool:
            info = await self._read_info(session)
            return await indexes.build(
                self.points, session, info, wanted, rebuild=rebuild, fields=filter_fields
            )

        return await self.in_session(build, reads=False, retry="long")

    async def check_text_index(self, session: RetryingSession, language: str) -> None:
        """Raise for an index of words that ``build_text_index`` could not build."""
        text_index.check_language(language)
        await text_index.check_host(self.points, session)
        info = await self._read_info(session)
        text_index.check_other(info, self.points, language, rebuild=False)

    async def build_text_index(self, *, language: str, concurrently: bool, rebuild: bool) -> bool:
        """Build an index of the words of the texts; others may always write meanwhile."""

        async def build(session: RetryingSession) -> bool:
            return await self._build_text_index(session, language, rebuild=rebuild)

        return await self.in_session(build, reads=False, retry="long")

    async def _build_text_index(
        self, session: RetryingSession, language: str, *, rebuild: bool
    ) -> bool:
        info = await self._read_info(session)
        built = await text_index.build(self.points, session, info, language, rebuild=rebuild)
        await self._read_info(session)
        return built

    async def describe(self, session: RetryingSession) -> Description:
        """Say which Qdrant this is, and how far its index is."""
        return await indexes.describe(self.points, session, await self._read_info(session))

    # -- the host -------------------------------------------------------------------------------

    def given(self) -> object | None:
        """Return the user's client; None if the store makes its own."""
        given = self.host.given
        return None if isinstance(given, OwnClient) else given

    def leave_to_parent(self) -> None:
        """In a forked child: leave a client of our own to the parent."""
        if isinstance(self.host.given, OwnClient):
            self.host.given.leave_to_parent()

    async def close(self) -> None:
        """Close a client of our own; the user's is theirs."""
        if isinstance(self.host.given, OwnClient):
            self.host.given.close()

    def is_away(self, error: BaseException) -> bool:
        """Tell whether a server could not be reached, or is starting or too busy."""
        return is_away(error)

    def is_silent(self, error: BaseException) -> bool:
        """Tell whether a server did not answer in the client's time."""
        return is_silent(error)

    def explain(self, error: Exception) -> ConnectionLostError:
        """Say which server it is that does not answer."""
        return no_answer(self.host.address, error)

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether a host says that there is no such collection."""
        return is_collection_gone(error)
