"""A collection that is open: what is written to it and read from it, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qdrant_client import models

from toastrack.errors import StoreError
from toastrack.filters import Scalar, matches
from toastrack.records import Match, Record
from toastrack.space import EmbeddingSpace
from toastrack.stores.id_set import IdSet
from toastrack.stores.plan import Row, Status, WriteBatch
from toastrack.stores.steps import Ask, Steps
from toastrack.stores.top_k import TopK
from toastrack_qdrant.conditions import both, conditions, of_documents
from toastrack_qdrant.host import Host
from toastrack_qdrant.points import (
    EXACT,
    KEYS,
    batches,
    check_record,
    match_of,
    metadata_of,
    point_id,
    record_of,
)
from toastrack_qdrant.sending import sent

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE = 1_000
_VECTORS_PAGE = 256
# Ids in one request.
_IDS = 1_000


@dataclass
class QdrantCollection:
    """What is known of the collection once it is open."""

    host: Host
    name: str
    vector_name: str
    dimensions: int
    stored: EmbeddingSpace | None
    checked: bool = False
    """Its space is known to be the embedder's."""

    # -- writing --------------------------------------------------------------------------------

    def states(self, rows: Sequence[Row]) -> Steps[dict[str, Status]]:
        """Say how each row compares to what is stored under its id."""
        for row in rows:
            check_record(row.record)
        everything_but_text = models.PayloadSelectorExclude(exclude=["text"])
        stored = yield from self._retrieve([row.record.id for row in rows], everything_but_text)
        result: dict[str, Status] = {}
        for record, text_hash, _ in rows:
            point = stored.get(point_id(record.id))
            if point is None:
                continue
            values = point.payload or {}
            if values.get("text_hash") != text_hash.hex():
                result[record.id] = "changed"
            else:
                result[record.id] = "unchanged" if _same_rest(values, record) else "metadata"
        return result

    def write(self, portion: WriteBatch) -> Steps[tuple[int, int]]:
        """Write one portion, then let go what is stale; return how many were written and went."""
        for points in batches(portion.rows, self.vector_name):
            yield from sent(points, self._upsert(points))
        for points in batches(portion.metadata_rows, self.vector_name):
            yield from sent(points, self._overwrite_payloads(points))
        deleted = 0
        if portion.keep:
            kept = [point_id(id) for ids in portion.keep.values() for id in ids]
            stale = yield from self._point_ids(list(portion.keep), without=kept)
            deleted = yield from self._delete(stale)
        return len(portion.rows) + len(portion.metadata_rows), deleted

    def delete(self, ids: Sequence[str], documents: Sequence[str]) -> Steps[int]:
        """Delete records by id and whole documents; return how many went."""
        doomed = set((yield from self._retrieve(ids, False)))
        doomed |= yield from self._point_ids(documents)
        number = yield from self._delete(doomed)
        return number

    def _delete(self, points: Collection[str]) -> Steps[int]:
        for some in _cut(list(points)):
            yield self._delete_points(models.PointIdsList(points=list(some)))
        return len(points)

    def _upsert(self, points: Sequence[models.PointStruct]) -> Ask:
        return self.host.ask(lambda: self.host.client.upsert(self.name, points, wait=True))

    def _overwrite_payloads(self, points: Sequence[models.PointStruct]) -> Ask:
        changes = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=point.payload or {}, points=[point.id])
            )
            for point in points
        ]
        return self.host.ask(
            lambda: self.host.client.batch_update_points(self.name, changes, wait=True)
        )

    def _delete_points(self, selector: models.PointIdsList) -> Ask:
        return self.host.ask(lambda: self.host.client.delete(self.name, selector, wait=True))

    # -- reading --------------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> Steps[list[Record | None]]:
        """Return records in the order asked."""
        found = yield from self._retrieve(ids, True)
        records = {
            record.id: record
            for record in (record_of(point.payload or {}) for point in found.values())
        }
        return [records.get(id) for id in ids]

    def count(self, documents: bool) -> Steps[int]:
        """Count records or documents."""
        if documents:
            return len((yield from self._documents()))
        answer = yield self.host.ask(lambda: self.host.client.count(self.name, exact=True))
        return int(answer.count)

    def document_page(self, after: Any) -> Steps[tuple[list[str], Any]]:
        """Return the next ids of a list that was taken at the first call."""
        documents, last = after or ((yield from self._documents()), None)
        page = documents.page(last, _PAGE)
        return page, (documents, page[-1]) if len(page) == _PAGE else None

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Mapping[str, Scalar],
        where: models.Filter | None,
        score_threshold: float | None,
        search_params: models.SearchParams | None,
        exact: bool,
    ) -> Steps[list[Match]]:
        """Return the best ``min(k, matching)`` records; asked again exactly if an index gave fewer."""
        wanted = both(conditions(filter), where)

        def query(exactly: bool) -> Any:
            # A local client is always exact, and warns of being told so.
            parameters = search_params
            if exactly and not self.host.local:
                parameters = (search_params or models.SearchParams()).model_copy(
                    update={"exact": True}
                )
            return self.host.client.query_points(
                self.name,
                vector.tolist(),
                using=self.vector_name or None,
                query_filter=wanted,
                search_params=parameters,
                limit=k,
                with_payload=True,
                score_threshold=score_threshold,
            )

        points = (yield self.host.ask(lambda: query(exact))).points
        if len(points) < k and not (exact or self.host.local) and score_threshold is None:
            points = (yield self.host.ask(lambda: query(True))).points
        found = [match_of(point, float(point.score)) for point in points]
        if not all(matches(match.metadata, filter) for match in found):
            # Qdrant cannot express this filter: it let a point pass that does not match.
            found = yield from self._read_all(vector, k, filter, wanted)
            if score_threshold is not None:
                found = [match for match in found if match.score >= score_threshold]
        return sorted(found, key=lambda match: (-match.score, match.id))

    def _read_all(
        self,
        vector: NDArray[np.float32],
        k: int,
        filter: Mapping[str, Scalar],
        wanted: models.Filter | None,
    ) -> Steps[list[Match]]:
        """Compare with every vector that passes ``wanted`` and the filter."""
        best = TopK(vector, k)
        points: dict[str, str] = {}

        def look(page: Sequence[models.Record]) -> None:
            passing = {
                str((point.payload or {}).get("id", point.id)): point
                for point in page
                if point.vector is not None and matches(metadata_of(point.payload or {}), filter)
            }
            vectors = [self._vector_of(point) for point in passing.values()]
            best.add(list(passing), np.array(vectors, dtype=np.float32))
            points.update({id: str(point.id) for id, point in passing.items()})
            for id in set(points) - set(best.scores()):
                del points[id]

        yield from self._scroll(wanted, ["id", "metadata", EXACT], look, vectors=True)
        stored = yield from self._retrieve_points(list(points.values()), True)
        scores = best.scores()
        return [
            match_of(stored[point], scores[id]) for id, point in points.items() if point in stored
        ]

    def _vector_of(self, point: models.Record) -> Any:
        vectors: Any = point.vector
        return vectors[self.vector_name] if self.vector_name else vectors

    def _documents(self) -> Steps[IdSet]:
        """Return the id of every document that there is."""
        documents = IdSet()
        yield from self._scroll(
            None,
            ["document_id"],
            lambda page: documents.add(
                str((point.payload or {}).get("document_id", point.id)) for point in page
            ),
        )
        return documents

    def _point_ids(
        self, documents: Sequence[str], *, without: Sequence[str] = ()
    ) -> Steps[set[str]]:
        """Return the points of documents, but for some."""
        found: set[str] = set()
        for some in _cut([document for document in documents if _is_text(document)]):
            yield from self._scroll(
                of_documents(some, without=without),
                False,
                lambda page: found.update(str(point.id) for point in page),
            )
        return found

    def _retrieve(self, ids: Sequence[str], selected: Any) -> Steps[dict[str, models.Record]]:
        found = yield from self._retrieve_points(
            [point_id(id) for id in dict.fromkeys(ids) if _is_text(id)], selected
        )
        return found

    def _retrieve_points(
        self, points: Sequence[str], selected: Any
    ) -> Steps[dict[str, models.Record]]:
        """Return ``{point id: point}`` of those that are there."""
        found: dict[str, models.Record] = {}
        for some in _cut(points):
            answer = yield self._retrieve_page(list(some), selected)
            found.update({str(point.id): point for point in answer})
        return found

    def _retrieve_page(self, points: list[str], selected: Any) -> Ask:
        return self.host.ask(
            lambda: self.host.client.retrieve(self.name, points, with_payload=selected)
        )

    def _scroll(
        self,
        wanted: models.Filter | None,
        selected: bool | list[str],
        take: Callable[[Sequence[models.Record]], None],
        *,
        vectors: bool = False,
    ) -> Steps[None]:
        """Hand on every point in pages, in the order of their ids."""
        offset = None
        while True:
            page, offset = yield self._scroll_page(wanted, selected, vectors, offset)
            take(page)
            if offset is None:
                return

    def _scroll_page(
        self,
        wanted: models.Filter | None,
        selected: bool | list[str],
        vectors: bool,
        offset: Any,
    ) -> Ask:
        with_vectors: bool | list[str] = [self.vector_name] if self.vector_name else True
        return self.host.ask(
            lambda: self.host.client.scroll(
                self.name,
                scroll_filter=wanted,
                limit=_VECTORS_PAGE if vectors else _PAGE,
                offset=offset,
                with_payload=selected,
                with_vectors=with_vectors if vectors else False,
            )
        )

    def check_payloads(self) -> Steps[None]:
        """Raise ``StoreError`` if points are there that somebody else described."""
        needed = [key for key in KEYS if key in ("id", "document_id", "text")]
        foreign = models.Filter(
            should=[
                models.IsEmptyCondition(is_empty=models.PayloadField(key=key)) for key in needed
            ]
        )
        answer = yield self.host.ask(
            lambda: self.host.client.count(self.name, count_filter=foreign, exact=True)
        )
        if answer.count:
            raise StoreError(
                f"Collection {self.name!r} holds {answer.count} points whose payload lacks "
                f"{', '.join(needed)}, or one of them. Add them, or use another collection."
            )


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


def _cut(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _IDS):
        yield items[start : start + _IDS]


def _is_text(id: str) -> bool:
    """Tell whether an id can be anyone's: a lone surrogate is in no payload."""
    return not any("\ud800" <= letter <= "\udfff" for letter in id)
