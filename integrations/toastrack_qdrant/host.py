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

from toastrack.stores import RetryingSession

Client = QdrantClient | AsyncQdrantClient

# Several stores may share one local client, so its lock belongs to the client.
_locks: WeakKeyDictionary[Client, Lock] = WeakKeyDictionary()
_locks_lock = Lock()


class Host:
    """Makes the calls of a client; those of a local one are made one at a time, off the loop.

    A local client (``:memory:``, ``path=``) is numpy arrays without a lock: two writers break
    them (https://github.com/qdrant/qdrant-client/issues/1193), and its asynchronous twin blocks.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        options = client.init_options
        self.local = options["location"] == ":memory:" or options["path"] is not None
        with _locks_lock:
            self._lock = _locks.setdefault(client, Lock())

    async def call(self, session: RetryingSession, name: str, /, *args: Any, **options: Any) -> Any:
        """Call a method of the client."""
        function = getattr(self.client, name)
        if not self.local:
            return await session.call(function, *args, **options)
        call = partial(function, *args, **options)
        if isinstance(self.client, AsyncQdrantClient):
            call = partial(_finished, call)
        return await session.runtime.offload(self._alone, call)

    def _alone(self, call: Callable[[], Any]) -> Any:
        with self._lock:
            return call()

    @property
    def address(self) -> str:
        """Host and port for people, without what else a URL may hold."""
        options = self.client.init_options
        url = options["url"] or options["location"] or ""
        parts = urlsplit(url if "//" in url else f"//{url}")
        grpc = options["prefer_grpc"]
        port = options["grpc_port"] if grpc else parts.port or options["port"]
        return f"{options['host'] or parts.hostname or 'localhost'}:{port}"


def _finished(call: Callable[[], Any]) -> Any:
    """Run an asynchronous call to its end on this thread; a local client waits for nothing."""

    async def run() -> Any:
        return await call()

    return asyncio.run(run())
