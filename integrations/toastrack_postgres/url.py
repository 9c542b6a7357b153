"""Open the store that a URL names: a server elsewhere, or the embedded one in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import psycopg

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace
from toastrack_postgres.base import DEFAULT_TABLE
from toastrack_postgres.conninfo import MALFORMED, check_conninfo, with_timeout
from toastrack_postgres.embedded import EmbeddedPostgres
from toastrack_postgres.store import PostgresStore, recorded_space

_EMBEDDED = "postgres+embedded"


@dataclass(frozen=True)
class Address:
    """A URL taken apart: the server, and the table that only we know of."""

    conninfo: str | None
    """None for the embedded server."""
    folder: str | None
    table: str
    schema: str | None


def parse_url(url: str) -> Address:
    """Take a URL apart; everything but ``table`` and ``schema`` is libpq's and left as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:  # whose message repeats the URL, password and all
        raise StoreError(MALFORMED) from None
    fields = [field for field in parts.query.split("&") if field]
    ours = dict(parse_qsl("&".join(field for field in fields if _is_ours(field))))
    rest = [field for field in fields if not _is_ours(field)]
    table = ours.get("table") or DEFAULT_TABLE
    schema = ours.get("schema") or None
    if parts.scheme == _EMBEDDED:
        if rest:
            raise StoreError(
                f"{_EMBEDDED}: URLs know table and schema, not {rest[0].partition('=')[0]!r}: "
                f"{_EMBEDDED}:DIR?table=docs"
            )
        return Address(None, unquote(parts.netloc + parts.path) or None, table, schema)
    conninfo = urlunsplit(parts._replace(query="&".join(rest)))
    check_conninfo(conninfo)
    return Address(conninfo, None, table, schema)


def _is_ours(field: str) -> bool:
    return field.partition("=")[0] in ("table", "schema")


@contextmanager
def open_url(
    url: str,
    choose: Callable[[EmbeddingSpace | None], Embedder],
    *,
    create: bool,
    adopt: bool = False,
) -> Iterator[PostgresStore]:
    """Open the store of a URL with the embedder that ``choose`` picks for its recorded space."""
    address = parse_url(url)
    if address.conninfo is not None:
        with _open(address.conninfo, address, choose, create=create, adopt=adopt) as store:
            yield store
        return
    with (
        EmbeddedPostgres(address.folder) as server,
        _open(server.conninfo, address, choose, create=create, adopt=adopt) as store,
    ):
        yield store


@contextmanager
def _open(
    conninfo: str,
    address: Address,
    choose: Callable[[EmbeddingSpace | None], Embedder],
    *,
    create: bool,
    adopt: bool,
) -> Iterator[PostgresStore]:
    with psycopg.connect(with_timeout(conninfo), autocommit=True) as connection:
        recorded = recorded_space(connection, address.table, schema=address.schema)
    # Over a conninfo, not this connection, so that it can connect again.
    with PostgresStore(
        conninfo,
        address.table,
        schema=address.schema,
        embedder=choose(recorded),
        create=create,
        adopt=adopt,
    ) as store:
        yield store
