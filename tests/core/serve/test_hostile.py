"""Requests that nobody should send: each is told what is wrong, and the next one is answered."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from toastrack import Embedder

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("orjson", reason="the extra 'serve' is not installed")

from serving import HEAD, SECONDS, ask, connected, serving, wait_for

from toastrack.serve.app import Limits, Served

GOOD = {"model": "tiny", "input": ["rye"]}
LIMITS = Limits(texts=8, bytes=20_000)


@pytest.fixture(scope="module")
def served(tiny_folder: Path) -> Served:
    return Served(Embedder(tiny_folder, on_truncate="ignore"), ("tiny",))


@pytest.fixture(scope="module")
def address(served: Served) -> Iterator[str]:
    with serving(served, limits=LIMITS) as where:
        yield where


@pytest.fixture
def slow_address(served: Served) -> Iterator[str]:
    """A server with no patience."""
    with serving(served, limits=Limits(seconds=0.2)) as where:
        yield where


@pytest.fixture(autouse=True)
def goes_on(address: str) -> Iterator[None]:
    yield
    assert ask(address, body=GOOD).status == 200
    assert ask(address, "/health").content["waiting"] == {"queries": 0, "documents": 0, "pairs": 0}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"rye",
        b'{"input": "rye"',
        b'{"input": "rye"} and more',
        b'{"input": "\xff\xfe"}',
        b'{"input": "\\ud800"}',
        b'{"input": "\xed\xa0\x80"}',
        b'{"input": "rye", "dimensions": NaN}',
        b'{"input": "rye", "dimensions": Infinity}',
        b"[" * 15_000,
        b"[" * 9_000 + b"]" * 9_000,
        b'{"input": ' + b"[" * 9_000 + b"]" * 9_000 + b"}",
        b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
        b"\x00" * 100,
        b"null",
        b"3",
        b'"rye"',
        b'["rye"]',
        b"{}",
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_a_body_that_is_no_request(address: str, body: bytes) -> None:
    reply = ask(address, body=body)
    assert reply.status == 400
    assert set(reply.content["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "given",
    [
        {"input": None},
        {"input": []},
        {"input": {}},
        {"input": [None]},
        {"input": ["rye", 3]},
        {"input": ["rye", ["oat"]]},
        {"input": [[]]},
        {"input": True},
        {"input": 1.5},
        {"input": {"text": 3}},
        {"input": {"image": "http://127.0.0.1/"}},
        {"dimensions": 0},
        {"dimensions": -1},
        {"dimensions": 33},
        {"dimensions": 8.0},
        {"dimensions": "8"},
        {"dimensions": True},
        {"dimensions": 10**40},
        {"encoding_format": "int8"},
        {"encoding_format": ["float", "base64"]},
        {"encoding_format": {}},
        {"embedding_type": "binary"},
        {"normalized": False},
        {"late_chunking": True},
        {"truncate": "MIDDLE"},
        {"truncate": 1},
        {"model": 3},
        {"model": ["tiny"]},
        {"input_type": 3},
        {"input_type": {"query": 1}},
        {"prompt": 3},
    ],
    ids=json.dumps,
)
def test_a_field_of_the_wrong_kind(address: str, given: dict[str, Any]) -> None:
    reply = ask(address, body={**GOOD, **given})
    assert reply.status == 400
    assert reply.content["error"]["param"] in {*given, "normalized"}
    assert len(reply.error) < 600


@pytest.mark.parametrize("model", ["other", "", "tiny:", "tiny:clustering", ":query", "x" * 9_000])
def test_a_model_that_is_not_served(address: str, model: str) -> None:
    reply = ask(address, body={**GOOD, "model": model})
    assert (reply.status, reply.content["error"]["code"]) == (404, "model_not_found")
    assert len(reply.error) < 600


def test_too_many_texts_and_too_many_bytes(address: str) -> None:
    reply = ask(address, body={**GOOD, "input": ["rye"] * 9})
    assert (reply.status, reply.content["error"]["code"]) == (413, "too_many_inputs")
    reply = ask(address, body={**GOOD, "input": "rye " * 6_000})
    assert (reply.status, reply.content["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/embeddings", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("DELETE", "/v1/rerank", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/v1/embeddings", "POST"),
        ("BREW", "/v1/embeddings", "POST"),
    ],
)
def test_another_method(address: str, method: str, path: str, allowed: str) -> None:
    reply = ask(address, path, {}, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/chat/completions", "/v1/embeddings/x", "//v1/embeddings", "/v1/../x"]
)
def test_another_path(address: str, path: str) -> None:
    assert ask(address, path, GOOD, method="POST").status in (404, 405)


# -- what no client library sends -----------------------------------------------------------------

CONTENT = json.dumps(GOOD).encode()


def spoken(address: str, sent: bytes) -> bytes:
    """Send bytes and return all that comes back until the server hangs up."""
    with closing(connected(address)) as connection:
        connection.sendall(sent)
        return all_of(connection)


def all_of(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def whole(content: bytes, *lines: bytes) -> bytes:
    heads = b"".join(line + b"\r\n" for line in lines)
    return HEAD + heads + b"content-length: %d\r\n\r\n" % len(content) + content


def test_requests_sent_one_behind_the_other_are_answered_in_their_order(address: str) -> None:
    other = json.dumps({**GOOD, "model": "other"}).encode()
    last = whole(CONTENT, b"connection: close")
    found = spoken(address, whole(CONTENT) + whole(other) + last)
    statuses = [part[1:4] for part in found.split(b"HTTP/1.1")[1:]]
    assert statuses == [b"200", b"404", b"200"]


def test_a_body_in_chunks(address: str) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, CONTENT[i : i + 1]) for i in range(len(CONTENT)))
    head = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert spoken(address, head + chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_body_in_chunks_without_end_is_given_up_at_the_limit(address: str) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(30):
            connection.sendall(b"400\r\n" + b"x" * 1_024 + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"rye\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000,
        b"GET /" + b"x" * 200_000,
    ],
    ids=lambda sent: sent[:40].decode("latin-1"),
)
def test_what_is_no_http(address: str, sent: bytes) -> None:
    assert spoken(address, sent)[:12] in (b"HTTP/1.1 400", b"")


def test_half_a_body_and_gone(address: str) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(HEAD + b"content-length: 5000\r\n\r\n" + CONTENT)
    wait_for(address, 0)


def test_a_declared_size_is_refused_before_it_is_sent(address: str) -> None:
    with closing(connected(address)) as connection:
        connection.sendall(HEAD + b"expect: 100-continue\r\ncontent-length: 999999999\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_slow_body_is_given_up(slow_address: str) -> None:
    for line in (b"content-length: 5000", b"transfer-encoding: chunked"):
        found = spoken(slow_address, HEAD + line + b"\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 408")


def test_a_slow_head_is_given_up(slow_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toastrack.serve.http._SECONDS", 0.2)
    assert spoken(slow_address, b"") == b""
    assert spoken(slow_address, HEAD) == b""


def test_all_bodies_together_have_a_limit(served: Served) -> None:
    most = Limits(bytes=1_000)
    with serving(served, limits=most) as address:
        half = HEAD + b"content-length: 1000\r\n\r\n" + b" " * 999
        with ExitStack() as stack:
            held = [stack.enter_context(closing(connected(address))) for _ in range(20)]
            for connection in held:
                connection.sendall(half)
            refused: set[socket.socket] = set()
            while len(refused) < 4:
                answered: list[Any] = wait(set(held) - refused, timeout=SECONDS)
                assert {connection.recv(12) for connection in answered} == {b"HTTP/1.1 429"}
                refused |= set(answered)
            assert ask(address, body=GOOD).status == 429
        wait_for(address, 0)
