"""Servers that are down, refuse a request or are behind a key, spoken to by the real remote client."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from forks import Child
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_server import Server

from toastrack import Embedder, Record
from toastrack.errors import ConnectionLostError, StoreError
from toastrack.stores import IngestStore, open_store
from toastrack_qdrant import AsyncQdrantStore, QdrantStore
from toastrack_qdrant.host import Host


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"location": "http://example.com:7000"}, "example.com:7000"),
        ({"url": "https://user:secret@example.com/x?key=secret"}, "example.com:6333"),
        ({"host": "example.com", "port": 1}, "example.com:1"),
        ({"host": "example.com", "prefer_grpc": True}, "example.com:6334"),
        ({"url": "example.com"}, "example.com:6333"),
    ],
)
def test_an_address_has_no_secrets(options: dict[str, Any], address: str) -> None:
    client = QdrantClient(check_compatibility=False, **options)
    assert Host(client).address == address
    assert not Host(client).local
    client.close()


@pytest.mark.parametrize("grpc", [False, True])
def test_a_server_that_is_down_is_one_error(embedder: Embedder, grpc: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options: dict[str, Any] = {
        "port": port,
        "grpc_port": port,
        "prefer_grpc": grpc,
        "check_compatibility": False,
    }
    client = QdrantClient("127.0.0.1", **options)
    with pytest.raises(ConnectionLostError, match=f"No Qdrant answers at 127.0.0.1:{port}"):
        QdrantStore(client, "docs", embedder=embedder).open()
    client.close()

    async def use() -> None:
        client = AsyncQdrantClient("127.0.0.1", **options)
        with pytest.raises(ConnectionLostError, match=f"No Qdrant answers at 127.0.0.1:{port}"):
            await AsyncQdrantStore(client, "docs", embedder=embedder).open()
        await client.close()

    asyncio.run(use())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "refuses",
    [
        (413, "Payload too large"),
        (400, '{"status": {"error": "JSON payload (40 bytes) is larger than allowed (limit: 3)"}}'),
    ],
)
def test_a_request_that_is_too_large_is_named(
    server: Server, embedder: Embedder, refuses: tuple[int, str]
) -> None:
    client = QdrantClient("127.0.0.1", port=server.port, check_compatibility=False)
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("fits", "rye")])
    paths = [path for method, path, _ in server.requests if method == "PUT"]
    assert "/collections/docs/points?wait=true" in paths
    assert any(path.startswith("/collections/docs/index") for path in paths)

    server.refuses = refuses
    records = [Record("small", "rye"), Record("long", "rye " * 20, {"note": "x" * 1_000})]
    with pytest.raises(StoreError, match=r"'long' with 1,\d+ bytes.*max_request_size_mb"):
        store.upsert(records)

    # Any other refusal is the server's own story.
    server.refuses = (403, "forbidden")
    with pytest.raises(UnexpectedResponse, match="403"):
        store.upsert(records)
    client.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_is_silent_is_the_same_error(embedder: Embedder, asynchronous: bool) -> None:
    """It takes the connection and the request, and the client stops waiting."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options: dict[str, Any] = {
            "port": silent.getsockname()[1],
            "timeout": 1,
            "check_compatibility": False,
        }

        async def use() -> None:
            client = AsyncQdrantClient("127.0.0.1", **options)
            with pytest.raises(ConnectionLostError, match="No Qdrant answers"):
                await AsyncQdrantStore(client, "docs", embedder=embedder).count()
            await client.close()

        if asynchronous:
            asyncio.run(use())
            return
        client = QdrantClient("127.0.0.1", **options)
        with pytest.raises(ConnectionLostError, match="No Qdrant answers"):
            QdrantStore(client, "docs", embedder=embedder).count()
        client.close()


@pytest.mark.rest
def test_a_server_that_falls_silent(server: Server, embedder: Embedder) -> None:
    client = QdrantClient("127.0.0.1", port=server.port, timeout=1, check_compatibility=False)
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("a", "rye")])
    server.answers.clear()
    calls: dict[str, Any] = {
        "count": store.count,
        "search": lambda: store.search([1.0] * 32),
        "upsert": lambda: store.upsert([Record("b", "rye")]),
        "delete": lambda: store.delete(["a"]),
    }
    for name, call in calls.items():
        with pytest.raises(ConnectionLostError, match="run the same call again"):
            pytest.fail(f"{name}: {call()!r}")
    server.answers.set()
    client.close()


_GONE = '{"status": {"error": "Not found: Collection `docs` doesn\'t exist!"}}'


@pytest.mark.parametrize(
    ("answer", "is_gone"),
    [
        (_GONE, True),
        ("<html><title>404 Not Found</title></html>", False),
        ('{"status": {"error": "Not found: No point with id 7 found"}}', False),
        ("", False),
    ],
)
def test_only_a_404_that_names_the_collection_says_that_it_was_deleted(
    server: Server, embedder: Embedder, answer: str, is_gone: bool
) -> None:
    client = QdrantClient("127.0.0.1", port=server.port, check_compatibility=False)
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("a", "rye")])
    server.refuses = (404, answer)
    for call in (store.count, lambda: store.upsert([Record("b", "rye")])):
        if is_gone:
            with pytest.raises(StoreError, match="deleted"):
                call()
        else:
            with pytest.raises(UnexpectedResponse, match="404"):
                call()
    server.refuses = None
    assert store.count() == 0, "it is as it was"
    client.close()


def test_no_request_is_over_the_server_s_limit(server: Server, embedder: Embedder) -> None:
    client = QdrantClient("127.0.0.1", port=server.port, check_compatibility=False, timeout=60)
    store = QdrantStore(client, "docs", embedder=embedder)
    text = "rye " * 1_000_000
    vector = [1.0] + [0.0] * 31
    store.upsert(Record(f"{n}", text, vector=vector) for n in range(10))
    sizes = [size for method, path, size in server.requests if "/points?" in path]
    assert len(sizes) > 1
    assert max(sizes) < 32 * 2**20
    client.close()


def test_a_remote_async_client(server: Server, embedder: Embedder) -> None:
    async def use() -> None:
        client = AsyncQdrantClient("127.0.0.1", port=server.port, check_compatibility=False)
        store = AsyncQdrantStore(client, "docs", embedder=embedder)
        assert (await store.upsert([Record("a", "rye")])).written == 1
        assert store.space == embedder.space
        await client.close()

    asyncio.run(use())


@pytest.fixture
def own(server: Server, embedder: Embedder) -> Iterator[IngestStore]:
    """A store over a client of its own, as it is over an address."""
    with open_store(f"qdrant+http://127.0.0.1:{server.port}/docs", embedder) as store:
        yield store


def test_a_forked_child_has_a_client_of_its_own(own: IngestStore) -> None:
    assert isinstance(own, QdrantStore)
    host = own._backend.host
    assert own.count() == 0
    parents = host.client

    def use() -> tuple[int, bool]:
        with own:
            return own.count(), host.client is parents

    assert Child(use).answer() == (0, False)
    assert own.count() == 0
    assert host.client is parents


def test_a_key_of_the_environment_is_in_no_pickle(
    own: IngestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    pickled = pickle.dumps(own)
    assert b"s3cret" not in pickled
    with (
        pytest.warns(UserWarning, match="insecure connection"),
        pickle.loads(pickled) as twin,
    ):
        assert twin.count() == 0
