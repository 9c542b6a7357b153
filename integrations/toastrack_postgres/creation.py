"""A new table, with the extension and the schema that it needs."""

from __future__ import annotations

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError
from toastrack_postgres import catalogue
from toastrack_postgres.codec import VectorType
from toastrack_postgres.extension import create_extension
from toastrack_postgres.session import Session
from toastrack_postgres.space_comment import with_recorded
from toastrack_postgres.sql import Statements


async def create_table(
    session: Session,
    table: str,
    schema: str | None,
    *,
    storage: VectorType,
    space: EmbeddingSpace,
    format: int,
) -> None:
    """Create extension, schema and table, where they are missing, and record the space.

    The caller holds the lock under which one session at a time creates.
    """
    extension_schema = await create_extension(session)
    is_given = schema is not None
    if schema is None:
        ((schema,),) = await session.execute(catalogue.CURRENT_SCHEMA)
        if schema is None:
            raise StoreError("This user's search_path names no schema that exists. Give schema=.")
    known = Statements(schema=schema, table=table, extension_schema=extension_schema)
    if is_given:
        query = "select 1 from pg_namespace where nspname = %s"
        if not await session.execute(query, [schema]):
            await session.execute(known.create_schema)
    await session.execute(known.create_table(storage, space.dimensions))
    await session.execute(known.create_document_index)
    await session.execute(known.comment(with_recorded(None, space, format)))
