"""The caller's connection is the caller's: what we leave as it was, and what we close."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest
from at_once import at_once

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row
from psycopg.types.json import JsonbDumper

from toastrack import Embedder, Record
from toastrack.errors import FilterError, RecordError, SpaceMismatchError, StoreError
from toastrack_postgres import PostgresStore

DIMENSIONS = 32
A = Record("a", "rye bread keeps fresh", {"lang": "en", "n": 1})
B = Record("b", "salt is in the dough", {"lang": "de", "n": 2})
Connect = Callable[..., Any]
Make = Callable[..., PostgresStore]


@pytest.fixture
def connect(postgres_dsn: str) -> Iterator[Connect]:
    """Opens connections that are closed when the test is over."""
    with ExitStack() as stack:

        def connect(**settings: Any) -> Any:
            return stack.enter_context(psycopg.connect(postgres_dsn, **settings))

        yield connect


@pytest.fixture
def connection(connect: Connect) -> Any:
    """The caller's connection, in autocommit mode."""
    return connect(autocommit=True)


@pytest.fixture
def other(connect: Connect) -> Any:
    """Somebody else's connection, who sees only what was committed."""
    return connect(autocommit=True)


@pytest.fixture
def make(schema: str, embedder: Embedder) -> Iterator[Make]:
    """Builds stores over tables in the test's schema."""
    with ExitStack() as stack:

        def make(connection: Any, table: str = "docs", **settings: Any) -> PostgresStore:
            store = PostgresStore(
                connection, table, **{"schema": schema, "embedder": embedder, **settings}
            )
            stack.callback(store.close)
            return store

        yield make


def ready(number: int, seed: int = 0) -> list[Record]:
    """Records with vectors of their own, so that no model is needed."""
    vectors = np.random.default_rng(seed).normal(size=(number, DIMENSIONS))
    return [
        Record(f"{n:04}", f"text {n}", {"n": n}, vector=vector) for n, vector in enumerate(vectors)
    ]


def everything(store: PostgresStore) -> None:
    """Use all there is on an empty store, and leave it empty."""
    store.upsert([A, B])
    assert store.upsert([A, B]).unchanged == 2
    assert store.upsert([Record("a", A.text, {"n": 3}), B]).embedded == 0
    assert store.replace("book", [Record("c", "wheat"), Record("d", "oven")]).written == 2
    assert store.replace("book", [Record("c", "wheat")]).deleted == 1
    store.build_index()
    for exact in (False, True):
        assert [match.id for match in store.search("rye", filter={"n": 3}, exact=exact)] == ["a"]
        assert len(store.search("rye", k=3, exact=exact)) == 3
    assert store.get(["c", "nobody"]) == [Record("c", "wheat", document_id="book"), None]
    assert sorted(store.document_ids()) == ["a", "b", "book"]
    assert store.count() == store.count(documents=True) == 3
    assert store.delete(["a"], ["b", "book"]) == 3


def status(connection: Any) -> TransactionStatus:
    found: TransactionStatus = connection.info.transaction_status
    return found


def rows(connection: Any, schema: str) -> int:
    """How many rows a connection sees; -1 where there is no table."""
    (table,) = connection.execute("select to_regclass(%s)", [f"{schema}.docs"]).fetchone()
    if table is None:
        return -1
    (number,) = connection.execute(f"select count(*) from {schema}.docs").fetchone()
    return int(number)


# -- inside the caller's transaction ------------------------------------------------------------


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_rollback_undoes_everything(
    connect: Connect, other: Any, make: Make, schema: str, autocommit: bool
) -> None:
    connection = connect(autocommit=autocommit)
    store = make(connection)

    with connection.transaction():
        everything(store)
        store.upsert([A, B])
        assert store.build_index() is False
        assert rows(connection, schema) == 2
        assert rows(other, schema) == -1
        assert status(connection) == TransactionStatus.INTRANS
        raise psycopg.Rollback

    assert rows(other, schema) == -1
    assert status(connection) == TransactionStatus.IDLE
    # The store notices that its table is gone, and makes it again.
    assert store.upsert([A, B]).written == 2
    assert store.search("rye", k=1)[0].id in ("a", "b")
    assert rows(other, schema) == 2


