"""`toastrack serve`, on a thread of the tests' or in a process of its own, and what asks it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from programs import Warm

from toastrack.serve.app import Limits, Served
from toastrack.serve.server import Server

# Far more than any answer takes, so that a busy machine is no failure.
SECONDS = 120


class Reply(NamedTuple):
    """What a server said."""

    status: int
    content: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        """What it says is wrong."""
        message = self.content["error"]["message"]
        assert isinstance(message, str)
        return message


@contextmanager
def serving(
    served: Served, *, limits: Limits | None = None, key_name: str = "NO_KEY_HERE"
) -> Iterator[str]:
    """Serve models of this process until the block is left; yield the address."""
    server = Server(served, limits=limits, key_name=key_name)
    server.load()
    ready = Event()
    thread = Thread(target=server.run, args=(ready.set,), name="served")
    thread.start()
    assert ready.wait(SECONDS)
    try:
        yield server.address
    finally:
        server.stop()
        thread.join()


class Process:
    """`toastrack serve` as its users start it; what it says goes into files."""

    def __init__(self, folder: Path, *arguments: str | Path, before: str = "", **env: str) -> None:
        ready = folder / "address"
        os.mkfifo(ready)
        words = ["toastrack", "serve", "--port", "0", *map(str, arguments)]
        code = (
            f"import sys\nsys.argv = {words!r}\n"
            "from toastrack.serve.server import Server\n"
            "run = Server.run\n"
            "def noted(server, on_ready):\n"
            "    def ready():\n"
            "        on_ready()\n"
            f"        open({str(ready)!r}, 'w').write(server.address)\n"
            "    run(server, ready)\n"
            "Server.run = noted\n"
            f"{before}\n"
            "from toastrack.cli import main\nmain()\n"
        )
        self.program = Warm(code, **env)
        with ready.open() as told:
            self.address = told.read()
        assert self.address, self.program.finish()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.program.__exit__()


def ask(
    address: str,
    path: str = "/v1/embeddings",
    body: Any = None,
    method: str | None = None,
    **headers: str,
) -> Reply:
    """Send a request: JSON, or bytes as they are."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=SECONDS)
    try:
        content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(
            method or ("GET" if content is None else "POST"), path, content, headers=sent
        )
        response = connection.getresponse()
        data = response.read()
        heads = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, json.loads(data) if data else None, heads)
    finally:
        connection.close()


def connected(address: str) -> socket.socket:
    """Open a connection for bytes that no client would send."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=SECONDS)
