"""What is told of the building of an index while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import get_ident
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg.rows import dict_row

from toastrack import Embedder, Record
from toastrack_postgres import AsyncPostgresStore, PostgresStore
from toastrack_postgres.progress import _Shares

DIMENSIONS = 32
ROWS = 2_500


@pytest.fixture
def filled(postgres_dsn: str, schema: str, embedder: Embedder) -> str:
    """A table whose index takes long enough to be seen, and the schema it is in."""
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIMENSIONS))
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert(Record(str(n), "x", vector=vector) for n, vector in enumerate(vectors))
    return schema


@pytest.fixture(autouse=True)
def _asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toastrack_postgres.progress._SECONDS_BETWEEN", 0.005)
    monkeypatch.setattr("toastrack_postgres.progress._POOL_SECONDS", 0.05)


@contextmanager
def _pool(conninfo: str, *, size: int) -> Iterator[Any]:
    with psycopg_pool.ConnectionPool(
        conninfo, min_size=size, max_size=size, timeout=300, kwargs={"row_factory": dict_row}
    ) as pool:
        pool.wait()
        yield pool


def check_shares(shares: list[float]) -> None:
    assert len(shares) > 3
    assert shares == sorted(set(shares))
    assert 0 < shares[0] < 0.9
    assert shares[-1] == 1


Given = Callable[[str], AbstractContextManager[Any]]


@pytest.mark.parametrize("concurrently", [False, True])
@pytest.mark.parametrize(
    "given", [nullcontext, lambda conninfo: _pool(conninfo, size=2)], ids=["conninfo", "pool"]
)
def test_a_build_tells_how_far_it_is(
    postgres_dsn: str, filled: str, embedder: Embedder, given: Given, concurrently: bool
) -> None:
    shares: list[float] = []
    threads: set[int] = set()

    def on_progress(share: float) -> None:
        shares.append(share)
        threads.add(get_ident())

    with (
        given(postgres_dsn) as connection,
        PostgresStore(connection, "docs", schema=filled, embedder=embedder) as store,
    ):
        assert store.build_index(concurrently=concurrently, on_progress=on_progress) is True
        check_shares(shares)
        assert len(threads) == 2
        shares.clear()
        assert store.build_index(on_progress=shares.append) is False
        assert shares == []


@pytest.mark.parametrize("pooled", [False, True], ids=["conninfo", "pool"])
def test_an_asynchronous_build_tells_how_far_it_is(
    postgres_dsn: str, filled: str, embedder: Embedder, pooled: bool
) -> None:
    async def main() -> list[float]:
        shares: list[float] = []
        pool = psycopg_pool.AsyncConnectionPool(postgres_dsn, min_size=2, max_size=2, open=False)
        async with (
            pool if pooled else nullcontext(),
            AsyncPostgresStore(
                pool if pooled else postgres_dsn, "docs", schema=filled, embedder=embedder
            ) as store,
        ):
            assert await store.build_index(on_progress=shares.append) is True
        return shares

    check_shares(asyncio.run(main()))


def test_a_pool_of_one_connection_is_enough(
    postgres_dsn: str, filled: str, embedder: Embedder
) -> None:
    shares: list[float] = []
    with _pool(postgres_dsn, size=1) as pool:
        store = PostgresStore(pool, "docs", schema=filled, embedder=embedder)
        assert store.build_index(on_progress=shares.append) is True
        assert shares == []
        assert store.count() == ROWS


def test_an_asynchronous_pool_of_one_connection_is_enough(
    postgres_dsn: str, filled: str, embedder: Embedder
) -> None:
    async def main() -> None:
        shares: list[float] = []
        async with psycopg_pool.AsyncConnectionPool(
            postgres_dsn, min_size=1, max_size=1, timeout=300, open=False
        ) as pool:
            store = AsyncPostgresStore(pool, "docs", schema=filled, embedder=embedder)
            assert await store.build_index(on_progress=shares.append) is True
            assert shares == []
            assert await store.count() == ROWS

    asyncio.run(main())


def test_over_a_callers_connection_nothing_is_told(
    postgres_dsn: str, filled: str, embedder: Embedder
) -> None:
    shares: list[float] = []
    with psycopg.connect(postgres_dsn) as connection:
        store = PostgresStore(connection, "docs", schema=filled, embedder=embedder)
        assert store.build_index(on_progress=shares.append) is True
    assert shares == []


def test_an_error_of_the_callback_ends_the_progress_and_not_the_build(
    postgres_dsn: str, filled: str, embedder: Embedder
) -> None:
    def fail(share: float) -> None:
        raise ZeroDivisionError

    with PostgresStore(postgres_dsn, "docs", schema=filled, embedder=embedder) as store:
        with pytest.raises(ZeroDivisionError):
            store.build_index(on_progress=fail)
        assert store.build_index() is False


def test_an_error_of_the_build_is_the_one_that_is_raised(
    postgres_dsn: str, filled: str, embedder: Embedder
) -> None:
    with (
        PostgresStore(postgres_dsn, "docs", schema=filled, embedder=embedder) as store,
        pytest.raises(psycopg.errors.InvalidParameterValue),
    ):
        store.build_index(m=1, on_progress=print)


def test_progress_never_goes_back() -> None:
    told: list[float] = []
    shares = _Shares(told.append)
    for rows in ([], [(None,)], *([(share,)] for share in (0.0, 0.5, 0.5, 0.2, 0.7, 1.0))):
        shares.add(rows)
    shares.finish()
    assert told == [0.5, 0.7, 1.0]
    _Shares(told.append).finish()
    assert len(told) == 3
