"""Stores that open, write, build and search while others do, whatever the database's defaults are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

# ruff: noqa: E402
import pytest
from at_once import at_once
from awaited import Awaited, Loop, entered, running_loop

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg import IsolationLevel
from psycopg.conninfo import make_conninfo

from toastrack import Embedder, Record
from toastrack.errors import StoreError
from toastrack_postgres import AsyncPostgresStore, PostgresStore

SECONDS = 120


def records(count: int, seed: int = 0) -> list[Record]:
    """Ready vectors, so that no model is needed."""
    vectors = np.random.default_rng(seed).normal(size=(count, 32))
    return [
        Record(f"{n:04}", f"text {n} {seed}", vector=vector) for n, vector in enumerate(vectors)
    ]


@pytest.fixture
def watching(postgres_dsn: str) -> Iterator[Any]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


def until(connection: Any, condition: str, *values: Any) -> None:
    """Wait until the server says so."""
    end = time.monotonic() + SECONDS
    while not connection.execute(f"select {condition}", values).fetchone()[0]:
        assert time.monotonic() < end, condition


def _connection(conninfo: str) -> AbstractContextManager[Any]:
    connection: AbstractContextManager[Any] = psycopg.connect(conninfo)
    return connection


def _pool(conninfo: str) -> AbstractContextManager[Any]:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    pool: AbstractContextManager[Any] = psycopg_pool.ConnectionPool(conninfo, min_size=2, open=True)
    return pool


GIVEN: dict[str, Callable[[str], AbstractContextManager[Any]]] = {
    "conninfo": nullcontext,
    "one": _connection,
    "pool": _pool,
}


def named(dsn: str, name: str, **options: str) -> str:
    return make_conninfo(dsn, application_name=name, **options)


# -- builds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("first", "second"), [*list(combinations_with_replacement([True, False], 2))[:2], (False, True)]
)
def test_builds_beside_each_other_end(
    postgres_dsn: str,
    watching: Any,
    schema: str,
    embedder: Embedder,
    first: bool,
    second: bool,
    asynchronous: bool,
) -> None:
    """The first is held by a writer until the second one waits for it."""

    def build(name: str, concurrently: bool) -> bool:
        store = partial(AsyncPostgresStore if asynchronous else PostgresStore, table="docs")
        with ExitStack() as stack:
            opened: Any = store(named(postgres_dsn, name), schema=schema, embedder=embedder)
            if not asynchronous:
                stack.callback(opened.close)
                return bool(opened.open().build_index(concurrently=concurrently))

            async def main() -> bool:
                async with opened:
                    return bool(await opened.build_index(concurrently=concurrently))

            return asyncio.run(main())

    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert(records(50))
        with psycopg.connect(postgres_dsn) as writer, ThreadPoolExecutor(2) as threads:
            writer.execute(f"update {schema}.docs set chunk = 1 where id = '0001'")
            building = threads.submit(build, "first", first)
            until(
                watching,
                "exists (select from pg_stat_activity where application_name = 'first' "
                "and query like '%%create index%%' and wait_event_type = 'Lock')",
            )
            waiting = threads.submit(build, "second", second)
            until(
                watching,
                "exists (select from pg_stat_activity where application_name = 'second' "
                "and (query like '%%toastrack index%%' or query like '%%pg_sleep%%'))",
            )
            writer.commit()
            try:
                assert building.result(SECONDS) is True
                assert waiting.result(SECONDS) is False
            finally:
                end_builds(watching)
        (valid,) = watching.execute(
            "select array_agg(indisvalid) from pg_index i join pg_class c on c.oid = indexrelid "
            "join pg_am m on m.oid = relam where relnamespace = %s::regnamespace "
            "and amname = 'hnsw'",
            [schema],
        ).fetchone()
        assert valid == [True]


def end_builds(watching: Any) -> None:
    """A failure is one test that fails, and not a run that hangs."""
    watching.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name in ('first', 'second')"
    )


def test_inside_a_transaction_nobody_is_waited_for(
    postgres_dsn: str, watching: Any, schema: str, embedder: Embedder
) -> None:
    """The other may wait for this very transaction."""
    with (
        psycopg.connect(postgres_dsn) as mine,
        PostgresStore(
            named(postgres_dsn, "first"), "docs", schema=schema, embedder=embedder
        ) as store,
        ThreadPoolExecutor(1) as threads,
    ):
        store.upsert(records(50))
        own = PostgresStore(mine, "docs", schema=schema, embedder=embedder)
        with mine.transaction():
            own.upsert(records(1, seed=1))
            building = threads.submit(store.build_index, concurrently=True)
            until(
                watching,
                "exists (select from pg_stat_activity where application_name = 'first' "
                "and query like '%%create index%%' and wait_event_type = 'Lock')",
            )
            try:
                with pytest.raises(StoreError, match="end the transaction, or build later"):
                    threads_result(own.build_index)
            finally:
                mine.execute("select 1")
        assert building.result(SECONDS) is True
        assert own.count() == 50


def threads_result(call: Callable[[], Any]) -> Any:
    """Call on another thread, which may be waited for in vain."""
    threads = ThreadPoolExecutor(1)
    future: Future[Any] = threads.submit(call)
    try:
        return future.result(SECONDS)
    finally:
        threads.shutdown(wait=False)


# -- one store, several calls ---------------------------------------------------------------------


def _async_pool(loop: Loop, conninfo: str) -> AbstractContextManager[Any]:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    return entered(loop, psycopg_pool.AsyncConnectionPool(conninfo, min_size=2, open=False))


@contextmanager
def one_store(kind: str, conninfo: str, schema: str, embedder: Embedder) -> Iterator[Any]:
    """A store over a conninfo, a pool, or a connection of the caller's."""
    way, _, asynchronous = kind.partition(" ")
    options: dict[str, Any] = {"schema": schema, "embedder": embedder}
    with ExitStack() as stack:
        if not asynchronous:
            given = stack.enter_context(GIVEN[way](conninfo))
            yield stack.enter_context(PostgresStore(given, "docs", **options))
            return
        loop = stack.enter_context(running_loop())
        if way == "conninfo":
            given = conninfo
        elif way == "pool":
            given = stack.enter_context(_async_pool(loop, conninfo))
        else:
            given = stack.enter_context(
                entered(loop, loop.run(psycopg.AsyncConnection.connect(conninfo)))
            )
        yield stack.enter_context(Awaited(AsyncPostgresStore(given, "docs", **options), loop))


