"""Connections and stores for the tests that look into a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from toastrack import Embedder

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

if TYPE_CHECKING:
    from toastrack_postgres import PostgresStore


@pytest.fixture
def connection(postgres_dsn: str) -> Iterator[Any]:
    """A connection of the test's own, to look around and to prepare things."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make(
    postgres_dsn: str, schema: str, embedder: Embedder
) -> Iterator[Callable[..., PostgresStore]]:
    """Builds stores over tables in the test's schema, with connections of their own."""
    from toastrack_postgres import PostgresStore

    with ExitStack() as stack:

        def make(table: str = "docs", **settings: Any) -> PostgresStore:
            settings = {"schema": schema, "embedder": embedder, **settings}
            store = PostgresStore(settings.pop("connection", postgres_dsn), table, **settings)
            stack.callback(store.close)
            return store

        yield make
