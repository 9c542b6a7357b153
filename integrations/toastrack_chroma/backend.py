"""A Chroma collection: every call that is made to find, fill and ask it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from chromadb.errors import ChromaError, NotFoundError

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import ConnectionLostError, StoreError
from toastrack.stores import (
    CollectionChangedError,
    Description,
    Filter,
    IdSet,
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
    from_recorded,
    matches,
    parsed,
    to_recorded,
    write_batch,
)
from toastrack_chroma.codec import (
    DOCUMENT_ID,
    METADATA,
    ROW,
    SOURCE,
    Metadata,
    check_record,
    described,
    document_of,
    is_own,
    is_vector,
    row_metadata,
    same_rest,
    to_metadata,
    to_record,
)
from toastrack_chroma.filters import Where, all_of, broad, of_spans
from toastrack_chroma.host_errors import is_away, is_collection_gone, no_answer
from toastrack_chroma.rows import Rows, batches, cut, storable
from toastrack_chroma.search import SearchOptions, search
from toastrack_chroma.sending import StoredRow, upsert

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPACE = "toastrack"
"""Where the collection's metadata holds the embedding space, as JSON."""
COPY_OF = "toastrack_copy_of"
"""Where a copy that ``rebuild`` makes holds the id of the collection it is made from."""
COMPLETE = "toastrack_copy_complete"
"""Marks a copy that is to take the name of the collection it was made from."""