CALLS: dict[str, Callable[[PostgresStore], Any]] = {
    "open": lambda store: store.open(),
    "upsert": lambda store: store.upsert([B]),
    "replace": lambda store: store.replace("nobody", []),
    "delete": lambda store: store.delete(["nobody"]),
    "search": lambda store: store.search("rye"),
    "get": lambda store: store.get(["nobody"]),
    "count": lambda store: store.count(),
    "document_ids": lambda store: list(store.document_ids()),
    "build_index": lambda store: store.build_index(),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_call_works_after_a_rollback(connect: Connect, make: Make, name: str) -> None:
    connection = connect()
    store = make(connection)
    with connection.transaction():
        store.upsert([A])
        raise psycopg.Rollback
    CALLS[name](store)
    assert store.get(["a"]) == [None]


def test_a_commit_keeps_everything(connect: Connect, other: Any, make: Make, schema: str) -> None:
    connection = connect()
    connection.execute("select 1")
    store = make(connection)
    store.upsert([A])
    store.replace("book", [B])
    assert rows(other, schema) == -1
    connection.commit()
    assert rows(other, schema) == 2
    # The connection is between transactions now, and so the store commits what it writes.
    store.delete(["a"])
    assert rows(other, schema) == 1
    assert status(connection) == TransactionStatus.IDLE


def test_a_rolled_back_write_is_written_again(
    connect: Connect, other: Any, make: Make, schema: str
) -> None:
    connection = connect()
    store = make(connection)
    store.upsert([A])
    with connection.transaction():
        assert store.upsert([A, B]).written == 1
        raise psycopg.Rollback
    report = store.upsert([A, B])
    assert (report.written, report.unchanged) == (1, 1)
    assert rows(other, schema) == 2


def test_a_rolled_back_adoption_is_recorded_again(
    connect: Connect, other: Any, make: Make, schema: str, embedder: Embedder
) -> None:
    connection = connect()
    make(connection).upsert([A])
    other.execute(f"comment on column {schema}.docs.embedding is null")
    store = make(connection, adopt="unchecked")
    with connection.transaction():
        store.upsert([A])
        raise psycopg.Rollback
    store.upsert([B])
    assert make(other).upsert([A, B]).unchanged == 2
    with pytest.raises(SpaceMismatchError, match="query prompt"):
        make(other, embedder=Embedder(embedder.model, query_prompt="")).open()


def all_settings(connection: Any) -> dict[str, str]:
    found = connection.execute("select name, setting from pg_settings").fetchall()
    return dict(found) | dict(
        connection.execute(
            "select n, current_setting(n, true) from unnest(%s::text[]) n",
            [["hnsw.ef_search", "hnsw.iterative_scan", "ivfflat.probes"]],
        ).fetchall()
    )


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_search_leaves_every_setting_as_it_was(connection: Any, make: Make, depth: int) -> None:
    store = make(connection)
    store.upsert(ready(50))
    store.build_index()
    connection.execute("set hnsw.ef_search = 77; set hnsw.iterative_scan = strict_order")
    connection.execute("set statement_timeout = '7s'; set enable_seqscan = off")
    with ExitStack() as stack:
        for _ in range(depth):
            stack.enter_context(connection.transaction())
        if depth:
            connection.execute("set local hnsw.ef_search = 55; set local enable_sort = off")
        before = all_settings(connection)
        assert before["hnsw.ef_search"] == ("55" if depth else "77")

        for exact in (False, True):
            store.search([1.0] * DIMENSIONS, k=500, exact=exact)
            store.search([1.0] * DIMENSIONS, k=3, filter={"n": 7}, exact=exact)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            store.search([1.0] * DIMENSIONS, where=sql.SQL("nonsense = 1"))
        store.get(["0001"])
        store.count()
        store.upsert(ready(60))
        store.replace("book", [A])
        store.delete(["a"])

        assert all_settings(connection) == before


def test_a_refused_call_does_not_end_the_transaction(
    connect: Connect, other: Any, make: Make, schema: str, embedder: Embedder
) -> None:
    make(other, "mine").upsert([A])
    connection = connect()
    store = make(connection)
    store.upsert([A])
    nul = Record("bad", "\0")
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (FilterError, lambda: store.search("rye", filter={"$or": "x"})),
        (RecordError, lambda: store.search([0.0] * DIMENSIONS)),
        (RecordError, lambda: store.upsert([B, nul])),
        (RecordError, lambda: store.replace("book", [B, nul])),
        (StoreError, lambda: make(connection, "nowhere", create=False).open()),
        (
            SpaceMismatchError,
            lambda: make(connection, embedder=Embedder(embedder.model, query_prompt="")).open(),
        ),
        (psycopg.errors.UndefinedColumn, lambda: store.search("rye", where=sql.SQL("x = 1"))),
        (psycopg.errors.DivisionByZero, lambda: store.search("rye", where=sql.SQL("1/0 = 1"))),
        (ValueError, lambda: store.build_index(concurrently=True)),
        (psycopg.Error, lambda: store.build_index(m=1)),
    ]
    with connection.transaction():
        store.upsert([B])
        for error, call in refused:
            with pytest.raises(error):
                call()
            assert status(connection) == TransactionStatus.INTRANS
            assert rows(connection, schema) == 2
    assert rows(other, schema) == 2