CALLS: dict[str, Callable[[Any], Any]] = {
    "upsert": lambda store: store.upsert([Record("0001", "another", vector=np.ones(32))]),
    "build": lambda store: store.build_index(),
    "concurrent build": lambda store: store.build_index(concurrently=True),
}


def hold(writer: Any, watching: Any, schema: str, begin: Callable[[], Future[Any]]) -> Future[Any]:
    """Begin a call that cannot go on before the writer's transaction ends."""
    writer.execute(f"update {schema}.docs set chunk = 1 where id = '0001'")
    call = begin()
    until(
        watching,
        "exists (select from pg_stat_activity where application_name = 'first' "
        "and wait_event_type = 'Lock')",
    )
    return call


class Held(NamedTuple):
    """A call that waits for a writer's transaction, and what stands beside it."""

    store: Any
    result: Future[Any]
    threads: ThreadPoolExecutor
    writer: Any


@pytest.fixture
def held(postgres_dsn: str, watching: Any, schema: str, embedder: Embedder) -> Any:
    """Begin a call on a store of a kind; at the end of the block the writer lets it go on."""

    @contextmanager
    def begun(kind: str, call: str) -> Iterator[Held]:
        with (
            one_store(kind, named(postgres_dsn, "first"), schema, embedder) as store,
            psycopg.connect(postgres_dsn) as writer,
            ThreadPoolExecutor(2) as threads,
        ):
            store.upsert(records(50))
            begin = partial(threads.submit, CALLS[call], store)
            try:
                yield Held(store, hold(writer, watching, schema, begin), threads, writer)
            finally:
                writer.commit()

    return begun


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["conninfo", "conninfo async", "pool", "pool async"])
def test_a_search_does_not_wait_for_another_call(held: Any, kind: str, call: str) -> None:
    with held(kind, call) as (store, result, threads, _):
        asking = threads.submit(store.search, np.ones(32), 5)
        assert len(asking.result(SECONDS)) == 5
        assert not result.done()
    result.result(SECONDS)


