"""The test database's address, as the frameworks' stores want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import URL


def sqlalchemy_url(conninfo: str, driver: str) -> URL:
    """Turn what psycopg takes into what SQLAlchemy takes; a socket's folder stays one."""
    from psycopg.conninfo import conninfo_to_dict
    from sqlalchemy import URL

    parts: dict[str, Any] = conninfo_to_dict(conninfo)
    return URL.create(
        f"postgresql+{driver}",
        username=parts.get("user"),
        password=parts.get("password"),
        database=parts.get("dbname"),
        # As options of the driver: a folder cannot stand where a URL has its host.
        query={name: str(parts[name]) for name in ("host", "port") if name in parts},
    )
