"""Open the store that a URL names: a server elsewhere, or the embedded one in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import psycopg

from toastrack import Embedder
from toastrack.errors import StoreError
from toastrack.stores import Adopt, ChooseEmbedder
from toastrack_postgres.catalogue import TABLES_WITH_SPACE
from toastrack_postgres.columns import Columns, layout_of
from toastrack_postgres.conninfo import MALFORMED, check_conninfo, with_timeout
from toastrack_postgres.embedded import OwnServer
from toastrack_postgres.reconnecting import connecting
from toastrack_postgres.store import DEFAULT_TABLE, PostgresStore

_EMBEDDED = "postgres+embedded"


@dataclass(frozen=True)
class Address:
    """A URL taken apart: the server, and the table that only we know of."""

    conninfo: str | None = field(repr=False)
    """With the password, if there is one; None for the embedded server."""
    folder: str | None
    table: str
    schema: str | None
    columns: Columns | None = None


def parse_url(url: str) -> Address:
    """Take a URL apart; all but ``table``, ``schema`` and ``columns`` is libpq's, left as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:  # whose message repeats the URL, password and all
        raise StoreError(MALFORMED) from None
    ours, rest = _split_query(parts.query)
    table = ours.get("table") or DEFAULT_TABLE
    schema = ours.get("schema") or None
    columns = _columns(ours.get("columns"))
    if parts.scheme == _EMBEDDED:
        if rest:
            raise StoreError(
                f"{_EMBEDDED}: URLs know table, schema and columns, not {rest[0].partition('=')[0]!r}: "
                f"{_EMBEDDED}:DIR?table=docs"
            )
        return Address(None, unquote(parts.netloc + parts.path) or None, table, schema, columns)
    conninfo = _joined(parts, rest)
    check_conninfo(conninfo)
    return Address(conninfo, None, table, schema, columns)


@contextmanager
def open_url(
    url: str, embedder: Embedder | ChooseEmbedder, *, create: bool, adopt: Adopt = False
) -> Iterator[PostgresStore]:
    """Open the store of a URL; ``embedder`` may depend on the space that it recorded."""
    address = parse_url(url)
    with PostgresStore(
        _server(address, create=create),
        address.table,
        schema=address.schema,
        embedder=embedder,
        create=create,
        adopt=adopt,
        columns=address.columns,
    ) as store:
        yield store


@contextmanager
def collections_at(url: str) -> Iterator[list[str]]:
    """Find the tables that recorded a space; ``table`` and ``schema`` narrow them down."""
    address = parse_url(url)
    server = _server(address, create=False)
    layout = None if address.columns is None else layout_of(address.columns)
    vectors = "embedding" if layout is None else layout.columns.get("embedding", "embedding")
    with server if isinstance(server, OwnServer) else nullcontext():
        conninfo = server.conninfo if isinstance(server, OwnServer) else server
        with connecting(conninfo, once=True):
            connection = psycopg.connect(with_timeout(conninfo), autocommit=True)
        with connection:
            rows = connection.execute(TABLES_WITH_SPACE, [vectors]).fetchall()
        parts = urlsplit(url)
        asked, rest = _split_query(parts.query)
        columns = asked.pop("columns", None)
        said = [] if columns is None else [urlencode({"columns": columns})]
        yield [
            _joined(parts, [*rest, urlencode(found), *said])
            for found in (
                {"schema": schema, "table": table}
                for schema, table, is_ours in rows
                if is_ours or layout is not None
            )
            if all(found[name] == value for name, value in asked.items())
        ]


def _columns(written: str | None) -> Columns | None:
    if not written:
        return None
    columns: Columns = written
    if ":" in written:
        pairs = (part.partition(":") for part in written.split(","))
        columns = {name: column for name, _, column in pairs}
    try:
        layout_of(columns)
    except ValueError as error:
        raise StoreError(
            f"{error} In a URL: &columns=langchain, or &columns=id:nr,text:body."
        ) from None
    return columns


def _server(address: Address, *, create: bool) -> Any:
    if address.conninfo is not None:
        return address.conninfo
    server = OwnServer(address.folder)
    if not create and not server.is_there():
        # Starting one would put it into any folder that was misspelt.
        raise StoreError(f"There is no Postgres in {str(server.folder)!r}. Ingest into it first.")
    return server


def _joined(parts: SplitResult, fields: Sequence[str]) -> str:
    """Return a URL with another query; ``postgresql:///db`` keeps its slashes, too."""
    url = urlunsplit(parts._replace(query="&".join(fields)))
    bare = f"{parts.scheme}:"
    if parts.scheme != _EMBEDDED and not url.startswith(f"{bare}//"):
        return f"{bare}//{url.removeprefix(bare)}"
    return url


def _split_query(query: str) -> tuple[dict[str, str], list[str]]:
    """Return what only we know of a query, and what is libpq's, as it is."""
    parts = [part for part in query.split("&") if part]
    ours = [part for part in parts if part.partition("=")[0] in ("table", "schema", "columns")]
    return dict(parse_qsl("&".join(ours))), [part for part in parts if part not in ours]
