"""URLs of folders and servers, and the command line over them."""

from __future__ import annotations

import gc
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

import chromadb
import numpy as np
from chroma_server import close_client, start_chroma
from chromadb.api.fastapi import FastAPI
from chromadb.api.shared_system_client import SharedSystemClient
from forks import Child
from httpx import ConnectError
from programs import run_warm as run_program

from toastrack import Embedder, Record, cli
from toastrack.engines.sentence_transformers import SentenceTransformersEngine
from toastrack.errors import StoreError
from toastrack_chroma import ChromaStore
from toastrack_chroma.finding import COMPLETE, COPY_OF
from toastrack_chroma.url import open_url

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program's entry point; return exit code, output and errors."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["toastrack", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        gc.collect()  # a connection that was left open is a warning, which is an error
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "rye.md").write_text("# Rye\n\nRye bread keeps fresh.\n")
    (folder / "salt.md").write_text("# Salt\n\nSalt in the dough.\n")
    return folder


@pytest.fixture(params=["folder", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield f"chroma:{tmp_path / 'a folder'}/docs"
        return
    host, port = request.getfixturevalue("chroma_server")
    name = f"docs-{uuid4().hex[:12]}"
    yield f"chroma+http://{host}:{port}/{name}"
    with raw(f"chroma+http://{host}:{port}/{name}") as client:
        if name in [collection.name for collection in client.list_collections()]:
            client.delete_collection(name)


@contextmanager
def raw(url: str) -> Iterator[Any]:
    """A client of what a URL names."""
    if url.startswith("chroma:"):
        client: Any = chromadb.PersistentClient(url.removeprefix("chroma:").rpartition("/")[0])
    else:
        host, _, port = url.split("/")[2].rpartition(":")
        client = chromadb.HttpClient(host=host, port=int(port))
    yield client
    close_client(client)


def test_end_to_end(run: Run, docs: Path, url: str, tiny_folder: Path) -> None:
    code, out, err = run("ingest", docs, "--to", url, "--model", tiny_folder)
    assert (code, err) == (0, "")
    assert out.startswith("2 documents (2 chunks): 2 embedded, 0 unchanged in ")

    code, out, _ = run("ingest", docs, "--to", url)
    assert (code, " 0 embedded, 2 unchanged" in out) == (0, True)

    code, out, _ = run("search", "which bread keeps fresh", "--in", url, "--json")
    assert code == 0
    matches = json.loads(out)
    assert {match["id"] for match in matches} == {"rye.md", "salt.md"}
    expected = Embedder(tiny_folder, device="cpu").embed_query("which bread keeps fresh")
    with raw(url) as client:
        collection = client.get_collection(url.rpartition("/")[2], embedding_function=None)
        stored = collection.get(ids=[matches[0]["id"]], include=["embeddings"])["embeddings"][0]
    assert matches[0]["score"] == pytest.approx(float(stored @ expected), abs=1e-5)

    code, out, _ = run("search", "bread", "--in", url, "--filter", "title=Salt", "--exact")
    assert (code, "salt.md" in out, "rye.md" in out) == (0, True, False)

    (docs / "salt.md").unlink()
    (docs / "new.md").write_text("the oven is warm")
    code, out, _ = run("ingest", docs, "--to", url, "--prune", "--json")
    report = json.loads(out)
    assert (code, report["embedded"], report["unchanged"], report["deleted"]) == (0, 1, 1, 1)

    code, out, _ = run("doctor", "--in", url)
    assert code == 0
    assert "ok  store: 2 records of 2 documents" in out
    assert "ok  extra chroma: chromadb" in out


def test_another_model_is_refused(
    run: Run, docs: Path, url: str, tiny_folder: Path, other_folder: Path
) -> None:
    run("ingest", docs, "--to", url, "--model", tiny_folder)
    code, _, err = run("ingest", docs, "--to", url, "--model", other_folder)
    assert code == 2
    assert "the model's weights: stored" in err
    assert "Traceback" not in err
    code, out, _ = run("doctor", "--in", url, "--model", other_folder, "--json")
    store = next(finding for finding in json.loads(out) if finding["subject"] == "store")
    assert (code, store["state"]) == (1, "wrong")
    assert "or build a new one" in store["message"]


def test_nothing_there_yet(run: Run, url: str, tmp_path: Path) -> None:
    code, _, err = run("search", "bread", "--in", url)
    assert code == 2
    assert "ngest" in err
    assert "Traceback" not in err
    assert not (tmp_path / "a folder").exists(), "a search made a database"


def test_a_collection_whose_rebuild_was_stopped_is_found(
    run: Run, docs: Path, url: str, tiny_folder: Path
) -> None:
    """Between the old one's end and the copy's new name."""
    run("ingest", docs, "--to", url, "--model", tiny_folder)
    name = url.rpartition("/")[2]
    with raw(url) as client:
        copy = client.get_collection(name, embedding_function=None)
        marks = {COPY_OF: "x", COMPLETE: True}
        copy.modify(name=f"{name}__rebuild", metadata={**copy.metadata, **marks})
    code, out, err = run("ingest", docs, "--to", url)
    assert (code, err) == (0, "")
    assert " 0 embedded, 2 unchanged" in out


def test_no_server_there(run: Run, docs: Path) -> None:
    code, _, err = run("ingest", docs, "--to", "chroma+http://127.0.0.1:9/docs")
    assert code == 1
    assert "No Chroma server answers at 127.0.0.1:9. Start one: chroma run" in err
    assert len(err.strip().splitlines()) == 1


def test_a_server_that_stops_in_between(
    run: Run, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, port = start_chroma(tmp_path / "chroma")
    try:
        monkeypatch.setattr("toastrack.stores.backend.LONG_BACKOFF", (0.0, 0.0))
        run_model = SentenceTransformersEngine.run

        def stopping(self: SentenceTransformersEngine, *args: Any, **options: Any) -> Any:
            process.terminate()
            process.wait()
            return run_model(self, *args, **options)

        Embedder(tiny_folder).load()
        monkeypatch.setattr(SentenceTransformersEngine, "run", stopping)
        rows = tmp_path / "rows.jsonl"
        rows.write_text('{"id": "1", "text": "rye"}\n')
        url = f"chroma+http://127.0.0.1:{port}/docs"
        code, _, err = run("ingest", rows, "--to", url, "--model", tiny_folder)
    finally:
        process.kill()
        process.wait()
    assert code == 1
    assert f"The Chroma server at 127.0.0.1:{port} does not answer" in err
    assert len(err.strip().splitlines()) == 1


BAD = {
    "chroma:": "names no folder and collection",
    "chroma:docs": "names no folder and collection",
    "chroma:DIR/": "names no folder and collection",
    "chroma:/docs": "names no folder and collection",
    "chroma://relative/docs": "names no folder and collection",
    "chroma:FILE/docs": "is a file, not the folder",
    "chroma+http:": "not a Chroma URL",
    "chroma+http://localhost": "not a Chroma URL",
    "chroma+http://localhost/": "not a Chroma URL",
    "chroma+http:///docs": "not a Chroma URL",
    "chroma+http://localhost/a/b": "not a Chroma URL",
    "chroma+http://localhost/docs?x=1": "not a Chroma URL",
    "chroma+http://localhost/docs#x": "not a Chroma URL",
    "chroma+http://localhost:hunter2/docs": "not a Chroma URL",
    "chroma+http://localhost:70000/docs": "not a Chroma URL",
    "chroma+http://localhost:0/docs": "not a Chroma URL",
    "chroma+http://[::1/docs": "not a Chroma URL",
    "chroma+https://me:hunter2@localhost/docs": "no user and password",
    "chroma+http://[::1]:9/docs": "No Chroma server answers at [::1]:9",
    "chroma+ftp://localhost/docs": "not a kind of store",
}


@pytest.mark.parametrize("url", BAD)
def test_bad_urls(run: Run, docs: Path, tmp_path: Path, url: str) -> None:
    given = url.replace("FILE", str(docs / "rye.md")).replace("DIR", str(tmp_path / "x"))
    code, _, err = run("ingest", docs, "--to", given)
    assert code == (1 if "No Chroma server" in BAD[url] else 2)
    assert BAD[url] in err
    assert len(err.strip().splitlines()) == 1
    assert "hunter2" not in err
    assert not (tmp_path / "x").exists()


def test_a_bad_collection_name_is_one_line(
    run: Run, docs: Path, url: str, tiny_folder: Path
) -> None:
    bad = f"{url.rpartition('/')[0]}/a%20b"
    code, _, err = run("ingest", docs, "--to", bad, "--model", tiny_folder)
    assert code == 2
    assert "Collection 'a b' cannot be created" in err
    assert len(err.strip().splitlines()) == 1


def test_what_we_open_we_close(
    url: str, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[Any] = []
    for name in ("PersistentClient", "HttpClient"):
        make = getattr(chromadb, name)

        def noted(*args: Any, make: Any = make, **options: Any) -> Any:
            clients.append(make(*args, **options))
            return clients[-1]

        monkeypatch.setattr(chromadb, name, noted)
    with open_url(url, lambda recorded: embedder, create=True) as store:
        store.upsert([Record("a", "rye")])
    with open_url(url, lambda recorded: embedder, create=False) as store:
        assert store.count() == 1
        assert isinstance(store, ChromaStore)
    with (
        pytest.raises(StoreError, match="chosen"),
        open_url(url, lambda recorded: raise_(StoreError("chosen")), create=False),
    ):
        pass
    assert len(clients) == 3
    for client in clients:
        assert client._closed
        session = getattr(client._server, "_session", None)
        assert session is None or session.is_closed


def raise_(error: Exception) -> Any:
    raise error


def test_chroma_keeps_nothing_of_a_client_of_ours(
    chroma_server: tuple[str, int], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = SharedSystemClient._identifier_to_system
    before = set(kept)
    host, port = chroma_server
    url = f"chroma+http://{host}:{port}/docs-{uuid4().hex[:12]}"
    with open_url(url, embedder, create=True) as store:
        assert set(kept) > before
        assert store.count() == 0
    assert set(kept) == before

    def gone(*args: Any, **options: Any) -> None:
        raise ConnectError("in between")

    monkeypatch.setattr(FastAPI, "get_tenant", gone)
    with pytest.raises(StoreError), open_url(url, embedder, create=True):
        """Not reached."""
    assert set(kept) == before


def test_a_forked_child_has_a_client_of_its_own(url: str, embedder: Embedder) -> None:
    """To a server; a database in a folder is in one process, and the child is told so."""
    with open_url(url, embedder, create=True) as store:
        records = [Record(f"{n}", "rye", vector=np.eye(32)[n]) for n in range(3)]
        store.upsert(records)

        def ask(number: int) -> list[str]:
            with store:
                return [store.search(np.eye(32)[number], 1)[0].id for _ in range(20)]

        children = [Child(lambda number=number: ask(number)) for number in (0, 1)]  # type: ignore[misc]
        assert [store.search(np.eye(32)[2], 1)[0].id for _ in range(20)] == ["2"] * 20
        for number, child in enumerate(children):
            if url.startswith("chroma:"):
                with pytest.raises(StoreError, match="Chroma does not outlive a fork"):
                    child.answer()
            else:
                assert child.answer() == [str(number)] * 20
        twin = pickle.loads(pickle.dumps(store))
        assert twin.search(np.eye(32)[1], 1)[0].id == "1"
        twin.close()
        assert store.count() == 3


def test_a_folder_is_for_one_process(tmp_path: Path, embedder: Embedder) -> None:
    folder = tmp_path / "db"
    code = f"""
import sys
from pathlib import Path
from toastrack.errors import StoreError
from toastrack_chroma.folder_lock import hold, let_go
try:
    hold(Path({str(folder)!r}))
    print("taken")
except StoreError as error:
    print(error)
"""
    with open_url(f"chroma:{folder}/one", embedder, create=True) as one:
        one.upsert([Record("a", "rye")])
        with open_url(f"chroma:{folder}/two", embedder, create=True) as two:
            assert two.count() == 0
        assert f"Another process uses the folder '{folder}'" in run_program(code)
        assert one.count() == 1
    assert run_program(code) == "taken\n"
    with open_url(f"chroma:{folder}/one", embedder, create=False) as one:
        assert one.count() == 1


def test_a_folder_that_was_held_by_a_killed_process_is_free(
    tmp_path: Path, embedder: Embedder
) -> None:
    folder = tmp_path / "db"
    code = f"""
import os
from pathlib import Path
from toastrack_chroma.folder_lock import hold
hold(Path({str(folder)!r}))
if not os.fork():
    os._exit(0)
os._exit(0)
"""
    run_program(code)
    with open_url(f"chroma:{folder}/one", embedder, create=True) as one:
        assert one.count() == 0
