"""A Qdrant collection: every call that is made to find, fill and ask it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypedDict

import httpx
import numpy as np
from grpc import RpcError, StatusCode
from pydantic import BaseModel
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import ConnectionLostError, StoreError
from toastrack.stores import (
    CollectionChangedError,
    Condition,
    Description,
    Filter,
    IdSet,
    Look,
    OnProgress,
    OwnClient,
    RetryingBackend,
    RetryingSession,
    Row,
    Status,
    StoredSource,
    TopK,
    WriteBatch,
    WriteResult,
    another_writer,
    check_usable,
    delete_documents,
    format_of,
    from_recorded,
    matches,
    parsed,
    to_recorded,
    widened,
    write_batch,
)
from toastrack_qdrant.changes import new_metadata, new_texts
from toastrack_qdrant.codec import (
    EXACT,
    KEYS,
    SOURCE,
    batches,
    check_record,
    match_of,
    metadata_of,
    point_id,
    record_of,
)
from toastrack_qdrant.filters import (
    both,
    broad,
    fields_of,
    of_documents,
    of_sources,
    path_of,
    unchanged,
    with_source,
)
from toastrack_qdrant.hashes import UNNAMED, Hashes, hash_key
from toastrack_qdrant.host import Client, Host

if TYPE_CHECKING:
    from numpy.typing import NDArray

METADATA_KEY = "toastrack"
_EARLIER = "earlier_hash"
"""In what is recorded of a named vector, if it is from before each had a hash: where its hash was.

Empty where others wrote theirs there, too.
"""
# Since then each named vector has a hash of its own.
_FORMAT_OF_NAMED = 2

_PAGE = 1_000
_VECTORS_PAGE = 256
# Ids in one request.
_IDS = 1_000
# How often what others change at this moment is looked at again.
_ROUNDS = 5

_NO_COLLECTION = re.compile(r"(?i)\bcollection\b.*(doesn't exist|does not exist|not found)")
# What a proxy or a server that is starting or too busy says.
_AWAY = (429, 502, 503, 504)
_BUT_TEXT = models.PayloadSelectorExclude(exclude=["text"])
# An update of points that are none of these is made to new points only.
_NO_POINT = models.Filter(must=[models.HasIdCondition(has_id=[])])
# The default of `service.max_request_size_mb`.
_MAX_REQUEST_BYTES = 32 * 2**20


class Creation(TypedDict, total=False):
    """What the user wants of a new collection, in Qdrant's own words."""

    on_disk: bool | None
    on_disk_payload: bool | None
    hnsw_config: models.HnswConfigDiff | None
    quantization_config: models.QuantizationConfig | None
    optimizers_config: models.OptimizersConfigDiff | None
    sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None
    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None


@dataclass(frozen=True)
class SearchOptions:
    """What only Qdrant's search knows."""

    where: models.Filter | None = None
    score_threshold: float | None = None
    search_params: models.SearchParams | None = None


