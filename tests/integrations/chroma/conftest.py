"""Chroma clients for every test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

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


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every model that is loaded, which is loaded as ever."""
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine

    seen: list[str] = []
    start = SentenceTransformersEngine.__init__

    def noted(self: Any, folder: Path, **settings: Any) -> None:
        seen.append(folder.name)
        start(self, folder, **settings)

    monkeypatch.setattr(SentenceTransformersEngine, "__init__", noted)
    return seen


@pytest.fixture
def fresh_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of the test's own, which nobody holds in memory."""
    from models import MXBAI_PROMPT, save_tiny_bert

    return save_tiny_bert(
        tmp_path / "fresh",
        seed=crc32(request.node.name.encode()),
        prompts={"query": MXBAI_PROMPT, "passage": ""},
    )
