"""A Chroma collection: every call that is made to find, fill and ask it."""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
from chromadb.errors import ChromaError, NotFoundError

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import ConnectionLostError, RecordError, StoreError
from toastrack.stores import (
    CollectionChangedError,
    Condition,
    Description,
    Filter,
    IdSet,
    Look,
    OwnClient,
    RetryingBackend,
    RetryingSession,
    Row,
    Status,
    StoredSource,
    TopK,
    WriteBatch,
    WriteResult,
    check_usable,
    delete_documents,
    from_recorded,
    matches,
    parsed,
    to_recorded,
    widened,
    write_batch,
)
from toastrack_chroma.codec import (
    DOCUMENT_ID,
    METADATA,
    SOURCE,
    TEXT_HASH,
    VECTOR_HEAD,
    Metadata,
    check_record,
    document_of,
    is_vector,
    row_metadata,
    same_rest,
    to_metadata,
    to_record,
)
from toastrack_chroma.filters import Where, all_of, broad

if TYPE_CHECKING:
    from numpy.typing import NDArray

Item = TypeVar("Item")

SPACE = "toastrack"
"""Where the collection's metadata holds the embedding space, as JSON."""
COPY_OF = "toastrack_copy_of"
"""Where a copy that ``rebuild`` makes holds the id of the collection it is made from."""
COMPLETE = "toastrack_copy_complete"
"""Marks a copy that is to take the name of the collection it was made from."""

# Ids and documents asked for at a time: Chroma puts each into a variable of sqlite's, of which
# there are 32,766. Vectors come in smaller pages, because they come as float64.
_PAGE = 5_000
_VECTOR_PAGE = 2_000
_DELETED = 1_000
# How often what others change at this moment is looked at again.
_ROUNDS = 5
# The server refuses requests over 40 MiB (its setting max_payload_size_bytes).
_MAX_BYTES = 24 * 2**20

# What a proxy or a server that is starting or too busy says.
_AWAY = (429, 502, 503, 504)
_TOO_LARGE = 413
_WITHOUT_SEGMENT = re.compile(r"\[Missing \w+ segment\]")


@dataclass(frozen=True)
class SearchOptions:
    """What only Chroma's search knows."""

    where: Where | None = None
    where_document: Where | None = None


@dataclass(frozen=True)
class StoredRow:
    """A row in Chroma's own words."""

    id: str
    text: str | None
    metadata: Metadata | None
    vector: NDArray[np.float32] | None
    """None in a row whose stored vector stays."""
    uri: str | None = None


@dataclass(frozen=True)
class _Hit:
    """A row that the index found."""

    id: str
    score: float
    metadata: Mapping[str, Any]


