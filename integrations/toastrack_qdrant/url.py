"""Open the store that a URL names: a server, or a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from qdrant_client import QdrantClient

from toastrack import Embedder
from toastrack.errors import StoreError
from toastrack.stores import Adopt, ChooseEmbedder, OwnClient, without_collection
from toastrack_qdrant.host import Host
from toastrack_qdrant.host_errors import is_away, is_silent, no_answer
from toastrack_qdrant.layouts import Fields, layout_of
from toastrack_qdrant.recorded import METADATA_KEY
from toastrack_qdrant.store import QdrantStore

_FORMS = (
    "Write qdrant+http://host:6333/collection, or qdrant:DIR/collection for a folder; behind what "
    "something else filled ?fields=langchain, or ?fields=text:KEY,metadata:KEY."
)
_META = "meta.json"  # what qdrant-client writes into a folder first
_API_KEY = "QDRANT_API_KEY"
# The client's own 5 seconds are short for a server that is busy with what it was just given.
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Address:
    """A URL taken apart; the key is in no repr."""

    collection: str
    folder: str | None = None
    """None for a server."""
    server: str | None = None
    """Scheme, host and port."""
    prefix: str | None = None
    api_key: str | None = field(default=None, repr=False)
    fields: Fields | None = None


def parse_url(url: str) -> Address:
    """Take a URL apart; the last part of its path is the collection."""
    url, fields = _without_fields(url)
    scheme, _, rest = url.partition(":")
    if scheme == "qdrant":
        folder, _, collection = unquote(rest).rpartition("/")
        if not folder or collection in ("", ".", ".."):
            raise StoreError(f"This URL names no folder and collection. {_FORMS}")
        return Address(collection, folder=folder, fields=fields)
    try:
        parts = urlsplit(url)
        port = parts.port or 6333
    except ValueError:  # whose message repeats the URL, password and all
        raise StoreError(f"This is not a URL of Qdrant. {_FORMS}") from None
    prefix, _, collection = unquote(parts.path).strip("/").rpartition("/")
    if not parts.hostname or not collection or parts.query or parts.fragment:
        raise StoreError(
            f"This URL needs a host and a collection, and takes nothing behind them. {_FORMS}"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    password = unquote(parts.password) if parts.password else None
    return Address(
        collection,
        server=f"{scheme.removeprefix('qdrant+')}://{host}:{port}",
        prefix=prefix or None,
        api_key=password or os.environ.get(_API_KEY) or None,
        fields=fields,
    )


def _without_fields(url: str) -> tuple[str, Fields | None]:
    """Return a URL without the layout at its end, and that."""
    rest, mark, written = url.partition("?fields=")
    if not mark:
        return url, None
    fields: Fields = unquote(written)
    if ":" in fields:
        pairs = (part.partition(":") for part in str(fields).split(","))
        fields = {name: key or None for name, _, key in pairs}
    try:
        layout_of(fields)
    except ValueError as error:
        raise StoreError(f"{error} {_FORMS}") from None
    return rest, fields


@contextmanager
def open_url(
    url: str, embedder: Embedder | ChooseEmbedder, *, create: bool, adopt: Adopt = False
) -> Iterator[QdrantStore]:
    """Open the store of a URL; ``embedder`` may depend on the space that it recorded."""
    address = parse_url(url)
    if not create and address.folder is not None and not Path(address.folder, _META).is_file():
        # Opening any other folder would put files into it.
        raise StoreError(f"There is no Qdrant in the folder {address.folder!r}. Ingest first.")
    client: Any = _UrlClient(url, Path.cwd())
    with QdrantStore(
        client,
        address.collection,
        embedder=embedder,
        fields=address.fields,
        create=create,
        adopt=adopt,
    ) as store:
        yield store


@contextmanager
def collections_at(url: str) -> Iterator[list[str]]:
    """Find the collections that recorded a space, all or the one that the URL names."""
    url, mark, fields = url.partition("?fields=")
    base, named = without_collection(url, lambda folder: Path(folder, _META).is_file())
    address = parse_url(f"{base}/x")
    if address.folder is not None and not Path(address.folder, _META).is_file():
        raise StoreError(f"There is no Qdrant in the folder {address.folder!r}. Ingest first.")
    client = _client(address)
    try:
        names = [found.name for found in client.get_collections().collections]
        wanted = sorted(name for name in names if named in (None, name))
        found = [name for name in wanted if _has_space(client, name)]
    except Exception as error:
        if not is_away(error) and not is_silent(error):
            raise
        raise no_answer(Host(client).address, error) from error
    finally:
        client.close()
    yield [f"{base}/{quote(name, safe='')}{mark}{fields}" for name in found]


def _has_space(client: QdrantClient, name: str) -> bool:
    keys = client.get_collection(name).config.metadata or {}
    return METADATA_KEY in keys


class _UrlClient(OwnClient):
    """The client of a URL, as it was meant in a folder.

    The address is all that a pickle has: a key in the environment is read where it is opened.
    """

    def make(self) -> QdrantClient:
        url, here = self.address
        address = parse_url(url)
        if address.folder is not None:
            if self.inherited:
                raise StoreError(
                    f"The process that this one was forked from uses the folder "
                    f"{address.folder!r}. Open it after the fork, in one process, or run a Qdrant "
                    "server, which serves many."
                )
            address = replace(address, folder=str(here / address.folder))
        return _client(address)

    def dispose(self, client: QdrantClient) -> None:
        client.close()


def _client(address: Address) -> QdrantClient:
    if address.folder is None:
        # A server that is down is told by the first call, in one error.
        return QdrantClient(
            address.server,
            prefix=address.prefix,
            api_key=address.api_key,
            timeout=_TIMEOUT_S,
            check_compatibility=False,
        )
    try:
        # Calls are made one at a time, so any thread may make them.
        return QdrantClient(path=address.folder, force_disable_check_same_thread=True)
    except RuntimeError as error:
        if "already accessed" not in str(error):
            raise
        raise StoreError(
            f"Another process uses the folder {address.folder!r}. Wait for it, or run a Qdrant "
            "server, which serves many."
        ) from None
