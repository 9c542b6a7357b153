"""What the store does, step by step, without I/O: the one body of its sync and async faces.

Each operation is a generator. It yields a ``Query`` and is sent the rows; the store that drives
it owns the connection and does nothing but execute. An error of the database is thrown into the
generator, so an operation can add the reader's next step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from psycopg import errors, sql

from toastrack.embedder import Embedder
from toastrack.errors import SpaceMismatchError, StoreError, UnsupportedError
from toastrack.filters import Scalar
from toastrack.records import Match, Record, text_hash
from toastrack.space import EmbeddingSpace, check_same_space, missing_space
from toastrack.writing import Row, State, Write
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
T = TypeVar("T")

# https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md: iterative scans came with 0.8
_MIN_PGVECTOR = (0, 8)
# https://github.com/pgvector/pgvector#hnsw
_MAX_HNSW_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}
_MIN_EF_SEARCH, _MAX_EF_SEARCH = 40, 1_000
_FILTERED_EF_SEARCH = 400
_COMMENT_MARK = "toastrack "
_PAGE = 10_000


@dataclass(frozen=True)
class Query:
    """One statement for the store to execute."""

    statement: str | sql.Composable
    parameters: Parameters = ()
    savepoint: bool = False
    """A failure must leave the surrounding transaction usable."""


@dataclass(frozen=True)
class Call:
    """Work that is slow and not SQL, such as finding the model: never on an event loop."""

    function: Callable[[], Any]


Steps = Generator[Query | Call, Any, T]


@dataclass(frozen=True)
class Settings:
    """What the user said about the table."""

    table: str
    schema: str | None
    create: bool
    adopt: bool
    storage: VectorType

    @property
    def label(self) -> str:
        """The table as people write it."""
        return f"{self.schema}.{self.table}" if self.schema else self.table


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


# -- opening ------------------------------------------------------------------------------------


def open_table(settings: Settings, embedder: Embedder) -> Steps[Table]:
    """Find the table, creating it if that was allowed, and read what it says of itself."""
    extension_schema = yield from _extension(settings)
    found = yield from _find(settings)
    changed = False
    if found is None:
        if not settings.create:
            raise StoreError(
                f"There is no table {settings.label!r}. Open it with create=True, or ingest first."
            )
        space = yield Call(lambda: embedder.space)
        yield Query(statements.CREATION_LOCK)
        found = yield from _find(settings)
        if found is None:
            yield from _create(settings, space, extension_schema)
            found = yield from _find(settings)
            changed = True
    if found is None:
        raise StoreError(f"Table {settings.label!r} was created and is not visible. Give schema=.")
    table = yield from _read_table(settings, found, extension_schema)
    table.changed = changed
    return table


def check_space(table: Table, embedder: Embedder) -> Steps[None]:
    """Compare the recorded space with the embedder's, recording it where the table is empty."""
    ours: EmbeddingSpace = yield Call(lambda: embedder.space)
    where = f"Table {table.label!r}"
    if table.stored is not None:
        check_same_space(table.stored, ours, where=where)
    if table.dimensions != ours.dimensions:
        raise SpaceMismatchError(
            f"{where} stores {table.dimensions}-d vectors and {ours.model!r} makes "
            f"{ours.dimensions}-d. Open it with the model it was built with, or use a new table.",
            ours=ours,
            differences={"dimensions": (table.dimensions, ours.dimensions)},
        )
    if table.stored is None:
        yield Query(statements.CREATION_LOCK)
        comment = yield from _comment(table.oid)
        table.stored = _space_in(comment, table.label)
        if table.stored is not None:  # somebody was faster
            check_same_space(table.stored, ours, where=where)
        else:
            ((empty,),) = yield Query(table.statements.is_empty)
            if not empty and not table.adopt:
                raise missing_space(ours, where=where)
            yield Query(table.statements.comment(_with_space(comment, ours)))
            table.stored = ours
            table.changed = True
    table.checked = True


def read_space(settings: Settings) -> Steps[EmbeddingSpace | None]:
    """Return the space that a table recorded; None if there is no table or it recorded none."""
    found = yield from _find(settings)
    if found is None:
        return None
    return _space_in((yield from _comment(found[1])), settings.label)