def test_a_failed_transaction_stays_the_callers(connect: Connect, make: Make) -> None:
    connection = connect()
    store = make(connection)
    store.upsert([A])
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("select 1/0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        store.count()
    connection.rollback()
    assert store.count() == 1


def test_a_transaction_that_only_reads(connect: Connect, make: Make) -> None:
    connection = connect()
    make(connection).upsert([A, B])
    connection.read_only = True
    store = make(connection)
    assert store.search("rye", k=2)[0].score > store.search("rye", k=2)[1].score
    assert store.upsert([A, B]).unchanged == 2
    assert store.get(["a"]) == [A]
    assert store.count() == 2
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        store.delete(["a"])


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel))
def test_any_isolation_level(connect: Connect, make: Make, level: Any) -> None:
    connection = connect()
    connection.isolation_level = level
    everything(make(connection))


def test_records_from_a_cursor_of_the_same_connection(
    connect: Connect, other: Any, make: Make, schema: str
) -> None:
    connection = connect()
    with connection.transaction(), connection.cursor("source") as cursor:
        cursor.itersize = 10
        cursor.execute("select n::text from generate_series(1, 1200) n")
        vectors = iter(np.random.default_rng(0).normal(size=(1_200, DIMENSIONS)))
        store = make(connection)
        report = store.upsert(Record(id, "rye", vector=next(vectors)) for (id,) in cursor)
        assert report.written == 1_200
    assert rows(other, schema) == 1_200


@pytest.mark.parametrize("autocommit", [True, False])
def test_source_and_callback_use_the_same_connection(
    connect: Connect, other: Any, make: Make, schema: str, autocommit: bool
) -> None:
    """They are asked while nothing of ours is under way on it."""
    connection = connect(autocommit=autocommit)
    store = make(connection).open()
    connection.execute(f"create table {schema}.told (id text)")
    connection.commit()
    vectors = np.random.default_rng(0).normal(size=(1_600, DIMENSIONS))

    def source() -> Iterator[tuple[str, list[Record]]]:
        for number, vector in enumerate(vectors):
            (id,) = connection.execute("select %s::text", [f"{number}"]).fetchone()
            yield id, [Record(id, "rye", vector=vector)]

    def on_write(report: Any, documents: Sequence[str]) -> None:
        with connection.transaction():
            for document in documents:
                connection.execute(f"insert into {schema}.told values (%s)", [document])
        if not autocommit:
            connection.commit()

    assert store.replace_many(source(), on_write).written == 1_600
    assert rows(other, schema) == 1_600
    (told,) = other.execute(f"select count(distinct id) from {schema}.told").fetchone()
    assert told == 1_600


# -- connections of every make ------------------------------------------------------------------

FLAVOURS: dict[str, dict[str, Any]] = {
    "autocommit": {"autocommit": True},
    "no autocommit": {"autocommit": False},
    "dict rows": {"row_factory": dict_row},
    "named tuples": {"row_factory": namedtuple_row, "autocommit": True},
    "class rows": {"row_factory": class_row(Record)},
    "client cursors": {"cursor_factory": psycopg.ClientCursor},
    "raw cursors": {"cursor_factory": psycopg.RawCursor, "autocommit": True},
    "never prepare": {"prepare_threshold": None},
    "always prepare": {"prepare_threshold": 0, "autocommit": True},
    "short timeout": {"options": "-cstatement_timeout=20s -clock_timeout=20s"},
    "no plans": {"options": "-cplan_cache_mode=force_generic_plan", "prepare_threshold": 0},
    "odd settings": {
        "options": "-cbytea_output=escape -cextra_float_digits=0 -cDateStyle=German "
        "-cbackslash_quote=off -cenable_seqscan=off -cjit=on -cjit_above_cost=0"
    },
}


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=FLAVOURS.keys())
def test_connections_of_every_make(connect: Connect, make: Make, flavour: dict[str, Any]) -> None:
    connection = connect(**flavour)
    everything(make(connection))
    assert status(connection) == TransactionStatus.IDLE
    assert not connection.closed
    for name in ("autocommit", "row_factory", "cursor_factory", "prepare_threshold"):
        if name in flavour:
            assert getattr(connection, name) == flavour[name]


