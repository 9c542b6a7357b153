"""What changes the rows of a table: compared, written and deleted beside other writers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

import psycopg

from toastrack.stores import Filter, Row, Status, WriteBatch, WriteResult, parsed
from toastrack_postgres import catalogue
from toastrack_postgres.filters import Where
from toastrack_postgres.packing import Packer, parts
from toastrack_postgres.reading import storable
from toastrack_postgres.session import Rows, Session
from toastrack_postgres.table import Table

# It goes with the transaction, or with the savepoint around it.
_COPY_SAVEPOINT = "savepoint toastrack_copy"
_COPY_ROLLBACK = "rollback to savepoint toastrack_copy"
# Fewer rows are not worth a COPY.
_COPIED = 64
# Advisory locks that all documents of a table share.
_BUCKETS = 256


async def compare(table: Table, session: Session, rows: Sequence[Row]) -> dict[str, Status]:
    """Say how each row compares to what is stored under its id."""
    table.check_writable()
    packer = table.packer(session)
    ids = packer.texts([row.record.id for row in rows])
    answer = await session.execute(table.statements.stored_hashes, {"ids": ids})
    table.compare_found([row[2:] for row in answer if row[0] == -1])
    stored = [row[:2] for row in answer if row[0] != -1]
    result: dict[str, Status] = {rows[position].record.id: "changed" for position, _ in stored}
    same_text = [
        rows[position] for position, text_hash in stored if text_hash == rows[position].text_hash
    ]
    if same_text:
        # Asked apart, as a first load would pay for what no row is compared with.
        names = [row.record.id for row in same_text]
        result.update(dict.fromkeys(names, "metadata"))
        # Where there is no place for sources they are not compared.
        sources = table.has_source or table.may_add_source
        values = {"ids": packer.texts(names), **packer.rest(same_text, sources=sources)}
        same_rest = table.statements.same_rest(sources=table.has_source)
        answer = await session.execute(same_rest, values)
        table.compare_found([row[1:] for row in answer if row[0] == -1])
        result.update((names[row[0]], "unchanged") for row in answer if row[0] != -1)
    return result


async def write(table: Table, session: Session, batch: WriteBatch) -> WriteResult:
    """Write one batch, unless rows that it counts on are not as they were."""
    table.check_writable()
    metadata_rows = list(batch.metadata_rows)
    copies = await _found_to_fill(table, session, batch)
    deleted = 0
    if batch.replaced or metadata_rows:
        stored = [*metadata_rows, *batch.unchanged_rows]
        await _lock_documents(table, session, batch.replaced)
        await session.execute(
            table.statements.lock,
            {
                "ids": [row.record.id for row in (*batch.rows, *stored)],
                "documents": storable(batch.replaced),
            },
        )
        # Locked, they stay as they are; since they were compared another writer may have come.
        statuses = await compare(table, session, stored) if stored else {}
        missed = [
            row.record.id for row in stored if statuses.get(row.record.id, "changed") == "changed"
        ]
        if missed:
            return WriteResult(0, 0, missed)
        metadata_rows = [row for row in stored if statuses[row.record.id] == "metadata"]
    if batch.replaced:
        gone = await session.execute(
            table.statements.delete_stale,
            {
                "documents": storable(batch.replaced),
                "keep": [id for ids in batch.replaced.values() for id in ids],
            },
        )
        deleted = _affected(gone)
    packer = table.packer(session)
    if metadata_rows:
        await session.execute(
            table.statements.update_metadata(sources=table.has_source),
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
            await session.execute(_COPY_SAVEPOINT)
        if not (copies and await _copied(table, session, packer, rows)):
            upsert = table.statements.upsert(sources=table.has_source)
            await session.execute_many(upsert, map(packer.arrays, parts(rows)))
    return WriteResult(len(batch.rows) + len(batch.metadata_rows), deleted)


async def delete(
    table: Table, session: Session, ids: Sequence[str], documents: Sequence[str]
) -> int:
    """Delete rows by id and whole documents; return how many went."""
    table.check_writable()
    await table.check_found(session)
    await _lock_documents(table, session, documents)
    names = {"ids": storable(ids), "documents": storable(documents)}
    return _affected(await session.execute(table.statements.delete, names))


async def delete_matching(table: Table, session: Session, filter: Filter) -> int:
    """Delete the rows that match; return how many went."""
    table.check_writable()
    await table.check_found(session)
    passing = Where(parsed(filter))
    statement = table.statements.delete_matching(passing.sql)
    return _affected(await session.execute(statement, passing.values))


async def _found_to_fill(table: Table, session: Session, batch: WriteBatch) -> bool:
    """Check that it is the table that was found; tell whether its new rows may be copied.

    That is where all are new, as in a load. Where nothing else is done before, the savepoint of
    the COPY is made in the same round trip.
    """
    if not (
        table.has_own_types
        and len(batch.rows) >= _COPIED
        and len(batch.new) == len(batch.rows)
        and session.may_copy
    ):
        await table.check_found(session)
        return False
    found = table.statements.found_to_fill
    if batch.replaced or batch.metadata_rows:
        told = await session.execute(found)
    else:
        told = await session.execute_before(found, _COPY_SAVEPOINT)
    table.compare_found(told)
    _, _, may_copy, pid = told[0]
    # Of a COPY that fails a pooler may keep the connection for ever, as what was sent meanwhile comes
    # late (PgBouncer: https://github.com/pgbouncer/pgbouncer/pull/1471).
    return bool(may_copy) and pid == session.backend_pid


async def _copied(table: Table, session: Session, packer: Packer, rows: Sequence[Row]) -> bool:
    """Copy rows that are new; False if that cannot be, and nothing is written of it."""
    sources = table.has_source
    try:
        statement = table.statements.copy(sources=sources)
        await session.copy(statement, packer.copied(rows, sources=sources))
    except psycopg.OperationalError:
        raise
    except psycopg.DatabaseError:
        # Another writer was quicker with one of the ids; and what else the server has against
        # them it says of the statement that is known.
        await session.execute(_COPY_ROLLBACK)
        return False
    return True


async def _lock_documents(table: Table, session: Session, documents: Iterable[str]) -> None:
    """Let nobody else replace or delete one of these documents before the transaction ends.

    By bucket, in order: a lock for each document would fill the server's table of locks.
    """
    buckets = sorted({crc32(document.encode()) % _BUCKETS for document in storable(documents)})
    if buckets:
        values = {"oid": table.oid, "buckets": buckets}
        await session.execute(catalogue.LOCK_BUCKETS, values)


def _affected(rows: Rows) -> int:
    """A session answers a statement that returns no rows with the number it touched."""
    return int(rows[0][0])
