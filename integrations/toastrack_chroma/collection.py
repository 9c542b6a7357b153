"""A Chroma collection that is open: what is written to it and read from it, step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toastrack.errors import RecordError
from toastrack.filters import Scalar, matches
from toastrack.records import Match, Record
from toastrack.space import EmbeddingSpace
from toastrack.stores.id_set import IdSet
from toastrack.stores.plan import Row, Status, WriteBatch
from toastrack.stores.steps import Ask, Slow, Steps
from toastrack.stores.top_k import TopK
from toastrack_chroma.codec import (
    DOCUMENT_ID,
    TEXT_HASH,
    VECTOR_HEAD,
    Metadata,
    check_record,
    document_of,
    row_metadata,
    same_rest,
    to_metadata,
    to_record,
)
from toastrack_chroma.server import is_too_large
from toastrack_chroma.where import all_of, native_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

Where = Mapping[str, Any]
Item = TypeVar("Item")

# Ids and documents asked for at a time: Chroma puts each into a variable of sqlite's, of which
# there are 32,766. Vectors come in smaller pages, because they come as float64.
_PAGE = 5_000
_VECTOR_PAGE = 2_000
# The server refuses requests over 40 MiB (its setting max_payload_size_bytes).
_MAX_BYTES = 24 * 2**20


@dataclass(frozen=True)
class StoredRow:
    """A row in Chroma's own words."""

    id: str
    text: str | None
    metadata: Metadata | None
    vector: NDArray[np.float32] | None
    """None in a row whose stored vector stays."""
    uri: str | None = None


