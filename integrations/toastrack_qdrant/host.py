"""The user's client: which kind it is, and how its calls are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient

from toastrack.stores import OwnClient, RetryingSession, after_fork

Client = QdrantClient | AsyncQdrantClient

# Several stores may share one local client, so its lock belongs to the client.
_locks: WeakKeyDictionary[Client, Lock] = WeakKeyDictionary()
_locks_lock = Lock()


def _start_anew() -> None:
    """In a forked child: its clients are others."""
    global _locks, _locks_lock
    _locks, _locks_lock = WeakKeyDictionary(), Lock()


after_fork(_start_anew)


class Host:
    """Makes the calls of a client; those of a local one are made one at a time, off the loop.

    A local client (``:memory:``, ``path=``) is numpy arrays without a lock: two writers break
    them (https://github.com/qdrant/qdrant-client/issues/1193), and its asynchronous twin blocks.
    """

    def __init__(self, given: Client | OwnClient) -> None:
        self.given = given

    @property
    def client(self) -> Client:
        """The user's client, or that of the store's own."""
        given = self.given
        client: Client = given.get() if isinstance(given, OwnClient) else given
        return client

    @property
    def local(self) -> bool:
        """Whether the client is a database itself."""
        options = self.client.init_options
        return options["location"] == ":memory:" or options["path"] is not None

    async def call(self, session: RetryingSession, name: str, /, *args: Any, **options: Any) -> Any:
        """Call a method of the client."""
        client = self.client
        function = getattr(client, name)
        if not self.local:
            return await session.call(function, *args, **options)
        call = partial(function, *args, **options)
        if isinstance(client, AsyncQdrantClient):
            call = partial(_finished, call)
        with _locks_lock:
            lock = _locks.setdefault(client, Lock())
        return await session.runtime.offload(_alone, lock, call)

    @property
    def address(self) -> str:
        """Host and port for people, without what else a URL may hold."""
        options = self.client.init_options
        url = options["url"] or options["location"] or ""
        parts = urlsplit(url if "//" in url else f"//{url}")
        grpc = options["prefer_grpc"]
        port = options["grpc_port"] if grpc else parts.port or options["port"]
        return f"{options['host'] or parts.hostname or 'localhost'}:{port}"


def _alone(lock: Lock, call: Callable[[], Any]) -> Any:
    with lock:
        return call()


def _finished(call: Callable[[], Any]) -> Any:
    """Run an asynchronous call to its end on this thread; a local client waits for nothing."""

    async def run() -> Any:
        return await call()

    return asyncio.run(run())
