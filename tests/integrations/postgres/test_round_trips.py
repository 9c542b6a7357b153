"""How often a call waits for the server, and what a question leaves on a connection."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from awaited import Awaited, entered, running_loop
from psycopg import sql
from psycopg.pq import PipelineStatus, TransactionStatus

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack_postgres import AsyncPostgresStore, PostgresStore

if not psycopg.Pipeline.is_supported():
    pytest.skip("this libpq knows no pipelines", allow_module_level=True)

DIMENSIONS = 32
RECORDS = [
    Record(f"{n:04}", f"text {n}", {"even": n % 2 == 0}, vector=vector)
    for n, vector in enumerate(np.random.default_rng(0).normal(size=(200, DIMENSIONS)))
]
QUERY = np.ones(DIMENSIONS)
ENDS = b"ReadyForQuery"
"""What a server says behind each answer that is waited for."""


@contextmanager
def counting(*connections: Any) -> Iterator[Callable[[], int]]:
    """Give how often connections have waited for the server since that was asked last."""
    if sys.platform != "linux":
        pytest.skip("psycopg traces its connections on Linux alone")
    with tempfile.TemporaryFile() as file:
        for connection in connections:
            connection.pgconn.trace(file.fileno())
        place = 0

        def trips() -> int:
            nonlocal place
            for connection in connections:  # writes what libpq has kept back
                connection.pgconn.untrace()
                connection.pgconn.trace(file.fileno())
            seen = os.pread(file.fileno(), 10_000_000, place)
            place += len(seen)
            return seen.count(ENDS)

        try:
            yield trips
        finally:
            for connection in connections:
                connection.pgconn.untrace()


CALLS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "search": (1, lambda store: store.search(QUERY, k=3)),
    "filtered": (1, lambda store: store.search(QUERY, k=3, filter={"even": True})),
    "where": (1, lambda store: store.search(QUERY, k=3, where=sql.SQL("text <> ''"))),
    "exact": (1, lambda store: store.search(QUERY, k=3, exact=True)),
    "too few of the index": (2, lambda store: store.search(QUERY, k=201)),
    "get": (1, lambda store: store.get(["0001", "nothing"])),
    "get with vectors": (1, lambda store: store.get(["0001"], vectors=True)),
    "count": (1, lambda store: store.count()),
    "count documents": (1, lambda store: store.count(documents=True)),
    "count matching": (1, lambda store: store.count(filter={"even": True})),
    "look-up of what is unchanged": (2, lambda store: store.upsert(RECORDS)),
}


@pytest.fixture
def filled(postgres_dsn: str, schema: str, embedder: Embedder) -> str:
    """The conninfo of a server with an indexed table."""
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert(RECORDS)
        store.build_index()
    return postgres_dsn


@contextmanager
def over(kind: str, conninfo: str, schema: str, embedder: Embedder) -> Iterator[tuple[Any, Any]]:
    """A store that has searched before, and what tells how its connection is."""
    options: dict[str, Any] = {"schema": schema, "embedder": embedder, "create": False}
    way, _, asynchronous = kind.partition(" ")
    with ExitStack() as stack:
        settings = {"autocommit": way == "autocommit"}
        loop = stack.enter_context(running_loop()) if asynchronous else None
        given: Any = conninfo
        if way != "conninfo" and loop is None:
            given = stack.enter_context(psycopg.connect(conninfo, **settings))
        elif way != "conninfo" and loop is not None:
            connect = psycopg.AsyncConnection.connect(conninfo, **settings)
            given = stack.enter_context(entered(loop, loop.run(connect)))
        if loop is None:
            store: Any = stack.enter_context(PostgresStore(given, "docs", **options))
            inner = store
        else:
            inner = AsyncPostgresStore(given, "docs", **options)
            store = stack.enter_context(Awaited(inner, loop))
        store.search(QUERY)
        (connection,) = inner._backend._connections._made if way == "conninfo" else [given]
        yield store, connection


@pytest.mark.parametrize("kind", ["conninfo", "conninfo async", "autocommit", "one", "one async"])
def test_a_question_goes_there_and_back_once(
    filled: str, schema: str, embedder: Embedder, kind: str
) -> None:
    with over(kind, filled, schema, embedder) as (store, connection):
        before = connection.autocommit
        with counting(connection) as trips:
            for name, (number, call) in CALLS.items():
                trips()
                call(store)
                assert (name, trips()) == (name, number)
        assert connection.autocommit == before
        assert connection.info.transaction_status == TransactionStatus.IDLE


WRONG = {
    "where": lambda store: store.search(QUERY, where=sql.SQL("nonsense = 1")),
    "parameter": lambda store: store.search(
        QUERY, where=sql.SQL("id = %(it)s"), params={"it": object()}
    ),
    "row": lambda store: store.search(QUERY, where=sql.SQL("1 / (length(text) - 6) > 0")),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["conninfo", "conninfo async", "autocommit", "one", "one async"])
def test_a_wrong_question_leaves_nothing(
    filled: str, schema: str, embedder: Embedder, kind: str, wrong: Any, caplog: Any
) -> None:
    with over(kind, filled, schema, embedder) as (store, connection):
        before = connection.autocommit
        with pytest.raises(psycopg.Error):
            wrong(store)
        assert connection.info.transaction_status == TransactionStatus.IDLE
        assert connection.pgconn.pipeline_status == PipelineStatus.OFF
        assert connection.autocommit == before
        assert len(store.search(QUERY, k=3)) == 3
    assert not caplog.records


def test_settings_end_with_the_question(filled: str, schema: str, embedder: Embedder) -> None:
    with over("autocommit", filled, schema, embedder) as (store, connection):
        connection.execute("set hnsw.ef_search = 77")
        store.search(QUERY, k=90)
        store.search(QUERY, filter={"even": True})
        assert connection.execute("show hnsw.ef_search").fetchone() == ("77",)
        assert connection.execute("show hnsw.iterative_scan").fetchone() == ("off",)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_question_is_asked_at_one_level(
    filled: str, schema: str, embedder: Embedder, level: str
) -> None:
    with over("autocommit", filled, schema, embedder) as (store, connection):
        connection.execute(f"set default_transaction_isolation = '{level}'")
        says = sql.SQL("current_setting('transaction_isolation') = %(level)s")
        assert len(store.search(QUERY, k=3, where=says, params={"level": "read committed"})) == 3
        connection.read_only = True
        says = sql.SQL("current_setting('transaction_read_only') = 'on'")
        assert len(store.search(QUERY, k=3, where=says)) == 3


@pytest.mark.parametrize("inside", ["transaction", "pipeline", "both"])
def test_what_the_caller_has_begun_goes_on(
    filled: str, schema: str, embedder: Embedder, inside: str
) -> None:
    with over("one", filled, schema, embedder) as (store, connection), ExitStack() as stack:
        if inside != "pipeline":
            stack.enter_context(connection.transaction())
        if inside != "transaction":
            stack.enter_context(connection.pipeline())
        connection.execute(f"delete from {schema}.docs where id = '0001'")
        assert store.count() == 199
        assert len(store.search(QUERY, k=300)) == 199
        assert store.get(["0001"]) == [None]


REPLACED = {
    "dimensions": "create table {0}.docs (id text primary key, document_id text, chunk int, "
    "text text, metadata jsonb, text_hash bytea, embedding halfvec(3))",
    "column": "create table {0}.docs (id text primary key)",
    "nothing": "select",
}


@pytest.mark.parametrize("made", REPLACED.values(), ids=REPLACED)
@pytest.mark.parametrize("call", ["search", "exact", "get with vectors"])
def test_an_error_of_another_table_is_not_believed(
    filled: str, schema: str, embedder: Embedder, made: str, call: str
) -> None:
    """The statement behind the check fails, as the table is none of ours."""
    with over("conninfo", filled, schema, embedder) as (store, _), psycopg.connect(filled) as other:
        other.execute(f"drop table {schema}.docs")
        other.execute(made.format(schema))
        other.commit()
        with pytest.raises(
            (SpaceMismatchError, StoreError), match=r"lacks|was deleted|3-d vectors"
        ):
            CALLS[call][1](store)


def test_an_index_of_somebody_else_is_noticed(filled: str, schema: str, embedder: Embedder) -> None:
    with (
        over("conninfo", filled, schema, embedder) as (store, connection),
        PostgresStore(filled, "docs", schema=schema, embedder=embedder) as other,
    ):
        other.build_index(kind="binary")
        with counting(connection) as trips:
            assert len(store.search(QUERY, k=3)) == 3
            assert trips() == 3  # asked, looked at the indexes, and asked again
            assert len(store.search(QUERY, k=3, index="binary")) == 3
            assert trips() == 1
            with pytest.raises(StoreError, match="no index of the kind 'prefix'"):
                store.search(QUERY, k=3, index="prefix")
            assert trips() == 1


def test_a_cancelled_question_leaves_the_connection_idle(
    filled: str, schema: str, embedder: Embedder
) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(filled) as connection:
            store = AsyncPostgresStore(connection, "docs", schema=schema, embedder=embedder)
            await store.open()
            slow = sql.SQL("pg_sleep(600) is not null")
            asking = asyncio.create_task(store.search(QUERY, where=slow))
            async with await psycopg.AsyncConnection.connect(filled, autocommit=True) as other:
                asked = "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
                while not (await other.execute(asked, [connection.info.backend_pid])).rowcount:
                    await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert connection.info.transaction_status == TransactionStatus.IDLE
            assert await store.count() == len(RECORDS)

    asyncio.run(main())