@dataclass
class ChromaCollection:
    """What is known of the collection once it is open."""

    host: Any
    """``chromadb.Collection``, or its asynchronous twin."""
    label: str
    dimensions: int
    stored: EmbeddingSpace | None
    max_rows: int
    """How many rows the host takes in one call."""
    checked: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the collection says of itself, ours and the user's."""

    def states(self, rows: Sequence[Row]) -> Steps[dict[str, Status]]:
        """Say how each row compares to what is stored under its id."""
        for row in rows:
            check_record(row.record)
        stored = yield from self._metadatas([row.record.id for row in rows])
        result: dict[str, Status] = {}
        for record, text_hash, _ in rows:
            if record.id not in stored:
                continue
            metadata = stored[record.id] or {}
            if metadata.get(TEXT_HASH) != text_hash.hex():
                result[record.id] = "changed"
            else:
                result[record.id] = "unchanged" if same_rest(metadata, record) else "metadata"
        return result

    def write(self, portion: WriteBatch) -> Steps[tuple[int, int]]:
        """Write new rows, then the others' metadata; what is stale goes last."""
        changed = [*portion.rows, *portion.metadata_rows]
        before = yield from self._metadatas([row.record.id for row in changed])
        new = [_stored(row, before) for row in portion.rows]
        yield from self.send_to(self.host, upsert, new)
        other = [_stored(row, before) for row in portion.metadata_rows]
        yield from self.send_to(self.host, update, other)
        kept = {id for ids in portion.keep.values() for id in ids}
        there = yield from self._ids_of_documents(list(portion.keep))
        deleted = yield from self._delete([id for id in there if id not in kept])
        return len(changed), deleted

    def send_to(
        self, host: Any, send: Callable[[Any, Sequence[StoredRow]], Any], rows: Sequence[StoredRow]
    ) -> Steps[None]:
        """Send rows in pages, and in smaller ones if the server says that they are too large."""
        pages = deque(_cut(rows, self.max_rows, self._bytes))
        while pages:
            page = pages.popleft()
            try:
                yield Ask(partial(send, host, page))
            except Exception as error:
                if not is_too_large(error):
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
        return 22 * self.dimensions + 6 * letters

    def delete(self, ids: Sequence[str], documents: Sequence[str]) -> Steps[int]:
        """Delete records by id and whole documents; return how many records went."""
        there = yield from self._metadatas(ids)
        of_documents = yield from self._ids_of_documents(documents)
        return (yield from self._delete(list(dict.fromkeys([*there, *of_documents]))))

    def _delete(self, ids: Sequence[str]) -> Steps[int]:
        for page in _batches(ids, _PAGE):
            yield Ask(partial(self.host.delete, ids=page))
        return len(ids)

    # -- reading --------------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> Steps[list[Record | None]]:
        """Return records in the order asked."""
        found: dict[str, Record] = {}
        for page in _batches(_storable(ids), _PAGE):
            answer = yield Ask(partial(self.host.get, ids=page, include=["documents", "metadatas"]))
            for id, text, metadata in zip(
                answer["ids"], answer["documents"], answer["metadatas"], strict=True
            ):
                found[id] = to_record(id, text, metadata)
        return [found.get(id) for id in ids]

    def count(self, documents: bool) -> Steps[int]:
        """Count records, or documents by reading the name of each record's."""
        if not documents:
            number: int = yield Ask(lambda: self.host.count())
            return number
        return len((yield from self._documents()))

    def document_page(
        self, after: tuple[IdSet, str] | None
    ) -> Steps[tuple[list[str], tuple[IdSet, str] | None]]:
        """Return the next documents' ids; all are read first, as pages shift when rows go."""
        if after is None:
            seen, last = (yield from self._documents()), None
        else:
            seen, last = after
        page = seen.page(last, _PAGE)
        return page, (seen, page[-1]) if len(page) == _PAGE else None

    def _documents(self) -> Steps[IdSet]:
        seen = IdSet()
        offset = 0
        while True:
            answer = yield Ask(
                partial(self.host.get, limit=_PAGE, offset=offset, include=["metadatas"])
            )
            seen.add(map(document_of, answer["ids"], answer["metadatas"]))
            if len(answer["ids"]) < _PAGE:
                return seen
            offset += _PAGE

    def _metadatas(self, ids: Sequence[str]) -> Steps[dict[str, Mapping[str, Any] | None]]:
        """Return the stored metadata of those ids that are there."""
        found: dict[str, Mapping[str, Any] | None] = {}
        for page in _batches(_storable(ids), _PAGE):
            answer = yield Ask(partial(self.host.get, ids=page, include=["metadatas"]))
            found.update(zip(answer["ids"], answer["metadatas"], strict=True))
        return found

    def _ids_of_documents(self, documents: Sequence[str]) -> Steps[list[str]]:
        found: list[str] = []
        for page in _batches(_storable(documents, empty=True), _PAGE):
            answer = yield Ask(
                partial(self.host.get, where={DOCUMENT_ID: {"$in": page}}, include=[])
            )
            found.extend(answer["ids"])
        return found

    # -- searching ------------------------------------------------------------------------------

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Mapping[str, Scalar],
        where: Where | None,
        where_document: Where | None,
        exact: bool,
    ) -> Steps[list[Match]]:
        """Return the best ``min(k, matching)`` rows; compared here if the index gives fewer."""
        if k > _PAGE and not (k := min(k, (yield from self.count(False)))):
            return []  # a host's number has 32 bits, and it would make room for so many
        conditions, rest = native_filter(filter)
        if where:
            conditions.append(where)
        chosen = {"where": all_of(conditions), "where_document": where_document or None}
        if not exact and not rest:
            scores = yield from self._query(vector, k, chosen)
            if len(scores) < k:
                exact = len(scores) < (yield from self._matching(k, chosen))
        if exact or rest:
            scores = yield from self._compare(vector, k, chosen, rest)
        return (yield from self._matches(scores))

    def _query(
        self, vector: NDArray[np.float32], k: int, chosen: Mapping[str, Any]
    ) -> Steps[dict[str, float]]:
        """Ask the index."""
        answer = yield Ask(
            lambda: self.host.query(
                query_embeddings=[vector], n_results=k, include=["distances"], **chosen
            )
        )
        distances = zip(answer["ids"][0], answer["distances"][0], strict=True)
        return {id: 1.0 - float(distance) for id, distance in distances}

    def _matching(self, k: int, chosen: Mapping[str, Any]) -> Steps[int]:
        """Count the rows that a search may find, up to k."""
        if any(chosen.values()):
            answer = yield Ask(lambda: self.host.get(limit=k, include=[], **chosen))
            return len(answer["ids"])
        return min(k, (yield from self.count(False)))

    def _compare(
        self,
        vector: NDArray[np.float32],
        k: int,
        chosen: Mapping[str, Any],
        rest: Mapping[str, Scalar],
    ) -> Steps[dict[str, float]]:
        """Read the vectors and compare each; Chroma has no exact search."""
        best = TopK(vector, k)
        offset = 0
        include = ["embeddings", "metadatas"] if rest else ["embeddings"]
        while True:
            answer = yield Ask(
                partial(self.host.get, limit=_VECTOR_PAGE, offset=offset, include=include, **chosen)
            )
            yield Slow(partial(_take, best, answer, rest))
            if len(answer["ids"]) < _VECTOR_PAGE:
                return best.scores()
            offset += _VECTOR_PAGE

    def _matches(self, scores: Mapping[str, float]) -> Steps[list[Match]]:
        records = yield from self.get(list(scores))
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
            if record is not None  # deleted since it was found
        ]
        return sorted(found, key=lambda match: (-match.score, match.id))


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


def update(host: Any, rows: Sequence[StoredRow]) -> Any:
    """Send what is stored beside text and vector of rows that are there."""
    return host.update(ids=[row.id for row in rows], metadatas=[row.metadata for row in rows])


def _take(best: TopK, answer: Mapping[str, Any], rest: Mapping[str, Scalar]) -> None:
    """Look at a page of vectors, those apart that Chroma could not leave out."""
    ids, vectors = answer["ids"], np.asarray(answer["embeddings"])
    if rest:
        passing = [
            position
            for position, metadata in enumerate(answer["metadatas"])
            if matches(to_metadata(metadata or {}), rest)
        ]
        ids, vectors = [ids[position] for position in passing], vectors[passing]
    best.add(ids, vectors)


def _stored(row: Row, before: Mapping[str, Mapping[str, Any] | None]) -> StoredRow:
    return StoredRow(row.record.id, row.record.text, _replacing(row, before), row.vector)


def _replacing(row: Row, before: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return a row's metadata; Chroma merges, so what is there no longer is said to be None."""
    now = row_metadata(row)
    stored = before.get(row.record.id) or {}
    gone = {key: None for key in stored if key not in now}
    if row.vector is None:  # the vector stays, and with it what is said of it
        gone.pop(VECTOR_HEAD, None)
    return {**gone, **now}


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