def test_adapters_of_the_callers_stay_and_do_not_matter(connection: Any, make: Make) -> None:
    connection.adapters.register_dumper(dict, JsonbDumper)
    connection.adapters.register_dumper(str, psycopg.types.string.StrDumperUnknown)
    connection.adapters.register_loader("jsonb", psycopg.types.string.TextLoader)
    connection.adapters.register_loader("float8", psycopg.types.numeric.NumericLoader)
    everything(make(connection))
    assert connection.execute("select %s", [{"a": 1}]).fetchone() == ('{"a": 1}',)


@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize("storage", ["halfvec", "vector"])
def test_pgvector_for_psycopg_beside_ours(
    connection: Any, make: Make, schema: str, first: str, storage: str
) -> None:
    from pgvector.psycopg import register_vector

    if first == "theirs":
        register_vector(connection)
    store = make(connection, storage=storage)
    everything(store)
    store.upsert([Record("a", "rye", vector=[3.0, 4.0] + [0.0] * 30)])
    if first == "ours":
        register_vector(connection)
        assert store.search([1.0] + [0.0] * 31)[0].score == pytest.approx(0.6, abs=2e-3)
        assert store.upsert([B]).embedded == 1

    query = f"select embedding, embedding <=> %s::{storage} from {schema}.docs where id = 'a'"
    vector, distance = connection.execute(query, [np.eye(DIMENSIONS)[0]]).fetchone()
    values = vector.to_list() if hasattr(vector, "to_list") else list(vector)
    assert values[:3] == pytest.approx([0.6, 0.8, 0.0], abs=1e-3)
    assert distance == pytest.approx(0.4, abs=2e-3)


def test_an_asynchronous_connection_is_refused(postgres_dsn: str, embedder: Embedder) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")

    async def refused() -> None:
        pool = psycopg_pool.AsyncConnectionPool(postgres_dsn, open=False)
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            for given in (connection, pool):
                with pytest.raises(TypeError, match="synchronous"):
                    PostgresStore(given, embedder=embedder)

    asyncio.run(refused())


def test_what_is_no_connection_is_refused(postgres_dsn: str, embedder: Embedder) -> None:
    wrong: list[Any] = [None, 5, b"postgresql://", object(), {"host": "h"}]
    for given in wrong:
        with pytest.raises(TypeError, match="conninfo"):
            PostgresStore(given, embedder=embedder)
    bit: Any = "bit"
    with pytest.raises(ValueError, match="storage"):
        PostgresStore(postgres_dsn, embedder=embedder, storage=bit)


# -- what is closed, and what is not ------------------------------------------------------------


@pytest.fixture
def name() -> str:
    """What the connections of this test are called on the server."""
    return f"toastrack-{uuid4().hex[:12]}"


def connections(watcher: Any, name: str) -> int:
    (number,) = watcher.execute(
        "select count(*) from pg_stat_activity where application_name = %s", [name]
    ).fetchone()
    return int(number)


def wait_for(watcher: Any, name: str, number: int) -> None:
    """A server process needs a moment to notice that its client is gone."""
    watcher.execute("set statement_timeout = '10s'")
    watcher.execute(
        f"""
        do $$ begin
            while (select count(*) from pg_stat_activity where application_name = '{name}')
                  <> {number} loop
                perform pg_stat_clear_snapshot();
            end loop;
        end $$
        """
    )


def test_we_close_the_connection_that_we_opened(
    other: Any, make: Make, postgres_dsn: str, name: str
) -> None:
    store = make(make_conninfo(postgres_dsn, application_name=name))
    assert connections(other, name) == 0
    for _ in range(2):
        with store:
            everything(store)
            assert connections(other, name) == 1
        wait_for(other, name, 0)
    # What was closed connects again at the next call.
    assert store.count() == 0
    assert connections(other, name) == 1
    store.close()
    store.close()
    wait_for(other, name, 0)


