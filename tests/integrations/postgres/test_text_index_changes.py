"""The index of words while others build, rebuild, drop or break it, and write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from programs import SECONDS
from psycopg import sql

from toastrack import Embedder, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import AsyncPostgresStore, PostgresStore

TEXTS = {
    "rye": "Rye loaves keep fresh.",
    "salt": "Salt slows the dough down.",
    "haus": "Die Häuser werden alt.",
}
WAYS: list[dict[str, Any]] = [
    {"mode": "text"},
    {"mode": "hybrid", "weights": (0, 1)},
    {"mode": "hybrid", "weights": (0, 1), "exact": True},
]
UNIT = [1.0, *[0.0] * 31]


@pytest.fixture
def stores(postgres_dsn: str, schema: str, embedder: Embedder) -> Iterator[list[PostgresStore]]:
    """Two on one table, each with a connection of its own."""
    first, second = (
        PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) for _ in range(2)
    )
    with first, second:
        first.upsert(Record(id, text) for id, text in TEXTS.items())
        yield [first, second]


def text_indexes(connection: psycopg.Connection[Any], schema: str) -> dict[str, bool]:
    """Return their names, and whether they are valid."""
    rows = connection.execute(
        """
        select c.relname, i.indisvalid
        from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
        where i.indrelid = %s::regclass and m.amname = 'gin'
        """,
        [f"{schema}.docs"],
    )
    return dict(rows.fetchall())


def drop(connection: psycopg.Connection[Any], schema: str) -> None:
    for name in text_indexes(connection, schema):
        connection.execute(sql.SQL("drop index {}").format(sql.Identifier(schema, name)))


def wait_for_build(connection: psycopg.Connection[Any], schema: str) -> None:
    """Return once a concurrent build waits for a writer."""
    end = time.monotonic() + SECONDS
    waiting = """
        select count(*) from pg_stat_progress_create_index
        where relid = %s::regclass and phase like 'waiting for %%' and index_relid <> 0
    """
    while connection.execute(waiting, [f"{schema}.docs"]).fetchone() == (0,):
        assert time.monotonic() < end


def ids(found: Any) -> list[str]:
    return [match.id for match in found if "text" in match.scores]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_open_store_notices_another_language_and_that_it_is_gone(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    schema: str,
    way: dict[str, Any],
) -> None:
    store, other = stores
    store.build_text_index("english")
    assert ids(store.search("loaf or loaves", **way)) == ["rye"]
    assert ids(store.search("Haus", **way)) == []
    other.build_text_index("german", rebuild=True)
    assert ids(store.search("Haus", **way)) == ["haus"]
    drop(connection, schema)
    with pytest.raises(UnsupportedError, match="build_text_index"):
        store.search("Haus", **way)
    other.build_text_index("simple")
    assert ids(store.search("the dough", **way)) == ["salt"]


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_open_asynchronous_store_notices_it_too(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    postgres_dsn: str,
    schema: str,
    embedder: Embedder,
    way: dict[str, Any],
) -> None:
    async with AsyncPostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        await store.build_text_index("english")
        assert ids(await store.search("Haus", **way)) == []
        stores[0].build_text_index("german", rebuild=True)
        assert ids(await store.search("Haus", **way)) == ["haus"]
        drop(connection, schema)
        with pytest.raises(UnsupportedError, match="build_text_index"):
            await store.search("Haus", **way)


@pytest.mark.parametrize("concurrently", [False, True])
def test_what_an_interrupted_build_left_is_not_used_and_is_built_anew(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    postgres_dsn: str,
    schema: str,
    concurrently: bool,
) -> None:
    store, _ = stores
    with psycopg.connect(postgres_dsn) as writer:
        writer.execute(f"update {schema}.docs set chunk = 1")
        connection.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(
                f"create index concurrently left_over on {schema}.docs "
                "using gin (to_tsvector('english', text))"
            )
        connection.execute("reset statement_timeout")
    assert text_indexes(connection, schema) == {"left_over": False}
    for way in WAYS:
        with pytest.raises(UnsupportedError, match=r"'left_over' is not whole.*interrupted"):
            store.search("loaves", **way)
    store._check_text_index("german")
    assert store.build_text_index(concurrently=concurrently) is True
    assert list(text_indexes(connection, schema).values()) == [True]
    assert "left_over" not in text_indexes(connection, schema)
    assert ids(store.search("loaves", mode="text")) == ["rye"]


def test_searches_go_on_while_another_session_builds(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    postgres_dsn: str,
    schema: str,
) -> None:
    store, other = stores
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(postgres_dsn) as writer:
            writer.execute(f"update {schema}.docs set chunk = 1")
            built = pool.submit(other.build_text_index, "english", concurrently=True)
            wait_for_build(connection, schema)
            with pytest.raises(UnsupportedError, match="is being built: wait for it"):
                store.search("loaves", mode="text")
            store._check_text_index("english")
        assert built.result() is True
        assert ids(store.search("loaves", mode="text")) == ["rye"]
        with psycopg.connect(postgres_dsn) as writer:
            writer.execute(f"update {schema}.docs set chunk = 2")
            built = pool.submit(other.build_text_index, "german", concurrently=True, rebuild=True)
            wait_for_build(connection, schema)
            assert ids(store.search("loaves", mode="text")) == ["rye"]
            # A store that opens now looks for the first time.
            with PostgresStore(
                postgres_dsn, "docs", schema=schema, embedder=store.embedder
            ) as late:
                assert ids(late.search("loaves", mode="text")) == ["rye"]
        assert built.result() is True
    assert ids(store.search("Haus", mode="text")) == ["haus"]
    assert list(text_indexes(connection, schema).values()) == [True]


def test_a_build_of_somebody_elses_that_goes_on_is_waited_for_by_nobody(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    postgres_dsn: str,
    schema: str,
) -> None:
    store, _ = stores
    with ThreadPoolExecutor(1) as pool, psycopg.connect(postgres_dsn, autocommit=True) as builder:
        with psycopg.connect(postgres_dsn) as writer:
            writer.execute(f"update {schema}.docs set chunk = 1")
            built = pool.submit(
                builder.execute,
                f"create index concurrently theirs on {schema}.docs "
                "using gin (to_tsvector('english', text))",
            )
            wait_for_build(connection, schema)
            for concurrently in (False, True):
                with pytest.raises(StoreError, match="'theirs' is being built by another session"):
                    store.build_text_index(concurrently=concurrently)
        built.result()
    assert text_indexes(connection, schema) == {"theirs": True}
    assert store.build_text_index() is False
    assert ids(store.search("loaves", mode="text")) == ["rye"]


@pytest.mark.parametrize("concurrently", [False, True])
def test_two_who_build_at_once_build_one(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    schema: str,
    concurrently: bool,
) -> None:
    barrier = Barrier(2)

    def build(store: PostgresStore) -> bool:
        barrier.wait()
        return store.build_text_index(concurrently=concurrently)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(build, stores)) == [False, True]
    assert list(text_indexes(connection, schema).values()) == [True]


@pytest.mark.parametrize("concurrently", [False, True])
def test_what_is_written_while_it_is_built_and_rebuilt_is_in_it(
    stores: list[PostgresStore],
    connection: psycopg.Connection[Any],
    schema: str,
    concurrently: bool,
) -> None:
    writer, builder = stores
    halfway = Barrier(2)

    def rows() -> Iterator[Record]:
        for number in range(2_000):
            if number == 500:
                halfway.wait()
            yield Record(f"n{number}", f"word{number} loaves", vector=UNIT)

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(writer.upsert, rows())
        halfway.wait()
        assert builder.build_text_index(concurrently=concurrently) is True
        assert builder.build_text_index("simple", concurrently=concurrently, rebuild=True) is True
        assert written.result().written == 2_000
    for number in (0, 499, 500, 1_999):
        for store in stores:
            assert ids(store.search(f"word{number}", mode="text")) == [f"n{number}"]
    assert list(text_indexes(connection, schema).values()) == [True]
