"""A process between a client and its Postgres that holds every byte back for a while.

It stands for a network: what is sent arrives so much later, in order, however much is under way.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_CHUNK = 1 << 16


@contextmanager
def far(conninfo: str, seconds: float) -> Iterator[str]:
    """Give a conninfo by which a local server is as far away as a round trip of so many seconds."""
    given = conninfo_to_dict(conninfo)
    place = f"{given['host']}/.s.PGSQL.{given.get('port') or 5432}"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Of its own, so that it shares no interpreter with the client whose waits are measured.
    process = context.Process(target=_serve, args=(place, seconds / 2, theirs), daemon=True)
    process.start()
    try:
        yield make_conninfo(conninfo, host="127.0.0.1", port=ours.recv(), sslmode="disable")
    finally:
        process.terminate()
        process.join()


def _serve(place: str, delay: float, port: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port.send(listening.getsockname()[1])
        while True:
            client = listening.accept()[0]
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.socket(socket.AF_UNIX)
            server.connect(place)
            for source, target in ((client, server), (server, client)):
                held: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                Thread(target=_receive, args=(source, held, delay), daemon=True).start()
                Thread(target=_deliver, args=(target, held), daemon=True).start()


def _receive(source: socket.socket, held: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    data = b"something"
    while data:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        held.put((time.monotonic() + delay, data))


def _deliver(target: socket.socket, held: SimpleQueue[tuple[float, bytes]]) -> None:
    with suppress(OSError):
        while True:
            due, data = held.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(data)
