"""Rows that are new are copied into the table, and where that cannot be they are inserted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest
from at_once import at_once
from programs import Warm
from statements_seen import seen, watch

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg.conninfo import make_conninfo

from toastrack import Embedder, Record, Report
from toastrack.stores import Store
from toastrack_postgres import AsyncPostgresStore, PostgresStore

SECONDS = 120
COUNT = 300


def records(count: int = COUNT, seed: int = 0) -> list[Record]:
    """Of all that a row can hold, in an order that is not that of their ids."""
    vectors = np.random.default_rng(seed).normal(size=(count, 32)).astype(np.float32)
    return [
        Record(
            f"ä{(n * 7) % count:04}",
            f"rye 'n' \\ {n} 🥖 {seed}\n",
            {"n": n, "ö": [1e23, -0.0, None], "seed": seed},
            vector=vector,
            document_id=f"book{n // 3}" if n % 2 else None,
            chunk=n if n % 2 else None,
        )
        for n, vector in enumerate(vectors)
    ]


@pytest.fixture
def store(postgres_dsn: str, schema: str, embedder: Embedder) -> Iterator[PostgresStore]:
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        yield store


def until(connection: Any, condition: str) -> None:
    end = time.monotonic() + SECONDS
    while not connection.execute(f"select {condition}").fetchone()[0]:
        assert time.monotonic() < end, condition


def beside_another(
    connection: Any, schema: str, write: Callable[[], Report], *, gives_up: bool = False
) -> Report:
    """Write while another writer has one of the rows, who commits or gives up when we wait."""
    with psycopg.connect(connection.info.dsn) as other, ThreadPoolExecutor(1) as threads:
        other.execute(f"insert into {schema}.docs (id, text) values ('ä0007', 'theirs')")
        writing = threads.submit(write)
        until(connection, "exists (select from pg_locks where not granted)")
        if gives_up:
            other.rollback()
        else:
            other.commit()
        return writing.result(SECONDS)


def check(store: Store, expected: list[Record]) -> None:
    """Everything came back to the letter, and is known again."""
    assert store.get([record.id for record in expected]) == expected
    assert store.upsert(expected).unchanged == len(expected)
    assert store.search(expected[7].vector, k=1)[0].id == expected[7].id  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", ["halfvec", "vector"])
def test_new_rows_are_copied_and_others_are_not(
    postgres_dsn: str, schema: str, embedder: Embedder, connection: Any, storage: Any
) -> None:
    with PostgresStore(
        postgres_dsn, "docs", schema=schema, embedder=embedder, storage=storage
    ) as store:
        watch(connection, schema)
        assert store.upsert(records()).written == COUNT
        assert seen(connection, schema) == {"copy"}
        check(store, records())
        assert store.upsert(records(seed=1)).written == COUNT
        assert seen(connection, schema) == {"insert"}
        check(store, records(seed=1))


def test_new_rows_of_an_asynchronous_store_are_copied(
    postgres_dsn: str, schema: str, embedder: Embedder, connection: Any
) -> None:
    async def main() -> None:
        async with AsyncPostgresStore(
            postgres_dsn, "docs", schema=schema, embedder=embedder
        ) as store:
            watch(connection, schema)
            assert (await store.upsert(records())).written == COUNT
            assert seen(connection, schema) == {"copy"}
            assert await store.get([record.id for record in records()]) == records()

    asyncio.run(main())


def test_another_writer_was_quicker(store: PostgresStore, connection: Any, schema: str) -> None:
    """It had not committed when they were compared, and has when they are written."""
    watch(connection, schema)
    report = beside_another(connection, schema, lambda: store.upsert(records()))
    assert report.written == COUNT
    assert seen(connection, schema) == {"insert"}
    check(store, records())


def test_another_writer_was_quicker_with_a_row_of_documents_that_are_replaced(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    """What goes with the documents is gone as well, and counted."""
    store.upsert(Record(f"old {n}", "x", vector=[1.0] * 32, document_id="book") for n in range(9))
    documents = [("book", records()), ("other", [])]
    watch(connection, schema)
    report = beside_another(connection, schema, lambda: store.replace_many(documents))
    assert (report.written, report.deleted, report.unchanged) == (COUNT, 9, 0)
    assert seen(connection, schema) == {"insert"}
    assert store.count() == COUNT
    assert store.replace_many(documents).unchanged == COUNT


def test_documents_whose_rows_are_new_are_copied(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.upsert(Record(f"old {n}", "x", vector=[1.0] * 32, document_id="book") for n in range(9))
    watch(connection, schema)
    report = store.replace_many([("book", records())])
    assert (report.written, report.deleted) == (COUNT, 9)
    assert seen(connection, schema) == {"copy"}


def test_writers_of_the_same_new_rows_at_once(
    postgres_dsn: str, schema: str, embedder: Embedder, store: PostgresStore
) -> None:
    """Each has them in another order; nobody waits for who waits for him."""
    others = [PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) for _ in "12"]
    texts = [records(seed=seed) for seed in range(3)]
    for number, some in enumerate(texts):
        some.sort(key=lambda record: hash((record.id, number)))
    at_once(
        *(
            lambda one=one, some=some: one.upsert(some)
            for one, some in zip([store, *others], texts, strict=True)
        )
    )
    there = store.get([record.id for record in records()])
    assert {record and record.metadata["seed"] for record in there} <= {0, 1, 2}
    assert store.count() == COUNT
    for one in others:
        one.close()


def test_another_writer_gave_up(store: PostgresStore, connection: Any, schema: str) -> None:
    watch(connection, schema)
    report = beside_another(connection, schema, lambda: store.upsert(records()), gives_up=True)
    assert report.written == COUNT
    assert seen(connection, schema) == {"copy"}
    check(store, records())


@pytest.mark.parametrize("within", ["a transaction", "a pipeline"])
def test_inside_of_what_the_caller_began(
    postgres_dsn: str, schema: str, embedder: Embedder, connection: Any, within: str
) -> None:
    with psycopg.connect(postgres_dsn) as given:
        store = PostgresStore(given, "docs", schema=schema, embedder=embedder).open()
        watch(connection, schema)
        if within == "a transaction":
            given.execute("select 1")
            assert store.upsert(records()).written == COUNT
            given.rollback()
            assert store.count() == 0
            given.execute("select 1")
            store.upsert(records())
        else:
            with given.pipeline():
                assert store.upsert(records()).written == COUNT
        given.commit()
        assert seen(connection, schema) == {"copy" if within == "a transaction" else "insert"}
        check(store, records())


def test_a_connection_of_another_encoding(
    postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    latin = [
        Record(record.id, "süß", {"ö": "é"}, record.vector, document_id="ß", chunk=1)
        for record in records()
    ]
    with psycopg.connect(make_conninfo(postgres_dsn, client_encoding="latin1")) as given:
        store = PostgresStore(given, "docs", schema=schema, embedder=embedder)
        assert store.upsert(latin).written == COUNT
        check(store, latin)
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        check(store, latin)


@pytest.mark.parametrize(
    "change",
    [
        "alter table {0}.docs alter id type varchar(100)",
        "alter table {0}.docs alter chunk type bigint",
        "create index on {0}.docs using hnsw (embedding halfvec_cosine_ops)",
    ],
    ids=["id", "chunk", "index"],
)
def test_a_table_of_another_shape_is_inserted_into(
    store: PostgresStore, connection: Any, schema: str, change: str
) -> None:
    watch(connection, schema)
    connection.execute(change.format(schema))
    store.close()
    assert store.upsert(records()).written == COUNT
    assert seen(connection, schema) == {"insert"}
    check(store, records())


def test_a_partitioned_table_is_inserted_into(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(
        f"""
        alter table {schema}.docs rename to plain;
        create table {schema}.docs (like {schema}.plain including comments, primary key (id))
            partition by hash (id);
        create table {schema}.one partition of {schema}.docs for values with (modulus 2, remainder 0);
        create table {schema}.two partition of {schema}.docs for values with (modulus 2, remainder 1)
        """
    )
    watch(connection, schema)
    store.close()
    assert store.upsert(records()).written == COUNT
    assert seen(connection, schema) == {"insert"}
    check(store, records())


def test_columns_and_triggers_of_ones_own_are_served(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(
        f"""
        alter table {schema}.docs
            add column length int generated always as (length(text)) stored,
            add column number bigint generated always as identity,
            add column origin text default 'here';
        create function {schema}.mark() returns trigger language plpgsql as
            $$ begin new.origin := new.origin || '!'; return new; end $$;
        create trigger mark before insert on {schema}.docs
            for each row execute function {schema}.mark()
        """
    )
    watch(connection, schema)
    store.upsert(records())
    assert seen(connection, schema) == {"copy"}
    check(store, records())
    found = connection.execute(
        f"select count(*), count(distinct number), min(origin), bool_and(length = length(text)) "
        f"from {schema}.docs"
    ).fetchone()
    assert found == (COUNT, COUNT, "here!", True)


def test_what_the_table_refuses_is_said_as_of_an_insert(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(f"alter table {schema}.docs add constraint short check (length(id) < 5)")
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        store.upsert([*records(), Record("long one", "x", vector=[1.0] * 32)])
    assert "COPY" not in str(raised.value)
    assert store.count() == 0


def test_under_row_level_security_rows_are_inserted(
    store: PostgresStore, connection: Any, postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    role = f"test_{uuid4().hex[:12]}"
    try:
        connection.execute(f"create role {role}")
    except psycopg.errors.InsufficientPrivilege:
        pytest.skip("this user may not create roles")
    watch(connection, schema)
    connection.execute(
        f"""
        grant {role} to current_user;
        alter table {schema}.docs enable row level security;
        create policy all_of_it on {schema}.docs using (true);
        grant usage on schema {schema} to {role};
        grant select, insert, update, delete on {schema}.docs to {role}
        """
    )
    try:
        conninfo = make_conninfo(postgres_dsn, options=f"-c role={role}")
        with PostgresStore(conninfo, "docs", schema=schema, embedder=embedder) as ours:
            assert ours.upsert(records()).written == COUNT
            assert seen(connection, schema) == {"insert"}
            check(ours, records())
    finally:
        connection.execute(f"drop owned by {role}; drop role {role}")


KILLED = """
import sys
from toastrack import Embedder, Record
from toastrack_postgres import PostgresStore
conninfo, schema, model = sys.argv[1:]
with PostgresStore(conninfo, "docs", schema=schema, embedder=Embedder(model)) as store:
    store.upsert(Record(f"{n:05}", "rye", vector=[1.0] * 32) for n in range(5_000))
"""


def test_killed_while_it_copies(
    store: PostgresStore, connection: Any, postgres_dsn: str, schema: str, tiny_folder: Any
) -> None:
    """Of the window that was copied nothing is there, and all of the one before."""
    name = f"toastrack-{uuid4().hex[:12]}"
    conninfo = make_conninfo(postgres_dsn, application_name=name)
    with psycopg.connect(postgres_dsn) as other:
        other.execute(f"insert into {schema}.docs (id, text) values ('03000', 'theirs')")
        with Warm(KILLED, conninfo, schema, str(tiny_folder)) as program:
            until(connection, "exists (select from pg_locks where not granted)")
            program.kill()
        other.rollback()
    until(
        connection,
        f"not exists (select from pg_stat_activity where application_name = '{name}')",
    )
    assert store.count() == 2_048
    every = [Record(f"{n:05}", "rye", vector=[1.0] * 32) for n in range(5_000)]
    report = store.upsert(every)
    assert (report.unchanged, report.written) == (2_048, 2_952)
