"""Check a URL or conninfo, and say what is wrong with it without showing what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import psycopg
from psycopg import conninfo as libpq
from psycopg import pq

from toastrack.errors import StoreError

MALFORMED = (
    "This is not a Postgres URL or conninfo. Write postgresql://user@host:5432/database with the "
    "special characters of a password percent-encoded, and name the table with table=."
)
_SQLALCHEMY = re.compile(r"postgres(?:ql)?\+\w+:")

# A server that is not there must not keep people waiting; psycopg's own default is 130 s.
_CONNECT_SECONDS = 10
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key")
_PAIR = re.compile(r"\s*([^\s=]+)\s*=\s*(?:'(?:\\.|[^'\\])*'|(?:\\.|[^\s\\])*)", re.DOTALL)


def check_conninfo(conninfo: str) -> None:
    """Raise ``StoreError`` for a malformed one: libpq's own error repeats it, password and all."""
    try:
        libpq.conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        name = _unknown_parameter(conninfo)
        if name is None:
            is_sqlalchemys = _SQLALCHEMY.match(conninfo)
            hint = " What stands behind + is SQLAlchemy's: leave it out." if is_sqlalchemys else ""
            raise StoreError(f"{MALFORMED}{hint}") from None
        raise StoreError(
            f"libpq knows no connection parameter {name!r}. They are listed at "
            "https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
        ) from None


def with_timeout(conninfo: str) -> str:
    """Return a conninfo that gives up on a silent host soon, unless it says when itself."""
    if "PGCONNECT_TIMEOUT" in os.environ or "connect_timeout" in libpq.conninfo_to_dict(conninfo):
        return conninfo
    return libpq.make_conninfo(conninfo, connect_timeout=_CONNECT_SECONDS)


def _unknown_parameter(conninfo: str) -> str | None:
    """Return the first name that libpq does not know, if it cannot be a piece of a password."""
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in _names(conninfo):
        if name in _SECRETS:
            return None  # what follows may belong to a secret that was not quoted
        if name not in known:
            return name if re.fullmatch("[A-Za-z_]+", name) else None
    return None


def _names(conninfo: str) -> Iterator[str]:
    if not re.match("postgres(ql)?://", conninfo):
        yield from (match[1] for match in _PAIR.finditer(conninfo))
        return
    query = conninfo.partition("?")[2]
    if "@" not in query:  # else the "?" may be a password's
        yield from (field.partition("=")[0] for field in query.split("&") if "=" in field)
