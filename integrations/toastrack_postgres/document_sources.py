"""Where the documents of a table came from, if it has a column for that."""

from __future__ import annotations

from collections.abc import Sequence

from toastrack.errors import StoreError
from toastrack.stores import StoredSource
from toastrack_postgres import reading
from toastrack_postgres.session import Session
from toastrack_postgres.table import Table


async def stored_sources(
    table: Table, session: Session, documents: Sequence[str]
) -> dict[str, StoredSource]:
    """Return where documents came from, of those that are stored with a source."""
    if not table.has_source:
        return {}
    names = {"documents": reading.storable(documents)}
    found = await session.execute(table.statements.stored_sources, names)
    return {document: StoredSource(source, number) for document, source, number in found}


async def has_other_source(table: Table, session: Session, sources: Sequence[str]) -> bool:
    """Tell whether a row is stored from a source that is none of these."""
    if not table.has_source:
        return False
    names = {"sources": list(sources)}
    ((found,),) = await session.execute(table.statements.has_other_source, names)
    return bool(found)


async def source_page(
    table: Table, session: Session, after: str | None, sources: Sequence[str] | None
) -> tuple[list[str], str | None]:
    """Return the next documents of some sources, in the order of their bytes."""
    if not table.has_source:
        return await _page_without_sources(table, session, after, sources)
    statement = table.statements.source_page(named=sources is not None)
    values = {"after": after, "limit": reading.PAGE, "sources": list(sources or ())}
    page = [row[0] for row in await session.execute(statement, values)]
    return page, page[-1] if len(page) == reading.PAGE else None


async def _page_without_sources(
    table: Table, session: Session, after: str | None, sources: Sequence[str] | None
) -> tuple[list[str], str | None]:
    if sources is None:
        return await reading.document_page(table, session, after)
    if table.may_add_source:
        return [], None
    raise StoreError(
        f"Table {table.label!r} has no column of type text for the source of a document, and "
        "this user may not add it, so nobody knows which documents came from where. Have its "
        f"owner run: ALTER TABLE {table.statements.table.as_string(None)} ADD COLUMN source text"
    )
