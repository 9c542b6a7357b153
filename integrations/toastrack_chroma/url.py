"""Open the store that a URL names: a server, or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import chromadb

from toastrack import Embedder
from toastrack.errors import StoreError
from toastrack.stores import ChooseEmbedder
from toastrack_chroma.store import ChromaStore

_FORMS = "chroma+http://host:8000/collection or chroma:DIR/collection"


@contextmanager
def open_url(
    url: str, embedder: Embedder | ChooseEmbedder, *, create: bool, adopt: bool = False
) -> Iterator[ChromaStore]:
    """Open the store of a URL; ``embedder`` may depend on the space that it recorded."""
    client, collection = _client(url, create=create)
    try:
        store = ChromaStore(client, collection, embedder=embedder, create=create, adopt=adopt)
        with store:
            yield store
    finally:
        _close(client)


def _close(client: Any) -> None:
    """Close a client of ours, and the connections that Chroma leaves to the garbage collector."""
    servers = [client._server, client._admin_client._server]
    if hasattr(client, "close"):  # from 1.4 on
        client.close()
    for server in servers:
        if hasattr(server, "_session"):
            server._session.close()


def _client(url: str, *, create: bool) -> tuple[Any, str]:
    scheme, _, rest = url.partition(":")
    if scheme == "chroma":
        folder, collection = _folder(rest)
        if not create and not (folder / "chroma.sqlite3").exists():
            raise StoreError(
                f"There is no Chroma database in {str(folder)!r}. Ingest into it first."
            )
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{str(folder)!r} is a file, not the folder of a Chroma database.")
        return chromadb.PersistentClient(str(folder)), collection
    try:
        parts = urlsplit(url.removeprefix("chroma+"))
        given_port = parts.port
    except ValueError:  # its own words would repeat what may be a password
        raise StoreError(f"This is not a Chroma URL. Write {_FORMS}.") from None
    collection = unquote(parts.path.strip("/"))
    if (
        not parts.hostname
        or not collection
        or "/" in collection
        or parts.query
        or parts.fragment
        or given_port == 0
    ):
        raise StoreError(f"This is not a Chroma URL. Write {_FORMS}.")
    if parts.username or parts.password:
        raise StoreError(
            "Chroma servers know no users, so its URLs have no user and password. Use a "
            "ChromaStore over a client with headers= for what stands before it."
        )
    secure = parts.scheme == "https"
    port = given_port or (443 if secure else 8000)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    try:
        return chromadb.HttpClient(host=host, port=port, ssl=secure), collection
    except ValueError as error:
        raise StoreError(
            f"No Chroma server answers at {host}:{port}. Start one: "
            f"chroma run --path DIR --host {parts.hostname} --port {port}"
        ) from error


def _folder(rest: str) -> tuple[Path, str]:
    folder, _, collection = unquote(rest).rpartition("/")
    if not folder or not collection or (rest.startswith("//") and rest[2:3] != "/"):
        raise StoreError(f"This URL names no folder and collection. Write {_FORMS}.")
    return Path(folder).expanduser(), collection