def _comment(oid: int) -> Steps[str | None]:
    """Read the comment on the embedding column; None if there is neither."""
    columns = yield Query(statements.TABLE_COLUMNS, [oid])
    return next((row[4] for row in columns if row[0] == "embedding"), None)


def _extension(settings: Settings) -> Steps[str]:
    rows = yield Query(statements.EXTENSION)
    if not rows and settings.create:
        yield Query(statements.CREATION_LOCK)
        try:
            yield Query(statements.CREATE_EXTENSION, savepoint=True)
        except errors.InsufficientPrivilege:
            raise StoreError(
                "The extension pgvector is not in this database and this user may not create it. "
                "Have a superuser run: CREATE EXTENSION vector"
            ) from None
        except (errors.UndefinedFile, errors.FeatureNotSupported):
            raise StoreError(
                "This Postgres server has no pgvector. Install it there "
                "(https://github.com/pgvector/pgvector#installation), or use the embedded server."
            ) from None
        rows = yield Query(statements.EXTENSION)
    if not rows:
        raise StoreError("The extension pgvector is not in this database: CREATE EXTENSION vector")
    ((version, schema),) = rows
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _MIN_PGVECTOR:
        raise StoreError(
            f"pgvector {version} is installed and 0.8 or newer is needed, for filtered searches "
            "that return all they should. Install it on the server and run: "
            "ALTER EXTENSION vector UPDATE"
        )
    return cast(str, schema)


def _find(settings: Settings) -> Steps[tuple[Any, ...] | None]:
    rows = yield Query(statements.FIND_TABLE, {"table": settings.table, "schema": settings.schema})
    if rows and rows[0][2] not in ("r", "p"):
        raise StoreError(f"{settings.label!r} is a view or foreign table. Give an ordinary table.")
    return rows[0] if rows else None


def _create(settings: Settings, space: EmbeddingSpace, extension_schema: str) -> Steps[None]:
    schema = settings.schema
    if schema is None:
        ((schema,),) = yield Query(statements.CURRENT_SCHEMA)
        if schema is None:
            raise StoreError("This user's search_path names no schema that exists. Give schema=.")
    known = Statements(schema=schema, table=settings.table, extension_schema=extension_schema)
    if settings.schema is not None:
        rows = yield Query("select 1 from pg_namespace where nspname = %s", [schema])
        if not rows:
            yield Query(known.create_schema)
    yield Query(known.create_table(settings.storage, space.dimensions))
    yield Query(known.create_document_index)
    yield Query(known.comment(_with_space(None, space)))


def _read_table(settings: Settings, found: tuple[Any, ...], extension_schema: str) -> Steps[Table]:
    schema, oid, _ = found
    label = f"{schema}.{settings.table}"
    columns = {row[0]: row for row in (yield Query(statements.TABLE_COLUMNS, [oid]))}
    missing = [
        f"{name} {kinds[0]}" for name, kinds in statements.COLUMNS.items() if name not in columns
    ]
    if missing:
        raise StoreError(
            f"Table {label!r} exists and lacks the columns {', '.join(missing)}. Add them, or "
            "choose another table name."
        )
    wrong = [
        f"{name} is {columns[name][1]} and must be {' or '.join(kinds)}"
        for name, kinds in statements.COLUMNS.items()
        if columns[name][1].rpartition(".")[2] not in kinds
    ]
    if wrong:
        raise StoreError(f"Table {label!r}: its column {', its column '.join(wrong)}.")
    _, _, kind, dimensions, comment = columns["embedding"]
    if dimensions < 1:
        raise StoreError(
            f"Table {label!r}: its column embedding is {kind} without a size, not {kind}(n)."
        )
    ((unique,),) = yield Query(statements.HAS_UNIQUE_ID, [oid])
    if not unique:
        raise StoreError(f"Table {label!r}: its column id is not unique. Make it the primary key.")
    types = {row[0]: row for row in (yield Query(statements.VECTOR_TYPES, [extension_schema]))}
    return Table(
        statements=Statements(
            schema=schema, table=settings.table, extension_schema=extension_schema
        ),
        oid=oid,
        kind=kind,
        dimensions=dimensions,
        vector_oid=types[kind][1],
        vector_array_oid=types[kind][2],
        label=label,
        stored=_space_in(comment, label),
        adopt=settings.adopt,
    )


