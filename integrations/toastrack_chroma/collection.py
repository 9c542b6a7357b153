"""A Chroma collection that is open: what is written to it and read from it, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toastrack.distinct import Distinct
from toastrack.exact import Best
from toastrack.filters import Scalar, matches
from toastrack.records import Match, Record, text_hash
from toastrack.space import EmbeddingSpace
from toastrack.steps import Ask, Steps
from toastrack.writing import Row, State, Write
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
from toastrack_chroma.where import all_of, native_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

Where = Mapping[str, Any]
FullRow = tuple[Row, dict[str, Any]]
"""A row and what is stored beside its text and vector."""
Item = TypeVar("Item")

# Ids and documents asked for at a time: Chroma puts each into a variable of sqlite's, of which
# there are 32,766. Vectors come in smaller pages, because they come as float64.
_PAGE = 5_000
_VECTOR_PAGE = 2_000
# The server refuses requests over 40 MiB (its setting max_payload_size_bytes).
_MAX_BYTES = 24 * 2**20


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

    def states(self, records: Sequence[Record], max_tokens: int) -> Steps[dict[str, State]]:
        """Say how each record compares to what is stored under its id."""
        for record in records:
            check_record(record)
        stored = yield from self._metadatas([record.id for record in records])
        result: dict[str, State] = {}
        for record in records:
            row = stored.get(record.id)
            if record.id not in stored:
                continue
            if (row or {}).get(TEXT_HASH) != text_hash(record, max_tokens).hex():
                result[record.id] = "changed"
            else:
                result[record.id] = "unchanged" if same_rest(row or {}, record) else "metadata"
        return result

    def write(self, portion: Write) -> Steps[tuple[int, int]]:
        """Write new rows, then the others' metadata; what is stale goes last."""
        changed = [*portion.rows, *portion.metadata_rows]
        before = yield from self._metadatas([row.record.id for row in changed])
        rows = [(row, _replacing(row, before)) for row in portion.rows]
        for page in self.pages(rows):
            yield Ask(partial(upsert, self.host, page))
        rows = [(row, _replacing(row, before)) for row in portion.metadata_rows]
        for page in self.pages(rows):
            yield Ask(
                partial(
                    self.host.update,
                    ids=[row.record.id for row, _ in page],
                    metadatas=[metadata for _, metadata in page],
                )
            )
        kept = {id for ids in portion.keep.values() for id in ids}
        there = yield from self._ids_of_documents(list(portion.keep))
        deleted = yield from self._delete([id for id in there if id not in kept])
        return len(changed), deleted

    def pages(self, rows: Iterable[FullRow]) -> Iterator[list[FullRow]]:
        """Cut rows where the host's limit of rows or of a request's bytes would be passed."""
        page: list[FullRow] = []
        size = 0
        for row, metadata in rows:
            bytes_of_row = self._bytes(row, metadata)
            if page and (len(page) >= self.max_rows or size + bytes_of_row > _MAX_BYTES):
                yield page
                page, size = [], 0
            page.append((row, metadata))
            size += bytes_of_row
        if page:
            yield page

    def _bytes(self, row: Row, metadata: Metadata) -> int:
        """Guess a row's size on the wire from above: a letter takes up to 6 bytes in JSON."""
        letters = sum(len(key) + len(str(value)) for key, value in metadata.items())
        letters += len(row.record.id) + len(row.record.text)
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
        self, after: tuple[Distinct, str] | None
    ) -> Steps[tuple[list[str], tuple[Distinct, str] | None]]:
        """Return the next documents' ids; all are read first, as pages shift when rows go."""
        if after is None:
            seen, last = (yield from self._documents()), None
        else:
            seen, last = after
        page = seen.page(last, _PAGE)
        return page, (seen, page[-1]) if len(page) == _PAGE else None

    def _documents(self) -> Steps[Distinct]:
        seen = Distinct()
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
        best = Best(vector, k)
        offset = 0
        include = ["embeddings", "metadatas"] if rest else ["embeddings"]
        while True:
            answer = yield Ask(
                partial(self.host.get, limit=_VECTOR_PAGE, offset=offset, include=include, **chosen)
            )
            ids, vectors = answer["ids"], np.asarray(answer["embeddings"])
            if rest:
                passing = [
                    position
                    for position, metadata in enumerate(answer["metadatas"])
                    if matches(to_metadata(metadata or {}), rest)
                ]
                best.add([ids[position] for position in passing], vectors[passing])
            else:
                best.add(ids, vectors)
            if len(ids) < _VECTOR_PAGE:
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


def upsert(host: Any, rows: Sequence[FullRow]) -> Any:
    """Send rows to a collection of Chroma's."""
    return host.upsert(
        ids=[row.record.id for row, _ in rows],
        # Chroma checks a list of lists number by number and takes float32 rows as they are.
        embeddings=[row.vector for row, _ in rows],
        documents=[row.record.text for row, _ in rows],
        metadatas=[metadata for _, metadata in rows],
    )


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


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
