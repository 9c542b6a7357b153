"""A table looked for by its name: which of its columns hold what, and whether it can be used."""

from __future__ import annotations

from typing import NamedTuple

from toastrack.errors import StoreError
from toastrack.stores import check_usable
from toastrack_postgres import catalogue
from toastrack_postgres.codec import VectorType
from toastrack_postgres.columns import Column, Found, Layout
from toastrack_postgres.columns import find as find_columns
from toastrack_postgres.extension import find_extension
from toastrack_postgres.session import Session
from toastrack_postgres.space_comment import recorded_in
from toastrack_postgres.sql import Statements, check_name
from toastrack_postgres.table import KIND, Table

_INSTEAD = (
    "Or choose another table name. A table of your own that you search in SQL takes a column of vectors "
    "with register_embedder() (docs/guides/sql.md); one that something else filled is read with "
    "columns= (docs/guides/postgres.md)."
)

# What we create, and what else can stand in its place in a table that somebody else made.
_COLUMNS = {
    "id": ("text", "character varying"),
    "document_id": ("text", "character varying"),
    "chunk": ("integer", "smallint", "bigint"),
    "text": ("text", "character varying"),
    "metadata": ("jsonb",),
    "text_hash": ("bytea",),
    "embedding": ("halfvec", "vector"),
}

# By the names that the catalogue has, but for the vectors'.
_CREATED_TYPES = {
    "id": "text",
    "document_id": "text",
    "chunk": "int4",
    "text": "text",
    "metadata": "jsonb",
    "text_hash": "bytea",
}


class Finder:
    """Looks for one table, as often as it is asked to.

    Args:
        table: Its name.
        schema: Where it is; None takes what the session's search_path finds.
        layout: How its columns are called, where something else made it.
        may_create: A database without the extension has no table yet, and that is no error.
    """

    def __init__(
        self, table: str, schema: str | None, *, layout: Layout | None, may_create: bool
    ) -> None:
        self.table = check_name("Table", table)
        self.schema = None if schema is None else check_name("Schema", schema)
        self.layout = layout
        self._may_create = may_create
        self.label = f"{schema}.{table}" if schema else table
        """The table as the user wrote it."""

    async def find(self, session: Session) -> Table | None:
        """Look for extension and table, and read what the table says of itself.

        Raises:
            StoreError: It cannot be used as it is.
        """
        extension_schema = await find_extension(session)
        if extension_schema is None and self._may_create:
            return None
        name = {"table": self.table, "schema": self.schema}
        rows = await session.execute(catalogue.FIND_TABLE, name)
        if not rows:
            return None
        if extension_schema is None:
            raise StoreError(
                "The extension pgvector is not in this database: CREATE EXTENSION vector"
            )
        schema, oid, kind = rows[0]
        if kind not in ("r", "p"):
            raise StoreError(f"{self.label!r} is a view or foreign table. Give an ordinary table.")
        there = _There(schema, self.table, oid, extension_schema)
        if self.layout is None:
            return await _read_ours(session, there)
        return await _read_others(session, there, self.layout)


class _There(NamedTuple):
    """A table that is there, of whatever columns."""

    schema: str
    table: str
    oid: int
    extension_schema: str

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.table}"

    def statements(self, number: int, columns: Found | None = None) -> Statements:
        """Return the statements about it; ``number`` is that of the column of its vectors."""
        return Statements(
            schema=self.schema,
            table=self.table,
            extension_schema=self.extension_schema,
            oid=self.oid,
            embedding_column=number,
            columns=columns,
        )

    async def types(self, session: Session, storage: VectorType) -> tuple[int, int]:
        """Return the numbers of the type of its vectors, and of arrays of them."""
        types = await session.execute(catalogue.VECTOR_TYPES, [self.extension_schema])
        return next((row[1], row[2]) for row in types if row[0] == storage)


