"""What a forked child does to the connection of its parent: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

# ruff: noqa: E402
import pytest
from forks import Child
from programs import SECONDS
from proxies import Proxy, postgres

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

from psycopg.conninfo import make_conninfo

from toastrack import Embedder, Record
from toastrack.stores import open_store
from toastrack_postgres import EmbeddedPostgres, PostgresStore


@pytest.fixture
def proxy(postgres_dsn: str) -> Iterator[Proxy]:
    """A proxy before the server."""
    with Proxy(postgres(postgres_dsn)) as proxy:
        yield proxy


@pytest.fixture
def conninfo(postgres_dsn: str, proxy: Proxy) -> str:
    """The server, through the proxy."""
    return make_conninfo(postgres_dsn, host="127.0.0.1", port=proxy.port)


_PROGRAM = """
import asyncio, gc, os, sys
from toastrack import Embedder, Record
from toastrack_postgres import AsyncPostgresStore, PostgresStore
kind, conninfo, schema, model, end = sys.argv[1:]

class Awaited:
    def __init__(self, *args, **options):
        self.store = AsyncPostgresStore(*args, **options)
        self.loop = asyncio.new_event_loop()
    def __getattr__(self, name):
        return lambda *args: self.loop.run_until_complete(getattr(self.store, name)(*args))

embedder = Embedder(model, device="cpu")
store = (PostgresStore if kind == "sync" else Awaited)(
    conninfo, "docs", schema=schema, embedder=embedder
)
store.upsert([Record("a", "rye", vector=[1.0] * 32)])
print("open", flush=True)
input()
child = os.fork()
if not child:
    if end == "collect":
        store = None
        gc.collect()
    if end == "search":
        async def search():
            async with store.store as own:
                return await own.search([1.0] * 32)
        found = asyncio.run(search()) if kind == "async" else store.search([1.0] * 32)
        assert [match.id for match in found] == ["a"]
    if end in ("close", "search"):
        asyncio.run(store.store.close()) if kind == "async" else store.close()
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
input()
print(store.count())
store.close()
"""


@pytest.mark.parametrize("end", ["exit", "close", "collect", "search"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_child_says_nothing_on_the_connection_of_its_parent(
    conninfo: str, proxy: Proxy, schema: str, tiny_folder: Path, kind: str, end: str
) -> None:
    """However it ends, also by taking the interpreter down; and it warns of nothing."""
    arguments = [kind, conninfo, schema, str(tiny_folder), end]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _PROGRAM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == "open\n"
            before = [(passed.sent, passed.ended.is_set()) for passed in proxy.connections]
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "0\n"
            after = [(passed.sent, passed.ended.is_set()) for passed in proxy.connections]
            assert after[: len(before)] == before
            printed, errors = process.communicate("\n", timeout=SECONDS)
        finally:
            process.kill()
    assert printed == "1\n"
    # The event loop that the child inherits is another's to close.
    assert "psycopg" not in errors if kind == "async" else not errors


def test_the_server_sees_that_the_parent_is_gone(
    conninfo: str, proxy: Proxy, schema: str, embedder: Embedder
) -> None:
    """A child that lives on does not keep the parent's connection open, nor its locks."""
    store = PostgresStore(conninfo, "docs", schema=schema, embedder=embedder).open()
    ((own,),) = store._backend._connections._idle.values()
    (passed,) = proxy.connections
    wait, go_on = os.pipe()
    child = Child(lambda: os.read(wait, 1))
    # As if this process were killed: not a word to the server.
    with Path(os.devnull).open("rb") as nowhere:
        os.dup2(nowhere.fileno(), own.pgconn.socket)
    assert passed.ended.wait(SECONDS), "the child holds the connection"
    os.write(go_on, b"!")
    assert child.answer() == b"!"
    store.close()
    os.close(wait)
    os.close(go_on)


def test_the_embedded_server_of_an_address(tmp_path: Path, embedder: Embedder) -> None:
    """Each process is a user of it, and the server stays until the last one has left."""
    with open_store(f"postgres+embedded:{tmp_path / 'pg'}?table=docs", embedder) as store:
        store.upsert([Record("a", "rye", vector=[1.0] * 32)])
        child = Child(lambda: [match.id for match in store.search([1.0] * 32)])
        assert child.answer() == ["a"]
        assert store.count() == 1


def test_an_embedded_server_that_another_thread_is_starting(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    held, done = Event(), Event()

    def hold() -> None:
        with server._mutex:
            held.set()
            done.wait(SECONDS)

    holding = Thread(target=hold)
    holding.start()
    held.wait(SECONDS)

    def use() -> Any:
        with server, psycopg.connect(server.conninfo) as connection:
            return connection.execute("select 1").fetchone()

    try:
        assert Child(use).answer() == (1,)
    finally:
        done.set()
        holding.join()
