"""`toastrack serve`, on a thread of the tests' or in a process of its own, and what asks it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from programs import Warm

from toastrack import Embedder
from toastrack.models.tokenizer import Tokens
from toastrack.serve.app import Limits, Served
from toastrack.serve.server import Server
from toastrack.utils import arrays

# Far more than any answer takes, so that a busy machine is no failure.
SECONDS = 120

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\n"
"""How a request begins that is written by hand."""


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
    """`toastrack serve` as its users start it, and perhaps code that goes before."""

    def __init__(self, *arguments: str | Path, before: str = "", **env: str) -> None:
        words = ["toastrack", "serve", "--port", "0", *map(str, arguments)]
        code = (
            f"import sys\nsys.argv = {words!r}\n{before}\nfrom toastrack.cli import main\nmain()\n"
        )
        self.program = Warm(code, **env)
        said = self.program.said_until(r" at (http://\S+)/v1\n")
        self.address = said[1]

    @property
    def pid(self) -> int:
        """Which process it is."""
        return self.program.pid

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


def waiting(address: str, kind: str = "documents") -> int:
    """How many texts of a kind wait or are in work."""
    number = ask(address, "/health").content["waiting"][kind]
    assert isinstance(number, int)
    return number


def wait_for(address: str, number: int, kind: str = "documents") -> None:
    """Ask until so many texts wait."""
    end = monotonic() + SECONDS
    while (found := waiting(address, kind)) != number:
        assert monotonic() < end, found


class Gate:
    """Holds up the engine of an embedder until it is opened, and counts its batches."""

    def __init__(self, embedder: Embedder, patch: pytest.MonkeyPatch) -> None:
        engine = embedder._worker().engine
        run = engine.run
        self.batches: list[int] = []
        self.reached = Event()
        self.open = Event()

        def held(batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
            self.batches.append(len(batch))
            self.reached.set()
            assert self.open.wait(SECONDS)
            return run(batch, prompt=prompt)

        patch.setattr(engine, "run", held)
