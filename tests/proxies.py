"""Something between a client and its server that counts their bytes, and may cut them off."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Literal

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
        self.cut: tuple[Direction, int] | None = None
        """After how many bytes in which direction new connections are cut."""
        self.cuts = 0
        """How many more connections that is done to."""
        self._connect = connect
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

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client = self._listening.accept()[0]
                passed, cut = Passed(), self.cut if self.cuts > 0 else None
                self.cuts -= 1
                self.connections.append(passed)
                thread = Thread(target=self._serve, args=(client, passed, cut))
                self._threads.append(thread)
                thread.start()

    def _serve(
        self, client: socket.socket, passed: Passed, cut: tuple[Direction, int] | None
    ) -> None:
        try:
            with client, self._connect() as server, suppress(ConnectionError):
                while True:
                    for source in select.select([client, server], [], [], 0.05)[0]:
                        way: Direction = "sent" if source is client else "received"
                        data = source.recv(65_536)
                        if cut is not None and cut[0] == way:
                            data = data[: cut[1] - getattr(passed, way)]
                        if not data:
                            return
                        (server if source is client else client).sendall(data)
                        setattr(passed, way, getattr(passed, way) + len(data))
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
