"""The rows of a table: read by their ids and page by page, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from toastrack import Record
from toastrack.stores import Filter, Row, Span, parsed
from toastrack_postgres import catalogue
from toastrack_postgres.codec import metadata_of, vector_of
from toastrack_postgres.filters import Where
from toastrack_postgres.session import Session
from toastrack_postgres.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE = 10_000
"""Rows, or documents, in one answer."""
_VECTOR_PAGE = 1_000
# Of a table, for a sample of it.
_SAMPLED_PAGES = 1_000


async def get(table: Table, session: Session, ids: Sequence[str]) -> list[Record | None]:
    """Return records in the order asked."""
    rows = await session.execute(table.statements.get, {"ids": _possible(table, ids)})
    found = {row[0]: _record(row) for row in rows}
    return [found.get(id) for id in ids]


async def read(
    table: Table, session: Session, ids: Sequence[str], vectors: bool
) -> list[Row | None]:
    """Return records in the order asked, with their hashes and vectors."""
    statement = table.statements.read(table.storage if vectors else None)
    execute = partial(table.execute_found, session) if vectors else session.execute
    rows = await execute(statement, {"ids": _possible(table, ids)})
    found = {row[0]: _row(table, row) for row in rows}
    return [found.get(id) for id in ids]


async def read_page(
    table: Table, session: Session, after: Any, filter: Filter, vectors: bool
) -> tuple[list[Row], Any]:
    """Return the next records that match, in the order of their ids."""
    passing = Where(parsed(filter))
    limit = _VECTOR_PAGE if vectors else PAGE
    execute = partial(table.execute_found, session) if vectors else session.execute
    rows = await execute(
        table.statements.read_page(table.storage if vectors else None, passing.sql),
        {**passing.values, "toastrack_after": after, "toastrack_limit": limit},
    )
    place = 0 if table.columns is None else -3
    page = [_row(table, row) for row in rows]
    return page, rows[-1][place] if len(rows) == limit else None


async def chunks(table: Table, session: Session, spans: Sequence[Span]) -> list[Record]:
    """Return the rows of documents whose chunk numbers lie in one of these spans."""
    asked = list(dict.fromkeys(spans))
    values = {
        "documents": [span.document for span in asked],
        "firsts": [span.first for span in asked],
        "lasts": [span.last for span in asked],
    }
    return [_record(row) for row in await session.execute(table.statements.chunks, values)]


async def sample(
    table: Table, session: Session, size: int
) -> list[tuple[str, NDArray[np.float32]]]:
    """Return the ids and vectors of some rows, the same ones each time."""
    rows = await table.execute_found(session, table.statements.sample(table.storage), [size])
    found = [(id, vector_of(bytes(sent), table.storage)) for id, sent in rows]
    return [(id, vector) for id, vector in found if vector.any()]


async def read_sample(table: Table, session: Session, size: int) -> list[Row]:
    """Return rows from all over the table; of a large one from some of its pages."""
    ((pages,),) = await session.execute(catalogue.PAGES, {"oid": table.oid})
    share = sampled_share(pages)
    rows = await session.execute(table.statements.read_sample(table.storage, share), [size])
    if len(rows) < size and share is not None:  # its pages are empty, or all too different
        rows = await session.execute(table.statements.read_sample(table.storage, None), [size])
    return [_row(table, row) for row in rows]


def sampled_share(pages: int) -> float | None:
    """Return what share of the pages of a table a sample is taken from, in percent; None is all."""
    return 100 * _SAMPLED_PAGES / pages if pages > 4 * _SAMPLED_PAGES else None


async def count(table: Table, session: Session, documents: bool) -> int:
    """Count rows or documents."""
    ((number,),) = await session.execute(table.statements.count(documents))
    return int(number)


async def count_matching(table: Table, session: Session, filter: Filter, documents: bool) -> int:
    """Count the rows that match, or their documents."""
    passing = Where(parsed(filter))
    statement = table.statements.count(documents, passing.sql)
    ((number,),) = await session.execute(statement, passing.values)
    return int(number)


async def document_page(
    table: Table, session: Session, after: str | None
) -> tuple[list[str], str | None]:
    """Return the next documents' ids behind ``after``, in the order of their bytes."""
    limits = {"after": after, "limit": PAGE}
    page = [row[0] for row in await session.execute(table.statements.document_ids, limits)]
    return page, page[-1] if len(page) == PAGE else None


def storable(ids: Iterable[str]) -> list[str]:
    """Leave out ids that no row can have: Postgres would refuse the whole statement."""
    return [id for id in ids if "\0" not in id and not any("\ud800" <= c <= "\udfff" for c in id)]


def _possible(table: Table, ids: Iterable[str]) -> list[str]:
    """Leave out ids that no row of this table can have."""
    possible = storable(set(ids))
    return possible if table.columns is None else table.columns.ids_of_type(possible)


def _row(table: Table, row: Sequence[Any]) -> Row:
    *_, text_hash, sent = row
    vector = None if sent is None else vector_of(bytes(sent), table.storage)
    return Row(_record(row), bytes(text_hash or b""), vector)


def _record(row: Sequence[Any]) -> Record:
    id, text, metadata, document, chunk, *_ = row
    return Record(id, text, metadata_of(metadata), document_id=document, chunk=chunk)