def test_a_store_that_is_refused_leaves_no_connection(
    other: Any, make: Make, postgres_dsn: str, name: str
) -> None:
    conninfo = make_conninfo(postgres_dsn, application_name=name)
    with pytest.raises(StoreError), make(conninfo, create=False):
        pass
    wait_for(other, name, 0)


def test_a_connection_of_the_callers_stays_open(connection: Any, make: Make) -> None:
    with make(connection) as store:
        everything(store)
    assert not connection.closed
    assert connection.execute("select 1").fetchone() == (1,)
    everything(store)


def test_a_pool_of_the_callers_stays_open(
    other: Any, make: Make, postgres_dsn: str, name: str
) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    conninfo = make_conninfo(postgres_dsn, application_name=name)
    # One connection: whoever borrows a second one while it has the first would wait forever.
    with psycopg_pool.ConnectionPool(
        conninfo, min_size=1, max_size=1, timeout=300, open=True, kwargs={"row_factory": dict_row}
    ) as pool:
        for _ in range(2):
            with make(pool) as store:
                everything(store)
        assert store.build_index(concurrently=True) is False
        assert not pool.closed
        assert connections(other, name) == 1
        with pool.connection() as lent:
            assert status(lent) == TransactionStatus.IDLE
        with pytest.raises(RecordError):
            store.upsert([A, Record("bad", "\0")])
        with pytest.raises(psycopg.errors.UndefinedColumn):
            store.search("rye", where=sql.SQL("nonsense = 1"))
        assert store.count() == 0
    wait_for(other, name, 0)


def test_a_lost_connection_is_made_again(
    other: Any, make: Make, postgres_dsn: str, name: str
) -> None:
    store = make(make_conninfo(postgres_dsn, application_name=name))
    store.upsert([A])
    other.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = %s",
        [name],
    )
    assert store.count() == 1
    assert store.upsert([A, B]).written == 1


def test_a_table_that_was_dropped_is_not_made_again_unasked(
    other: Any, make: Make, schema: str
) -> None:
    store = make(other)
    store.upsert([A])
    other.execute(f"drop table {schema}.docs")
    with pytest.raises(StoreError, match="was deleted, or replaced") as caught:
        store.delete(["a"])
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)
    for call in (store.count, lambda: store.search("rye"), lambda: store.upsert([B])):
        with pytest.raises(StoreError, match=r"was deleted while .* Call close\(\) first"):
            call()
    store.close()
    assert store.upsert([A]).written == 1


def test_a_table_that_was_dropped_and_made_again_is_read(
    other: Any, make: Make, schema: str
) -> None:
    store = make(other)
    store.upsert([A])
    other.execute(f"drop table {schema}.docs")
    make(other).upsert([B])
    assert store.get(["a", "b"]) == [None, B]


def test_a_table_that_a_condition_names_and_is_not_there_is_the_callers_own_error(
    other: Any, make: Make
) -> None:
    store = make(other)
    store.upsert([A])
    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
            store.search("rye", where=sql.SQL("id in (select id from nowhere)"))
    assert store.get(["a"]) == [A]


def test_a_table_whose_creation_was_rolled_back_is_made_again(other: Any, make: Make) -> None:
    store = make(other)
    with other.transaction(force_rollback=True):
        store.upsert([A])
    assert store.upsert([A]).written == 1


def test_many_threads_over_one_of_each(
    connection: Any, make: Make, postgres_dsn: str, schema: str
) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    with psycopg_pool.ConnectionPool(postgres_dsn, min_size=1, max_size=2, open=True) as pool:
        for given in (connection, postgres_dsn, pool):
            store = make(given)

            def use(number: int, store: PostgresStore = store) -> int:
                mine = Record(f"{number}", "rye", {"n": number}, vector=[1.0] * DIMENSIONS)
                store.upsert([mine])
                assert store.get([mine.id]) == [mine]
                return len(store.search([1.0] * DIMENSIONS, filter={"n": number}))

            with ThreadPoolExecutor(4) as threads:
                assert list(threads.map(use, range(20))) == [1] * 20
            assert store.delete(f"{number}" for number in range(20)) == 20


# -- passwords ----------------------------------------------------------------------------------