def _space_in(comment: str | None, label: str) -> EmbeddingSpace | None:
    for line in (comment or "").split("\n"):
        if line.startswith(_COMMENT_MARK):
            try:
                return EmbeddingSpace.from_dict(json.loads(line.removeprefix(_COMMENT_MARK)))
            except (ValueError, TypeError) as error:
                raise StoreError(
                    f"Table {label!r}: the comment on its column embedding is damaged ({error}). "
                    "Restore it, or remove its line that starts with 'toastrack' and open the "
                    "table with adopt=True."
                ) from None
    return None


def _with_space(comment: str | None, space: EmbeddingSpace) -> str:
    """Keep what people wrote into the comment and add our line."""
    lines = [line for line in (comment or "").split("\n") if not line.startswith(_COMMENT_MARK)]
    lines = lines if any(lines) else []
    lines.append(_COMMENT_MARK + json.dumps(space.to_dict(), sort_keys=True))
    return "\n".join(lines)


# -- writing ------------------------------------------------------------------------------------


def states(table: Table, records: Sequence[Record], max_tokens: int) -> Steps[dict[str, State]]:
    """Say how each record compares to what is stored under its id."""
    for record in records:
        check_record(record)
    if not records:
        return {}
    rows = yield Query(
        table.statements.states,
        {
            "ids": [record.id for record in records],
            "hashes": [text_hash(record, max_tokens) for record in records],
            **_rest(records),
        },
    )
    result: dict[str, State] = {}
    for position, same_text, same_rest in rows:
        if not same_text:
            state: State = "changed"
        else:
            state = "unchanged" if same_rest else "metadata"
        result[records[position].id] = state
    return result


def write(table: Table, portion: Write) -> Steps[tuple[int, int]]:
    """Write one portion; return how many rows were written and how many went."""
    deleted = updated = 0
    if portion.keep or portion.metadata_rows:
        written = [*portion.rows, *portion.metadata_rows]
        yield Query(
            table.statements.lock,
            {"ids": [row.record.id for row in written], "documents": _storable(portion.keep)},
        )
    if portion.keep:
        rows = yield Query(
            table.statements.delete_stale,
            {
                "documents": _storable(portion.keep),
                "keep": [record_id for ids in portion.keep.values() for record_id in ids],
            },
        )
        deleted = _affected(rows)
    if portion.metadata_rows:
        records = [row.record for row in portion.metadata_rows]
        rows = yield Query(
            table.statements.update_metadata,
            {
                "ids": [record.id for record in records],
                "hashes": [row.text_hash for row in portion.metadata_rows],
                **_rest(records),
            },
        )
        updated = _affected(rows)
    if portion.rows:
        yield Query(table.statements.upsert, _upsert_parameters(table, portion.rows))
    return len(portion.rows) + updated, deleted


def delete(
    table: Table, ids: Collection[str] | None, documents: Collection[str] | None
) -> Steps[int]:
    """Delete rows by id and whole documents; return how many went."""
    rows = yield Query(
        table.statements.delete,
        {"ids": _storable(ids or ()), "documents": _storable(documents or ())},
    )
    return _affected(rows)


def _upsert_parameters(table: Table, rows: Sequence[Row]) -> dict[str, Any]:
    records = [row.record for row in rows]
    vectors = [row.vector for row in rows if row.vector is not None]
    return {
        "ids": [record.id for record in records],
        "texts": [record.text for record in records],
        "hashes": [row.text_hash for row in rows],
        "vectors": VectorArrayParameter(
            vectors, table.kind, oid=table.vector_oid, array_oid=table.vector_array_oid
        ),
        **_rest(records),
    }


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


# -- reading ------------------------------------------------------------------------------------


