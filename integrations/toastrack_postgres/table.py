"""A table that is open: what is written to it and read from it, step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from toastrack.filters import Scalar
from toastrack.records import Match, Record
from toastrack.space import EmbeddingSpace
from toastrack.stores.plan import Row, Status, WriteBatch
from toastrack.stores.steps import Steps
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import (
    VectorArrayParameter,
    VectorParameter,
    VectorType,
    check_record,
    dump_json,
)
from toastrack_postgres.sql import Statements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rows = Sequence[tuple[Any, ...]]
Parameters = Mapping[str, Any] | Sequence[Any]

_MIN_EF_SEARCH, _MAX_EF_SEARCH = 40, 1_000
_FILTERED_EF_SEARCH = 400
_PAGE = 10_000
# Rows in one statement: enough to make it cheap, few enough that the server soon has work.
_PART = 64


@dataclass(frozen=True)
class Query:
    """One statement for the store to execute."""

    statement: str | sql.Composable
    parameters: Parameters = ()
    savepoint: bool = False
    """A failure must leave the surrounding transaction usable."""


@dataclass(frozen=True)
class Queries:
    """One statement for several parameters, which are taken while the server works on earlier ones."""

    statement: sql.Composed
    parameters: Iterable[Parameters]


@dataclass
class Table:
    """What is known of the table once it is open."""

    statements: Statements
    oid: int
    kind: VectorType
    dimensions: int
    vector_oid: int
    vector_array_oid: int
    label: str
    stored: EmbeddingSpace | None
    adopt: bool
    checked: bool = False
    """Its space is known to be the embedder's."""
    changed: bool = False
    """It was created, or a space recorded, since it was looked up."""
    unsettled: bool = False
    """That happened in a transaction of the caller's, who may yet roll it back."""

    def states(self, rows: Sequence[Row]) -> Steps[dict[str, Status]]:
        """Say how each row compares to what is stored under its id."""
        for row in rows:
            check_record(row.record)
        if not rows:
            return {}
        stored = yield Query(self.statements.states, {"ids": [row.record.id for row in rows]})
        result: dict[str, Status] = {rows[position].record.id: "changed" for position, _ in stored}
        same_text = [
            rows[position].record
            for position, text_hash in stored
            if text_hash == rows[position].text_hash
        ]
        if same_text:
            # Asked apart, as a first load would pay for what no row is compared with.
            result.update((record.id, "metadata") for record in same_text)
            same = yield Query(
                self.statements.same_rest,
                {"ids": [record.id for record in same_text], **_rest(same_text)},
            )
            result.update((same_text[position].id, "unchanged") for (position,) in same)
        return result

    def write(self, portion: WriteBatch) -> Steps[tuple[int, int]]:
        """Write one portion; return how many rows were written and how many went."""
        deleted = updated = 0
        if portion.keep or portion.metadata_rows:
            written = [*portion.rows, *portion.metadata_rows]
            yield Query(
                self.statements.lock,
                {"ids": [row.record.id for row in written], "documents": _storable(portion.keep)},
            )
        if portion.keep:
            rows = yield Query(
                self.statements.delete_stale,
                {
                    "documents": _storable(portion.keep),
                    "keep": [record_id for ids in portion.keep.values() for record_id in ids],
                },
            )
            deleted = _affected(rows)
        if portion.metadata_rows:
            records = [row.record for row in portion.metadata_rows]
            rows = yield Query(
                self.statements.update_metadata,
                {
                    "ids": [record.id for record in records],
                    "hashes": [row.text_hash for row in portion.metadata_rows],
                    **_rest(records),
                },
            )
            updated = _affected(rows)
        if portion.rows:
            # Sorted as the statement does, or the parts of two writers could deadlock.
            rows = sorted(portion.rows, key=lambda row: row.record.id)
            parts = (rows[start : start + _PART] for start in range(0, len(rows), _PART))
            yield Queries(self.statements.upsert, map(self._upsert_parameters, parts))
        return len(portion.rows) + updated, deleted

    def delete(self, ids: Sequence[str], documents: Sequence[str]) -> Steps[int]:
        """Delete rows by id and whole documents; return how many went."""
        rows = yield Query(
            self.statements.delete, {"ids": _storable(ids), "documents": _storable(documents)}
        )
        return _affected(rows)

    def _upsert_parameters(self, rows: Sequence[Row]) -> dict[str, Any]:
        records = [row.record for row in rows]
        vectors = [row.vector for row in rows if row.vector is not None]
        return {
            "ids": [record.id for record in records],
            "texts": [record.text for record in records],
            "hashes": [row.text_hash for row in rows],
            "vectors": VectorArrayParameter(
                vectors, self.kind, oid=self.vector_oid, array_oid=self.vector_array_oid
            ),
            **_rest(records),
        }

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Mapping[str, Scalar],
        where: sql.Composable | None,
        parameters: Mapping[str, Any],
        exact: bool,
    ) -> Steps[list[Match]]:
        """Return the best ``min(k, matching)`` rows; asked again exactly if an index gave fewer."""
        conditions: list[sql.Composable] = []
        values: dict[str, Any] = {
            **parameters,
            "toastrack_query": VectorParameter(vector, self.kind, self.vector_oid),
            "toastrack_k": k,
        }
        if "\0" in "".join([*filter, *map(str, filter.values())]):
            return []  # no row can hold it
        if filter:
            conditions.append(sql.SQL("metadata @> %(toastrack_filter)s::jsonb"))
            values["toastrack_filter"] = dump_json(filter)
        if where is not None:
            conditions.append(sql.SQL("({})").format(where))
        if not exact:
            yield Query(statements.SEARCH_SETTINGS, _search_settings(k, filtered=bool(conditions)))
            rows = yield Query(self.statements.search(conditions, exact=False), values)
            if len(rows) < k:
                # Without an index that answer was exact already.
                indexes = yield Query(statements.VECTOR_INDEXES, [self.oid])
                exact = bool(indexes)
        if exact:
            rows = yield Query(self.statements.search(conditions, exact=True), values)
        matches = [
            Match(id, text, float(score), json.loads(metadata or "{}"), document, chunk)
            for id, text, metadata, document, chunk, score in rows
            # A row of zeros has no cosine. It stands behind all others, and is in no HNSW index.
            if not math.isnan(score)
        ]
        # A relaxed index scan may swap neighbours; equal scores stand in the order of their ids.
        return sorted(matches, key=lambda match: (-match.score, match.id))

    def get(self, ids: Sequence[str]) -> Steps[list[Record | None]]:
        """Return records in the order asked."""
        rows = yield Query(self.statements.get, {"ids": _storable(set(ids))})
        found = {
            id: Record(id, text, json.loads(metadata or "{}"), document_id=document, chunk=chunk)
            for id, text, metadata, document, chunk in rows
        }
        return [found.get(id) for id in ids]

    def count(self, documents: bool) -> Steps[int]:
        """Count rows or documents."""
        ((number,),) = yield Query(self.statements.count(documents))
        return int(number)

    def document_page(self, after: str | None) -> Steps[tuple[list[str], str | None]]:
        """Return the next documents' ids behind ``after``, in the order of their bytes."""
        rows = yield Query(self.statements.document_ids, {"after": after, "limit": _PAGE})
        page = [row[0] for row in rows]
        return page, page[-1] if len(page) == _PAGE else None


