"""A Qdrant collection: every call that is made to find, fill and ask it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
from grpc import RpcError, StatusCode
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import ConnectionLostError, StoreError, UnsupportedError
from toastrack.stores import (
    CollectionChangedError,
    Description,
    Filter,
    IdSet,
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
    another_writer,
    delete_documents,
    fused,
    matches,
    parsed,
    write_batch,
)
from toastrack_qdrant import indexes, text_index
from toastrack_qdrant.changes import new_metadata, new_texts
from toastrack_qdrant.codec import (
    SOURCE,
    batches,
    check_record,
)
from toastrack_qdrant.filters import (
    broad,
    fields_of,
    of_documents,
    of_sources,
    of_spans,
    unchanged,
    with_source,
)
from toastrack_qdrant.hashes import Hashes, hash_key
from toastrack_qdrant.host import Client, Host
from toastrack_qdrant.host_errors import (
    is_away,
    is_collection_gone,
    is_forbidden,
    is_point_gone,
    is_silent,
    naming_too_large,
    no_answer,
)
from toastrack_qdrant.layouts import OURS, Fields, advice, layout_of
from toastrack_qdrant.points import Points, cut, is_text
from toastrack_qdrant.recorded import also_equal, dimensions_in, identity, recorded_in, to_metadata
from toastrack_qdrant.search import SearchOptions, search
from toastrack_qdrant.text_search import is_wordless, search_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

# Since then each named vector has a hash of its own.
_FORMAT_OF_NAMED = 2

# Conditions of two in one filter.
_SPANS = 250
# How often what others change at this moment is looked at again.
_ROUNDS = 5

# An update of points that are none of these is made to new points only.
_NO_POINT = models.Filter(must=[models.HasIdCondition(has_id=[])])


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


class QdrantBackend(RetryingBackend):
    """One collection, and of its vectors the one of a name; "" is the unnamed one."""

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
        self.host = Host(client)
        self.label = collection
        self.layout = layout_of(fields)
        self._use_vector(vector_name)
        self._may_create = create
        self._creation = creation or Creation()
        self._wanted_language = text_index
        self._language: str | None = None

    def _use_vector(self, name: str) -> None:
        self.points = Points(self.host, self.label, name, self.layout)
        self._vector_name = name
        self._hashes = Hashes(hash_key(name))
        self.writes_format = _FORMAT_OF_NAMED if name else 1

    # -- the collection -------------------------------------------------------------------------

    async def find(self, session: RetryingSession) -> bool:
        """Look for the collection, and read what it says of itself."""
        if not await self._exists(session):
            return False
        info = await self._read_info(session)
        self.dimensions = dimensions_in(info, self.label, self._vector_name)
        if self._may_create and not self.host.local and not self.layout.read_only:
            for key in (self.layout.document_id, SOURCE):
                if key not in info.payload_schema:
                    keyword = models.PayloadSchemaType.KEYWORD
                    await self.points.call(
                        session, "create_payload_index", self.label, key, keyword
                    )
        return True

    async def create(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Create the collection with the space in its metadata, and an index of words if wanted."""
        self._check_writable()
        if self._wanted_language is not None:
            await text_index.check_host(self.points, session)
        wanted: dict[str, Any] = dict(self._creation)
        vector = models.VectorParams(
            size=space.dimensions,
            distance=models.Distance.COSINE,
            on_disk=wanted.pop("on_disk", None),
        )
        try:
            await self.points.call(
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
        if self._wanted_language is not None and self._language is None:
            await self._build_text_index(session, self._wanted_language, rebuild=False)

    async def record_space(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Put the space into the collection's metadata, beside all else that is there."""
        info = await self._read_info(session)
        if self.space is None:
            metadata = self._metadata_of(space)
        elif self.space == space:
            metadata = also_equal(info, self._vector_name, space)
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
        metadata = self._metadata_of(self.space, earlier=self._hashes.earlier or "")
        try:
            await self.points.call(session, "update_collection", self.label, metadata=metadata)
        except (UnexpectedResponse, RpcError) as error:
            if not is_forbidden(error):
                raise
        else:
            self.format = self.writes_format

    async def is_empty(self, session: RetryingSession) -> bool:
        """Tell whether no point has a vector of this name; another store's may be there."""
        wanted = None
        if self._hashes.others:
            wanted = models.Filter(must=[models.HasVectorCondition(has_vector=self._vector_name)])
        answer = await self.points.call(
            session, "count", self.label, count_filter=wanted, exact=True
        )
        return not answer.count

    async def check_adoptable(self, session: RetryingSession) -> None:
        """Raise ``StoreError`` if points are there that somebody else described."""
        is_ours = self.layout is OURS
        needed = ("id", "document_id", "text") if is_ours else (self.layout.text,)
        foreign = models.Filter(
            should=[
                models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in needed
            ]
        )
        answer = await self.points.call(
            session, "count", self.label, count_filter=foreign, exact=True
        )
        # In another's layout some may have no text, such as pictures.
        if not answer.count or not (is_ours or answer.count == await self.points.count(session)):
            return
        page, _ = await self.points.call(
            session,
            "scroll",
            self.label,
            scroll_filter=foreign,
            limit=1,
            offset=None,
            with_payload=True,
            with_vectors=False,
        )
        keys = sorted((page[0].payload or {}) if page else ())
        raise StoreError(
            f"Collection {self.label!r} holds {answer.count} points whose payload lacks "
            f"{', '.join(needed)}, or one of them; there is {', '.join(keys) or 'nothing'}. "
            f"{advice(keys)}"
        )

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
        self._learn(info)
        self._said = identity(info, self._vector_name)
        return info

    def _metadata_of(self, space: EmbeddingSpace, earlier: str | None = None) -> dict[str, Any]:
        return to_metadata(space, self._vector_name, format=self.writes_format, earlier=earlier)

    def _learn(self, info: models.CollectionInfo) -> None:
        recorded = recorded_in(info, self.label, self._vector_name)
        self.space, self.format, self._hashes = recorded.space, recorded.format, recorded.hashes
        self._language = text_index.language_of(info, local=self.host.local, field=self.layout.text)

    async def _check_found(self, session: RetryingSession) -> None:
        """Raise ``CollectionChangedError`` unless name or alias stand for vectors of that space."""
        info = await self.points.call(session, "get_collection", self.label)
        if identity(info, self._vector_name) != self._said:
            raise CollectionChangedError(self.kind, self.label)
        self._learn(info)

    # -- writing --------------------------------------------------------------------------------

    def _check_writable(self) -> None:
        """Raise ``UnsupportedError`` for a layout that cannot hold what is written."""
        if self.layout.read_only:
            raise UnsupportedError(
                f"Collection {self.label!r} is only read in the layout {self.layout.name!r}: "
                f"{self.layout.read_only}. Fill one of ours from it, which embeds nothing anew: "
                "other.upsert(store.records(vectors=True))."
            )

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` for what Qdrant cannot store."""
        check_record(record)

    async def compare(self, session: RetryingSession, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        self._check_writable()
        ids = [row.record.id for row in rows]
        stored = await self.points.retrieve(session, ids, self.layout.all_but_text)
        await self._check_found(session)
        result: dict[str, Status] = {}
        for row in rows:
            point = stored.get(str(self.layout.point_of(row.record.id)))
            if point is None:
                continue
            result[row.record.id] = self._status(point.payload or {}, row)
        return result

    def _status(self, values: Mapping[str, Any], row: Row) -> Status:
        if self._hashes.in_payload(values) != row.text_hash.hex():
            return "changed"
        same = self._same_rest(values, row.record) and row.source in (None, values.get(SOURCE))
        return "unchanged" if same else "metadata"

    def _same_rest(self, values: Mapping[str, Any], record: Record) -> bool:
        layout = self.layout
        # As JSON, because 1 == 1.0 == True in Python.
        stored, ours = (
            json.dumps(metadata, sort_keys=True)
            for metadata in (layout.metadata_of(values), dict(record.metadata))
        )
        return (
            stored == ours
            and values.get(layout.id) == record.id
            and values.get(layout.document_id) == record.document
            and values.get(layout.chunk) == record.chunk
        )

    def _texts_differ(self, stored: models.Record, point: models.PointStruct) -> bool:
        text = self.layout.text
        return bool((stored.payload or {}).get(text) != (point.payload or {})[text])

    async def write(self, session: RetryingSession, batch: WriteBatch) -> WriteResult:
        """Write new points, then the others' payloads; what is stale goes last."""
        self._check_writable()
        await self._check_found(session)
        return await write_batch(self, session, batch)

    async def put(
        self, session: RetryingSession, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole points; of the others the payload, where the text is as it was."""
        hashes = self._hashes
        by_id = {self.layout.point_of(row.record.id): row for row in rows}
        copies = 3 if hashes.others else 1
        for points in batches(rows, self._vector_name, self.layout, copies):
            await self._put(session, points, by_id)
        for points in batches(metadata_rows, self._vector_name, self.layout):
            changes = [
                change for point in points for change in new_metadata(point, hashes, self.layout)
            ]
            with naming_too_large(points):
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
            selected = True if written else self.layout.all_but_text
            stored = await self.points.retrieve_points(
                session, [point.id for point in points], selected
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
                if status == "changed" and not (written and self._texts_differ(there, point)):
                    changed.append(point)
                elif status == "metadata":
                    described.append(point)
            if written:
                # What went or was changed since, or described, is of somebody who came later. But
                # one who gave it the same text took our hash away and left it without.
                new, described = [], []
            operations, changes = new_texts(changed, hashes, self.layout) if changed else ([], [])
            changes += [
                change for point in described for change in new_metadata(point, hashes, self.layout)
            ]
            with naming_too_large(points):
                if new:
                    # One that somebody else wrote since is left as it is.
                    await self.points.call(
                        session, "upsert", self.label, new, update_filter=_NO_POINT, wait=True
                    )
                if changes:
                    try:
                        await self.host.update(session, self.label, operations, changes)
                    except Exception as error:
                        if not is_point_gone(error):
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
        stale: list[Any] = []
        wanted = {str(self.layout.point_of(id)): row for id, row in rows.items()}

        def compare(page: Sequence[models.Record]) -> None:
            for point in page:
                row = wanted.get(str(point.id))
                if row is None:
                    stale.append(point.id)
                else:
                    statuses[row.record.id] = self._status(point.payload or {}, row)

        for some in cut([document for document in documents if is_text(document)]):
            wanted_points = of_documents(some, self.layout)
            await self.points.scroll(session, wanted_points, self.layout.all_but_text, compare)
        return Look(statuses, stale)

    async def remove(
        self, session: RetryingSession, stale: Collection[Any], documents: Sequence[str]
    ) -> None:
        """Delete points that are still of one of these documents."""
        for some in cut(list(stale)):
            among = of_documents(documents, self.layout, among=some)
            selector = models.FilterSelector(filter=among)
            await self.points.call(session, "delete", self.label, selector, wait=True)

    async def delete(
        self, session: RetryingSession, ids: Sequence[str], documents: Sequence[str]
    ) -> int:
        """Delete records by id and whole documents; return how many went."""
        self._check_writable()
        await self._check_found(session)
        stored = await self.points.retrieve(session, ids, False)
        doomed = {point.id for point in stored.values()}
        for some in cut(list(doomed)):
            selector = models.PointIdsList(points=list(some))
            await self.points.call(session, "delete", self.label, selector, wait=True)
        return len(doomed | await delete_documents(self, session, documents))

    async def delete_matching(self, session: RetryingSession, filter: Filter) -> int:
        """Delete the points that match when they are deleted; return how many went."""
        self._check_writable()
        await self._check_found(session)
        condition = parsed(filter)
        deleted = 0
        matching = await self.points.matching(session, condition, broad(condition, self.layout))
        for some in cut(matching):
            for _ in range(_ROUNDS):
                there = await self.points.retrieve_points(session, some, self.layout.metadata_keys)
                doomed = [
                    point
                    for point in there.values()
                    if matches(self.layout.metadata_of(point.payload or {}), condition)
                ]
                if not doomed:
                    break
                still = unchanged(doomed, fields_of(condition), self.layout)
                selector = models.FilterSelector(filter=still)
                await self.points.call(session, "delete", self.label, selector, wait=True)
            else:
                there = await self.points.retrieve_points(session, some, False)
            deleted += len(some) - len(there)
        return deleted

    # -- reading --------------------------------------------------------------------------------

    async def read_sample(self, session: RetryingSession, size: int) -> list[Row]:
        """Return points that Qdrant picks by chance."""
        wanted = models.Filter(must=[models.HasVectorCondition(has_vector=self._vector_name)])
        answer = await self.points.call(
            session,
            "query_points",
            self.label,
            query=models.SampleQuery(sample=models.Sample.RANDOM),
            query_filter=wanted if self._vector_name else None,
            limit=size,
            with_payload=True,
            with_vectors=self.points.with_vectors,
        )
        return [self._row(point) for point in answer.points]

    async def get(self, session: RetryingSession, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        found = await self.points.of_records(session, ids)
        records = {id: self.layout.record_of(point) for id, point in found.items()}
        return [records.get(id) for id in ids]

    async def read(
        self, session: RetryingSession, ids: Sequence[str], vectors: bool
    ) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        found = await self.points.of_records(session, ids, vectors=vectors)
        if vectors:
            await self._check_found(session)
        rows = {id: self._row(point) for id, point in found.items()}
        return [rows.get(id) for id in ids]

    async def read_page(
        self, session: RetryingSession, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match, in the order of their points."""
        condition = parsed(filter)
        page, following = await self.points.call(
            session,
            "scroll",
            self.label,
            scroll_filter=broad(condition, self.layout),
            limit=self.points.vectors_page if vectors else self.points.page,
            offset=after,
            with_payload=True,
            with_vectors=self.points.with_vectors if vectors else False,
        )
        if vectors:
            await self._check_found(session)
        rows = map(self._row, page)
        return [row for row in rows if matches(row.record.metadata, condition)], following

    def _row(self, point: models.Record) -> Row:
        vector = self.points.vector_of(point)
        # What others call so in a layout of theirs is no hash of ours.
        kept = "" if self.layout.read_only else self._hashes.in_payload(point.payload or {})
        return Row(
            self.layout.record_of(point),
            bytes.fromhex(kept or ""),
            None if vector is None else np.asarray(vector, dtype=np.float32),
        )

    async def chunks(self, session: RetryingSession, spans: Sequence[Span]) -> list[Record]:
        """Return the records of documents whose chunk numbers lie in one of these spans."""
        found: dict[str, Record] = {}

        def take(page: Sequence[models.Record]) -> None:
            found.update({str(point.id): self.layout.record_of(point) for point in page})

        for some in cut(list(dict.fromkeys(spans)), _SPANS):
            await self.points.scroll(session, of_spans(some, self.layout), True, take)
        return list(found.values())

    async def count(self, session: RetryingSession, documents: bool) -> int:
        """Count records, or documents by reading the name of each record's."""
        if documents:
            return len(await self.points.documents(session))
        return await self.points.count(session)

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
                point
                for point in page
                if matches(self.layout.metadata_of(point.payload or {}), condition)
            ]
            number += len(passing)
            if documents:
                found.add(self.layout.document_of(point) for point in passing)

        keys = self.layout.metadata_keys
        selected = keys if isinstance(keys, bool) else [*self.layout.document_keys, *keys]
        await self.points.scroll(session, broad(condition, self.layout), selected, look)
        return len(found) if documents else number

    async def document_page(self, session: RetryingSession, after: Any) -> tuple[list[str], Any]:
        """Return the next ids of a list that was taken at the first call."""
        documents, last = after or (await self.points.documents(session), None)
        page = documents.page(last, self.points.page)
        return page, (documents, page[-1]) if len(page) == self.points.page else None

    async def stored_sources(
        self, session: RetryingSession, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        numbers: Counter[str] = Counter()
        sources: dict[str, str] = {}

        def look(page: Sequence[models.Record]) -> None:
            for point in page:
                document = self.layout.document_of(point)
                numbers[document] += 1
                if isinstance(source := (point.payload or {}).get(SOURCE), str):
                    sources[document] = source

        for some in cut([document for document in documents if is_text(document)]):
            keys = [*self.layout.document_keys, SOURCE]
            await self.points.scroll(session, of_documents(some, self.layout), keys, look)
        return {id: StoredSource(source, numbers[id]) for id, source in sources.items()}

    async def has_other_source(self, session: RetryingSession, sources: Sequence[str]) -> bool:
        """Tell whether a point is stored from a source that is none of these."""
        page, _ = await self.points.call(
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
                documents = await self.points.documents(session, of_sources(sources))
            else:
                documents = await self.points.documents(session)
                documents.remove(await self.points.documents(session, with_source()))
        page = documents.page(last, self.points.page)
        return page, (documents, page[-1]) if len(page) == self.points.page else None

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
        """Return the best k records by their words, or with a vector by both, fused here.

        A fusion of the host's would give neither score, and would fuse what does not match, where
        it cannot say a filter exactly.
        """
        if options.score_threshold is not None:
            raise ValueError(
                "score_threshold= is a cosine similarity, and a search by words ranks by something "
                "else. Leave one of both out."
            )
        text_index.check_layout(self.points)
        if self._language is None:
            await self._read_info(session)  # somebody may have built it since
        language = self._language
        if language is None:
            raise text_index.no_index(self.label)

        async def both() -> TextHits:
            where = options.where
            texts = await search_words(self.points, session, query, k, filter, where)
            if vector is not None:
                near = await search(self.points, session, vector, k, filter, exact, options)
                return TextHits(fused(near, texts, query, k))
            wordless = not texts and await is_wordless(self.points, session, query)
            return TextHits(texts, language if wordless else None)

        try:
            return await self._found(session, both())
        except (UnexpectedResponse, RpcError):
            if self._language is None:  # it was deleted since
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