# Rows deleted in one request.
_DELETED = 1_000
# Three conditions each; sqlite takes expressions 1,000 deep.
_SPANS = 50
# Requests for a sample.
_SAMPLED_PLACES = 16
# How often what others change at this moment is looked at again.
_ROUNDS = 5


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
    host: Any
    """``chromadb.Collection``, or its asynchronous twin, once it is found."""
    rows: Rows
    """What is in it."""

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
        self._metadata: dict[str, Any] = {}
        self._max_rows = 0
        distance = _distance(self._configuration)
        if distance not in (None, "cosine"):
            raise StoreError(
                f"configuration= asks for the distance {distance!r}; toastrack's scores are cosine "
                "similarities. Leave it out."
            )

    @property
    def client(self) -> Any:
        """The user's client, or that of the store's own."""
        return self._client.get() if isinstance(self._client, OwnClient) else self._client

    # -- the collection -------------------------------------------------------------------------

    async def find(self, session: RetryingSession) -> bool:
        """Look for the collection, or for the complete copy of it that a kill left behind."""
        host = await self.lookup(session, self.label)
        if host is None:
            host = await self._finish_rebuild(session)
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
                metadata={SPACE: self.recorded(space)},
                embedding_function=self._function(space),
            )
        except ChromaError as error:
            raise StoreError(f"Collection {self.label!r} cannot be created: {error}") from error
        await self.find(session)

    async def record_space(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Put the space into the collection's metadata, beside what the user keeps there."""
        metadata = {**self.own_metadata, SPACE: self.recorded(space)}
        await session.call(self.host.modify, metadata=metadata)
        # Of two that write at once the last one's is there; both must see it.
        await self._learn(session, await self._get_collection(session, self.label))

    async def bring_up(self, session: RetryingSession) -> None:
        """Put the newer format into the collection's metadata."""
        await self._learn(session, await self._get_collection(session, self.label))
        if self.space is not None and self.format < self.writes_format:
            await self.record_space(session, self.space)

    def recorded(self, space: EmbeddingSpace) -> str:
        """Return what is kept of a space and the format, as JSON."""
        recorded = to_recorded(space, self.writes_format)
        return json.dumps(recorded, sort_keys=True, ensure_ascii=False)

    @property
    def own_metadata(self) -> dict[str, Any]:
        """What the collection says of itself, but for its distance.

        That is settled, and Chroma refuses to be told of it again.
        """
        return {key: value for key, value in self._metadata.items() if key[:5] != "hnsw:"}

    @property
    def copy_name(self) -> str:
        """The name of the collection's copy while ``rebuild`` makes it."""
        return f"{self.label}__rebuild"

    async def lookup(self, session: RetryingSession, name: str) -> Any:
        """Return Chroma's collection of a name, or None."""
        try:
            return await self._get_collection(session, name)
        except NotFoundError:
            return None
        except ValueError as error:  # how older servers say it
            if "does not exist" in str(error):
                return None
            raise

    async def _get_collection(self, session: RetryingSession, name: str) -> Any:
        # Without an embedding function, as we embed ourselves.
        host = await session.call(self.client.get_collection, name, embedding_function=None)
        # At every write Chroma builds the embedding functions that the server names here, to ask
        # whether they are sparse; one of them can be told to run code
        # (https://github.com/chroma-core/chroma/issues/6717).
        host._model.serialized_schema = None
        return host

    async def _finish_rebuild(self, session: RetryingSession) -> Any:
        """Give a complete copy its name; None if there is none. A kill may have come between."""
        copy = await self.lookup(session, self.copy_name)
        if copy is None or not (copy.metadata or {}).get(COMPLETE):
            return None
        metadata = {
            key: value for key, value in copy.metadata.items() if key not in (COPY_OF, COMPLETE)
        }
        try:
            await session.call(copy.modify, name=self.label, metadata=metadata)
        except ChromaError:
            # Somebody else opened it at this moment and did the same, or made a new one.
            if await self.lookup(session, self.label) is None:
                raise
        return await self.lookup(session, self.label)

    async def _learn(self, session: RetryingSession, host: Any) -> None:
        """Read what a collection says of itself; refuse one that cannot be used."""
        metadata = dict(host.metadata or {})
        space, format = self._recorded_in(metadata)
        stored = None if space else await _size(session, host)
        is_filled = space is not None or stored is not None
        problems, instead = self.problems_of(host.configuration_json, is_filled)
        check_usable(f"Collection {self.label!r}", problems, instead=instead)
        dimensions = space.dimensions if space else stored
        self._max_rows = await session.call(self.client.get_max_batch_size)
        # All at once, as others may be in the middle of a call.
        rows = Rows(host, _distance(host.configuration_json) or "l2")
        self.host, self.rows, self._metadata = host, rows, metadata
        self.space, self.format, self.dimensions = space, format, dimensions

    def problems_of(
        self, configuration: Mapping[str, Any], is_filled: bool
    ) -> tuple[list[str], str]:
        """Return what is wrong with a collection of this configuration, and what else to do.

        One that is filled is read, whatever its distance.
        """
        distance = _distance(configuration) or "l2"
        if distance == "cosine" or is_filled:
            return [], ""
        return [
            f"it compares by {distance!r}, which cannot be changed, and toastrack's scores are "
            "cosine similarities"
        ], "Use a new one, and read the texts of this one into it."

    def _recorded_in(self, metadata: Mapping[str, Any]) -> tuple[EmbeddingSpace | None, int]:
        written = metadata.get(SPACE)
        if written is None:
            return None, 1
        try:
            return from_recorded(json.loads(written), where=f"Collection {self.label!r}")
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"Collection {self.label!r}: its metadata {SPACE!r} is damaged ({error}). Restore "
                "it, or remove it and open the collection with adopt=True."
            ) from None

    async def _check_found(self, session: RetryingSession) -> None:
        """Raise ``CollectionChangedError`` unless the name stands for the collection that was found.

        One that was deleted says so itself at each call; one that was renamed would go on.
        """
        now = await self.lookup(session, self.label)
        found = self.host
        if (
            now is None
            or now.id != found.id
            or self._recorded_in(now.metadata or {})[0] != self.space
        ):
            raise CollectionChangedError(self.kind, self.label)

    # -- writing --------------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` for what Chroma cannot store."""
        check_record(record)

    def _check_writable(self) -> None:
        """Raise ``StoreError`` for a collection of another distance, which is only read."""
        if self.rows.distance != "cosine":
            raise StoreError(
                f"Collection {self.label!r} compares by {self.rows.distance!r}, which cannot be "
                "changed, so that it is only read. rebuild() makes it one that compares by cosine; "
                "or fill a new one with upsert(store.records(vectors=True)), which embeds nothing."
            )

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        self._check_writable()
        stored = await self.rows.metadatas(session, [row.record.id for row in rows])
        await self._check_found(session)
        return {
            row.record.id: _status_of(stored[row.record.id] or {}, row)
            for row in rows
            if row.record.id in stored
        }

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        """Write new rows, then the others' metadata; what is stale goes last."""
        self._check_writable()
        await self._check_found(session)
        return await write_batch(self, session, batch)

    async def put(
        self, session: RetryingSession, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole rows; of the others with the vector that is stored, where the text is as it was.

        Chroma cannot compare and set, so a row is always written as a whole: whoever comes last,
        its text, hash, vector and metadata are of one version.
        """
        before = await self.rows.metadatas(session, [row.record.id for row in rows])
        await self.upsert_into(session, self.host, [_stored(row, before) for row in rows])
        for page in batches([row.record.id for row in metadata_rows], Rows.vectors_page):
            include = ["metadatas", "embeddings"]
            answer = await session.call(self.host.get, ids=page, include=include)
            before = dict(zip(answer["ids"], answer["metadatas"], strict=True))
            vectors = dict(zip(answer["ids"], answer["embeddings"], strict=True))
            whole = [
                _stored(row._replace(vector=np.asarray(vectors[id], dtype=np.float32)), before)
                for row in metadata_rows
                # One whose vector is another's, torn or written just now, is embedded anew.
                if _has_text(before.get(id := row.record.id), row)
                and is_vector(vectors[id], before[id])
            ]
            await self.upsert_into(session, self.host, whole)

    async def look(
        self, session: RetryingSession, documents: Sequence[str], rows: Mapping[str, Row]
    ) -> Look:
        """Read what is stored of documents, and compare it with the rows they should have."""
        statuses: dict[str, Status] = {}
        stale: list[str] = []
        for page in batches(storable(documents, empty=True), Rows.page):
            for id, metadata in (await self.rows.of_documents(session, page)).items():
                if id in rows:
                    statuses[id] = _status_of(metadata, rows[id])
                else:
                    stale.append(id)
        return Look(statuses, stale)

    async def remove(
        self, session: RetryingSession, stale: Collection[str], documents: Sequence[str]
    ) -> None:
        """Delete rows that are still of one of these documents."""
        wanted = set(documents)
        of_them = {DOCUMENT_ID: {"$in": storable(documents, empty=True)}}
        for page in batches(stale, Rows.page):
            there = (await self.rows.metadatas(session, page)).items()
            doomed = {id: row or {} for id, row in there if document_of(id, row) in wanted}
            own = {id: row for id, row in doomed.items() if is_own(row)}
            named = {id: row for id, row in doomed.items() if id not in own}
            await self._delete_unchanged(session, own)
            await self._delete_unchanged(session, named, of_them)

    async def delete(
        self, session: RetryingSession, ids: Sequence[str], documents: Sequence[str]
    ) -> int:
        """Delete records by id and whole documents; return how many records went."""
        self._check_writable()
        await self._check_found(session)
        there = await self.rows.metadatas(session, ids)
        for page in batches(there, Rows.page):
            await session.call(self.host.delete, ids=page)
        return len({*there, *await delete_documents(self, session, documents)})

    async def upsert_into(
        self, session: RetryingSession, host: Any, rows: Sequence[StoredRow]
    ) -> None:
        """Send whole rows to this collection, or to the copy of it."""
        await upsert(
            session,
            host,
            rows,
            max_rows=self._max_rows,
            dimensions=self.dimensions or 0,
            by_http=bool(self.client.get_settings().chroma_server_host),
        )

    async def delete_matching(self, session: RetryingSession, filter: Filter) -> int:
        """Delete the rows that match when they are deleted; return how many went."""
        self._check_writable()
        await self._check_found(session)
        condition = parsed(filter)
        deleted = 0
        chosen = {"where": broad(condition)}
        for page in batches(await self.rows.matching(session, condition, chosen), _DELETED):
            for _ in range(_ROUNDS):
                there = await self.rows.metadatas(session, page)
                doomed = {
                    id: row or {}
                    for id, row in there.items()
                    if matches(to_metadata(row or {}), condition)
                }
                if not doomed:
                    break
                await self._delete_unchanged(session, doomed)
            else:
                there = await self.rows.metadatas(session, page)
            deleted += len(page) - len(there)
        return deleted

    async def _delete_unchanged(
        self,
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
                await session.call(self.host.delete, ids=[id for id, _ in some], where=as_it_was)
        # Of what others wrote nothing says all that it is.
        for page in batches(rows, _DELETED):
            await session.call(self.host.delete, ids=page, where=where)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        return await self.rows.get(session, ids)

    async def read_sample(self, session: RetryingSession, size: int) -> list[Row]:
        """Return rows from places at equal distances."""
        number = await self.rows.count(session)
        places = min(_SAMPLED_PLACES, max(1, number // size))
        rows: list[Row] = []
        for place in range(places):
            answer = await session.call(
                self.host.get,
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
                    answer["embeddings"],
                    strict=True,
                )
            ]
        return rows[:size]

    async def chunks(self, session: RetryingSession, spans: Sequence[Span]) -> list[Record]:
        """Return the records of documents whose chunk numbers lie in one of these spans."""
        ids: list[str] = []
        for some in cut(dict.fromkeys(spans), _SPANS, lambda span: 6 * len(span.document)):
            where = {"where": of_spans(some)}
            await self.rows.look_at(session, where, lambda id, row: ids.append(id))
        return [record for record in await self.get(session, ids) if record is not None]

    async def read(
        self, session: RetryingSession, ids: Sequence[str], vectors: bool
    ) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        if vectors:
            await self._check_found(session)
        found: dict[str, Row] = {}
        include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
        for page in batches(storable(ids), Rows.vectors_page if vectors else Rows.page):
            answer = await session.call(self.host.get, ids=page, include=include)
            embeddings = answer["embeddings"] if vectors else [None] * len(answer["ids"])
            for id, text, metadata, vector in zip(
                answer["ids"], answer["documents"], answer["metadatas"], embeddings, strict=True
            ):
                found[id] = _row(id, text, metadata or {}, vector)
        return [found.get(id) for id in ids]

    async def read_page(
        self, session: RetryingSession, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match; their ids are read first, as pages shift."""
        condition = parsed(filter)
        if after is None:
            ids = IdSet()
            await self.rows.look_at_matching(
                session, condition, {"where": broad(condition)}, lambda id, row: ids.add([id])
            )
            after = (ids, None)
        ids, last = after
        size = Rows.vectors_page if vectors else Rows.page
        page = ids.page(last, size)
        rows = [row for row in await self.read(session, page, vectors) if row is not None]
        matching = [row for row in rows if matches(row.record.metadata, condition)]
        return matching, (ids, page[-1]) if len(page) == size else None

    async def count(self, session: RetryingSession, documents: bool) -> int:
        """Count records, or documents by reading the name of each record's."""
        if documents:
            return len(await self.rows.documents(session))
        return await self.rows.count(session)

    async def count_matching(
        self, session: RetryingSession, filter: Filter, documents: bool
    ) -> int:
        """Count the rows that match, or their documents, by reading metadata alone."""
        condition = parsed(filter)
        chosen = {"where": broad(condition)}
        if not documents:
            return len(await self.rows.matching(session, condition, chosen))
        found = IdSet()
        await self.rows.look_at_matching(
            session, condition, chosen, lambda id, row: found.add([document_of(id, row)])
        )
        return len(found)

    async def document_page(self, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
        """Return the next documents' ids; all are read first, as pages shift when rows go."""
        documents, last = after or (await self.rows.documents(session), None)
        page = documents.page(last, Rows.page)
        return page, (documents, page[-1]) if len(page) == Rows.page else None

    async def stored_sources(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        numbers: Counter[str] = Counter()
        sources: dict[str, str] = {}
        for page in batches(storable(documents), Rows.page):
            for id, metadata in (await self.rows.of_documents(session, page)).items():
                document = document_of(id, metadata)
                numbers[document] += 1
                if isinstance(source := metadata.get(SOURCE), str):
                    sources[document] = source
        return {id: StoredSource(source, numbers[id]) for id, source in sources.items()}

    async def has_other_source(self, session: RetryingSession, sources: Sequence[str]) -> bool:
        """Tell whether a row is stored from a source that is none of these."""
        offset = 0
        while True:
            # Chroma's own "not in" finds the rows without a source, too.
            where = {SOURCE: {"$nin": list(sources)}}
            answer = await session.call(
                self.host.get, limit=Rows.page, offset=offset, include=["metadatas"], where=where
            )
            if any((metadata or {}).get(SOURCE) is not None for metadata in answer["metadatas"]):
                return True
            if len(answer["ids"]) < Rows.page:
                return False
            offset += Rows.page

    async def source_page(
        self, session: RetryingSession, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Return the next documents; all are read first, as pages shift when rows go."""
        if after is not None:
            documents, last = after
        else:
            last = None
            if sources is not None:
                documents = await self.rows.documents(session, {SOURCE: {"$in": list(sources)}})
            else:
                documents, with_source = IdSet(), IdSet()

                def look(id: str, metadata: Metadata) -> None:
                    chosen = documents if metadata.get(SOURCE) is None else with_source
                    chosen.add([document_of(id, metadata)])

                await self.rows.look_at(session, {}, look)
                documents.remove(with_source)
        page = documents.page(last, Rows.page)
        return page, (documents, page[-1]) if len(page) == Rows.page else None

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


def _distance(configuration: Mapping[str, Any]) -> str | None:
    for index in ("hnsw", "spann"):
        settings = configuration.get(index)
        if settings and settings.get("space"):
            return str(settings["space"])
    return None


async def _size(session: RetryingSession, host: Any) -> int | None:
    """Return the size of the vectors that are stored; None if there are none."""
    answer = await session.call(host.get, limit=1, include=["embeddings"])
    return len(answer["embeddings"][0]) if len(answer["ids"]) else None


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


def _row(id: str, text: str | None, metadata: Metadata, vector: Any) -> Row:
    is_good = vector is not None and is_vector(np.asarray(vector), metadata)
    return Row(
        to_record(id, text, metadata),
        described(metadata).text_hash,
        np.asarray(vector, dtype=np.float32) if is_good else None,
    )
