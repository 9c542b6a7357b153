"""URLs of servers and folders, and the command line on them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from forks import Child
from programs import Warm
from qdrant_client import QdrantClient

from toastrack import Embedder, EmbeddingSpace, Record
from toastrack.errors import StoreError
from toastrack.stores.addresses import open_store
from toastrack_qdrant import QdrantStore
from toastrack_qdrant.url import Address, parse_url


def toastrack(*words: str) -> tuple[int, str, str]:
    """Status, output and errors of the command line in a process of its own."""
    code = "import sys; from toastrack.cli import main; sys.argv[0] = 'toastrack'; main()"
    with Warm(code, *words) as program:
        return program.finish()


def test_urls_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    assert parse_url("qdrant:data/q/docs") == Address("docs", folder="data/q")
    assert parse_url("qdrant:/data/docs") == Address("docs", folder="/data")
    assert parse_url("qdrant:my%20data/my%20docs") == Address("my docs", folder="my data")
    assert parse_url("qdrant+http://host/docs") == Address("docs", server="http://host:6333")
    assert parse_url("qdrant+https://h.io:443/p/docs") == Address(
        "docs", server="https://h.io:443", prefix="p"
    )
    assert parse_url("qdrant+http://[::1]:7/docs") == Address("docs", server="http://[::1]:7")
    assert parse_url("qdrant+http://:p%40ss@host/docs").api_key == "p@ss"
    monkeypatch.setenv("QDRANT_API_KEY", "from outside")
    assert parse_url("qdrant+http://host/docs").api_key == "from outside"
    assert parse_url("qdrant+http://u:own@host/docs").api_key == "own"


@pytest.mark.parametrize(
    "url",
    [
        "qdrant:docs",
        "qdrant:",
        "qdrant:data/",
        "qdrant:data/..",
        "qdrant:/docs",
        "qdrant+http://:secret@host",
        "qdrant+http://:secret@host/",
        "qdrant+http:///docs",
        "qdrant+http://:secret@host:port/docs",
        "qdrant+http://:secret@host:99999999/docs",
        "qdrant+https://:secret@host/docs?key=secret",
        "qdrant+https://:secret@[host/docs",
    ],
)
def test_what_is_no_url_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(StoreError, match="qdrant:DIR/collection") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_is_never_shown() -> None:
    assert "secret" not in repr(parse_url("qdrant+https://:secret@host/docs"))


def test_a_folder_is_filled_and_opened_again(tmp_path: Path, embedder: Embedder) -> None:
    url = f"qdrant:{tmp_path / 'q'}/docs"
    seen: list[EmbeddingSpace | None] = []

    def choose(recorded: EmbeddingSpace | None) -> Embedder:
        seen.append(recorded)
        return embedder

    with pytest.raises(StoreError, match="Ingest first"), open_store(url, choose, create=False):
        pass
    assert not (tmp_path / "q").exists()
    with open_store(url, choose, create=True) as store:
        store.upsert([Record("a", "rye")])
        status, printed, errors = toastrack("search", "rye", "--in", url)
        assert (status, printed) == (2, "")
        assert "Another process uses the folder" in errors
    with open_store(url, choose, create=False) as store:
        assert store.get(["a"]) == [Record("a", "rye")]
    assert seen == [None, embedder.space]
    # It is a folder of qdrant-client's, for everybody.
    client = QdrantClient(path=str(tmp_path / "q"))
    assert QdrantStore(client, "docs", embedder=embedder, create=False).count() == 1
    client.close()


def test_no_other_folder_is_written_to(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with (
        pytest.raises(StoreError, match="no Qdrant in the folder"),
        open_store(f"qdrant:{tmp_path}/docs", lambda recorded: embedder, create=False),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_server_that_is_down(embedder: Embedder) -> None:
    url = "qdrant+http://:secret@127.0.0.1:9/docs"
    with (
        pytest.warns(UserWarning, match="insecure connection"),
        pytest.raises(StoreError, match=r"No Qdrant answers at 127.0.0.1:9:") as caught,
        open_store(url, lambda recorded: embedder, create=True),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_the_command_line(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "rye.md").write_text("rye bread keeps fresh")
    url = f"qdrant:{tmp_path / 'q'}/docs"

    status, _, errors = toastrack(
        "ingest", str(tmp_path / "rye.md"), "--to", url, "--model", str(tiny_folder)
    )
    assert status == 0, errors
    (found,) = json.loads(toastrack("search", "rye", "--in", url, "--json")[1])
    assert found["id"] == "rye.md"


def test_a_folder_is_of_one_process(tmp_path: Path, embedder: Embedder) -> None:
    with open_store(f"qdrant:{tmp_path / 'q'}/docs", embedder) as store:
        store.upsert([Record("a", "rye", vector=[1.0] * 32)])
        with pytest.raises(
            StoreError, match=r"forked from uses the folder .* or run a Qdrant server"
        ):
            Child(store.count).answer()
        assert store.count() == 1
        pickled = pickle.dumps(store)
    twin = pickle.loads(pickled)
    assert twin.search([1.0] * 32)[0].id == "a"
    twin.close()
