"""The user's client: which kind it is, and how its calls are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from toastrack.stores import OwnClient, RetryingSession, after_fork, run_sync
from toastrack_qdrant.changes import Change

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

    async def update(
        self,
        session: RetryingSession,
        collection: str,
        operations: Sequence[models.UpdateOperation],
        changes: Sequence[Change],
    ) -> None:
        """Make operations, then changes, one after another.

        A local client compares each of its points with a filter; so there a change looks at its
        own point and is made by its id, which nobody else's call comes between.
        """
        if self.local:
            client = self.client
            body = partial(_update, client, collection, operations, changes)
            run = asyncio.run if isinstance(client, AsyncQdrantClient) else run_sync
            with _locks_lock:
                lock = _locks.setdefault(client, Lock())
            await session.runtime.offload(_alone, lock, lambda: run(body()))
            return
        both = [*operations, *(change.operation() for change in changes)]
        await self.call(session, "batch_update_points", collection, both, wait=True)

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


async def _update(
    client: Any,
    collection: str,
    operations: Sequence[models.UpdateOperation],
    changes: Sequence[Change],
) -> None:
    async def ask(name: str, *args: Any, **options: Any) -> Any:
        answer = getattr(client, name)(collection, *args, **options)
        return await answer if isinstance(client, AsyncQdrantClient) else answer

    if operations:
        await ask("batch_update_points", operations)
    for change in changes:
        for point in await ask("retrieve", [change.point], with_payload=True):
            if change.fits(point.payload or {}):
                await ask("set_payload", dict(change.values), points=[change.point])


def _finished(call: Callable[[], Any]) -> Any:
    """Run an asynchronous call to its end on this thread; a local client waits for nothing."""

    async def run() -> Any:
        return await call()

    return asyncio.run(run())
