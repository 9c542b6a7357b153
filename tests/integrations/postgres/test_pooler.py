"""Stores behind PgBouncer in transaction mode: each transaction may have another connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

# ruff: noqa: E402
import pytest
from at_once import at_once
from proxies import Proxy, postgres
from statements_seen import seen, watch

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from toastrack import Embedder, Record
from toastrack.errors import UnsupportedError
from toastrack_postgres import AsyncPostgresStore, PostgresStore

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
if PROGRAM is None:
    pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)", allow_module_level=True)

SECONDS = 120
# Connections to the server, of which those who use the pooler have more.
POOL = 3


@pytest.fixture(scope="module")
def pooled(postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The conninfo of a pooler before the server, whose statements are timed out."""
    given = conninfo_to_dict(postgres_dsn)
    with Proxy(postgres(postgres_dsn)) as proxy, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        server: dict[str, Any] = {
            name: given[name] for name in ("dbname", "user", "password") if given.get(name)
        }
        server |= {"host": "127.0.0.1", "port": proxy.port}
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": POOL,
            "stats_users": "anybody",
        }
        file = tmp_path_factory.mktemp("pgbouncer") / "pgbouncer.ini"
        timeout = "connect_query='set statement_timeout = 600000'"
        lines = ["[databases]", f"pooled = {make_conninfo(**server)} {timeout}", "[pgbouncer]"]
        file.write_text("\n".join([*lines, *(f"{key} = {is_}" for key, is_ in settings.items())]))
        probe.close()
        # It refuses to run as root.
        account = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen([str(PROGRAM), "-q", *account, str(file)])
        try:
            conninfo = make_conninfo(
                host="127.0.0.1", port=port, dbname="pooled", user="anybody", connect_timeout=30
            )
            _wait_for(conninfo, process)
            yield conninfo
        finally:
            process.terminate()
            process.wait(SECONDS)


def _wait_for(conninfo: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            psycopg.connect(conninfo).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, "it did not start"
            assert time.monotonic() < end, "it does not answer"
            time.sleep(0.01)


def records(count: int, seed: int = 0) -> list[Record]:
    """Ready vectors, so that no model is needed."""
    vectors = np.random.default_rng(seed).normal(size=(count, 32))
    return [Record(f"{seed}-{n}", f"text {n}", vector=vector) for n, vector in enumerate(vectors)]


_SESSION = """
select current_setting('statement_timeout'), current_setting('maintenance_work_mem'),
  coalesce(current_setting('hnsw.ef_search', true), '40'),  -- once the extension is loaded
  (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
"""


def left_behind(conninfo: str) -> set[tuple[Any, ...]]:
    """What the sessions of the pooler's connections have: their settings and their locks."""
    found = set()
    with ExitStack() as stack:
        for _ in range(POOL):  # each inside a transaction, so that each has another one
            connection = stack.enter_context(psycopg.connect(conninfo))
            try:
                row = connection.execute(_SESSION).fetchone()
            except psycopg.Error as error:
                raise AssertionError(_who_has_what(conninfo)) from error
            assert row is not None
            found.add(row)
    return found


def _who_has_what(conninfo: str) -> str:
    """What the pooler says of its connections to the server and of those to it."""
    console = psycopg.connect(make_conninfo(conninfo, dbname="pgbouncer"), autocommit=True)
    with console, psycopg.ClientCursor(console) as cursor:
        told = [cursor.execute(f"show {what}").fetchall() for what in ("servers", "clients")]
    return "\n".join(str(row) for rows in told for row in rows)


def _pool(conninfo: str) -> AbstractContextManager[Any]:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    pool: AbstractContextManager[Any] = psycopg_pool.ConnectionPool(conninfo, min_size=2, open=True)
    return pool


Given = Callable[[str], AbstractContextManager[Any]]
GIVEN: dict[str, Given] = {"conninfo": nullcontext, "one": psycopg.connect, "pool": _pool}
given_by = pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)


