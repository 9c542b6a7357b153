"""Open the store that a URL names: a server, or a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import chromadb
import httpx
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import Settings

from toastrack import Embedder
from toastrack.errors import ConnectionLostError, StoreError
from toastrack.stores import Adopt, ChooseEmbedder, OwnClient, after_fork, without_collection
from toastrack_chroma.folder_lock import hold, let_go
from toastrack_chroma.host_errors import is_away, no_answer
from toastrack_chroma.recorded import SPACE
from toastrack_chroma.store import ChromaStore

_FORMS = "chroma+http://host:8000/collection or chroma:DIR/collection"


@dataclass(frozen=True)
class Address:
    """A URL taken apart."""

    collection: str
    folder: Path | None = None
    """None for a server."""
    host: str = ""
    port: int = 0
    secure: bool = False


@contextmanager
def open_url(
    url: str, embedder: Embedder | ChooseEmbedder, *, create: bool, adopt: Adopt = False
) -> Iterator[ChromaStore]:
    """Open the store of a URL; ``embedder`` may depend on the space that it recorded."""
    address = parse_url(url)
    client: Any = _UrlClient(address, create)
    with ChromaStore(
        client, address.collection, embedder=embedder, create=create, adopt=adopt
    ) as store:
        yield store


@contextmanager
def collections_at(url: str) -> Iterator[list[str]]:
    """Find the collections that recorded a space, all or the one that the URL names."""
    base, named = without_collection(
        url, lambda folder: (Path(folder).expanduser() / "chroma.sqlite3").exists()
    )
    client = _UrlClient(parse_url(f"{base}/x"), False)
    try:
        found = [
            collection.name
            for collection in client.get().list_collections()
            if SPACE in (collection.metadata or {}) and named in (None, collection.name)
        ]
    except Exception as error:
        if not is_away(error):
            raise
        raise no_answer(client.get(), error) from error
    finally:
        client.close()
    yield [f"{base}/{quote(name, safe='')}" for name in sorted(found)]


class _UrlClient(OwnClient):
    """The client of a URL."""

    def make(self) -> Any:
        return _client(*self.address)

    def dispose(self, client: Any) -> None:
        """Close a client, and the connections that Chroma leaves to the garbage collector."""
        servers = [client._server, client._admin_client._server]
        if hasattr(client, "close"):  # from 1.4 on
            client.close()
        for server in servers:
            if hasattr(server, "_session"):
                server._session.close()
        address, _ = self.address
        if address.folder is not None:
            let_go(address.folder)
        else:
            _forget(client.get_settings())


def parse_url(url: str) -> Address:
    """Take a URL apart; the last part of its path is the collection."""
    scheme, _, rest = url.partition(":")
    if scheme == "chroma":
        folder, collection = _folder(rest)
        return Address(collection, folder.absolute())
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
    return Address(collection, None, host, port, secure)


def _start_anew() -> None:
    """In a forked child: Chroma counts its clients behind a lock that another thread may have held."""
    if hasattr(SharedSystemClient, "_refcount_lock"):
        SharedSystemClient._refcount_lock = Lock()


after_fork(_start_anew)


# The process that has a Chroma of its own in it. Its threads are in no fork, which would wait for
# them for ever.
_local_in: int | None = None


def _client(address: Address, create: bool) -> Any:
    global _local_in
    folder = address.folder
    if folder is not None:
        if _local_in not in (None, os.getpid()):
            raise StoreError(
                f"The process that this one was forked from uses Chroma in {str(folder)!r}, and "
                "Chroma does not outlive a fork. Open the folder after the fork only, start "
                "processes by spawn, or run a Chroma server: chroma run --path DIR"
            )
        if not create and not (folder / "chroma.sqlite3").exists():
            raise StoreError(
                f"There is no Chroma database in {str(folder)!r}. Ingest into it first."
            )
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{str(folder)!r} is a file, not the folder of a Chroma database.")
        hold(folder)
        try:
            _local_in = os.getpid()
            return chromadb.PersistentClient(str(folder))
        except BaseException:
            let_go(folder)
            raise
    host, port, settings = address.host, address.port, Settings()
    try:
        return chromadb.HttpClient(host=host, port=port, ssl=address.secure, settings=settings)
    except BaseException as error:
        _forget(settings)
        if not isinstance(error, (ValueError, httpx.HTTPError)):
            raise
        # It was not there at all, or went.
        raise ConnectionLostError(
            f"No Chroma server answers at {host}:{port}. Start one: "
            f"chroma run --path DIR --host {host.strip('[]')} --port {port}"
        ) from error


def _forget(settings: Settings) -> None:
    """Drop what Chroma made for a client of a server with these settings, closed or never made.

    It keeps that under another name, too, which its own ``close`` does not know.
    """
    kept = SharedSystemClient._identifier_to_system
    for name, system in list(kept.items()):
        if system.settings is settings:
            kept.pop(name, None)
            for part in system.components():
                if hasattr(part, "_session"):
                    part._session.close()


def _folder(rest: str) -> tuple[Path, str]:
    folder, _, collection = unquote(rest).rpartition("/")
    if not folder or not collection or (rest.startswith("//") and rest[2:3] != "/"):
        raise StoreError(f"This URL names no folder and collection. Write {_FORMS}.")
    return Path(folder).expanduser(), collection
