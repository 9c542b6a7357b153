"""A server on loopback that serves the vectors of a real model, in several makers' shapes, and misbehaves."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Semaphore, Thread
from typing import Any, Literal

import numpy as np

from toastrack.utils import arrays

Shape = Literal["mixedbread", "openai", "tei", "serve"]


@dataclass
class Seen:
    """A request as it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


Fault = Callable[["Handler", dict[str, Any]], dict[str, Any] | None]
"""Changes an answer that would have been right, or sends one of its own and returns None."""


@dataclass
class ModelServer:
    """What the server knows, and what it was asked."""

    embed: Callable[[Sequence[str], str], arrays.FloatMatrix]
    """Raw vectors of texts, and the role if it was named: the prompt is added for a role alone."""
    shape: Shape = "openai"
    score: Callable[[str, Sequence[str]], Sequence[float]] | None = None
    model: str = "tiny"
    space: dict[str, Any] | None = None
    key: str | None = None
    most_texts: int = 10_000
    most_characters: int = 10_000_000
    encodes: bool = False
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    release: Event | None = None
    over: Event = field(default_factory=Event)
    """Ends what is silent or sends for ever."""
    running: int = 0
    most_running: int = 0
    """How many requests were there at a time."""
    port: int = 0
    ended: Semaphore = field(default_factory=lambda: Semaphore(0))
    """One more for each connection that is over."""
    lock: Any = field(default_factory=Lock)

    @property
    def url(self) -> str:
        """The base_url of this server."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests for vectors and scores."""
        return [seen.body for seen in self.seen if seen.path != "/v1/models"]


