"""A Postgres table: every statement that is sent to find, fill and ask it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zlib import crc32

import psycopg
from psycopg import errors, sql

from toastrack import EmbeddingSpace, Match, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import (
    BackendBase,
    CollectionChangedError,
    Description,
    Filter,
    OnProgress,
    Retry,
    Row,
    Runtime,
    Span,
    Status,
    StoredSource,
    TextHits,
    TextQuery,
    Trial,
    WriteBatch,
    WriteResult,
    check_usable,
    parsed,
)
from toastrack_postgres import index, text_index, text_search, vector_index
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import (
    VectorParameter,
    VectorType,
    check_record,
    vector_of,
)
from toastrack_postgres.columns import Column, Columns, Found, Layout, layout_of
from toastrack_postgres.columns import find as find_columns
from toastrack_postgres.connections import Connections, Use
from toastrack_postgres.filters import Where
from toastrack_postgres.index_kinds import Indexed, Kind, read_indexes
from toastrack_postgres.index_memory import FullMemory
from toastrack_postgres.one_trip import OneTripSession
from toastrack_postgres.packing import Packer, parts
from toastrack_postgres.progress import reporting
from toastrack_postgres.reconnecting import Outage
from toastrack_postgres.search_plan import (
    SearchOptions,
    SearchPlan,
    check_ef_search,
    no_such_index,
    planned,
    trials,
)
from toastrack_postgres.session import Asked, Parameters, Rows, Session, is_inside_transaction
from toastrack_postgres.space_comment import recorded_in, with_recorded
from toastrack_postgres.sql import Statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

# How often a transaction is run again that another writer's made impossible.
RETRIES = 5
_CONFLICT_SECONDS = 0.02

# How often a build asks whether another session's is done.
_SECONDS_BETWEEN_TRIES = 0.1

# https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md: iterative scans came with 0.8
_MIN_PGVECTOR = (0, 8)

_INSTEAD = (
    "Or choose another table name. A table of your own that you search in SQL takes a column of vectors "
    "with register_embedder() (docs/guides/sql.md); one that something else filled is read with "
    "columns= (docs/guides/postgres.md)."
)

_PAGE = 10_000
_VECTOR_PAGE = 1_000
# Of a table, for a sample of it.
_SAMPLED_PAGES = 1_000
# Fewer rows are not worth a COPY.
_COPIED = 64
# Advisory locks that all documents of a table share.
_BUCKETS = 256


class _Seen(NamedTuple):
    """The indexes of the vectors when they were last looked at."""

    mark: str | None = None
    """What the server said of those that are valid; another one when that changes."""
    usable: tuple[Indexed, ...] = ()
    any: bool = False


class PostgresBackend(BackendBase):
    """One table. An operation is one transaction, which is run again if the server went away."""

    kind = "Table"

    def __init__(
        self,
        given: Any,
        table: str,
        *,
        schema: str | None = None,
        create: bool = False,
        storage: VectorType = "halfvec",
        ef_search: int | None = None,
        columns: Columns | None = None,
    ) -> None:
        check_ef_search(ef_search)
        if storage not in ("halfvec", "vector"):
            raise ValueError(f"storage={storage!r} is not 'halfvec' or 'vector'.")
        self._given = given
        self._table = statements.check_name("Table", table)
        self._schema = None if schema is None else statements.check_name("Schema", schema)
        self._layout = None if columns is None else layout_of(columns)
        self._columns: Found | None = None
        self._has_size = True
        self._may_create = create
        self._new_storage: VectorType = storage
        self._ef_search = ef_search
        self._seen = _Seen()
        self._asks_words = False
        self._words = text_index.TextIndexes()
        self.given_label = f"{schema}.{table}" if schema else table
        """The table as the user wrote it."""
        self.label = self.given_label

    @property
    def runtime(self) -> Runtime:
        """How it waits."""
        return self._runtime

    @runtime.setter
    def runtime(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._connections = Connections(runtime, self._given)
        self.callers_connection = self._connections.is_callers

    # -- the table ------------------------------------------------------------------------------

    async def find(self, session: Session) -> bool:
        """Look for extension and table, and read what the table says of itself."""
        # What was created in a transaction of the caller's may be rolled back until that ends.
        self.uncommitted = self.uncommitted and session.inside
        extension_schema = await self._find_extension(session)
        if extension_schema is None and self._may_create:
            return False
        name = {"table": self._table, "schema": self._schema}
        rows = await session.execute(statements.FIND_TABLE, name)
        if not rows:
            return False
        if extension_schema is None:
            raise StoreError(
                "The extension pgvector is not in this database: CREATE EXTENSION vector"
            )
        schema, oid, kind = rows[0]
        if kind not in ("r", "p"):
            raise StoreError(
                f"{self.given_label!r} is a view or foreign table. Give an ordinary table."
            )
        await self._read_table(session, schema, oid, extension_schema)
        return True

    async def create(self, session: Session, space: EmbeddingSpace) -> None:
        """Create extension, schema and table, where they are missing."""
        if self._layout is not None:
            raise UnsupportedError(
                f"There is no table {self.given_label!r}. columns= is for one that is there; "
                "without it a table of ours is created."
            )
        await session.execute(statements.CREATION_LOCK)
        if await self.find(session):
            return  # somebody was faster
        extension_schema = await self._create_extension(session)
        schema = self._schema
        if schema is None:
            ((schema,),) = await session.execute(statements.CURRENT_SCHEMA)
            if schema is None:
                raise StoreError(
                    "This user's search_path names no schema that exists. Give schema=."
                )
        known = Statements(schema=schema, table=self._table, extension_schema=extension_schema)
        if self._schema is not None:
            query = "select 1 from pg_namespace where nspname = %s"
            if not await session.execute(query, [schema]):
                await session.execute(known.create_schema)
        await session.execute(known.create_table(self._new_storage, space.dimensions))
        await session.execute(known.create_document_index)
        comment = with_recorded(None, space, self.writes_format)
        await session.execute(known.comment(comment))
        self.uncommitted = session.inside
        if not await self.find(session):
            raise StoreError(
                f"Table {self.given_label!r} was created and is not visible. Give schema=."
            )

    async def record_space(self, session: Session, space: EmbeddingSpace) -> None:
        """Put the space into the comment on the embedding column, unless another one is there."""
        comment = await self._read_comment(session)
        if self.space in (None, space):
            await self._record(session, comment, space)

    def needs_bring_up(self, batch: WriteBatch) -> bool:
        """Tell whether a source is to be kept, too, and there is no column for it yet."""
        return super().needs_bring_up(batch) or (
            self._may_add_source
            and any(row.source is not None for row in (*batch.rows, *batch.metadata_rows))
        )

    async def bring_up(self, session: Session) -> None:
        """Put the newer format into the comment and add what is missing, where this user may."""
        ((may_alter,),) = await session.execute(statements.MAY_ALTER, [self._oid])
        if not may_alter:
            self._may_add_source = False
            return
        comment = await self._read_comment(session)
        if self.space is not None and self.format < self.writes_format:
            await self._record(session, comment, self.space)
        if self._may_add_source:
            await session.execute(self._statements.add_source)
            self._has_source, self._may_add_source = True, False
            self.uncommitted = self.uncommitted or session.inside

    async def _read_comment(self, session: Session) -> str | None:
        """Return the comment that nobody else changes until the transaction ends."""
        await session.execute(statements.CREATION_LOCK)
        columns = await session.execute(statements.TABLE_COLUMNS, [self._oid])
        name = self._statements.embedding_column
        comment: str | None = next((row[4] for row in columns if row[0] == name), None)
        self.space, self.format = recorded_in(comment, self.label, name)
        self._comment = comment
        return comment

    async def _record(self, session: Session, comment: str | None, space: EmbeddingSpace) -> None:
        changed = with_recorded(comment, space, self.writes_format)
        await session.execute(self._statements.comment(changed))
        self.space, self.format, self._comment = space, self.writes_format, changed
        self.uncommitted = self.uncommitted or session.inside

    async def is_empty(self, session: Session) -> bool:
        """Look for one row; counting would read them all."""
        ((empty,),) = await session.execute(self._statements.is_empty)
        return bool(empty)

    async def _find_extension(self, session: Session) -> str | None:
        """Return the schema of pgvector; None if it is missing."""
        rows = await session.execute(statements.EXTENSION)
        if not rows:
            return None
        version, schema = rows[0]
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < _MIN_PGVECTOR:
            raise StoreError(
                f"pgvector {version} is installed and 0.8 or newer is needed, for filtered "
                "searches that return all they should. Install it on the server and run: "
                "ALTER EXTENSION vector UPDATE"
            )
        return str(schema)

    async def _create_extension(self, session: Session) -> str:
        """Return the schema of pgvector, which is created if it is missing."""
        schema = await self._find_extension(session)
        if schema is not None:
            return schema
        try:
            async with session.savepoint():
                await session.execute(statements.CREATE_EXTENSION)
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
        schema = await self._find_extension(session)
        assert schema is not None
        return schema

    async def _read_table(
        self, session: Session, schema: str, oid: int, extension_schema: str
    ) -> None:
        if self._layout is not None:
            await self._read_others(session, self._layout, schema, oid, extension_schema)
            return
        label = f"{schema}.{self._table}"
        rows = await session.execute(statements.TABLE_COLUMNS, [oid])
        columns = {row[0]: row for row in rows}
        missing = [
            f"{name} {kinds[0]}"
            for name, kinds in statements.COLUMNS.items()
            if name not in columns
        ]
        problems = [f"it lacks the columns {', '.join(missing)}; add them"] if missing else []
        problems += [
            f"its column {name} is {columns[name][1]} and must be {' or '.join(kinds)}"
            for name, kinds in statements.COLUMNS.items()
            if name in columns and columns[name][1].rpartition(".")[2] not in kinds
        ]
        _, _, storage, dimensions, comment, number, *_ = columns.get(
            "embedding", ("", "", "", 1, None, 0)
        )
        if storage in statements.COLUMNS["embedding"] and dimensions < 1:
            problems.append(f"its column embedding is {storage} without a size, not {storage}(n)")
        ((unique, partitioned),) = await session.execute(statements.HAS_UNIQUE_ID, [oid, "id", oid])
        if "id" in columns and not unique and partitioned:
            problems.append(
                "it is partitioned by another column than id, so that Postgres cannot keep an id "
                "unique: partition by hash (id), or keep tenants apart by row-level security on one "
                "table, or with a table for each"
            )
        elif "id" in columns and not unique:
            problems.append("its column id is not unique; make it the primary key")
        check_usable(f"Table {label!r}", problems, instead=_INSTEAD)
        # A table from before there were sources, or one of somebody's who may call a column so.
        has_source = columns.get("source", ("", ""))[1] == "text"
        may_add_source = False
        if "source" not in columns:
            ((may_add_source,),) = await session.execute(statements.MAY_ALTER, [oid])
        await self._learn(session, schema, oid, extension_schema, storage, number, None)
        # COPY casts nothing.
        self._has_own_types = all(
            columns[name][2] == kind for name, kind in statements.CREATED_TYPES.items()
        )
        self._comment = comment
        self._has_source, self._may_add_source = has_source, bool(may_add_source)
        self.dimensions = dimensions
        self.space, self.format = recorded_in(comment, label)

    async def _read_others(
        self, session: Session, layout: Layout, schema: str, oid: int, extension_schema: str
    ) -> None:
        """Learn which columns of a table that something else made hold what a record has."""
        label = f"{schema}.{self._table}"
        rows = await session.execute(statements.TABLE_COLUMNS, [oid])
        columns = {row[0]: Column(row) for row in rows}
        id_column = layout.columns.get("id", "id")
        ((unique, _),) = await session.execute(statements.HAS_UNIQUE_ID, [oid, id_column, oid])
        found, problems = find_columns(layout, columns, unique=bool(unique))
        check_usable(f"Table {label!r}", problems, instead=_INSTEAD)
        at = columns[found.names["embedding"]]
        storage: VectorType = "halfvec" if at.type_name == "halfvec" else "vector"
        await self._learn(session, schema, oid, extension_schema, storage, at.number, found)
        dimensions = at.size
        self._has_size = dimensions > 0
        if dimensions < 1:  # a column without a size takes vectors of any
            sizes = await session.execute(self._statements.dimensions)
            check_usable(
                f"Table {label!r}",
                [] if sizes else [f"its column {at.name} has no size, and no vector"],
                instead=_INSTEAD,
            )
            dimensions = sizes[0][0]
        may_add_source = False
        if not found.read_only and "source" not in found.names and "source" not in columns:
            ((may_add_source,),) = await session.execute(statements.MAY_ALTER, [oid])
        self._comment = at.comment
        self._has_source = not found.read_only and "source" in found.names
        self._has_own_types = False  # COPY casts nothing, and knows our names alone
        self._may_add_source = bool(may_add_source)
        self.dimensions = dimensions
        self.space, self.format = recorded_in(at.comment, label, at.name)

    async def _learn(
        self,
        session: Session,
        schema: str,
        oid: int,
        extension_schema: str,
        storage: VectorType,
        number: int,
        columns: Found | None,
    ) -> None:
        types = await session.execute(statements.VECTOR_TYPES, [extension_schema])
        self._vector_oid, self._vector_array_oid = next(
            row[1:] for row in types if row[0] == storage
        )
        self._statements = Statements(
            schema=schema,
            table=self._table,
            extension_schema=extension_schema,
            oid=oid,
            embedding_column=number,
            columns=columns,
        )
        self._oid = oid
        self._storage: VectorType = storage
        self._columns = columns
        self.label = f"{schema}.{self._table}"

    def _check_writable(self) -> None:
        """Raise ``UnsupportedError`` for a table that cannot hold what is written."""
        if self._columns is not None and self._columns.read_only:
            raise UnsupportedError(
                f"Table {self.label!r} is only read: {self._columns.read_only}. Fill one of ours from "
                "it, which embeds nothing anew: other.upsert(store.records(vectors=True))."
            )

    async def _check_found(self, session: Session) -> None:
        """Raise ``CollectionChangedError`` unless the name stands for the table that was found.

        It does until the transaction ends.
        """
        self._compare_found(await session.execute(self._statements.found))

    def _compare_found(self, rows: Rows) -> None:
        oid, comment = rows[0][:2] if rows else (None, None)
        # Another store may have brought its format up.
        if oid != self._oid or (
            comment != self._comment and recorded_in(comment, self.label)[0] != self.space
        ):
            raise CollectionChangedError(self.kind, self.label)

    # -- writing --------------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if Postgres cannot store this record, e.g. for NUL in its text."""
        check_record(record)

    async def compare(self, session: Session, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        self._check_writable()
        packer = self._packer(session)
        ids = packer.texts([row.record.id for row in rows])
        answer = await session.execute(self._statements.stored_hashes, {"ids": ids})
        self._compare_found([row[2:] for row in answer if row[0] == -1])
        stored = [row[:2] for row in answer if row[0] != -1]
        result: dict[str, Status] = {rows[position].record.id: "changed" for position, _ in stored}
        same_text = [
            rows[position]
            for position, text_hash in stored
            if text_hash == rows[position].text_hash
        ]
        if same_text:
            # Asked apart, as a first load would pay for what no row is compared with.
            names = [row.record.id for row in same_text]
            result.update(dict.fromkeys(names, "metadata"))
            # Where there is no place for sources they are not compared.
            sources = self._has_source or self._may_add_source
            values = {"ids": packer.texts(names), **packer.rest(same_text, sources=sources)}
            same_rest = self._statements.same_rest(sources=self._has_source)
            answer = await session.execute(same_rest, values)
            self._compare_found([row[1:] for row in answer if row[0] == -1])
            result.update((names[row[0]], "unchanged") for row in answer if row[0] != -1)
        return result

    async def write(self, session: Session, batch: WriteBatch) -> WriteResult:
        """Write one batch, unless rows that it counts on are not as they were."""
        self._check_writable()
        metadata_rows = list(batch.metadata_rows)
        copies = await self._found_to_fill(session, batch)
        deleted = 0
        if batch.replaced or metadata_rows:
            stored = [*metadata_rows, *batch.unchanged_rows]
            await self._lock_documents(session, batch.replaced)
            await session.execute(
                self._statements.lock,
                {
                    "ids": [row.record.id for row in (*batch.rows, *stored)],
                    "documents": _storable(batch.replaced),
                },
            )
            # Locked, they stay as they are; since they were compared another writer may have come.
            statuses = await self.compare(session, stored) if stored else {}
            missed = [
                row.record.id
                for row in stored
                if statuses.get(row.record.id, "changed") == "changed"
            ]
            if missed:
                return WriteResult(0, 0, missed)
            metadata_rows = [row for row in stored if statuses[row.record.id] == "metadata"]
        if batch.replaced:
            gone = await session.execute(
                self._statements.delete_stale,
                {
                    "documents": _storable(batch.replaced),
                    "keep": [id for ids in batch.replaced.values() for id in ids],
                },
            )
            deleted = _affected(gone)
        packer = self._packer(session)
        if metadata_rows:
            await session.execute(
                self._statements.update_metadata(sources=self._has_source),
                {
                    "ids": packer.texts([row.record.id for row in metadata_rows]),
                    "hashes": packer.hashes(metadata_rows),
                    **packer.rest(metadata_rows),
                },
            )
        if batch.rows:
            # Sorted as the statement does, or the parts of two writers could deadlock.
            rows = sorted(batch.rows, key=lambda row: row.record.id)
            if copies and (batch.replaced or batch.metadata_rows):
                # What was done for the others stays.
                await session.execute(statements.COPY_SAVEPOINT)
            if not (copies and await self._copied(session, packer, rows)):
                upsert = self._statements.upsert(sources=self._has_source)
                await session.execute_many(upsert, map(packer.arrays, parts(rows)))
        return WriteResult(len(batch.rows) + len(batch.metadata_rows), deleted)

    async def _found_to_fill(self, session: Session, batch: WriteBatch) -> bool:
        """Check that it is the table that was found; tell whether its new rows may be copied.

        That is where all are new, as in a load. Where nothing else is done before, the savepoint of
        the COPY is made in the same round trip.
        """
        if not (
            self._has_own_types
            and len(batch.rows) >= _COPIED
            and len(batch.new) == len(batch.rows)
            and session.may_copy
        ):
            await self._check_found(session)
            return False
        found = self._statements.found_to_fill
        if batch.replaced or batch.metadata_rows:
            told = await session.execute(found)
        else:
            told = await session.execute_before(found, statements.COPY_SAVEPOINT)
        self._compare_found(told)
        return bool(told[0][2])

    async def _copied(self, session: Session, packer: Packer, rows: Sequence[Row]) -> bool:
        """Copy rows that are new; False if that cannot be, and nothing is written of it."""
        sources = self._has_source
        try:
            statement = self._statements.copy(sources=sources)
            await session.copy(statement, packer.copied(rows, sources=sources))
        except psycopg.OperationalError:
            raise
        except psycopg.DatabaseError:
            # Another writer was quicker with one of the ids; and what else the server has against
            # them it says of the statement that is known.
            await session.execute(statements.COPY_ROLLBACK)
            return False
        return True

    def _packer(self, session: Session) -> Packer:
        return Packer(
            self._storage,
            vector_oid=self._vector_oid,
            array_oid=self._vector_array_oid,
            encoding=session.encoding,
        )

    async def _lock_documents(self, session: Session, documents: Iterable[str]) -> None:
        """Let nobody else replace or delete one of these documents before the transaction ends.

        By bucket, in order: a lock for each document would fill the server's table of locks.
        """
        buckets = sorted({crc32(document.encode()) % _BUCKETS for document in _storable(documents)})
        if buckets:
            values = {"oid": self._oid, "buckets": buckets}
            await session.execute(statements.LOCK_BUCKETS, values)

    async def delete(self, session: Session, ids: Sequence[str], documents: Sequence[str]) -> int:
        """Delete rows by id and whole documents; return how many went."""
        self._check_writable()
        await self._check_found(session)
        await self._lock_documents(session, documents)
        names = {"ids": _storable(ids), "documents": _storable(documents)}
        return _affected(await session.execute(self._statements.delete, names))

    async def delete_matching(self, session: Session, filter: Filter) -> int:
        """Delete the rows that match; return how many went."""
        self._check_writable()
        await self._check_found(session)
        passing = Where(parsed(filter))
        delete = self._statements.delete_matching(passing.sql)
        return _affected(await session.execute(delete, passing.values))

    # -- reading --------------------------------------------------------------------------------

    async def search(
        self,
        session: Session,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` rows; asked again exactly if an index gave fewer."""
        conditions, values = self._conditions(filter, options)
        values["toastrack_query"] = VectorParameter(vector, self._storage, self._vector_oid)
        values["toastrack_k"] = k
        rows: Rows = []
        if not exact:
            plan, rows = await self._search_index(session, k, options, conditions, values)
            compared = rows[0][6] if rows and plan.candidates else 0
            # Without an index that answer was exact already.
            exact = self._seen.any and plan.is_short(len(rows), compared, k)
        if exact:
            search = self._asked(options).search(conditions, exact=True)
            rows = await self._execute_found(session, search, values)
        matches = [
            Match(id, text, float(score), json.loads(metadata or "{}"), document, chunk)
            for id, text, metadata, document, chunk, score, *_ in rows
            # A row of zeros has no cosine. It stands behind all others, and is in no HNSW index.
            if not math.isnan(score)
        ]
        # A relaxed index scan may swap neighbours; equal scores stand in the order of their ids.
        return sorted(matches, key=lambda match: (-match.score, match.id))

    def _conditions(
        self, filter: Filter, options: SearchOptions
    ) -> tuple[list[sql.Composable], dict[str, Any]]:
        """Return what a row must pass, and the values that are in it."""
        conditions: list[sql.Composable] = []
        values: dict[str, Any] = dict(options.params)
        if filter:
            passing = Where(parsed(filter))
            conditions.append(passing.sql)
            values.update(passing.values)
        if options.where is not None and self._columns is None:
            conditions.append(sql.SQL("({})").format(options.where))
        elif options.where is not None:  # it stands where the table has its own names
            conditions.append(sql.SQL("true"))
        return conditions, values

    def _asked(self, options: SearchOptions) -> Statements:
        """Return the statements of a search; of somebody else's table with its condition inside."""
        if self._columns is None or options.where is None:
            return self._statements
        return self._statements.narrowed(options.where)

    async def search_text(
        self,
        session: Session,
        query: TextQuery,
        vector: NDArray[np.float32] | None,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> TextHits:
        """Return the best k rows by their words, or with a vector by both, of one statement."""
        conditions, values = self._conditions(filter, options)
        # Postgres takes no NUL.
        text = query.text.replace("\0", " ")
        values |= {
            "toastrack_text": text,
            "toastrack_k": k,
            "toastrack_vector_weight": query.vector_weight,
            "toastrack_text_weight": query.text_weight,
        }
        if vector is not None:
            values["toastrack_query"] = VectorParameter(vector, self._storage, self._vector_oid)

        def both(search: sql.Composed, compared: bool) -> sql.Composed:
            return text_search.statement(
                self._asked(options),
                self._text_index(),
                conditions,
                syntax=query.syntax,
                search=None if vector is None else search,
                compared=compared,
            )

        if not self._words.usable:
            self._asks_words = True
            await self._look_at_indexes(session)
        rows: Rows = []
        if not exact or vector is None:
            plan, rows = await self._search_index(session, k, options, conditions, values, both)
            near, compared = rows[0][8:] if rows else (0, 0)
            exact = vector is not None and self._seen.any and plan.is_short(near, compared, k)
        if exact:
            rows = await self._search_exactly(session, options, conditions, values, both)
        kind = "text" if vector is None else "rrf"
        matches = [text_search.match_of(row, kind=kind) for row in rows]
        matches.sort(key=lambda match: (-match.score, match.id))
        on = self._text_index()
        if matches or await text_search.has_words(session, on, text, query.syntax):
            return TextHits(matches)
        return TextHits([], on.language)

    def _text_index(self) -> text_index.TextIndex:
        """Return the index of words as it was last looked at."""
        if not self._words.usable:
            raise text_index.no_index(self.label, self._words)
        return self._words.usable[0]

    async def _search_index(
        self,
        session: Session,
        k: int,
        options: SearchOptions,
        conditions: Sequence[sql.Composable],
        values: Mapping[str, Any],
        wrap: Callable[[sql.Composed, bool], sql.Composed] | None = None,
    ) -> tuple[SearchPlan, Rows]:
        """Ask the index that is best for it, if there is one; return how, and what was found.

        ``wrap`` makes more of the statement; it is told whether that says how many were compared.
        """
        if self._seen.mark is None:
            await self._look_at_indexes(session)
        while True:
            plan = self._planned(k, options, filtered=bool(conditions))
            if options.index != "auto" and plan.on is None:
                await self._look_at_indexes(session)  # somebody may have built it
                plan = self._planned(k, options, filtered=bool(conditions))
                if plan.on is None:
                    raise no_such_index(self.label, options.index)
            if plan.on is None or not plan.candidates:
                statement = self._asked(options).search(conditions, exact=False)
                given = values
            else:
                statement = self._asked(options).search_again(plan.on, self._storage, conditions)
                given = {**values, "toastrack_candidates": plan.candidates}
            if wrap is not None:
                statement = wrap(statement, plan.on is not None and plan.candidates > 0)
            told, rows = await session.execute_checked(
                Asked(self._statements.search_settings, plan.settings),
                self._compare_found,
                Asked(statement, given),
            )
            if told[0][2] == self._seen.mark:
                return plan, rows
            await self._look_at_indexes(session)

    async def _search_exactly(
        self,
        session: Session,
        options: SearchOptions,
        conditions: Sequence[sql.Composable],
        values: Mapping[str, Any],
        wrap: Callable[[sql.Composed, bool], sql.Composed],
    ) -> Rows:
        """Compare with every row, beside the words of the index that is there now."""
        while True:
            statement = wrap(self._asked(options).search(conditions, exact=True), False)
            told, rows = await session.execute_checked(
                Asked(self._statements.found_indexes),
                self._compare_found,
                Asked(statement, values),
            )
            if told[0][2] == self._seen.mark:
                return rows
            await self._look_at_indexes(session)

    def _planned(self, k: int, options: SearchOptions, *, filtered: bool) -> SearchPlan:
        return planned(
            self._seen.usable, k=k, filtered=filtered, options=options, ef_search=self._ef_search
        )

    async def _look_at_indexes(self, session: Session) -> None:
        # In this order: what comes between the two is noticed by the next search.
        told, rows = await session.execute_checked(
            Asked(self._statements.found_indexes),
            self._compare_found,
            Asked(statements.VECTOR_INDEXES, [self._oid, self._statements.embedding_column]),
        )
        there = read_indexes(rows)
        found = [one.indexed(self._storage, self.dimensions or 0) for one in there if one.valid]
        self._seen = _Seen(told[0][2], tuple(filter(None, found)), bool(there))
        if self._asks_words:
            self._words = await text_index.find(session, self._oid, self._statements.text_column)

    async def _execute_found(
        self, session: Session, statement: sql.Composable, parameters: Parameters
    ) -> Rows:
        """Execute one statement on the table that was found, or raise ``CollectionChangedError``."""
        found, asked = Asked(self._statements.found), Asked(statement, parameters)
        _, rows = await session.execute_checked(found, self._compare_found, asked)
        return rows

    async def recall_trials(self, session: Session, k: int) -> list[Trial[SearchOptions]]:
        """Return the ways to search whose recall is measured.

        Raises:
            StoreError: There is no index.
        """
        await self._look_at_indexes(session)
        if not self._seen.usable:
            raise StoreError(
                f"Table {self.label!r} has no index, so that each search is exact. Build one with "
                "build_index()."
            )
        return trials(self._seen.usable, k=k, ef_search=self._ef_search)

    async def prefix_trial(self, session: Session, k: int) -> Trial[SearchOptions]:
        """Return how a search by the first numbers goes by itself."""
        options = SearchOptions(index="prefix")
        await self._look_at_indexes(session)
        plan = self._planned(k, options, filtered=False)
        return Trial(options, str(plan.on), plan.ef_search)

    async def sample(self, session: Session, size: int) -> list[tuple[str, NDArray[np.float32]]]:
        """Return the ids and vectors of some rows, the same ones each time."""
        rows = await self._execute_found(session, self._statements.sample(self._storage), [size])
        found = [(id, vector_of(bytes(sent), self._storage)) for id, sent in rows]
        return [(id, vector) for id, vector in found if vector.any()]

    async def read_sample(self, session: Session, size: int) -> list[Row]:
        """Return rows from all over the table; of a large one from some of its pages."""
        ((pages,),) = await session.execute(statements.PAGES, {"oid": self._oid})
        share = 100 * _SAMPLED_PAGES / pages if pages > 4 * _SAMPLED_PAGES else None
        rows = await session.execute(self._statements.read_sample(self._storage, share), [size])
        if len(rows) < size and share is not None:  # its pages are empty, or all too different
            rows = await session.execute(self._statements.read_sample(self._storage, None), [size])
        return [self._row(row) for row in rows]

    async def get(self, session: Session, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        rows = await session.execute(self._statements.get, {"ids": self._possible(ids)})
        found = {row[0]: _record(row) for row in rows}
        return [found.get(id) for id in ids]

    async def read(self, session: Session, ids: Sequence[str], vectors: bool) -> list[Row | None]:
        """Return records in the order asked, with their hashes and vectors."""
        statement = self._statements.read(self._storage if vectors else None)
        execute = partial(self._execute_found, session) if vectors else session.execute
        rows = await execute(statement, {"ids": self._possible(ids)})
        found = {row[0]: self._row(row) for row in rows}
        return [found.get(id) for id in ids]

    def _possible(self, ids: Iterable[str]) -> list[str]:
        """Leave out ids that no row of this table can have."""
        possible = _storable(set(ids))
        return possible if self._columns is None else self._columns.ids_of_type(possible)

    async def read_page(
        self, session: Session, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return the next records that match, in the order of their ids."""
        passing = Where(parsed(filter))
        limit = _VECTOR_PAGE if vectors else _PAGE
        execute = partial(self._execute_found, session) if vectors else session.execute
        rows = await execute(
            self._statements.read_page(self._storage if vectors else None, passing.sql),
            {**passing.values, "toastrack_after": after, "toastrack_limit": limit},
        )
        place = 0 if self._columns is None else -3
        return [self._row(row) for row in rows], rows[-1][place] if len(rows) == limit else None

    def _row(self, row: Sequence[Any]) -> Row:
        *_, text_hash, sent = row
        vector = None if sent is None else vector_of(bytes(sent), self._storage)
        return Row(_record(row), bytes(text_hash or b""), vector)

    async def chunks(self, session: Session, spans: Sequence[Span]) -> list[Record]:
        """Return the rows of documents whose chunk numbers lie in one of these spans."""
        asked = list(dict.fromkeys(spans))
        values = {
            "documents": [span.document for span in asked],
            "firsts": [span.first for span in asked],
            "lasts": [span.last for span in asked],
        }
        return [_record(row) for row in await session.execute(self._statements.chunks, values)]

    async def count(self, session: Session, documents: bool) -> int:
        """Count rows or documents."""
        ((number,),) = await session.execute(self._statements.count(documents))
        return int(number)

    async def count_matching(self, session: Session, filter: Filter, documents: bool) -> int:
        """Count the rows that match, or their documents."""
        passing = Where(parsed(filter))
        count = self._statements.count(documents, passing.sql)
        ((number,),) = await session.execute(count, passing.values)
        return int(number)

    async def document_page(
        self, session: Session, after: str | None
    ) -> tuple[list[str], str | None]:
        """Return the next documents' ids behind ``after``, in the order of their bytes."""
        limits = {"after": after, "limit": _PAGE}
        page = [row[0] for row in await session.execute(self._statements.document_ids, limits)]
        return page, page[-1] if len(page) == _PAGE else None

    # -- where documents came from --------------------------------------------------------------

    async def stored_sources(
        self, session: Session, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source."""
        if not self._has_source:
            return {}
        names = {"documents": _storable(documents)}
        rows = await session.execute(self._statements.stored_sources, names)
        return {document: StoredSource(source, number) for document, source, number in rows}

    async def has_other_source(self, session: Session, sources: Sequence[str]) -> bool:
        """Tell whether a row is stored from a source that is none of these."""
        if not self._has_source:
            return False
        names = {"sources": list(sources)}
        ((found,),) = await session.execute(self._statements.has_other_source, names)
        return bool(found)

    async def source_page(
        self, session: Session, after: str | None, sources: Sequence[str] | None
    ) -> tuple[list[str], str | None]:
        """Return the next documents of some sources, in the order of their bytes."""
        if not self._has_source:
            return await self._page_without_sources(session, after, sources)
        statement = self._statements.source_page(named=sources is not None)
        values = {"after": after, "limit": _PAGE, "sources": list(sources or ())}
        rows = await session.execute(statement, values)
        page = [row[0] for row in rows]
        return page, page[-1] if len(page) == _PAGE else None

    async def _page_without_sources(
        self, session: Session, after: str | None, sources: Sequence[str] | None
    ) -> tuple[list[str], str | None]:
        if sources is None:
            return await self.document_page(session, after)
        if self._may_add_source:
            return [], None
        raise StoreError(
            f"Table {self.label!r} has no column of type text for the source of a document, and "
            "this user may not add it, so nobody knows which documents came from where. Have its "
            f"owner run: ALTER TABLE {self._statements.table.as_string(None)} ADD COLUMN source text"
        )

    # -- the index ------------------------------------------------------------------------------

    def check_index(self) -> None:
        """Raise ``UnsupportedError`` for a table that no index can be built on."""
        vector_index.check_index(self._storage, self.dimensions or 0, self.label)

    async def check_index_memory(self, session: Session, memory: str) -> None:
        """Let the server say, before the load, what it thinks of so much memory."""
        await session.execute(statements.CHECK_MEMORY, [memory])

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Sequence[str] = (),
        kind: Kind = "full",
        prefix: int | None = None,
        m: int | None = None,
        ef_construction: int | None = None,
        concurrently: bool = False,
        maintenance_work_mem: str | None = None,
    ) -> bool:
        """Build an HNSW index unless it is there, and those that serve filters."""
        dimensions = self.dimensions or 0
        self._check_indexable(kind, filter_fields)
        vector_index.check_wanted(kind, prefix, self._storage, dimensions, self.label)
        full = FullMemory()
        build = partial(
            index.build_index,
            table=self._statements,
            oid=self._oid,
            label=self.label,
            storage=self._storage,
            dimensions=dimensions,
            wanted=index.Wanted(kind, prefix, m, ef_construction, rebuild, filter_fields),
            memory=maintenance_work_mem,
            concurrently=concurrently,
            full=full,
        )
        async with reporting(self._runtime, self._connections, self._oid, on_progress):
            built = await self._build(build, concurrently=concurrently)
        full.warn()
        return built

    def _check_indexable(self, kind: Kind, fields: Sequence[str]) -> None:
        """Raise ``UnsupportedError`` for an index that would not be known again on such columns."""
        if self._columns is None:
            return
        names = self._columns.names
        if not self._has_size:
            raise UnsupportedError(
                f"pgvector has no index for vectors of any size, and the column "
                f"{names['embedding']!r} of table {self.label!r} has none: ALTER TABLE ... ALTER COLUMN "
                f"... TYPE {self._storage}({self.dimensions})"
            )
        if kind != "full" and names["embedding"] != "embedding":
            raise UnsupportedError(
                f"An index of the kind {kind!r} is for a column of the name embedding, and that of "
                f"table {self.label!r} is {names['embedding']!r}. Build kind='full'."
            )
        is_ours = names.get("metadata") == "metadata" and self._columns.metadata_type == "jsonb"
        if fields and not is_ours:
            raise UnsupportedError(
                f"filter_fields= are for a column metadata jsonb, and table {self.label!r} has none. "
                "Its filters go without an index."
            )

    async def check_text_index(self, session: Session, language: str) -> None:
        """Raise for an index of words that ``build_text_index`` could not build."""
        text = self._statements.text_column
        await text_index.check(session, self._oid, label=self.label, language=language, text=text)

    async def build_text_index(self, *, language: str, concurrently: bool, rebuild: bool) -> bool:
        """Build an index of the words of the texts unless it is there."""

        async def build(session: Session) -> bool | None:
            plan = partial(
                text_index.plan,
                session,
                self._statements,
                self._oid,
                label=self.label,
                language=language,
                rebuild=rebuild,
                concurrently=concurrently,
            )
            return await index.build(
                session,
                plan,
                oid=self._oid,
                memory=None,
                concurrently=concurrently,
                full=FullMemory(),
            )

        return await self._build(build, concurrently=concurrently)

    async def _build(
        self, build: Callable[[Session], Awaitable[bool | None]], *, concurrently: bool
    ) -> bool:
        """Build indexes, one session of a table's at a time."""
        while True:
            if concurrently:
                built = await self._reconnecting(
                    lambda: self._outside_transaction(build), retry="long"
                )
            else:
                built = await self._reconnecting(
                    lambda: self._transact(build, "build"), retry="long"
                )
            if built is not None:
                return built
            # Not inside the transaction: a concurrent build waits for the end of each.
            await self._runtime.sleep(_SECONDS_BETWEEN_TRIES)

    async def describe(self, session: Session) -> Description:
        """Say which server and pgvector this is, and what the table takes on disk."""
        ((server, extension, size),) = await session.execute(statements.DESCRIPTION, [self._oid])
        return Description(
            self.label,
            host=f"Postgres {server.split()[0]}, pgvector {extension}",
            storage=f"{self._storage}({self.dimensions})",
            index=vector_index.described(
                read_indexes(
                    await session.execute(
                        statements.VECTOR_INDEXES, [self._oid, self._statements.embedding_column]
                    )
                ),
                self._storage,
                self.dimensions or 0,
            ),
            bytes=size,
        )

    # -- the host -------------------------------------------------------------------------------

    async def in_session(
        self, operation: Callable[[Session], Awaitable[T]], *, reads: bool, retry: Retry
    ) -> T:
        """Run one operation that writes in one transaction, and one that reads in few round trips.

        Inside a transaction of the caller's what only read is rolled back to a savepoint, which puts
        back the settings it changed.
        """
        use: Use = "read" if reads else "write"
        return await self._reconnecting(lambda: self._transact(operation, use), retry=retry)

    async def _transact(self, operation: Callable[[Session], Awaitable[T]], use: Use) -> T:
        for attempt in range(RETRIES + 1):
            async with self._connections.lend(use) as connection:
                session = Session(self._runtime, connection)
                try:
                    if use == "read" and OneTripSession.serves(connection):
                        return await operation(OneTripSession(self._runtime, connection))
                    transaction = connection.transaction(force_rollback=use == "read")
                    async with self._runtime.enter(transaction):
                        return await operation(session)
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    # The same transaction can succeed when it is simply run again.
                    if session.inside or attempt == RETRIES:
                        raise
            # The others of a conflict do not come back at the same time.
            await self._runtime.sleep(random.random() * _CONFLICT_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    async def _outside_transaction(self, operation: Callable[[Session], Awaitable[T]]) -> T:
        """Run an operation that Postgres refuses inside a transaction."""
        async with self._connections.lend("build") as connection, self._autocommit(connection):
            return await operation(Session(self._runtime, connection))

    @asynccontextmanager
    async def _autocommit(self, connection: Any) -> AsyncIterator[None]:
        if is_inside_transaction(connection):
            raise ValueError(
                "concurrently=True needs a connection that is not inside a transaction."
            )
        before = connection.autocommit
        await self._runtime.call(connection.set_autocommit, True)
        try:
            yield
        finally:
            await self._runtime.call(connection.set_autocommit, before)

    async def _reconnecting(self, work: Callable[[], Awaitable[T]], *, retry: Retry) -> T:
        """Do work, and again on another connection if the server went away meanwhile."""
        connections = self._connections
        outage = Outage(
            own=not self.callers_connection, retry=retry, monotonic=self._runtime.monotonic
        )
        while True:
            try:
                return await work()
            except psycopg.OperationalError as error:
                if connections.is_interrupted():
                    raise
                await self._runtime.sleep(outage.pause(error))
                if connections.is_interrupted():
                    raise
            await connections.renew()

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether Postgres says that there is no such table, and not one of a ``where=``."""
        return isinstance(error, errors.UndefinedTable) and f'"{self.label}"' in str(error)

    def interrupt(self, thread: Thread) -> None:
        """Cancel what this thread asks of the server."""
        self._connections.interrupt(thread)

    async def close(self) -> None:
        """Close the connection if it was made from a conninfo."""
        await self._connections.close()

    def given(self) -> object | None:
        """Return a connection or pool of the caller's; None over a conninfo."""
        return None if self._connections.is_own else self._given

    def leave_to_parent(self) -> None:
        """In a forked child: forget the parent's connections without a byte on them."""
        self._connections.leave_to_parent()


def _record(row: Sequence[Any]) -> Record:
    id, text, metadata, document, chunk, *_ = row
    return Record(id, text, json.loads(metadata or "{}"), document_id=document, chunk=chunk)


def _storable(ids: Iterable[str]) -> list[str]:
    """Leave out ids that no row can have: Postgres would refuse the whole statement."""
    return [id for id in ids if "\0" not in id and not any("\ud800" <= c <= "\udfff" for c in id)]


def _affected(rows: Rows) -> int:
    """A session answers a statement that returns no rows with the number it touched."""
    return int(rows[0][0])
