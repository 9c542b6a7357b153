"""Which rows of a table stand for all of it, where its vectors are proven."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

from toastrack import Embedder, Record
from toastrack.stores import run_sync
from toastrack_postgres import PostgresStore

ROWS = 600


@pytest.fixture
def store(connection: Any, schema: str, embedder: Embedder) -> PostgresStore:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    store.upsert(
        Record(f"{number:04}", "rye bread " * 20, {"number": number}, vector=[1.0] * 32)
        for number in range(ROWS)
    )
    return store


def sample(store: PostgresStore, size: int) -> set[str]:
    rows = run_sync(store._flow.perform(store._backend.read_sample, size, reads=True))
    assert all(row.vector is not None and row.text_hash for row in rows)
    return {row.record.id for row in rows}


def test_a_small_table_is_sampled_as_a_whole(store: PostgresStore) -> None:
    assert len(sample(store, 20)) == 20
    assert len(sample(store, 2 * ROWS)) == ROWS


def test_of_a_large_table_some_pages_are_read(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack_postgres.reading._SAMPLED_PAGES", 2)
    for _ in range(5):
        assert len(sample(store, 20)) == 20
    # Of pages that hold too few, all are taken.
    assert len(sample(store, ROWS)) == ROWS


def test_rows_without_a_vector_are_passed_over(store: PostgresStore, connection: Any) -> None:
    table = store._backend.label
    connection.execute(f"update {table} set embedding = null where id > '0009'")
    assert sample(store, 20) == {f"{number:04}" for number in range(10)}