SECRETS = [
    "postgresql://ann:s3cret@127.0.0.1:1/shop?connect_timeout=1",
    "host=127.0.0.1 port=1 user=ann password=s3cret connect_timeout=1",
    "postgresql://ann:s3cret@127.0.0.1:port/shop",
    "postgresql://ann:s3cret@127.0.0.1:1/shop?nonsense=1",
    "postgresql://ann:s3cret@[::1",
    "host=127.0.0.1 password='s3cret",
]


@pytest.mark.parametrize("conninfo", SECRETS)
def test_a_password_is_never_shown(embedder: Embedder, conninfo: str) -> None:
    with pytest.raises((psycopg.Error, StoreError)) as caught:
        PostgresStore(conninfo, embedder=embedder).open()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://ann:s3cret@h/shop?sslmod=require",
        "postgresql:///shop?user=ann&sslmod=require&password=s3cret",
        "postgres://h/shop?connect_timeout=1&sslmod=s3cret",
        "host=h user = ann sslmod=require password=s3cret",
        "application_name='a b=c \\' d=e' sslmod = 's3cret'",
    ],
)
def test_a_misspelt_parameter_is_named(embedder: Embedder, conninfo: str) -> None:
    with pytest.raises(StoreError, match="'sslmod'") as caught:
        PostgresStore(conninfo, embedder=embedder)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://ann:x?secret=y@h/shop?nonsense=1",
        "postgresql:///shop?password=x&secret=y",
        "host=h password=x secret=y",
        "postgresql:///shop?se%63ret=x",
        "postgresql:///shop?secret",
        "secret",
    ],
)
def test_what_may_be_a_piece_of_a_password_is_not_named(embedder: Embedder, conninfo: str) -> None:
    with pytest.raises(StoreError, match="percent-encoded") as caught:
        PostgresStore(conninfo, embedder=embedder)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_sqlalchemys_url_is_told_what_to_leave_out(embedder: Embedder) -> None:
    url = "postgresql+psycopg://ann:s3cret@h/shop"
    with pytest.raises(StoreError, match=r"behind \+ is SQLAlchemy's: leave it out\.$") as caught:
        PostgresStore(url, embedder=embedder)
    assert "s3cret" not in str(caught.value)


def test_a_store_shows_its_table_only(embedder: Embedder, connection: Any) -> None:
    for given in (*SECRETS[:2], connection):
        store = PostgresStore(given, embedder=embedder, schema="shop")
        assert repr(store) == str(store) == "PostgresStore(table='shop.toastrack_documents')"


# -- conditions of the user's -------------------------------------------------------------------


@pytest.fixture
def shop(make: Make, connection: Any, schema: str) -> PostgresStore:
    """Ten rows, with a price in a column of the user's own."""
    store = make(connection)
    store.upsert(ready(10))
    connection.execute(f"alter table {schema}.docs add price int")
    connection.execute(f"update {schema}.docs set price = id::int * 10")
    return store


def found(store: PostgresStore, **arguments: Any) -> list[int]:
    results = []
    for exact in (False, True):
        matches = store.search([1.0] * DIMENSIONS, exact=exact, **arguments)
        assert len(matches) == len({match.id for match in matches})
        results.append(sorted(int(match.id) for match in matches))
    assert results[0] == results[1]
    return results[0]


def test_a_condition_on_the_users_columns(shop: PostgresStore) -> None:
    cheap = sql.SQL("price < %(limit)s")
    assert found(shop, where=cheap, params={"limit": 35}) == [0, 1, 2, 3]
    assert found(shop, where=cheap, params={"limit": 35}, filter={"n": 2}) == [2]
    assert found(shop, where=cheap, params={"limit": 35}, filter={"n": 9}) == []
    assert found(shop, where=cheap, params={"limit": 0}) == []
    assert found(shop, where=sql.SQL("price between 20 and 40")) == [2, 3, 4]
    assert found(shop, where=sql.SQL("id = any(%(ids)s)"), params={"ids": ["0001", "x"]}) == [1]
    column = sql.SQL("{} = 50").format(sql.Identifier("price"))
    assert found(shop, where=column) == [5]
    assert found(shop, where=sql.SQL("text like 'text 1%%'"), params={"unused": 1}) == [1]


def test_a_condition_stays_inside_its_brackets(shop: PostgresStore) -> None:
    either = sql.SQL("price = 10 or price = 20")
    assert found(shop, where=either) == [1, 2]
    assert found(shop, where=either, filter={"n": 2}) == [2]
    assert found(shop, where=sql.SQL("true or true"), filter={"n": 3}) == [3]


