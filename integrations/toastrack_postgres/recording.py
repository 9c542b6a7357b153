"""What is written into a table that is there, but for rows: its space, and a column for sources."""

from __future__ import annotations

from dataclasses import replace

from toastrack import EmbeddingSpace
from toastrack_postgres import catalogue
from toastrack_postgres.session import Session
from toastrack_postgres.space_comment import recorded_in, with_recorded
from toastrack_postgres.table import Table


async def read_again(session: Session, table: Table) -> Table:
    """Read the comment, which nobody else changes until the transaction ends."""
    await session.execute(catalogue.CREATION_LOCK)
    columns = await session.execute(catalogue.TABLE_COLUMNS, [table.oid])
    name = table.statements.embedding_column
    comment: str | None = next((row[4] for row in columns if row[0] == name), None)
    space, format = recorded_in(comment, table.label, name)
    return replace(table, comment=comment, space=space, format=format)


async def record(session: Session, table: Table, space: EmbeddingSpace, format: int) -> Table:
    """Put space and format into the comment, beside all else that is there."""
    comment = with_recorded(table.comment, space, format)
    await session.execute(table.statements.comment(comment))
    return replace(table, comment=comment, space=space, format=format)


async def add_source(session: Session, table: Table) -> Table:
    """Add the column for sources."""
    await session.execute(table.statements.add_source)
    return replace(table, has_source=True, may_add_source=False)
