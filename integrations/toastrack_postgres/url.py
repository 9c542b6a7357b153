"""Open the store that a URL names: a server elsewhere, or the embedded one in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from toastrack import Embedder
from toastrack.errors import StoreError
from toastrack.stores import ChooseEmbedder
from toastrack_postgres.conninfo import MALFORMED, check_conninfo
from toastrack_postgres.embedded import OwnServer
from toastrack_postgres.store import DEFAULT_TABLE, PostgresStore

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
    url: str, embedder: Embedder | ChooseEmbedder, *, create: bool, adopt: bool = False
) -> Iterator[PostgresStore]:
    """Open the store of a URL; ``embedder`` may depend on the space that it recorded."""
    address = parse_url(url)
    server: Any = address.conninfo
    if server is None:
        server = OwnServer(address.folder)
        if not create and not server.is_there():
            # Starting it would make one.
            raise StoreError(
                f"There is no Postgres in {str(server.folder)!r}. Ingest into it first."
            )
    with PostgresStore(
        server,
        address.table,
        schema=address.schema,
        embedder=embedder,
        create=create,
        adopt=adopt,
    ) as store:
        yield store
