"""Chroma clients for every test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from chroma_server import close_client

chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")


@pytest.fixture(params=["ephemeral", "persistent", "http"])
def client(request: pytest.FixtureRequest) -> Any:
    """A synchronous client of each kind, with a database of the test's own."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def ephemeral() -> Iterator[Any]:
    """A client in memory; all of a process share it, so it gets a database of the test's own."""
    from chromadb.config import Settings

    name = f"test_{uuid4().hex[:12]}"
    admin = chromadb.AdminClient(Settings(is_persistent=False))
    admin.create_database(name)
    made = chromadb.EphemeralClient(database=name)
    yield made
    close_client(made)


@pytest.fixture
def persistent(tmp_path: Path) -> Iterator[Any]:
    """A client over a folder."""
    made = chromadb.PersistentClient(tmp_path / "chroma")
    yield made
    close_client(made)


@pytest.fixture
def http(chroma_database: tuple[str, int, str]) -> Iterator[Any]:
    """A client of the session's server."""
    host, port, database = chroma_database
    made = chromadb.HttpClient(host=host, port=port, database=database)
    yield made
    close_client(made)


@pytest.fixture
def another(chroma_database: tuple[str, int, str]) -> Iterator[Callable[[], Any]]:
    """Makes further clients of the database that ``http`` uses."""
    host, port, database = chroma_database
    made: list[Any] = []

    def make() -> Any:
        made.append(chromadb.HttpClient(host=host, port=port, database=database))
        return made[-1]

    yield make
    for client in made:
        close_client(client)