def test_the_values_of_a_condition_are_only_values(shop: PostgresStore) -> None:
    for hostile in ("x' or '1'='1", "%s", "'; drop table docs; --", "\\"):
        assert found(shop, where=sql.SQL("text = %(text)s"), params={"text": hostile}) == []
    # Ours cannot be replaced by the user's.
    ours = {"toastrack_k": 1, "toastrack_query": "x", "toastrack_filter": "{}"}
    assert found(shop, where=sql.SQL("true"), params=ours, filter={"n": 3}) == [3]
    assert found(shop) == list(range(10))


# -- at the same time ---------------------------------------------------------------------------


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock is an error here, not one of the things that are tried again."""
    monkeypatch.setattr("toastrack_postgres.transactions.RETRIES", 0)


@pytest.mark.usefixtures("no_retries")
def test_writers_in_opposite_orders_do_not_deadlock(
    make: Make, postgres_dsn: str, connection: Any
) -> None:
    stores = [make(postgres_dsn).open() for _ in range(3)]
    for number in range(5):
        # All texts differ from what is stored, so everybody writes every row.
        batches = [ready(300, seed=10 * number + writer) for writer in range(3)]
        batches[1].reverse()
        Random(number).shuffle(batches[2])
        reports = at_once(
            *(partial(store.upsert, batch) for store, batch in zip(stores, batches, strict=True))
        )
        assert [report.written for report in reports] == [300] * 3
    assert make(connection).count() == 300


@pytest.mark.usefixtures("no_retries")
def test_writers_of_metadata_and_of_texts_do_not_deadlock(
    make: Make, postgres_dsn: str, connection: Any
) -> None:
    def batch(number: int, writer: int) -> list[Record]:
        """One writer changes the metadata of the even rows and the vectors of the odd ones."""
        return [
            Record(
                record.id,
                record.text,
                {"writer": writer, "number": number},
                vector=record.vector if position % 2 == writer else ready(1, number + 1)[0].vector,
            )
            for position, record in enumerate(ready(300))
        ]

    stores = [make(postgres_dsn).open() for _ in range(2)]
    for number in range(5):
        stores[0].upsert(ready(300))
        at_once(
            *(partial(store.upsert, batch(number, writer)) for writer, store in enumerate(stores))
        )
    assert make(connection).count() == 300


@pytest.mark.usefixtures("no_retries")
def test_writers_and_deleters_do_not_deadlock(
    make: Make, postgres_dsn: str, connection: Any
) -> None:
    stores = [make(postgres_dsn).open() for _ in range(3)]
    for number in range(5):
        forward, backward = ready(300, seed=number), ready(300, seed=-number + 1_000)[::-1]
        ids = [record.id for record in backward]
        at_once(
            partial(stores[0].upsert, forward),
            partial(stores[1].delete, ids),
            partial(stores[2].replace_many, [(id, []) for id in ids]),
        )
    assert make(connection).count() <= 300


def test_writers_who_cannot_be_serialized_try_again(
    make: Make, postgres_dsn: str, connection: Any
) -> None:
    strict = make_conninfo(
        postgres_dsn, options="-cdefault_transaction_isolation=repeatable\\ read"
    )
    stores = [make(strict).open() for _ in range(3)]
    for number in range(3):
        batches = [ready(100, seed=10 * number + writer) for writer in range(3)]
        reports = at_once(
            *(partial(store.upsert, batch) for store, batch in zip(stores, batches, strict=True))
        )
        assert [report.written for report in reports] == [100] * 3
    assert make(connection).count() == 100


def test_a_reader_sees_the_old_document_or_the_new_one(make: Make, postgres_dsn: str) -> None:
    writer, reader = make(postgres_dsn).open(), make(postgres_dsn).open()
    versions = [
        [
            Record(f"{version} {n}", "rye", {"v": version}, vector=[1.0] * DIMENSIONS)
            for n in range(5)
        ]
        for version in range(2)
    ]
    writer.replace("book", versions[0])

    def write() -> None:
        for number in range(30):
            writer.replace("book", versions[(number + 1) % 2])

    def read() -> set[tuple[Any, ...]]:
        return {
            tuple(sorted(match.metadata["v"] for match in reader.search([1.0] * DIMENSIONS, k=20)))
            for _ in range(60)
        }

    _, seen = at_once(write, read)
    assert seen <= {(0,) * 5, (1,) * 5}