class QdrantBackend(RetryingBackend):
    """One collection, and of its vectors the one of a name; "" is the unnamed one."""

    def __init__(
        self,
        client: Client | OwnClient,
        collection: str,
        *,
        vector_name: str = "",
        create: bool = False,
        creation: Creation | None = None,
    ) -> None:
        self.host = Host(client)
        self.label = collection
        self._vector_name = vector_name
        self._hashes = Hashes(hash_key(vector_name))
        self.writes_format = _FORMAT_OF_NAMED if vector_name else 1
        self._may_create = create
        self._creation = creation or Creation()

    # -- the collection -------------------------------------------------------------------------

    async def find(self, session: RetryingSession) -> bool:
        """Look for the collection, and read what it says of itself."""
        if not await self._exists(session):
            return False
        info = await self._read_info(session)
        self.dimensions = self._dimensions_in(info)
        if self._may_create and not self.host.local:
            for key in ("document_id", SOURCE):
                if key not in info.payload_schema:
                    keyword = models.PayloadSchemaType.KEYWORD
                    await self._call(session, "create_payload_index", self.label, key, keyword)
        return True

    async def create(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Create the collection with the space in its metadata."""
        wanted: dict[str, Any] = dict(self._creation)
        vector = models.VectorParams(
            size=space.dimensions,
            distance=models.Distance.COSINE,
            on_disk=wanted.pop("on_disk", None),
        )
        try:
            await self._call(
                session,
                "create_collection",
                self.label,
                {self._vector_name: vector} if self._vector_name else vector,
                metadata=self._metadata_of(space),
                **wanted,
            )
        except (ValueError, UnexpectedResponse, RpcError):
            # A local client, REST and gRPC each say "already exists" in their own way.
            if not await self._exists(session):
                raise
        await self.find(session)

    async def record_space(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Put the space into the collection's metadata."""
        metadata = self._metadata_of(space)
        await self._call(session, "update_collection", self.label, metadata=metadata)
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
        metadata = self._metadata_of(self.space, earlier=self._hashes.earlier or "")
        try:
            await self._call(session, "update_collection", self.label, metadata=metadata)
        except (UnexpectedResponse, RpcError) as error:
            if not _is_forbidden(error):
                raise
        else:
            self.format = self.writes_format

    async def is_empty(self, session: RetryingSession) -> bool:
        """Tell whether no point has a vector of this name; another store's may be there."""
        wanted = None
        if self._hashes.others:
            wanted = models.Filter(must=[models.HasVectorCondition(has_vector=self._vector_name)])
        answer = await self._call(session, "count", self.label, count_filter=wanted, exact=True)
        return not answer.count

    async def check_adoptable(self, session: RetryingSession) -> None:
        """Raise ``StoreError`` if points are there that somebody else described."""
        needed = [key for key in KEYS if key in ("id", "document_id", "text")]
        foreign = models.Filter(
            should=[
                models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in needed
            ]
        )
        answer = await self._call(session, "count", self.label, count_filter=foreign, exact=True)
        if answer.count:
            raise StoreError(
                f"Collection {self.label!r} holds {answer.count} points whose payload lacks "
                f"{', '.join(needed)}, or one of them. Add them, or use another collection."
            )

    async def _exists(self, session: RetryingSession) -> bool:
        try:
            found: bool = await self._call(session, "collection_exists", self.label)
        except (ResponseHandlingException, RpcError) as error:
            if isinstance(error, RpcError) and error.code() != StatusCode.UNAVAILABLE:
                raise
            raise self.explain(error) from None
        return found

    async def _read_info(self, session: RetryingSession) -> models.CollectionInfo:
        info: models.CollectionInfo = await self._call(session, "get_collection", self.label)
        self._learn(info)
        self._said = self._says(info)
        return info

    def _says(self, info: models.CollectionInfo) -> tuple[int | None, Any]:
        """Return what a collection says of its vectors: it has no id by which to know it again."""
        ours = _vectors_in(info).get(self._vector_name)
        recorded = (info.config.metadata or {}).get(self._metadata_key)
        if isinstance(recorded, Mapping):
            # Another store may have brought its format up.
            recorded = {
                key: value for key, value in recorded.items() if key not in ("format", _EARLIER)
            }
        return None if ours is None else ours.size, recorded

    async def _check_found(self, session: RetryingSession) -> None:
        """Raise ``CollectionChangedError`` unless name or alias stand for vectors of that space."""
        info = await self._call(session, "get_collection", self.label)
        if self._says(info) != self._said:
            raise CollectionChangedError(self.kind, self.label)
        self._learn(info)

    def _dimensions_in(self, info: models.CollectionInfo) -> int:
        """Return the size of the vectors, having made sure that they are compared by cosine."""
        where = f"Collection {self.label!r}"
        named = _vectors_in(info)
        found = named.get(self._vector_name)
        if found is None:
            names = ", ".join(f"vector_name={name!r}" for name in named) or "none at all"
            raise StoreError(
                f"{where} has no vectors of the name {self._vector_name!r}; there are: {names}."
            )
        problems = []
        if found.distance != models.Distance.COSINE:
            problems.append(
                f"it compares vectors by {found.distance.value} and not by Cosine, so that its "
                "scores would mean something else"
            )
        if found.multivector_config is not None:
            problems.append("it stores several vectors a point")
        if found.datatype == models.Datatype.UINT8:
            problems.append("its vectors are whole numbers")
        check_usable(where, problems, instead="Use another collection.")
        return found.size

    @property
    def _metadata_key(self) -> str:
        """Where the space is recorded; each named vector has its own."""
        return f"{METADATA_KEY}/{self._vector_name}" if self._vector_name else METADATA_KEY

    def _metadata_of(self, space: EmbeddingSpace, earlier: str | None = None) -> dict[str, Any]:
        recorded = {**to_recorded(space, self.writes_format), _EARLIER: earlier}
        # In a collection's metadata null means: remove this.
        return {
            self._metadata_key: {
                name: value for name, value in recorded.items() if value is not None
            }
        }

    def _learn(self, info: models.CollectionInfo) -> None:
        """Read what the collection says of each of its vectors, of which points may have several."""
        where = f"Collection {self.label!r}"
        recorded = {
            key: value
            for key, value in (info.config.metadata or {}).items()
            if key == METADATA_KEY or key.startswith(f"{METADATA_KEY}/")
        }
        ours = recorded.get(self._metadata_key)
        for value in recorded.values():
            # What is damaged and not ours is not ours to mend.
            with suppress(ValueError, TypeError):
                format_of(value, where=where)
        space, format = None, 1
        if ours is not None:
            try:
                space, format = from_recorded(ours, where=where)
            except (ValueError, TypeError) as error:
                raise StoreError(
                    f"{where}: {self._metadata_key!r} in its metadata is damaged ({error}). "
                    "Restore it, or remove it and open the collection with adopt=True."
                ) from None
        earlier = None
        if self._vector_name and ours is not None:
            others = [value for key, value in recorded.items() if key != self._metadata_key]
            if format > 1:
                earlier = ours.get(_EARLIER) or None
            elif not any(_shared_the_hash(other) for other in others):
                earlier = UNNAMED  # of several that wrote there nobody knows who was last
        self._hashes = Hashes.of_vector(self._vector_name, _vectors_in(info), earlier)
        self.space, self.format = space, format

    # -- writing --------------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` for what Qdrant cannot store."""
        check_record(record)

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        ids = [row.record.id for row in rows]
        stored = await self._retrieve(session, ids, _BUT_TEXT)
        await self._check_found(session)
        result: dict[str, Status] = {}
        for row in rows:
            point = stored.get(point_id(row.record.id))
            if point is None:
                continue
            result[row.record.id] = self._status(point.payload or {}, row)
        return result

    def _status(self, values: Mapping[str, Any], row: Row) -> Status:
        if self._hashes.in_payload(values) != row.text_hash.hex():
            return "changed"
        same = _same_rest(values, row.record) and row.source in (None, values.get(SOURCE))
        return "unchanged" if same else "metadata"

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        """Write new points, then the others' payloads; what is stale goes last."""
        await self._check_found(session)
        return await write_batch(self, session, batch)

    async def put(
        self, session: RetryingSession, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole points; of the others the payload, where the text is as it was."""
        hashes = self._hashes
        by_id = {point_id(row.record.id): row for row in rows}
        for points in batches(rows, self._vector_name, copies=3 if hashes.others else 1):
            await self._put(session, points, by_id)
        for points in batches(metadata_rows, self._vector_name):
            changes = [change for point in points for change in new_metadata(point, hashes)]
            with self._too_large(points):
                await self.host.update(session, self.label, [], changes)

    async def _put(
        self,
        session: RetryingSession,
        points: Sequence[models.PointStruct],
        rows: Mapping[Any, Row],
    ) -> None:
        """Write vectors, texts and all else; in points that are there what is others' stays."""
        hashes = self._hashes
        written = False
        for _ in range(_ROUNDS):
            stored = await self._retrieve_points(
                session, [point.id for point in points], True if written else _BUT_TEXT
            )
            new: list[models.PointStruct] = []
            changed: list[models.PointStruct] = []
            described: list[models.PointStruct] = []
            for point in points:
                there = stored.get(str(point.id))
                if there is None:
                    new.append(point)
                    continue
                status = self._status(there.payload or {}, rows[point.id])
                if status == "changed" and not (written and _texts_differ(there, point)):
                    changed.append(point)
                elif status == "metadata":
                    described.append(point)
            if written:
                # What went or was changed since, or described, is of somebody who came later. But
                # one who gave it the same text took our hash away and left it without.
                new, described = [], []
            operations, changes = new_texts(changed, hashes) if changed else ([], [])
            changes += [change for point in described for change in new_metadata(point, hashes)]
            with self._too_large(points):
                if new:
                    # One that somebody else wrote since is left as it is.
                    await self._call(
                        session, "upsert", self.label, new, update_filter=_NO_POINT, wait=True
                    )
                if changes:
                    try:
                        await self.host.update(session, self.label, operations, changes)
                    except Exception as error:
                        if not _is_point_gone(error):
                            raise
                        written = False
                        continue
            points = [*new, *changed] if hashes.others else []
            if not points:
                return
            written = True
        raise another_writer(rows[points[0].id].record.document)

    async def look(
        self, session: RetryingSession, documents: Sequence[str], rows: Mapping[str, Row]
    ) -> Look:
        """Read the payloads of documents, and compare them with the rows they should have."""
        statuses: dict[str, Status] = {}
        stale: list[str] = []
        wanted = {point_id(id): row for id, row in rows.items()}

        def compare(page: Sequence[models.Record]) -> None:
            for point in page:
                row = wanted.get(str(point.id))
                if row is None:
                    stale.append(str(point.id))
                else:
                    statuses[row.record.id] = self._status(point.payload or {}, row)

        for some in _cut([document for document in documents if _is_text(document)]):
            await self._scroll(session, of_documents(some), _BUT_TEXT, compare)
        return Look(statuses, stale)

    async def remove(
        self, session: RetryingSession, stale: Collection[str], documents: Sequence[str]
    ) -> None:
        """Delete points that are still of one of these documents."""
        for some in _cut(list(stale)):
            selector = models.FilterSelector(filter=of_documents(documents, among=some))
            await self._call(session, "delete", self.label, selector, wait=True)

    async def delete(
        self, session: RetryingSession, ids: Sequence[str], documents: Sequence[str]
    ) -> int:
        """Delete records by id and whole documents; return how many went."""
        await self._check_found(session)
        doomed = set(await self._retrieve(session, ids, False))
        for some in _cut(list(doomed)):
            selector = models.PointIdsList(points=list(some))
            await self._call(session, "delete", self.label, selector, wait=True)
        return len(doomed | await delete_documents(self, session, documents))

    async def delete_matching(self, session: RetryingSession, filter: Filter) -> int:
        """Delete the points that match when they are deleted; return how many went."""
        await self._check_found(session)
        condition = parsed(filter)
        deleted = 0
        for some in _cut(await self._matching(session, condition, broad(condition))):
            for _ in range(_ROUNDS):
                there = await self._retrieve_points(session, some, ["metadata", EXACT])
                doomed = [
                    point
                    for point in there.values()
                    if matches(metadata_of(point.payload or {}), condition)
                ]
                if not doomed:
                    break
                selector = models.FilterSelector(filter=unchanged(doomed, fields_of(condition)))
                await self._call(session, "delete", self.label, selector, wait=True)
            else:
                there = await self._retrieve_points(session, some, False)
            deleted += len(some) - len(there)
        return deleted

    @contextmanager
    def _too_large(self, points: Sequence[models.PointStruct]) -> Iterator[None]:
        """Raise ``StoreError`` naming the record if a request with these points is too large."""
        try:
            yield
        except (UnexpectedResponse, ResponseHandlingException, RpcError) as error:
            weights = [len(json.dumps(point.payload)) for point in points]
            if not _is_too_large(error, sum(weights)):
                raise
            largest = points[weights.index(max(weights))].payload or {}
            raise StoreError(
                f"The server refused a request as too large; its largest record is "
                f"{largest.get('id')!r:.80} with {max(weights):,} bytes of text and metadata. "
                "Split it, or raise service.max_request_size_mb in the server's configuration."
            ) from None

    # -- reading --------------------------------------------------------------------------------

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        found = await self._retrieve(session, ids, True)
        records = {
            record.id: record
            for record in (record_of(point.payload or {}) for point in found.values())
        }
        return [records.get(id) for id in ids]

    async def read(
        self, session: RetryingSession, ids: Sequence[str], vectors: bool
    ) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        points = [point_id(id) for id in dict.fromkeys(ids) if _is_text(id)]
        found = await self._retrieve_points(session, points, True, vectors=vectors)
        if vectors:
            await self._check_found(session)
        rows = {row.record.id: row for row in map(self._row, found.values())}
        return [rows.get(id) for id in ids]

    async def read_page(
        self, session: RetryingSession, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match, in the order of their points."""
        condition = parsed(filter)
        page, following = await self._call(
            session,
            "scroll",
            self.label,
            scroll_filter=broad(condition),
            limit=_VECTORS_PAGE if vectors else _PAGE,
            offset=after,
            with_payload=True,
            with_vectors=self._with_vectors if vectors else False,
        )
        if vectors:
            await self._check_found(session)
        rows = map(self._row, page)
        return [row for row in rows if matches(row.record.metadata, condition)], following

    def _row(self, point: models.Record) -> Row:
        values = {"id": str(point.id), **(point.payload or {})}
        vector = self._vector_of(point)
        return Row(
            record_of(values),
            bytes.fromhex(self._hashes.in_payload(values) or ""),
            None if vector is None else np.asarray(vector, dtype=np.float32),
        )

    async def count(self, session: RetryingSession, documents: bool) -> int:
        """Count records, or documents by reading the name of each record's."""
        if documents:
            return len(await self._documents(session))
        answer = await self._call(session, "count", self.label, exact=True)
        return int(answer.count)

    async def count_matching(
        self, session: RetryingSession, filter: Filter, documents: bool
    ) -> int:
        """Count the points that match, or their documents, by reading metadata alone."""
        condition = parsed(filter)
        found = IdSet()
        number = 0

        def look(page: Sequence[models.Record]) -> None:
            nonlocal number
            passing = [
                point for point in page if matches(metadata_of(point.payload or {}), condition)
            ]
            number += len(passing)
            if documents:
                found.add(
                    str((point.payload or {}).get("document_id", point.id)) for point in passing
                )

        await self._scroll(session, broad(condition), ["document_id", "metadata", EXACT], look)
        return len(found) if documents else number

    async def document_page(self, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
        """Return the next ids of a list that was taken at the first call."""
        documents, last = after or (await self._documents(session), None)
        page = documents.page(last, _PAGE)
        return page, (documents, page[-1]) if len(page) == _PAGE else None

    async def stored_sources(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        numbers: Counter[str] = Counter()
        sources: dict[str, str] = {}

        def look(page: Sequence[models.Record]) -> None:
            for point in page:
                values = point.payload or {}
                numbers[values["document_id"]] += 1
                if isinstance(source := values.get(SOURCE), str):
                    sources[values["document_id"]] = source

        for some in _cut([document for document in documents if _is_text(document)]):
            await self._scroll(session, of_documents(some), ["document_id", SOURCE], look)
        return {id: StoredSource(source, numbers[id]) for id, source in sources.items()}

    async def has_other_source(self, session: RetryingSession, sources: Sequence[str]) -> bool:
        """Tell whether a point is stored from a source that is none of these."""
        page, _ = await self._call(
            session,
            "scroll",
            self.label,
            scroll_filter=with_source(but=sources),
            limit=1,
            offset=None,
            with_payload=False,
            with_vectors=False,
        )
        return bool(page)

    async def source_page(
        self, session: RetryingSession, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Return the next documents of a list that was taken at the first call."""
        if after is not None:
            documents, last = after
        else:
            last = None
            if sources is not None:
                documents = await self._documents(session, of_sources(sources))
            else:
                documents = await self._documents(session)
                documents.remove(await self._documents(session, with_source()))
        page = documents.page(last, _PAGE)
        return page, (documents, page[-1]) if len(page) == _PAGE else None

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
        try:
            found = await self._search(session, vector, k, filter, exact, options)
        except (UnexpectedResponse, RpcError, ValueError) as error:
            if not self.is_away(error):  # as of a vector that has another size by now
                await self._check_found(session)
            raise
        await self._check_found(session)
        return found

    async def _search(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> list[Match]:
        """Search; asked again exactly if an index gave fewer than there are."""
        condition = parsed(filter)
        wanted = both(broad(condition), options.where)
        threshold = options.score_threshold
        if k > _PAGE:  # a host may make room for so many
            k = min(k, await self.count(session, False))
            if not k:
                return []

        async def query(limit: int, exactly: bool) -> Sequence[models.ScoredPoint]:
            # A local client is always exact, and warns of being told so.
            parameters = options.search_params
            if exactly and not self.host.local:
                parameters = _exactly(parameters)
            answer = await self._call(
                session,
                "query_points",
                self.label,
                vector.tolist(),
                using=self._vector_name or None,
                query_filter=wanted,
                search_params=parameters,
                limit=limit,
                with_payload=True,
                score_threshold=threshold,
            )
            points: Sequence[models.ScoredPoint] = answer.points
            return points

        def passes(point: models.ScoredPoint) -> bool:
            return matches(metadata_of(point.payload or {}), condition)

        # Behind a threshold what the index gives is taken as it is.
        as_it_is = threshold is not None
        points = await widened(
            lambda limit, exactly: query(limit, exact if as_it_is else exactly),
            passes,
            k,
            exact=exact or as_it_is or self.host.local,
            count=lambda: self.count(session, False),
        )
        if points is not None:
            found = [match_of(point, float(point.score)) for point in points]
        else:
            found = await self._among_matching(session, vector, k, condition, wanted)
            if threshold is not None:
                found = [match for match in found if match.score >= threshold]
        return sorted(found, key=lambda match: (-match.score, match.id))

    async def _among_matching(
        self,
        session: RetryingSession,
        vector: NDArray[np.float32],
        k: int,
        condition: Condition,
        wanted: models.Filter | None,
    ) -> list[Match]:
        """Find by their metadata alone the points that match, and compare with each of those."""
        ids = await self._matching(session, condition, wanted)
        found: list[Match] = []
        for some in _cut(ids):
            found += await self._compare_with(session, vector, k, some)
            # What was changed since it was read may not match any more.
            found = [match for match in found if matches(match.metadata, condition)]
            found = sorted(found, key=lambda match: (-match.score, match.id))[:k]
        return found

    async def _matching(
        self, session: RetryingSession, condition: Condition, wanted: models.Filter | None
    ) -> list[Any]:
        """Return the ids of the points whose metadata matches; somebody else's may be numbers."""
        found: list[Any] = []

        def look(page: Sequence[models.Record]) -> None:
            found.extend(
                point.id for point in page if matches(metadata_of(point.payload or {}), condition)
            )

        await self._scroll(session, wanted, ["metadata", EXACT], look)
        return found

    async def _compare_with(
        self, session: RetryingSession, vector: NDArray[np.float32], k: int, points: Sequence[Any]
    ) -> list[Match]:
        """Return the best of some points, compared exactly."""
        if not self.host.local:
            answer = await self._call(
                session,
                "query_points",
                self.label,
                vector.tolist(),
                using=self._vector_name or None,
                query_filter=models.Filter(must=[models.HasIdCondition(has_id=list(points))]),
                search_params=_exactly(None),
                limit=k,
                with_payload=True,
                score_threshold=None,
            )
            return [match_of(point, float(point.score)) for point in answer.points]
        # Its own search would look for each point that it has in the list of ids.
        stored = await self._retrieve_points(session, points, True, vectors=True)
        with_vector = {
            id: row for id, point in stored.items() if (row := self._vector_of(point)) is not None
        }
        best = TopK(vector, k)
        if with_vector:
            best.add(list(with_vector), np.array(list(with_vector.values()), dtype=np.float32))
        return [match_of(stored[id], score) for id, score in best.scores().items()]

    @property
    def _with_vectors(self) -> bool | list[str]:
        """How a host is told which vectors to bring along."""
        return [self._vector_name] if self._vector_name else True

    def _vector_of(self, point: models.Record) -> Any:
        """Return a point's vector, None if it has none of the name."""
        vectors: Any = point.vector
        return (vectors or {}).get(self._vector_name) if self._vector_name else vectors

    async def _documents(
        self, session: RetryingSession, wanted: models.Filter | None = None
    ) -> IdSet:
        """Return the id of every document that there is, or that has such a point."""
        documents = IdSet()
        await self._scroll(
            session,
            wanted,
            ["document_id"],
            lambda page: documents.add(
                str((point.payload or {}).get("document_id", point.id)) for point in page
            ),
        )
        return documents

    async def _retrieve(
        self, session: RetryingSession, ids: Sequence[str], selected: Any
    ) -> dict[str, models.Record]:
        points = [point_id(id) for id in dict.fromkeys(ids) if _is_text(id)]
        return await self._retrieve_points(session, points, selected)

    async def _retrieve_points(
        self,
        session: RetryingSession,
        points: Sequence[Any],
        selected: Any,
        *,
        vectors: bool = False,
    ) -> dict[str, models.Record]:
        """Return ``{point id: point}`` of those that are there."""
        found: dict[str, models.Record] = {}
        for some in _cut(points, _VECTORS_PAGE if vectors else _IDS):
            answer = await self._call(
                session,
                "retrieve",
                self.label,
                list(some),
                with_payload=selected,
                with_vectors=self._with_vectors if vectors else False,
            )
            found.update({str(point.id): point for point in answer})
        return found

    async def _scroll(
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
            page, offset = await self._call(
                session,
                "scroll",
                self.label,
                scroll_filter=wanted,
                limit=_VECTORS_PAGE if vectors else _PAGE,
                offset=offset,
                with_payload=selected,
                with_vectors=self._with_vectors if vectors else False,
            )
            take(page)
            if offset is None:
                return

    # -- the index ------------------------------------------------------------------------------

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Sequence[str] = (),
    ) -> bool:
        """Bring the collection to the settings that were given, and give fields an index."""
        build = partial(self._build, rebuild=rebuild, fields=filter_fields)
        return await self.in_session(build, reads=False, retry="long")

    async def _build(
        self, session: RetryingSession, *, rebuild: bool, fields: Sequence[str]
    ) -> bool:
        if self.host.local:  # it has no indexes, and warns of being told to make one
            return False
        info = await self._read_info(session)
        wanted = {name: self._creation.get(name) for name in ("hnsw_config", "quantization_config")}
        differing = {
            name: model
            for name, model in wanted.items()
            if isinstance(model, BaseModel) and not _has(getattr(info.config, name, None), model)
        }
        for name, model in differing.items() if not rebuild else ():
            raise StoreError(
                f"Collection {self.label!r} has {name}={getattr(info.config, name, None)!r}, and "
                f"{model!r} was asked for. Nothing was changed. build_index(rebuild=True) changes "
                "it, and Qdrant builds the index anew in the background."
            )
        kinds = {field: await self._kind_of(session, field) for field in fields}
        stale, missing = self._payload_indexes(info, kinds)
        if stale and not rebuild:
            field = stale[0]
            raise StoreError(
                f"Collection {self.label!r}: field {field!r} has an index for "
                f"{_index_of(info, field)}, and its values want one for {kinds[field].value}. "
                "Nothing was changed. build_index(filter_fields=[...], rebuild=True) makes it anew."
            )
        if differing:
            await self._call(session, "update_collection", self.label, **differing)
        for field in stale:
            await self._call(session, "delete_payload_index", self.label, path_of(field))
        for field in (*stale, *missing):
            args = (self.label, path_of(field), kinds[field])
            await self._call(session, "create_payload_index", *args)
        return bool(differing or stale or missing)

    async def describe(self, session: RetryingSession) -> Description:
        """Say which Qdrant this is, and how far its index is."""
        info = await self._read_info(session)
        if self.host.local:
            return Description(
                self.label,
                host=f"Qdrant in Python, qdrant-client {version('qdrant-client')}",
                storage="float32",
                index="none, as a local client compares with every record",
            )
        server = await self._call(session, "info")
        hnsw, quantization = info.config.hnsw_config, info.config.quantization_config
        vectors = info.config.params.vectors
        kept = vectors.get(self._vector_name) if isinstance(vectors, Mapping) else vectors
        storage = str(getattr(getattr(kept, "datatype", None), "value", None) or "float32")
        if quantization is not None:
            storage += f", and quantized: {next(iter(quantization.model_dump(exclude_none=True)))}"
        return Description(
            self.label,
            host=f"Qdrant {server.version}",
            storage=storage,
            index=f"hnsw (m={hnsw.m}, ef_construct={hnsw.ef_construct}), "
            f"{info.indexed_vectors_count or 0:,} of {info.points_count or 0:,} vectors in it",
        )

    def _payload_indexes(
        self, info: models.CollectionInfo, kinds: Mapping[str, models.PayloadSchemaType]
    ) -> tuple[list[str], list[str]]:
        """Return which fields have an index of another kind, and which have none."""
        found = {field: _index_of(info, field) for field in kinds}
        stale = [field for field, kind in kinds.items() if found[field] not in (None, kind.value)]
        return stale, [field for field, kind in found.items() if kind is None]

    async def _kind_of(self, session: RetryingSession, field: str) -> models.PayloadSchemaType:
        """Return what most values of a field are; an index is of one kind."""
        path = path_of(field)
        page, _ = await self._call(
            session,
            "scroll",
            self.label,
            scroll_filter=models.Filter(
                must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=path))]
            ),
            limit=_PAGE,
            offset=None,
            with_payload=["metadata", EXACT],
            with_vectors=False,
        )
        values = [metadata_of(point.payload or {}).get(field) for point in page]
        kinds = Counter(
            models.PayloadSchemaType.BOOL
            if isinstance(value, bool)
            else models.PayloadSchemaType.KEYWORD
            if isinstance(value, str)
            else models.PayloadSchemaType.FLOAT
            for value in values
            if isinstance(value, (str, int, float))
        )
        if not kinds:
            raise StoreError(
                f"Collection {self.label!r} has no record with a text, number or bool in the field "
                f"{field!r} of its metadata. Build the index after the load, and see that the name "
                "is right."
            )
        return kinds.most_common(1)[0][0]

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

    async def _call(
        self, session: RetryingSession, name: str, /, *args: Any, **options: Any
    ) -> Any:
        """Call a method of the client."""
        return await self.host.call(session, name, *args, **options)

    def is_away(self, error: BaseException) -> bool:
        """Tell whether a server could not be reached, or is starting or too busy."""
        if isinstance(error, ResponseHandlingException):
            return isinstance(error.source, (httpx.NetworkError, httpx.RemoteProtocolError))
        if isinstance(error, UnexpectedResponse):
            return error.status_code in _AWAY
        return isinstance(error, RpcError) and error.code() == StatusCode.UNAVAILABLE

    def explain(self, error: Exception) -> ConnectionLostError:
        """Say which server it is that does not answer."""
        reason = error.details() if isinstance(error, RpcError) else error
        return ConnectionLostError(
            f"No Qdrant answers at {self.host.address}: {reason}. Is the server running, and is "
            "this its port? What was written stays; run the same call again."
        )

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether a host says, each client in its own way, that there is no such collection.

        A 404 may be a proxy's, or be about something else.
        """
        if isinstance(error, UnexpectedResponse):
            content = error.content.decode(errors="replace")
            return error.status_code == 404 and bool(_NO_COLLECTION.search(content))
        if isinstance(error, RpcError):
            said = error.details() or ""
            return error.code() == StatusCode.NOT_FOUND and bool(_NO_COLLECTION.search(said))
        return isinstance(error, ValueError) and bool(_NO_COLLECTION.search(str(error)))


def _shared_the_hash(recorded: Any) -> bool:
    """Tell whether an earlier version wrote the hash of this vector to where all wrote theirs."""
    return not isinstance(recorded, Mapping) or "format" not in recorded or _EARLIER in recorded


def _texts_differ(stored: models.Record, point: models.PointStruct) -> bool:
    return bool((stored.payload or {}).get("text") != (point.payload or {})["text"])


def _vectors_in(info: models.CollectionInfo) -> dict[str, models.VectorParams]:
    """Return the dense vectors of a collection by their names."""
    vectors = info.config.params.vectors or {}
    return {"": vectors} if isinstance(vectors, models.VectorParams) else dict(vectors)


def _is_forbidden(error: UnexpectedResponse | RpcError) -> bool:
    if isinstance(error, UnexpectedResponse):
        return bool(error.status_code in (401, 403))
    return bool(error.code() in (StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED))


def _is_point_gone(error: Exception) -> bool:
    """Tell whether a host says, each client in its own way, that a point is not there any more."""
    return isinstance(error, KeyError) or "No point with id" in str(error)


def _same_rest(values: Mapping[str, Any], record: Record) -> bool:
    # As JSON, because 1 == 1.0 == True in Python.
    stored, ours = (
        json.dumps(metadata, sort_keys=True)
        for metadata in (metadata_of(values), dict(record.metadata))
    )
    return (
        stored == ours
        and values.get("document_id") == record.document
        and values.get("chunk") == record.chunk
    )


def _has(found: BaseModel | None, wanted: BaseModel) -> bool:
    """Tell whether a setting is all that was asked for; a server adds what was left to it."""
    there = {} if found is None else found.model_dump(exclude_none=True)
    return _holds(there, wanted.model_dump(exclude_none=True))


def _holds(there: Any, asked: Any) -> bool:
    if isinstance(asked, dict):
        return isinstance(there, dict) and all(
            _holds(there.get(name), value) for name, value in asked.items()
        )
    return bool(there == asked)


def _index_of(info: models.CollectionInfo, field: str) -> str | None:
    """Return the kind of a field's index; a server may quote names otherwise than it was told."""
    for path in (path_of(field), f"metadata.{field}", f'metadata."{field}"'):
        if path in info.payload_schema:
            return str(info.payload_schema[path].data_type.value)
    return None


def _is_too_large(error: Exception, weight: int) -> bool:
    if isinstance(error, ResponseHandlingException):
        # A server that stops reading is seen as a timeout or a broken connection.
        return weight > _MAX_REQUEST_BYTES
    if isinstance(error, UnexpectedResponse) and error.status_code == 413:
        return True
    return re.search("larger than|too large", str(error)) is not None


def _exactly(parameters: models.SearchParams | None) -> models.SearchParams:
    return (parameters or models.SearchParams()).model_copy(update={"exact": True})


def _cut(items: Sequence[Any], most: int = _IDS) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


def _is_text(id: str) -> bool:
    """Tell whether an id can be anyone's: a lone surrogate is in no payload."""
    return not any("\ud800" <= letter <= "\udfff" for letter in id)