@contextmanager
def many_stores(
    given: Given, conninfo: str, schema: str, embedder: Embedder
) -> Iterator[list[PostgresStore]]:
    """Stores over one table, more than the pooler has connections."""
    with ExitStack() as stack:
        stores = []
        for _ in range(3 * POOL):
            connection = stack.enter_context(given(conninfo))
            store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
            stack.callback(store.close)
            stores.append(store)
        yield stores


@given_by
def test_many_open_write_build_and_search(
    pooled: str, schema: str, embedder: Embedder, given: Given
) -> None:
    before = left_behind(pooled)
    assert {row[0] for row in before} == {"10min"}
    with many_stores(given, pooled, schema, embedder) as stores:
        at_once(*(store.open for store in stores))
        at_once(*(partial(store.upsert, records(20, n)) for n, store in enumerate(stores)))
        at_once(*(partial(store.replace, "doc", records(9, n)) for n, store in enumerate(stores)))
        assert sum(at_once(*(store.build_index for store in stores))) == 1
        for _ in range(8):  # a plan that is prepared after some would be another connection's
            for found in at_once(*(partial(store.search, np.ones(32), 5) for store in stores)):
                assert len(found) == 5
        assert stores[0].delete(documents=["doc"]) == 9
        assert stores[-1].count() == len(list(stores[0].records()))
    assert left_behind(pooled) == before


@given_by
def test_new_rows_are_not_copied(
    pooled: str, schema: str, embedder: Embedder, connection: Any, given: Given
) -> None:
    """Of a COPY that fails the pooler may keep the connection, and here many write the same rows."""
    before = left_behind(pooled)
    with many_stores(given, pooled, schema, embedder) as stores:
        at_once(*(store.open for store in stores))
        watch(connection, schema)
        at_once(*(partial(store.upsert, records(300)) for store in stores))
        assert stores[0].count() == 300
    assert seen(connection, schema) == {"insert"}
    assert left_behind(pooled) == before


def test_many_tasks_open_write_build_and_search(
    pooled: str, schema: str, embedder: Embedder
) -> None:
    before = left_behind(pooled)

    async def use(number: int) -> tuple[bool, int]:
        store = AsyncPostgresStore(pooled, "docs", schema=schema, embedder=embedder)
        async with store:
            await store.upsert(records(20, number))
            built = await store.build_index()
            return built, len(await store.search(np.ones(32), 5))

    async def main() -> list[tuple[bool, int]]:
        return await asyncio.gather(*(use(number) for number in range(3 * POOL)))

    answers = asyncio.run(main())
    assert sum(built for built, _ in answers) == 1
    assert {found for _, found in answers} == {5}
    assert left_behind(pooled) == before


@given_by
def test_a_concurrent_build_is_refused_and_leaves_nothing(
    pooled: str, schema: str, embedder: Embedder, given: Given
) -> None:
    with (
        given(pooled) as connection,
        PostgresStore(connection, "docs", schema=schema, embedder=embedder) as store,
    ):
        store.upsert(records(20))
        if isinstance(connection, psycopg.Connection):
            connection.commit()
        before = left_behind(pooled)
        with pytest.raises(UnsupportedError, match=r"pooler such as PgBouncer.*Connect without"):
            store.build_index(concurrently=True, maintenance_work_mem="32MB")
        assert left_behind(pooled) == before
        assert store.build_index(maintenance_work_mem="32MB") is True
        assert left_behind(pooled) == before


def test_a_concurrent_build_of_tasks_is_refused(
    pooled: str, schema: str, embedder: Embedder
) -> None:
    async def main() -> None:
        store = AsyncPostgresStore(pooled, "docs", schema=schema, embedder=embedder)
        async with store:
            await store.upsert(records(20))
            with pytest.raises(UnsupportedError, match="pooler such as PgBouncer"):
                await store.build_index(concurrently=True)

    before = left_behind(pooled)
    asyncio.run(main())
    assert left_behind(pooled) == before
