"""Several processes that replace one document at the same moment leave one of theirs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import racing
import services

from toastrack import Embedder

ROUNDS = int(os.environ.get("TOASTRACK_ROUNDS", "20"))
HAS_QDRANT = services.wanted() or "TOASTRACK_QDRANT_URL" in os.environ


def on_postgres(request: pytest.FixtureRequest) -> tuple[Any, list[Any]]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    return racing.postgres, [request.getfixturevalue(name) for name in ("postgres_dsn", "schema")]


def on_chroma(request: pytest.FixtureRequest) -> tuple[Any, list[Any]]:
    return racing.chroma, list(request.getfixturevalue("chroma_database"))


def on_qdrant(request: pytest.FixtureRequest) -> tuple[Any, list[Any]]:
    return racing.qdrant, [request.getfixturevalue("qdrant_url"), f"test_{uuid4().hex[:12]}"]


@pytest.mark.rest
@pytest.mark.parametrize("writers", [2, 3])
@pytest.mark.parametrize(
    "host",
    [on_postgres, on_chroma, *([on_qdrant] if HAS_QDRANT else [])],
    ids=lambda it: it.__name__,
)
def test_processes_that_replace_one_document_leave_one_of_theirs(
    host: Any, writers: int, tiny_folder: Path, embedder: Embedder, request: pytest.FixtureRequest
) -> None:
    open_store, arguments = host(request)
    with open_store(*arguments, embedder=embedder) as store:
        rounds = racing.race(open_store, arguments, str(tiny_folder), writers, ROUNDS)
        for number, returned in enumerate(rounds):
            if not all(returned):
                continue
            theirs = [racing.wanted(number, writer) for writer in range(writers)]
            ids = sorted({record.id for records in theirs for record in records})
            there = [record for record in store.get(ids) if record is not None]
            expected = [sorted(records, key=lambda it: it.id) for records in theirs]
            assert sorted(there, key=lambda it: it.id) in expected, f"round {number}"
            assert store.upsert(there).embedded == 0, f"round {number}"
        assert sum(all(returned) for returned in rounds) > len(rounds) // 2
