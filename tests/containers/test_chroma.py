"""What only a Chroma server does: it restarts, hangs, takes no more than so much, and is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from threading import Thread
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest

chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")

import numpy as np
import services
from chroma_server import close_client

from toastrack import Embedder, Record, Report
from toastrack.errors import StoreError
from toastrack_chroma import AsyncChromaStore, ChromaStore

RECORDS = [Record(f"r{number:03}", f"rye and wheat, number {number}") for number in range(600)]


@pytest.fixture
def client(chroma: services.Running) -> Iterator[Any]:
    client = chromadb.HttpClient(host="127.0.0.1", port=chroma.port)
    yield client
    close_client(client)


@pytest.fixture
def name() -> str:
    return f"docs_{uuid4().hex[:12]}"


def documents() -> Iterator[tuple[str, Sequence[Record]]]:
    for record in RECORDS:
        yield record.id, [record]


class RestartOnce:
    """Restarts the server after the first write."""

    def __init__(self, server: services.Running) -> None:
        self._server = server
        self.thread: Thread | None = None

    def __call__(self, report: Report, done: Sequence[str]) -> None:
        if self.thread is None:
            self.thread = Thread(target=self._server.restart)
            self.thread.start()


def test_an_ingest_goes_on_over_a_restart(
    chroma: services.Running,
    client: Any,
    embedder: Embedder,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", 16)
    with ChromaStore(client, name, embedder=embedder) as store:
        restart = RestartOnce(chroma)
        report = store.replace_many(documents(), restart)
        assert restart.thread is not None
        restart.thread.join()
        assert report.chunks == store.count() == len(RECORDS)
        assert store.get(record.id for record in RECORDS) == RECORDS
        assert store.upsert(RECORDS).unchanged == len(RECORDS)
        assert store.audit() == []


def test_an_asynchronous_ingest_goes_on_over_a_restart(
    chroma: services.Running, embedder: Embedder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", 16)

    async def main() -> None:
        client = await chromadb.AsyncHttpClient(host="127.0.0.1", port=chroma.port)
        async with AsyncChromaStore(client, name, embedder=embedder) as store:
            restart = RestartOnce(chroma)
            report = await store.replace_many(documents(), restart)
            assert restart.thread is not None
            await asyncio.to_thread(restart.thread.join)
            assert report.chunks == await store.count() == len(RECORDS)
            assert (await store.upsert(RECORDS)).unchanged == len(RECORDS)
        await client._server._clients.pop(hash(asyncio.get_running_loop())).aclose()

    asyncio.run(main())


def test_a_search_after_a_stop_and_start(
    chroma: services.Running, client: Any, embedder: Embedder, name: str
) -> None:
    store = ChromaStore(client, name, embedder=embedder)
    store.upsert(RECORDS[:10])
    found = store.search("rye", k=3)
    chroma.stop()
    chroma.start()
    assert store.search("rye", k=3) == found


def test_what_a_kill_tears_is_found_and_restored(
    chroma: services.Running, client: Any, embedder: Embedder, name: str
) -> None:
    """Killed while it is written to; whatever is torn then, nothing acknowledged stays lost."""
    random = np.random.default_rng(0)
    store = ChromaStore(client, name, embedder=embedder)
    acknowledged: list[str] = []

    def write() -> None:
        for number in range(40):
            rows = [
                Record(f"v{number:02}-{row:03}", "rye", vector=random.normal(size=32))
                for row in range(100)
            ]
            store.upsert(rows)
            acknowledged.extend(record.id for record in rows)
            if number == 14:
                Thread(target=chroma.kill).start()

    # After a kill nobody starts it again: this is an error and no endless wait.
    with pytest.raises(StoreError, match="does not answer"):
        write()
    chroma.start()
    store.upsert(RECORDS[:20])
    acknowledged += [record.id for record in RECORDS[:20]]
    assert None not in store.get(acknowledged)
    if store.audit():
        store.rebuild()
    assert store.audit() == []
    assert None not in store.get(acknowledged)
    assert len(store.search("rye", k=50)) == 50


def test_a_silent_server_is_left_when_the_user_said(
    chroma: services.Running, embedder: Embedder, name: str
) -> None:
    import httpx

    client = chromadb.HttpClient(host="127.0.0.1", port=chroma.port)
    client._server._session.timeout = httpx.Timeout(1)  # Chroma waits for ever by itself
    store = ChromaStore(client, name, embedder=embedder)
    store.upsert(RECORDS[:3])
    with chroma.paused(), pytest.raises(StoreError, match="does not answer"):
        store.search("rye")
    assert len(store.search("rye")) == 3
    close_client(client)


def test_more_than_a_request_may_hold_is_sent_in_parts(
    client: Any, embedder: Embedder, name: str
) -> None:
    # 24 MB of text that is 3 bytes a letter, beside its vectors; the server takes 40 MiB.
    long = "面" * 40_000
    axis = [1.0] + [0.0] * 31
    records = [Record(f"long {number}", long, vector=axis) for number in range(500)]
    with ChromaStore(client, name, embedder=embedder) as store:
        assert store.upsert(records).written == len(records)
        assert store.get(["long 499"]) == [records[499]]


def test_a_record_that_no_request_can_hold_is_named(
    client: Any, embedder: Embedder, name: str
) -> None:
    huge = Record("huge", "rye " * 11_000_000, vector=[1.0] + [0.0] * 31)
    with (
        ChromaStore(client, name, embedder=embedder) as store,
        pytest.raises(ValueError, match="'huge'"),
    ):
        store.upsert([huge])


def test_a_server_that_is_down_is_one_clear_error(embedder: Embedder) -> None:
    from toastrack_chroma.url import open_url

    with (
        pytest.raises(StoreError, match=r"127\.0\.0\.1:1"),
        open_url("chroma+http://127.0.0.1:1/docs", lambda _: embedder, create=True),
    ):
        pass