def search(
    table: Table,
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
        "toastrack_query": VectorParameter(vector, table.kind, table.vector_oid),
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
        rows = yield Query(table.statements.search(conditions, exact=False), values)
        if len(rows) < k:
            # Without an index that answer was exact already.
            indexes = yield Query(statements.VECTOR_INDEXES, [table.oid])
            exact = bool(indexes)
    if exact:
        rows = yield Query(table.statements.search(conditions, exact=True), values)
    matches = [
        Match(id, text, float(score), json.loads(metadata or "{}"), document, chunk)
        for id, text, metadata, document, chunk, score in rows
        # A row of zeros has no cosine. It stands behind all others, and is in no HNSW index.
        if not math.isnan(score)
    ]
    # A relaxed index scan may swap neighbours; equal scores stand in the order of their ids.
    return sorted(matches, key=lambda match: (-match.score, match.id))


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


def get(table: Table, ids: Sequence[str]) -> Steps[list[Record | None]]:
    """Return records in the order asked."""
    rows = yield Query(table.statements.get, {"ids": _storable(set(ids))})
    found = {
        id: Record(id, text, json.loads(metadata or "{}"), document_id=document, chunk=chunk)
        for id, text, metadata, document, chunk in rows
    }
    return [found.get(id) for id in ids]


def count(table: Table, documents: bool) -> Steps[int]:
    """Count rows or documents."""
    ((number,),) = yield Query(table.statements.count(documents))
    return int(number)


def document_page(table: Table, after: str | None) -> Steps[list[str]]:
    """Return the next documents' ids behind ``after``; empty at the end."""
    rows = yield Query(table.statements.document_ids, {"after": after, "limit": _PAGE})
    return [row[0] for row in rows]


# -- the index ----------------------------------------------------------------------------------


def build_index(
    table: Table, *, m: int, ef_construction: int, memory: str | None, concurrently: bool
) -> Steps[bool]:
    """Build the HNSW index unless it is there; of two who build at once, one does.

    A concurrent build runs outside of a transaction: ``table`` must be settled, and what the
    session is given it gives back.
    """
    check_index(table)
    local = not concurrently
    take = statements.TRY_BUILD_LOCK if local else statements.TRY_SESSION_BUILD_LOCK
    # Waiting inside one statement would hold a snapshot that a concurrent build waits for.
    while not (yield Query(take, [table.oid]))[0][0]:
        yield Query("select pg_sleep(0.1)")
    try:
        built = yield from _build_index(
            table, m=m, ef_construction=ef_construction, memory=memory, concurrently=concurrently
        )
    except BaseException:
        if concurrently:  # else the transaction gives it back
            yield Query(statements.SESSION_BUILD_UNLOCK, [table.oid])
        raise
    if concurrently:
        yield Query(statements.SESSION_BUILD_UNLOCK, [table.oid])
    return built


def check_index(table: Table) -> None:
    """Raise ``UnsupportedError`` for a table that no index can be built on."""
    limit = _MAX_HNSW_DIMENSIONS[table.kind]
    if table.dimensions > limit:
        raise UnsupportedError(
            f"pgvector's HNSW index takes {table.kind} of up to {limit} dimensions and table "
            f"{table.label!r} has {table.dimensions}. Use Embedder(..., dimensions=) for fewer, "
            "or search without an index (--no-index)."
        )


def _build_index(
    table: Table, *, m: int, ef_construction: int, memory: str | None, concurrently: bool
) -> Steps[bool]:
    indexes = yield Query(statements.VECTOR_INDEXES, [table.oid])
    operators = f"{table.kind}_cosine_ops"
    if any(valid and found == operators for _, valid, _, _, found in indexes):
        return False
    for name, valid, in_progress, method, _ in indexes:
        if in_progress:
            raise StoreError(f"Index {name!r} is being built by another session. Wait for it.")
        if not valid and method == "hnsw":
            # "create index if not exists" would take a broken index for a good one.
            yield Query(table.statements.drop_index(name))
    local = not concurrently
    ((timeout, memory_before, *_),) = yield Query(
        statements.INDEX_BUILD_SETTINGS, {"local": local, "memory": memory}
    )
    restore = Query(statements.RESTORE_SETTINGS, [timeout, local, memory_before, local])
    try:
        yield Query(
            table.statements.create_hnsw_index(
                table.kind, m=m, ef_construction=ef_construction, concurrently=concurrently
            )
        )
    except BaseException:
        if concurrently:  # else the transaction takes the settings back itself
            yield restore
        raise
    yield restore
    return True
