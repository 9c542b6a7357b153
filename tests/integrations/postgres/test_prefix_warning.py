"""An index on first numbers says what it finds, unless the model was trained for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

# ruff: noqa: E402
import pytest

pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from toastrack import Embedder, Record
from toastrack_postgres import AsyncPostgresStore, PostgresStore

DIMENSIONS = 32
SAID = r"find is (\S+)% of the best 10, asked with 200 rows.*Matryoshka"


@pytest.fixture
def store(connection: Any, schema: str, embedder: Embedder) -> PostgresStore:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    vectors = np.random.default_rng(0).normal(size=(1_000, DIMENSIONS))
    store.upsert(Record(f"{n:05}", f"text {n}", vector=vector) for n, vector in enumerate(vectors))
    return store


def test_it_says_what_the_prefix_finds(store: PostgresStore) -> None:
    with pytest.warns(UserWarning, match=SAID) as warned:
        assert store.build_index(kind="prefix", prefix=4) is True
    assert [Path(one.filename).name for one in warned] == [Path(__file__).name]
    said = str(warned[0].message)
    assert "searches by the prefix of 4 find" in said
    (row,) = [
        row for row in store.recall().rows if (row.index, row.oversampling) == ("prefix of 4", 10)
    ]
    assert f"{row.recall:.1%}" in said
    assert row.recall < 1


def test_it_is_said_once(store: PostgresStore) -> None:
    with pytest.warns(UserWarning, match=SAID):
        store.build_index(kind="prefix", prefix=4)
    assert store.build_index(kind="prefix") is False
    assert store.build_index(kind="binary") is True
    assert store.build_index() is True


def test_without_rows_nothing_is_measured(connection: Any, schema: str, embedder: Embedder) -> None:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    with pytest.warns(UserWarning, match="find is not known, as there are no rows"):
        store.build_index(kind="prefix", prefix=4)


def test_an_asynchronous_store_says_so_too(
    store: PostgresStore, postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    async def build() -> None:
        async with AsyncPostgresStore(
            postgres_dsn, "docs", schema=schema, embedder=embedder
        ) as other:
            await other.build_index(kind="prefix", prefix=4, concurrently=True)

    with pytest.warns(UserWarning, match=SAID) as warned:
        asyncio.run(build())
    assert [Path(one.filename).name for one in warned] == [Path(__file__).name]


def test_a_model_that_was_trained_for_it_is_trusted(
    connection: Any, schema: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "is_matryoshka": True}))
    store = PostgresStore(connection, "docs", schema=schema, embedder=Embedder(folder))
    store.upsert([Record("rye", "Rye bread.", vector=[1.0] * DIMENSIONS)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.build_index(kind="prefix", prefix=4) is True