def _headers(handler: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): value for name, value in handler.headers.items()}


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    its: ModelServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on the terminal."""

    def finish(self) -> None:
        """Note that the client has closed the connection."""
        super().finish()
        self.its.ended.release()

    def do_GET(self) -> None:
        """Answer what models there are, and with ``serve`` in which space."""
        self.its.seen.append(Seen(self.path, {}, _headers(self)))
        if self.path != "/v1/models" or self.its.shape == "tei":
            self.send({"error": "not found"}, 404)
            return
        item: dict[str, Any] = {"id": self.its.model, "object": "model"}
        if self.its.space is not None:
            item["space"] = self.its.space
        self.send({"object": "list", "data": [item]})

    def do_POST(self) -> None:
        """Answer with vectors or scores, unless a fault has its turn."""
        its = self.its
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with its.lock:
            its.running += 1
            its.most_running = max(its.running, its.most_running)
        try:
            self.respond(body)
        finally:
            with its.lock:
                its.running -= 1

    def respond(self, body: dict[str, Any]) -> None:
        """Answer what was read."""
        its = self.its
        with its.lock:
            its.seen.append(Seen(self.path, body, _headers(self)))
            fault = its.faults.pop(0) if its.faults else None
        if its.release is not None:
            its.release.wait()
        if its.key is not None and self.headers["authorization"] != f"Bearer {its.key}":
            self.send({"error": {"message": "Incorrect API key provided"}}, 401)
            return
        status, answer = self.answer(body)
        if fault is not None:
            changed = fault(self, answer)
            if changed is None:
                return
            answer = changed
        self.send(answer, status)

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the right answer and its status."""
        its = self.its
        if body.get("model") != its.model:
            return 404, {"error": {"message": f"The model {body.get('model')!r} does not exist"}}
        if self.path in ("/v1/rerank", "/v1/reranking"):
            return self.scores(body)
        if self.path != "/v1/embeddings":
            return 404, {"error": "not found"}
        texts = body["input"]
        if len(texts) > its.most_texts:
            return 413, {"error": f"batch size {len(texts)} > maximum {its.most_texts}"}
        if max(map(len, texts)) > its.most_characters:
            return 400, {"error": {"message": "a text is too long"}}
        vectors = its.embed(
            [body.get("prompt", "") + text for text in texts], body.get("input_type", "")
        )
        if "dimensions" in body:
            vectors = vectors[:, : body["dimensions"]]
        data = [
            {"object": "embedding", "index": i, "embedding": self.written(vector)}
            for i, vector in enumerate(vectors)
        ]
        tokens = sum(len(text.split()) for text in texts)
        return 200, {
            "object": "list",
            "model": its.model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def written(self, vector: arrays.FloatVector) -> Any:
        """Write a vector as numbers, or as the OpenAI SDK likes it."""
        if self.its.encodes:
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return vector.tolist()

    def scores(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return scores, best first, as the makers do."""
        its = self.its
        name = {"mixedbread": "input", "tei": "texts"}.get(its.shape, "documents")
        if name not in body:
            return 422, {"error": f"missing field `{name}`"}
        assert its.score is not None
        found = list(enumerate(its.score(body["query"], body[name])))
        found.sort(key=lambda pair: -pair[1])
        called = "relevance_score" if its.shape in ("openai", "serve") else "score"
        items = [{"index": i, called: float(score)} for i, score in found]
        if its.shape == "tei":
            return 200, {"results": items}
        return 200, {"data" if its.shape == "mixedbread" else "results": items}

    def send(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send JSON, or the bytes as they are."""
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


@contextmanager
def serving(server: ModelServer, tls: ssl.SSLContext | None = None) -> Iterator[ModelServer]:
    """Run a server until the block is left."""
    handler = type("OwnHandler", (Handler,), {"its": server})
    http = _Quiet(("127.0.0.1", 0), handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    server.port = http.server_address[1]
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        if server.release is not None:
            server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()


# -- what servers do ------------------------------------------------------------------------------


def status(code: int, message: str = "busy", **headers: str) -> Fault:
    """Answer with an error."""

    def fault(handler: Handler, answer: dict[str, Any]) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send({"error": {"message": message}}, code, named)

    return fault


def raw(sent: bytes) -> Fault:
    """Answer with bytes that are no JSON."""

    def fault(handler: Handler, answer: dict[str, Any]) -> None:
        handler.send(sent)

    return fault


def changed(change: Callable[[dict[str, Any]], object]) -> Fault:
    """Answer with what was right until somebody changed it."""

    def fault(handler: Handler, answer: dict[str, Any]) -> dict[str, Any]:
        change(answer)
        return answer

    return fault


def hang_up(handler: Handler, answer: dict[str, Any]) -> None:
    """Close the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def reset(handler: Handler, answer: dict[str, Any]) -> None:
    """Break the connection off, as a server does that dies."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def closing(handler: Handler, answer: dict[str, Any]) -> None:
    """Answer, and close the connection without a word of it."""
    handler.send(answer)
    handler.close_connection = True


def bytewise(handler: Handler, answer: dict[str, Any]) -> None:
    """Answer a byte at a time."""
    handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = json.dumps(answer).encode()
    handler.send_response(200)
    handler.send_header("content-length", str(len(sent)))
    handler.end_headers()
    for number in sent:
        handler.wfile.write(bytes([number]))


def hinting(handler: Handler, answer: dict[str, Any]) -> None:
    """Send something else before the answer."""
    handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n")
    handler.send(answer)


def no_http(handler: Handler, answer: dict[str, Any]) -> None:
    """Speak another protocol."""
    handler.wfile.write(b"+OK what do you want?\r\n")
    handler.close_connection = True


def packed(encoding: str, more: int = 0) -> Fault:
    """Answer with gzip although nobody asked for it, and many blanks."""

    def fault(handler: Handler, answer: dict[str, Any]) -> None:
        sent = gzip.compress(json.dumps(answer).encode() + b" " * more)
        handler.send(sent, headers={"content-encoding": encoding})

    return fault


def said_to_be(content_type: str) -> Fault:
    """Answer rightly under a wrong name."""

    def fault(handler: Handler, answer: dict[str, Any]) -> None:
        sent = json.dumps(answer).encode()
        handler.send_response(200)
        handler.send_header("content-type", content_type)
        handler.send_header("content-length", str(len(sent)))
        handler.end_headers()
        handler.wfile.write(sent)

    return fault


def too_large(most: int) -> Fault:
    """Take so many texts at once, and refuse more."""

    def fault(handler: Handler, answer: dict[str, Any]) -> dict[str, Any] | None:
        if len(items(answer)) > most:
            handler.send({"error": {"message": f"at most {most} at once"}}, 413)
            return None
        return answer

    return fault


def items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an answer says of each text."""
    found: list[dict[str, Any]] = answer["data"] if "data" in answer else answer["results"]
    return found


def silent(handler: Handler, answer: dict[str, Any]) -> None:
    """Say nothing until the end."""
    handler.its.over.wait()
    handler.close_connection = True


def trickle(handler: Handler, answer: dict[str, Any]) -> None:
    """Send a byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    while not handler.its.over.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()
    handler.close_connection = True


def endless_head(handler: Handler, answer: dict[str, Any]) -> None:
    """Send headers, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.its.over.wait(0.05):
        handler.wfile.write(b"x: y\r\n")
    handler.close_connection = True


def endless(handler: Handler, answer: dict[str, Any]) -> None:
    """Send more than anybody asked for."""
    handler.send_response(200)
    handler.send_header("content-length", str(1 << 30))
    handler.end_headers()
    part = b" " * (1 << 20)
    for _ in range(1 << 10):
        handler.wfile.write(part)


def random_vectors(size: int) -> Callable[[Sequence[str], str], arrays.FloatMatrix]:
    """Vectors that depend on nothing but the text, for tests in which no model is needed."""

    def embed(texts: Sequence[str], role: str) -> arrays.FloatMatrix:
        rows = [
            np.random.default_rng(list(text.encode()) or [0]).normal(size=size) for text in texts
        ]
        return np.array(rows, dtype=np.float32)

    return embed