async def _read_ours(session: Session, there: _There) -> Table:
    """Learn what a table is whose columns are called as ours are."""
    rows = await session.execute(catalogue.TABLE_COLUMNS, [there.oid])
    columns = {row[0]: row for row in rows}
    missing = [f"{name} {kinds[0]}" for name, kinds in _COLUMNS.items() if name not in columns]
    problems = [f"it lacks the columns {', '.join(missing)}; add them"] if missing else []
    problems += [
        f"its column {name} is {columns[name][1]} and must be {' or '.join(kinds)}"
        for name, kinds in _COLUMNS.items()
        if name in columns and columns[name][1].rpartition(".")[2] not in kinds
    ]
    _, _, storage, dimensions, comment, number, *_ = columns.get(
        "embedding", ("", "", "", 1, None, 0)
    )
    if storage in _COLUMNS["embedding"] and dimensions < 1:
        problems.append(f"its column embedding is {storage} without a size, not {storage}(n)")
    asked = [there.oid, "id", there.oid]
    ((unique, partitioned),) = await session.execute(catalogue.HAS_UNIQUE_ID, asked)
    if "id" in columns and not unique and partitioned:
        problems.append(
            "it is partitioned by another column than id, so that Postgres cannot keep an id "
            "unique: partition by hash (id), or keep tenants apart by row-level security on one "
            "table, or with a table for each"
        )
    elif "id" in columns and not unique:
        problems.append("its column id is not unique; make it the primary key")
    check_usable(f"{KIND} {there.label!r}", problems, instead=_INSTEAD)
    may_add_source = False
    if "source" not in columns:
        ((may_add_source,),) = await session.execute(catalogue.MAY_ALTER, [there.oid])
    vector_oid, vector_array_oid = await there.types(session, storage)
    space, format = recorded_in(comment, there.label, "embedding")
    return Table(
        there.label,
        there.oid,
        there.statements(number),
        storage,
        vector_oid,
        vector_array_oid,
        dimensions,
        comment,
        space,
        format,
        # A table from before there were sources, or one of somebody's who may call a column so.
        has_source=columns.get("source", ("", ""))[1] == "text",
        may_add_source=bool(may_add_source),
        # COPY casts nothing.
        has_own_types=all(columns[name][2] == kind for name, kind in _CREATED_TYPES.items()),
    )


async def _read_others(session: Session, there: _There, layout: Layout) -> Table:
    """Learn which columns of a table that something else made hold what a record has."""
    rows = await session.execute(catalogue.TABLE_COLUMNS, [there.oid])
    columns = {row[0]: Column(row) for row in rows}
    asked = [there.oid, layout.columns.get("id", "id"), there.oid]
    ((unique, _),) = await session.execute(catalogue.HAS_UNIQUE_ID, asked)
    found, problems = find_columns(layout, columns, unique=bool(unique))
    check_usable(f"{KIND} {there.label!r}", problems, instead=_INSTEAD)
    at = columns[found.names["embedding"]]
    storage: VectorType = "halfvec" if at.type_name == "halfvec" else "vector"
    vector_oid, vector_array_oid = await there.types(session, storage)
    about = there.statements(at.number, found)
    dimensions = at.size
    if dimensions < 1:  # a column without a size takes vectors of any
        sizes = await session.execute(about.dimensions)
        check_usable(
            f"{KIND} {there.label!r}",
            [] if sizes else [f"its column {at.name} has no size, and no vector"],
            instead=_INSTEAD,
        )
        dimensions = sizes[0][0]
    may_add_source = False
    if not found.read_only and "source" not in found.names and "source" not in columns:
        ((may_add_source,),) = await session.execute(catalogue.MAY_ALTER, [there.oid])
    space, format = recorded_in(at.comment, there.label, at.name)
    return Table(
        there.label,
        there.oid,
        about,
        storage,
        vector_oid,
        vector_array_oid,
        dimensions,
        at.comment,
        space,
        format,
        found,
        has_size=at.size > 0,
        has_source=not found.read_only and "source" in found.names,
        may_add_source=bool(may_add_source),
        has_own_types=False,  # COPY casts nothing, and knows our names alone
    )