class ChromaBackend(RetryingBackend):
    """One collection of one client, synchronous or asynchronous.

    Args:
        client: The user's own, or an ``OwnClient``.
        collection: The collection's name.
        function: Returns the embedding function that a new collection records for its space.
        configuration: Chroma's own settings of a new collection.
    """

    host: Any
    """``chromadb.Collection``, or its asynchronous twin, once it is found."""

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
                metadata={SPACE: self._recorded(space)},
                embedding_function=self._function(space),
            )
        except ChromaError as error:
            raise StoreError(f"Collection {self.label!r} cannot be created: {error}") from error
        await self.find(session)

    async def record_space(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Put the space into the collection's metadata, beside what the user keeps there."""
        metadata = {**self.own_metadata, SPACE: self._recorded(space)}
        await session.call(self.host.modify, metadata=metadata)
        # Of two that write at once the last one's is there; both must see it.
        await self._learn(session, await self._get_collection(session, self.label))

    async def bring_up(self, session: RetryingSession) -> None:
        """Put the newer format into the collection's metadata."""
        await self._learn(session, await self._get_collection(session, self.label))
        if self.space is not None and self.format < self.writes_format:
            await self.record_space(session, self.space)

    def _recorded(self, space: EmbeddingSpace) -> str:
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
        problems, instead = self.problems_of(host.configuration_json)
        check_usable(f"Collection {self.label!r}", problems, instead=instead)
        metadata = dict(host.metadata or {})
        space, format = self._recorded_in(metadata)
        dimensions = space.dimensions if space else await _size(session, host)
        self._max_rows = await session.call(self.client.get_max_batch_size)
        # All at once, as others may be in the middle of a call.
        self.host, self._metadata = host, metadata
        self.space, self.format, self.dimensions = space, format, dimensions

    def problems_of(self, configuration: Mapping[str, Any]) -> tuple[list[str], str]:
        """Return what is wrong with a collection of this configuration, and what else to do."""
        distance = _distance(configuration) or "l2"
        if distance == "cosine":
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

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        stored = await self._metadatas(session, [row.record.id for row in rows])
        await self._check_found(session)
        return {
            row.record.id: _status_of(stored[row.record.id] or {}, row)
            for row in rows
            if row.record.id in stored
        }

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        """Write new rows, then the others' metadata; what is stale goes last."""
        await self._check_found(session)
        return await write_batch(self, session, batch)

    async def put(
        self, session: RetryingSession, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole rows; of the others with the vector that is stored, where the text is as it was.

        Chroma cannot compare and set, so a row is always written as a whole: whoever comes last,
        its text, hash, vector and metadata are of one version.
        """
        before = await self._metadatas(session, [row.record.id for row in rows])
        await self.send_to(session, self.host, upsert, [_stored(row, before) for row in rows])
        for page in _batches([row.record.id for row in metadata_rows], _VECTOR_PAGE):
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
            await self.send_to(session, self.host, upsert, whole)

    async def look(
        self, session: RetryingSession, documents: Sequence[str], rows: Mapping[str, Row]
    ) -> Look:
        """Read what is stored of documents, and compare it with the rows they should have."""
        statuses: dict[str, Status] = {}
        stale: list[str] = []
        for page in _batches(_storable(documents, empty=True), _PAGE):
            answer = await session.call(
                self.host.get, where={DOCUMENT_ID: {"$in": page}}, include=["metadatas"]
            )
            for id, metadata in zip(answer["ids"], answer["metadatas"], strict=True):
                if id in rows:
                    statuses[id] = _status_of(metadata or {}, rows[id])
                else:
                    stale.append(id)
        return Look(statuses, stale)

    async def remove(
        self, session: RetryingSession, stale: Collection[str], documents: Sequence[str]
    ) -> None:
        """Delete rows that are still of one of these documents."""
        for page in _batches(stale, _PAGE):
            of_them = {DOCUMENT_ID: {"$in": _storable(documents, empty=True)}}
            await session.call(self.host.delete, ids=page, where=of_them)

    async def delete(
        self, session: RetryingSession, ids: Sequence[str], documents: Sequence[str]
    ) -> int:
        """Delete records by id and whole documents; return how many records went."""
        await self._check_found(session)
        there = await self._metadatas(session, ids)
        for page in _batches(there, _PAGE):
            await session.call(self.host.delete, ids=page)
        return len({*there, *await delete_documents(self, session, documents)})

    async def send_to(
        self,
        session: RetryingSession,
        host: Any,
        send: Callable[[Any, Sequence[StoredRow]], Any],
        rows: Sequence[StoredRow],
    ) -> None:
        """Send rows in pages, and in smaller ones if the server says that they are too large."""
        pages = deque(_cut(rows, self._max_rows, self._bytes))
        while pages:
            page = pages.popleft()
            try:
                await session.call(send, host, page)
            except Exception as error:
                if _status(error) != _TOO_LARGE:
                    raise
                if len(page) == 1:
                    raise RecordError(
                        f"Record {page[0].id!r}: its text, metadata and vector are more than the "
                        "Chroma server takes in one request (its setting max_payload_size_bytes, "
                        "40 MiB unless it was changed). Split the record."
                    ) from error
                middle = len(page) // 2
                pages.extendleft([page[middle:], page[:middle]])

    def _bytes(self, row: StoredRow) -> int:
        """Guess a row's size on the wire from above: a letter takes up to 6 bytes in JSON."""
        letters = sum(len(key) + len(str(value)) for key, value in (row.metadata or {}).items())
        letters += len(row.id) + len(row.text or "") + len(row.uri or "")
        return 22 * (self.dimensions or 0) + 6 * letters

    async def delete_matching(self, session: RetryingSession, filter: Filter) -> int:
        """Delete the rows that match when they are deleted; return how many went."""
        await self._check_found(session)
        condition = parsed(filter)
        deleted = 0
        chosen = {"where": broad(condition)}
        for page in _batches(await self._matching(session, condition, chosen), _DELETED):
            for _ in range(_ROUNDS):
                there = await self._metadatas(session, page)
                doomed = {
                    id: row or {}
                    for id, row in there.items()
                    if matches(to_metadata(row or {}), condition)
                }
                if not doomed:
                    break
                await self._delete_unchanged(session, doomed)
            else:
                there = await self._metadatas(session, page)
            deleted += len(page) - len(there)
        return deleted

    async def _delete_unchanged(
        self, session: RetryingSession, rows: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Delete rows whose metadata is still what that of one of them was."""
        written = {id: str(row[METADATA]) for id, row in rows.items() if METADATA in row}
        for some in _cut(written.items(), _DELETED, lambda item: 6 * len("".join(item))):
            texts = list({text for _, text in some})
            ids = [id for id, _ in some]
            await session.call(self.host.delete, ids=ids, where={METADATA: {"$in": texts}})
        # Of what others wrote nothing says all that it is.
        for page in _batches([id for id in rows if id not in written], _DELETED):
            await session.call(self.host.delete, ids=page)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        found: dict[str, Record] = {}
        for page in _batches(_storable(ids), _PAGE):
            answer = await session.call(self.host.get, ids=page, include=["documents", "metadatas"])
            for id, text, metadata in zip(
                answer["ids"], answer["documents"], answer["metadatas"], strict=True
            ):
                found[id] = to_record(id, text, metadata)
        return [found.get(id) for id in ids]

    async def read(
        self, session: RetryingSession, ids: Sequence[str], vectors: bool
    ) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        if vectors:
            await self._check_found(session)
        found: dict[str, Row] = {}
        include = ["documents", "metadatas", *(["embeddings"] if vectors else [])]
        for page in _batches(_storable(ids), _VECTOR_PAGE if vectors else _PAGE):
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
            await self._look_at_matching(
                session, condition, {"where": broad(condition)}, lambda id, row: ids.add([id])
            )
            after = (ids, None)
        ids, last = after
        size = _VECTOR_PAGE if vectors else _PAGE
        page = ids.page(last, size)
        rows = [row for row in await self.read(session, page, vectors) if row is not None]
        matching = [row for row in rows if matches(row.record.metadata, condition)]
        return matching, (ids, page[-1]) if len(page) == size else None

    async def count(self, session: RetryingSession, documents: bool) -> int:
        """Count records, or documents by reading the name of each record's."""
        if documents:
            return len(await self._documents(session))
        return int(await session.call(self.host.count))

    async def count_matching(
        self, session: RetryingSession, filter: Filter, documents: bool
    ) -> int:
        """Count the rows that match, or their documents, by reading metadata alone."""
        condition = parsed(filter)
        chosen = {"where": broad(condition)}
        if not documents:
            return len(await self._matching(session, condition, chosen))
        found = IdSet()
        await self._look_at_matching(
            session, condition, chosen, lambda id, row: found.add([document_of(id, row)])
        )
        return len(found)

    async def document_page(self, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
        """Return the next documents' ids; all are read first, as pages shift when rows go."""
        documents, last = after or (await self._documents(session), None)
        page = documents.page(last, _PAGE)
        return page, (documents, page[-1]) if len(page) == _PAGE else None

    async def stored_sources(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        numbers: Counter[str] = Counter()
        sources: dict[str, str] = {}
        for page in _batches(_storable(documents), _PAGE):
            where = {DOCUMENT_ID: {"$in": page}}
            answer = await session.call(self.host.get, where=where, include=["metadatas"])
            for metadata in answer["metadatas"]:
                numbers[metadata[DOCUMENT_ID]] += 1
                if isinstance(source := metadata.get(SOURCE), str):
                    sources[metadata[DOCUMENT_ID]] = source
        return {id: StoredSource(source, numbers[id]) for id, source in sources.items()}

    async def has_other_source(self, session: RetryingSession, sources: Sequence[str]) -> bool:
        """Tell whether a row is stored from a source that is none of these."""
        offset = 0
        while True:
            # Chroma's own "not in" finds the rows without a source, too.
            where = {SOURCE: {"$nin": list(sources)}}
            answer = await session.call(
                self.host.get, limit=_PAGE, offset=offset, include=["metadatas"], where=where
            )
            if any((metadata or {}).get(SOURCE) is not None for metadata in answer["metadatas"]):
                return True
            if len(answer["ids"]) < _PAGE:
                return False
            offset += _PAGE

    async def source_page(
        self, session: RetryingSession, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Return the next documents; all are read first, as pages shift when rows go."""
        if after is not None:
            documents, last = after
        else:
            last = None
            if sources is not None:
                documents = await self._documents(session, {SOURCE: {"$in": list(sources)}})
            else:
                documents, with_source = IdSet(), IdSet()

                def look(id: str, metadata: Metadata) -> None:
                    chosen = documents if metadata.get(SOURCE) is None else with_source
                    chosen.add([document_of(id, metadata)])

                await self._look_at(session, {}, look)
                documents.remove(with_source)
        page = documents.page(last, _PAGE)
        return page, (documents, page[-1]) if len(page) == _PAGE else None

    async def _documents(self, session: RetryingSession, where: Where | None = None) -> IdSet:
        """Return the id of every document that there is, or that has such a row."""
        seen = IdSet()
        await self._look_at(
            session, {"where": where}, lambda id, row: seen.add([document_of(id, row)])
        )
        return seen

    async def _metadatas(
        self, session: RetryingSession, ids: Sequence[str]
    ) -> dict[str, Mapping[str, Any] | None]:
        """Return the stored metadata of those ids that are there."""
        found: dict[str, Mapping[str, Any] | None] = {}
        for page in _batches(_storable(ids), _PAGE):
            answer = await session.call(self.host.get, ids=page, include=["metadatas"])
            found.update(zip(answer["ids"], answer["metadatas"], strict=True))
        return found

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
        if k > _PAGE and not (k := min(k, await self.count(session, False))):
            return []  # a host's number has 32 bits, and it would make room for so many
        condition = parsed(filter)
        conditions = [where for where in (broad(condition), options.where) if where]
        chosen = {"where": all_of(conditions), "where_document": options.where_document or None}
        if not filter:
            scores = None if exact else await self._query(session, vector, k, chosen)
            if scores is None or (
                len(scores) < k and len(scores) < await self._there(session, k, chosen)
            ):
                scores = await self._read_all(session, vector, k, chosen)
            return await self._matches(session, scores, condition)
        hits: list[_Hit] | None = None
        if not exact:
            hits = await widened(
                lambda limit, _: self._hits(session, vector, limit, chosen),
                lambda hit: matches(hit.metadata, condition),
                k,
                exact=False,
                has_exact=False,
                count=lambda: self.count(session, False),
            )
        if hits is not None:
            scores = {hit.id: hit.score for hit in hits}
        else:
            ids = await self._matching(session, condition, chosen)
            scores = await self._compare_with(session, vector, k, ids)
        return await self._matches(session, scores, condition)

    async def _hits(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        limit: int,
        chosen: Mapping[str, Any],
    ) -> list[_Hit]:
        """Ask the index for rows with their metadata."""
        answer = await session.call(
            self.host.query,
            query_embeddings=[vector],
            n_results=limit,
            include=["distances", "metadatas"],
            **chosen,
        )
        return [
            _Hit(id, 1.0 - float(distance), to_metadata(metadata or {}))
            for id, distance, metadata in zip(
                answer["ids"][0], answer["distances"][0], answer["metadatas"][0], strict=True
            )
        ]

    async def _matching(
        self, session: RetryingSession, condition: Condition, chosen: Mapping[str, Any]
    ) -> list[str]:
        """Find by their metadata alone the rows that match."""
        found: list[str] = []
        await self._look_at_matching(session, condition, chosen, lambda id, row: found.append(id))
        return found

    async def _look_at_matching(
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

        await self._look_at(session, chosen, look_if)

    async def _look_at(
        self,
        session: RetryingSession,
        chosen: Mapping[str, Any],
        look: Callable[[str, Metadata], None],
    ) -> None:
        """Hand on the id and the metadata of every row that Chroma finds."""
        offset = 0
        while True:
            answer = await session.call(
                self.host.get, limit=_PAGE, offset=offset, include=["metadatas"], **chosen
            )
            for id, metadata in zip(answer["ids"], answer["metadatas"], strict=True):
                look(id, metadata or {})
            if len(answer["ids"]) < _PAGE:
                return
            offset += _PAGE

    async def _compare_with(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        k: int,
        ids: Sequence[str],
    ) -> dict[str, float]:
        """Compare with the vectors of some rows; Chroma has no exact search."""
        best = TopK(vector, k)
        for page in _batches(ids, _VECTOR_PAGE):
            answer = await session.call(self.host.get, ids=page, include=["embeddings"])
            await self.runtime.offload(best.add, answer["ids"], np.asarray(answer["embeddings"]))
        return best.scores()

    async def _query(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        k: int,
        chosen: Mapping[str, Any],
    ) -> dict[str, float]:
        """Ask the index."""
        answer = await session.call(
            self.host.query,
            query_embeddings=[vector],
            n_results=k,
            include=["distances"],
            **chosen,
        )
        distances = zip(answer["ids"][0], answer["distances"][0], strict=True)
        return {id: 1.0 - float(distance) for id, distance in distances}

    async def _there(self, session: RetryingSession, k: int, chosen: Mapping[str, Any]) -> int:
        """Count the rows that a search may find, up to k."""
        if any(chosen.values()):
            answer = await session.call(self.host.get, limit=k, include=[], **chosen)
            return len(answer["ids"])
        return min(k, await self.count(session, False))

    async def _read_all(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        k: int,
        chosen: Mapping[str, Any],
    ) -> dict[str, float]:
        """Read the vectors and compare each; Chroma has no exact search."""
        best = TopK(vector, k)
        offset = 0
        while True:
            answer = await session.call(
                self.host.get, limit=_VECTOR_PAGE, offset=offset, include=["embeddings"], **chosen
            )
            await self.runtime.offload(best.add, answer["ids"], np.asarray(answer["embeddings"]))
            if len(answer["ids"]) < _VECTOR_PAGE:
                return best.scores()
            offset += _VECTOR_PAGE

    async def _matches(
        self, session: RetryingSession, scores: Mapping[str, float], condition: Condition
    ) -> list[Match]:
        records = await self.get(session, list(scores))
        found = [
            Match(
                record.id,
                record.text,
                scores[record.id],
                record.metadata,
                record.document,
                record.chunk,
            )
            for record in records
            # Deleted or changed since it was found.
            if record is not None and matches(record.metadata, condition)
        ]
        return sorted(found, key=lambda match: (-match.score, match.id))

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
        unreached = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.TimeoutException)
        return isinstance(error, unreached) or _status(error) in _AWAY

    def explain(self, error: Exception) -> ConnectionLostError:
        """Say which server it is that does not answer."""
        return ConnectionLostError(
            f"The Chroma server at {address(self.client)} does not answer ({error}). Start it, or "
            "look at its log; then run the same call again."
        )

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether Chroma says, in one of its ways, that there is no such collection."""
        if isinstance(error, NotFoundError):
            return True
        # Chroma looks for the collection first and then for its segments, and it went in between. In
        # this process that is an InternalError, over HTTP a status that the client has no class for.
        return isinstance(error, ChromaError) and bool(_WITHOUT_SEGMENT.search(str(error)))


def address(client: Any) -> str:
    """Return a client's host and port, without what else its URL may hold."""
    settings = client.get_settings()
    host, port = str(settings.chroma_server_host), settings.chroma_server_http_port
    if "//" in host:
        parts = urlsplit(host)
        return f"{parts.hostname}:{parts.port or port}"
    return f"{host}:{port}"


def _status(error: BaseException) -> int | None:
    # Chroma raises a bare Exception with the server's words, while it handles the one that knows.
    cause = error.__context__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None


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


def upsert(host: Any, rows: Sequence[StoredRow]) -> Any:
    """Send whole rows to a collection of Chroma's."""
    uris = [row.uri for row in rows]
    return host.upsert(
        ids=[row.id for row in rows],
        # Chroma checks a list of lists number by number, and a list of arrays one by one.
        embeddings=np.array([row.vector for row in rows], dtype=np.float32),
        documents=[row.text for row in rows],
        metadatas=[row.metadata for row in rows],
        **({"uris": uris} if any(uris) else {}),
    )


def _has_text(stored: Mapping[str, Any] | None, row: Row) -> bool:
    return stored is not None and stored.get(TEXT_HASH) == row.text_hash.hex()


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
    if row.vector is None:  # the vector stays, and with it what is said of it
        gone.pop(VECTOR_HEAD, None)
    if stored.get(DOCUMENT_ID) == row.record.document:
        gone.pop(SOURCE, None)
    return {**gone, **now}


def _row(id: str, text: str | None, metadata: Metadata, vector: Any) -> Row:
    written = metadata.get(TEXT_HASH)
    is_good = vector is not None and is_vector(np.asarray(vector), metadata)
    return Row(
        to_record(id, text, metadata),
        bytes.fromhex(written) if isinstance(written, str) else b"",
        np.asarray(vector, dtype=np.float32) if is_good else None,
    )


def _storable(ids: Sequence[str], *, empty: bool = False) -> list[str]:
    """Leave out what no row can have as its id: Chroma would refuse the whole call."""
    return [
        id
        for id in dict.fromkeys(ids)
        if (id or empty) and not any("\ud800" <= letter <= "\udfff" for letter in id)
    ]


def _batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    return _cut(ids, size, lambda id: 6 * len(id))


def _cut(items: Iterable[Item], most: int, size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut where a number of items or a request's bytes would be passed."""
    page: list[Item] = []
    size = 0
    for item in items:
        bytes_of_item = size_of(item)
        if page and (len(page) >= most or size + bytes_of_item > _MAX_BYTES):
            yield page
            page, size = [], 0
        page.append(item)
        size += bytes_of_item
    if page:
        yield page
