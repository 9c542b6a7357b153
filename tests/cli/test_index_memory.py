"""``toastrack ingest --index-memory``: given to Postgres, and refused before the load elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from programs import Run

from toastrack.stores import open_store


def test_the_index_is_built_with_the_memory_that_is_given(
    run: Run, url: str, docs: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = pytest.importorskip("toastrack_postgres.session", reason="no extra 'postgres'")
    given: list[str] = []
    execute = session.Session.execute

    async def noted(self: Any, statement: Any, parameters: Any = ()) -> Any:
        if isinstance(parameters, dict) and "memory" in parameters:
            given.append(parameters["memory"])
        return await execute(self, statement, parameters)

    monkeypatch.setattr(session.Session, "execute", noted)
    words = ("ingest", docs, "--to", url, "--model", tiny_folder, "--index-memory", "71MB")
    code, out, _ = run(*words)
    assert code == 0
    assert "The index is built." in out
    assert given == ["71MB"]


def test_memory_that_the_server_does_not_take_is_said_before_the_load(
    run: Run, url: str, docs: Path, tiny_folder: Path
) -> None:
    words = ("ingest", docs, "--to", url, "--model", tiny_folder, "--index-memory", "plenty")
    code, _, err = run(*words)
    assert code == 1
    assert 'invalid value for parameter "maintenance_work_mem": "plenty"' in err
    with open_store(url, create=False) as store:
        assert store.count() == 0


def test_hosts_with_memory_of_their_own_refuse_it_before_the_load(
    run: Run, tmp_path: Path, docs: Path, tiny_folder: Path
) -> None:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    address = f"qdrant:{tmp_path / 'store'}/docs"
    words = ("ingest", docs, "--to", address, "--model", tiny_folder, "--index-memory", "1GB")
    code, _, err = run(*words)
    assert code == 2
    assert "--index-memory is for Postgres; leave it out" in err
    with open_store(address, create=False) as store:
        assert store.count() == 0


def test_memory_for_no_index_is_a_mistake(run: Run, url: str, docs: Path) -> None:
    code, _, err = run("ingest", docs, "--to", url, "--no-index", "--index-memory", "1GB")
    assert code == 2
    assert "--index-memory" in err