def _rest(records: Sequence[Record]) -> dict[str, list[Any]]:
    return {
        "documents": [record.document for record in records],
        "chunks": [record.chunk for record in records],
        "metadata": [dump_json(record.metadata) for record in records],
    }


def _storable(ids: Collection[str]) -> list[str]:
    """Leave out ids that no row can have: Postgres would refuse the whole statement."""
    return [id for id in ids if "\0" not in id and not any("\ud800" <= c <= "\udfff" for c in id)]


def _affected(rows: Rows) -> int:
    """The store answers a statement that returns no rows with the number it touched."""
    return int(rows[0][0])


def _search_settings(k: int, *, filtered: bool) -> list[str]:
    """Return ef_search and iterative_scan.

    Behind a filter only the rows nearest to the query are trusted, and where too few of them
    match, the exact search follows. Letting the index go on instead finds rows, but not the best:
    where the matching rows lie apart from the query, recall@10 fell below .8 and to nothing, and
    it took longer than an exact search (benchmarks/filters.py).
    """
    if filtered:
        return [str(min(max(_FILTERED_EF_SEARCH, 10 * k), _MAX_EF_SEARCH)), "off"]
    return [str(min(max(_MIN_EF_SEARCH, k), _MAX_EF_SEARCH)), "relaxed_order"]