@pytest.mark.parametrize("kind", ["conninfo", "conninfo async"])
def test_a_write_does_not_wait_for_a_concurrent_build(held: Any, kind: str) -> None:
    with held(kind, "concurrent build") as (store, result, threads, _):
        writing = threads.submit(store.upsert, [Record("new", "text", vector=np.ones(32))])
        assert writing.result(SECONDS).written == 1
        assert not result.done()
    assert result.result(SECONDS) is True


@pytest.mark.parametrize("kind", ["one", "one async"])
def test_over_one_connection_calls_follow_one_another(held: Any, kind: str) -> None:
    with held(kind, "upsert") as (store, result, threads, writer):
        asking = threads.submit(store.get, ["0001"])
        writer.commit()
        (found,) = asking.result(SECONDS)
        assert found.text == "another"
        result.result(SECONDS)


# -- isolation ----------------------------------------------------------------------------------


LEVELS = pytest.mark.parametrize("level", ["repeatable read", "serializable"])


@LEVELS
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_many_open_write_and_search_at_once(
    postgres_dsn: str,
    schema: str,
    embedder: Embedder,
    level: str,
    given: Callable[[str], AbstractContextManager[Any]],
) -> None:
    default = level.replace(" ", "\\ ")
    conninfo = make_conninfo(postgres_dsn, options=f"-c default_transaction_isolation={default}")
    with ExitStack() as stack:
        stores = [
            PostgresStore(
                stack.enter_context(given(conninfo)), "docs", schema=schema, embedder=embedder
            )
            for _ in range(12)
        ]
        for store in stores:
            stack.callback(store.close)
        at_once(*(store.open for store in stores))
        at_once(*(partial(store.upsert, records(40, n)) for n, store in enumerate(stores)))
        at_once(*(partial(store.replace, "doc", records(9, n)) for n, store in enumerate(stores)))
        found = at_once(*(partial(store.search, np.ones(32), 5) for store in stores))
    assert all(len(matches) == 5 for matches in found)


@LEVELS
def test_many_tasks_open_write_and_search_at_once(
    postgres_dsn: str, schema: str, embedder: Embedder, level: str
) -> None:
    default = level.replace(" ", "\\ ")
    conninfo = make_conninfo(postgres_dsn, options=f"-c default_transaction_isolation={default}")

    async def use(number: int) -> int:
        store = AsyncPostgresStore(conninfo, "docs", schema=schema, embedder=embedder)
        async with store:
            await store.upsert(records(40, number))
            return len(await store.search(np.ones(32), 5))

    async def main() -> list[int]:
        return await asyncio.gather(*(use(number) for number in range(12)))

    assert asyncio.run(main()) == [5] * 12


@pytest.mark.rest
@LEVELS
def test_a_hundred_and_twenty_first_opens(
    postgres_dsn: str, schema: str, embedder: Embedder, level: str
) -> None:
    """Twelve at once, of ten tables."""
    default = level.replace(" ", "\\ ")
    conninfo = make_conninfo(postgres_dsn, options=f"-c default_transaction_isolation={default}")
    for table in range(10):
        with ExitStack() as stack:
            stores = [
                PostgresStore(conninfo, f"docs{table}", schema=schema, embedder=embedder)
                for _ in range(12)
            ]
            for store in stores:
                stack.callback(store.close)
            at_once(*(store.open for store in stores))
            reports = at_once(*(partial(store.upsert, records(9)) for store in stores))
            assert sum(report.unchanged for report in reports) <= 9 * 11
            assert stores[0].count() == 9


def test_a_connection_keeps_the_level_that_its_owner_chose(
    postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.isolation_level = IsolationLevel.SERIALIZABLE
        store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
        store.upsert(records(3))
        assert connection.isolation_level == IsolationLevel.SERIALIZABLE
        with connection.transaction():
            assert store.count() == 3
            level = connection.execute("show transaction_isolation").fetchone()
            assert level == ("serializable",)
        with pytest.raises(StoreError):
            PostgresStore(connection, "nothing", create=False, embedder=embedder).open()
        assert connection.isolation_level == IsolationLevel.SERIALIZABLE
