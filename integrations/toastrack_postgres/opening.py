"""How a table is found or created, and what it says of the space it is in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from psycopg import errors

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace
from toastrack.stores.base_store import missing
from toastrack.stores.space_check import check_space, missing_space
from toastrack.stores.steps import Slow, Steps
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import VectorType
from toastrack_postgres.sql import Statements
from toastrack_postgres.table import Query, Table

# https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md: iterative scans came with 0.8
_MIN_PGVECTOR = (0, 8)
_COMMENT_MARK = "toastrack "


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


def open_table(settings: Settings, embedder: Embedder) -> Steps[Table]:
    """Find the table, creating it if that was allowed, and read what it says of itself."""
    extension_schema = yield from _extension(settings)
    found = yield from _find(settings)
    changed = False
    if found is None:
        if not settings.create:
            raise missing(f"table {settings.label!r}", lost=False)
        space = yield Slow(lambda: embedder.space)
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


def check_table(table: Table, embedder: Embedder) -> Steps[None]:
    """Compare the recorded space with the embedder's, recording it where the table is empty."""
    ours: EmbeddingSpace = yield Slow(lambda: embedder.space)
    where = f"Table {table.label!r}"
    check_space(table.stored, table.dimensions, ours, where=where)
    if table.stored is None:
        yield Query(statements.CREATION_LOCK)
        comment = yield from _comment(table.oid)
        table.stored = _space_in(comment, table.label)
        if table.stored is not None:  # somebody was faster
            check_space(table.stored, table.dimensions, ours, where=where)
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
