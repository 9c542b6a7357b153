"""Where a store's connection comes from: made from a conninfo, the caller's own, or a pool's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from threading import Lock, Thread, current_thread
from typing import Any, Literal, TypeVar, get_args
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

from toastrack.stores import Runtime, after_fork, keep_for_ever
from toastrack_postgres.conninfo import with_timeout
from toastrack_postgres.embedded import OwnServer
from toastrack_postgres.reconnecting import borrowing, connecting, noticing_loss
from toastrack_postgres.session import AnyConnection

T = TypeVar("T")

LendAnother = Callable[[float], AbstractAsyncContextManager[AnyConnection]]

Use = Literal["read", "write", "build"]
_USES: tuple[Use, ...] = get_args(Use)

_SECONDS_TO_CANCEL = 3.0

# Two threads or tasks on one connection would end each other's transactions, and several stores may
# be over it.
_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_locks_lock = Lock()


def _lock_of(connection: Any, runtime: Runtime) -> Any:
    with _locks_lock:
        return _locks.setdefault(connection, runtime.lock())


def _start_anew() -> None:
    """In a forked child: another thread may have held it."""
    global _locks_lock
    _locks_lock = Lock()


after_fork(_start_anew)


class Connections:
    """Lends a connection to one operation at a time, and closes what was made here.

    Over a conninfo, each event loop has connections of its own, and all threads have some: one, and
    another while that is in use, as who asks does not wait for who writes, and neither for a build.
    """

    def __init__(self, runtime: Runtime, given: Any) -> None:
        self._runtime = runtime
        self._given = given
        self.is_own = isinstance(given, (str, OwnServer))
        self.is_callers = isinstance(given, (psycopg.Connection, psycopg.AsyncConnection))
        self._using: dict[Use, Any] = (
            dict.fromkeys(_USES, _lock_of(given, runtime))
            if self.is_callers
            else {use: runtime.lock() for use in _USES}
        )
        self._idle: dict[asyncio.AbstractEventLoop | None, list[Any]] = {}
        self._connected = False
        self._made: WeakSet[Any] = WeakSet()
        self._in_use: dict[Thread, AnyConnection] = {}
        self._interrupted: WeakSet[Thread] = WeakSet()

    @asynccontextmanager
    async def lend(self, use: Use) -> AsyncIterator[AnyConnection]:
        """Lend a connection, of our own one to each use at a time."""
        thread = current_thread()
        async with self._lent(use) as connection:
            self._in_use[thread] = connection
            try:
                if self.is_interrupted():
                    raise psycopg.OperationalError("interrupted while it waited for a connection")
                with noticing_loss(connection):
                    async with self._read_committed(connection):
                        yield connection
            finally:
                self._in_use.pop(thread, None)

    @asynccontextmanager
    async def lend_others(self) -> AsyncIterator[LendAnother]:
        """Lend a second connection again and again, to look on while the first one waits.

        It is a new one for the whole block, or each time the pool's, if that has one to spare
        within some seconds.
        """
        if not self.is_own:
            yield lambda seconds: self._runtime.enter(self._given.connection(timeout=seconds))
            return
        async with self._runtime.enter(await self._connect()) as connection:
            yield lambda seconds: nullcontext(connection)

    async def renew(self) -> None:
        """Give up connections that are likely to be as dead as the one that was lost."""
        if self.is_own:
            await self._close_idle()
        elif callable(check := getattr(self._given, "check", None)):
            await self._runtime.call(check)

    async def close(self) -> None:
        """Close the connections that this thread's event loop, or the threads, made here."""
        if not self.is_own:
            return
        async with AsyncExitStack() as stack:
            for using in self._using.values():
                await stack.enter_async_context(using)
            await self._close_idle()
        if isinstance(self._given, OwnServer):
            self._given.stop()

    def leave_to_parent(self) -> None:
        """In a forked child: forget the parent's connections without a byte on them.

        Their files are exchanged for one that leads nowhere, so that the server sees it when the
        parent is gone, and so that nothing that is still done to them here can reach it.
        """
        for connection in list(self._made):
            with suppress(psycopg.Error):  # it is closed
                _lead_nowhere(connection.pgconn.socket)
            # Its end would be that of a connection that somebody forgot to close.
            keep_for_ever(connection)
        self._made = WeakSet()
        self._using = {use: self._runtime.lock() for use in _USES}
        self._in_use = {}
        self._idle = {}
        self._connected = False

    def interrupt(self, thread: Thread) -> None:
        """Cancel what this thread asks of the server, as psycopg does at Ctrl-C on its own."""
        self._interrupted.add(thread)
        connection = self._in_use.get(thread)
        if isinstance(connection, psycopg.Connection):
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_SECONDS_TO_CANCEL)

    def is_interrupted(self) -> bool:
        """Tell whether ``interrupt`` was called for this thread."""
        return current_thread() in self._interrupted

    @asynccontextmanager
    async def _read_committed(self, connection: AnyConnection) -> AsyncIterator[None]:
        """Begin our transactions at this level, whatever is the connection's or the server's own.

        At another one, what waited for a lock does not see what was committed meanwhile.
        """
        before = connection.isolation_level
        level = IsolationLevel.READ_COMMITTED
        if before == level or not _is_idle(connection):
            yield
            return
        await self._runtime.call(connection.set_isolation_level, level)
        try:
            yield
        finally:
            if _is_idle(connection):
                await self._runtime.call(connection.set_isolation_level, before)

    @asynccontextmanager
    async def _lent(self, use: Use) -> AsyncIterator[AnyConnection]:
        given = self._given
        if self.is_own:
            async with self._using[use]:
                own = await self._own()
                try:
                    yield own
                finally:
                    if _is_idle(own):
                        self._of_loop().append(own)
                    else:  # it broke, in whatever state
                        await self._runtime.call(own.close)
        elif self.is_callers:
            async with self._using[use]:
                yield given
        else:
            async with AsyncExitStack() as stack:
                with borrowing(given):
                    lent = self._runtime.enter(given.connection())
                    connection: AnyConnection = await stack.enter_async_context(lent)
                yield connection

    async def _connect(self) -> Any:
        has_loop = self._runtime.loop() is not None
        kind: Any = psycopg.AsyncConnection if has_loop else psycopg.Connection
        given = self._given
        conninfo = given.start() if isinstance(given, OwnServer) else given
        with connecting(conninfo, again=self._connected):
            connection = await self._runtime.call(
                kind.connect, with_timeout(conninfo), autocommit=True
            )
        await self._runtime.call(connection.set_isolation_level, IsolationLevel.READ_COMMITTED)
        self._made.add(connection)
        return connection

    async def _own(self) -> Any:
        """Return a connection that nobody uses."""
        for own in _popped(self._of_loop()):
            if not own.closed:
                return own
        own = await self._connect()
        self._connected = True
        return own

    def _of_loop(self) -> list[Any]:
        for loop in list(self._idle):
            if loop is not None and loop.is_closed():
                for own in self._idle.pop(loop, []):
                    own.pgconn.finish()  # its loop cannot await any more
        return self._idle.setdefault(self._runtime.loop(), [])

    async def _close_idle(self) -> None:
        for own in _popped(self._of_loop()):
            await self._runtime.call(own.close)


def _popped(items: list[T]) -> Iterator[T]:
    """Take items out, the last one first, of a list that other threads may empty."""
    with suppress(IndexError):
        while True:
            yield items.pop()


def _is_idle(connection: AnyConnection) -> bool:
    return connection.info.transaction_status == TransactionStatus.IDLE


def _lead_nowhere(file: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nowhere, file, inheritable=False)
    finally:
        os.close(nowhere)
