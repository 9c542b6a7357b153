"""The extension pgvector: where it is in a database, and how it comes there."""

from __future__ import annotations

from psycopg import errors

from toastrack.errors import StoreError
from toastrack_postgres import catalogue
from toastrack_postgres.session import Session

# https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md: iterative scans came with 0.8
_MIN_PGVECTOR = (0, 8)


async def find_extension(session: Session) -> str | None:
    """Return the schema of pgvector; None if it is missing.

    Raises:
        StoreError: It is too old.
    """
    rows = await session.execute(catalogue.EXTENSION)
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


async def create_extension(session: Session) -> str:
    """Return the schema of pgvector, which is created if it is missing.

    Raises:
        StoreError: It is too old, the server has none, or this user may not create it.
    """
    schema = await find_extension(session)
    if schema is not None:
        return schema
    try:
        async with session.savepoint():
            await session.execute(catalogue.CREATE_EXTENSION)
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
    schema = await find_extension(session)
    assert schema is not None
    return schema
