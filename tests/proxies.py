"""Something between a client and its server that counts their bytes, and may cut them off."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Literal

Direction = Literal["sent", "received"]


@dataclass
class Passed:
    """The bytes that have passed on one connection."""

    sent: int = 0
    """By the client."""
    received: int = 0
    """By the client."""
    ended: Event = field(default_factory=Event)


class Proxy:
    """Listens on a port of loopback and passes on what comes, each connection on a thread."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.connections: list[Passed] = []
        self._connect = connect
        self._way: Direction | None = None
        self._left = self._count = self._times = 0
        self._cutting = Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def total(self, way: Direction) -> int:
        """Return how many bytes have passed in a direction."""
        return sum(getattr(passed, way) for passed in self.connections)

    def cut(self, way: Direction, count: int, times: int = 1) -> None:
        """Cut the connection on which the byte after so many comes; and again after as many more."""
        with self._cutting:
            self._way, self._left, self._count, self._times = way, count, count, times

    def let_pass(self) -> None:
        """Let everything pass from now on."""
        with self._cutting:
            self._way = None

    def _passing(self, way: Direction, data: bytes) -> tuple[bytes, bool]:
        """Return what may pass of some bytes, and whether it is the last that does."""
        with self._cutting:
            if self._way != way:
                return data, False
            passing = data[: self._left]
            self._left -= len(passing)
            if len(passing) == len(data):
                return data, False
            self._left, self._times = self._count, self._times - 1
            if not self._times:
                self._way = None
            return passing, True

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client = self._listening.accept()[0]
                passed = Passed()
                self.connections.append(passed)
                thread = Thread(target=self._serve, args=(client, passed))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket, passed: Passed) -> None:
        try:
            with client, self._connect() as server, suppress(ConnectionError):
                while True:
                    ready: list[Any] = wait([client, server], timeout=0.05)
                    for source in ready:
                        way: Direction = "sent" if source is client else "received"
                        data = source.recv(65_536)
                        if not data:
                            return
                        data, is_cut = self._passing(way, data)
                        (server if source is client else client).sendall(data)
                        setattr(passed, way, getattr(passed, way) + len(data))
                        if is_cut:
                            return
                    if self._listening.fileno() < 0:
                        return
        finally:
            passed.ended.set()


def unix(path: str) -> Callable[[], socket.socket]:
    """Return what connects to a socket in a folder."""

    def connect() -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.connect(path)
        return server

    return connect


def tcp(host: str, port: int) -> Callable[[], socket.socket]:
    """Return what connects to a port."""
    return lambda: socket.create_connection((host, port))


def postgres(dsn: str) -> Callable[[], socket.socket]:
    """Return what connects to the server of a conninfo."""
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(dsn)
    host, port = str(given.get("host") or "127.0.0.1"), int(given.get("port") or 5432)
    return unix(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else tcp(host, port)
