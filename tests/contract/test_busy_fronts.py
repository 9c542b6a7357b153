"""A proxy before a server over HTTP that says that it is busy is waited for, like a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from qdrant_server import Server

from toastrack import Embedder, Record
from toastrack.errors import ConnectionLostError

BUSY = (429, 502, 503, 504)
RECORD = Record("a", "rye", vector=[1.0] * 32)


class Front(ThreadingHTTPServer):
    """Passes requests on to a server, but for those that it answers itself."""

    def __init__(self, to: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.to = to
        self.says: list[int] = []
        """The statuses of its next answers."""


class Relay(BaseHTTPRequestHandler):
    """Handles one request."""

    server: Front

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, kind, content = 0, "text/html", b"<h1>Busy</h1>"
        if self.server.says:
            status = self.server.says.pop(0)
        else:
            with closing(HTTPConnection(*self.server.to)) as connection:
                headers = {"Content-Type": self.headers.get("Content-Type") or "text/plain"}
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
                kind = answer.headers.get("Content-Type") or "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = relay

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    """Serve on a thread; gives the port."""
    with server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@contextmanager
def _chroma(request: pytest.FixtureRequest, embedder: Embedder) -> Iterator[tuple[Front, Any]]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from chroma_server import close_client

    from toastrack_chroma import ChromaStore

    front = Front(request.getfixturevalue("chroma_server"))
    with serving(front) as port:
        client = chromadb.HttpClient(host="127.0.0.1", port=port)
        collection = f"test-{uuid4().hex[:12]}"
        yield front, ChromaStore(client, collection, embedder=embedder)
        client.delete_collection(collection)
        close_client(client)


@contextmanager
def _qdrant(request: pytest.FixtureRequest, embedder: Embedder) -> Iterator[tuple[Front, Any]]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import QdrantStore

    with serving(Server()) as server:
        front = Front(("127.0.0.1", server))
        with (
            serving(front) as port,
            closing(
                qdrant_client.QdrantClient("127.0.0.1", port=port, check_compatibility=False)
            ) as client,
        ):
            yield front, QdrantStore(client, "docs", embedder=embedder)


HOSTS: dict[str, Callable[..., Any]] = {"chroma": _chroma, "qdrant": _qdrant}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tries of a host that stays away come at once."""
    for name in ("LONG_BACKOFF", "SHORT_BACKOFF"):
        monkeypatch.setattr(f"toastrack.stores.backend.{name}", (0.0, 0.0, 0.0))


@pytest.mark.parametrize("host", HOSTS)
def test_who_is_busy_is_asked_again(
    request: pytest.FixtureRequest, embedder: Embedder, host: str
) -> None:
    with HOSTS[host](request, embedder) as (front, store):
        store.open()
        number = store.count
        for status in BUSY:
            for call in (lambda: store.upsert([RECORD]).read, lambda: store.count() in (0, 1)):
                front.says[:] = [status, status]
                assert call() == 1, status
                assert not front.says
            front.says[:] = [status] * 4
            with pytest.raises(ConnectionLostError, match="again") as caught:
                number()
            assert not front.says
            assert "\n" not in str(caught.value)
