"""What is fetched from a hub for which engine, and how the weights are named that are not fetched."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from programs import run

from toastrack import Embedder

COMMIT = "0" * 40
MODEL = "owner/name"


@contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub of our own with one model, as huggingface_hub's client asks for it; notes what was sent."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    sent: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if path == "/":
                return self._send(200, b"", body=body)
            if path.startswith(f"/api/models/{MODEL}/revision/"):
                return self._send(200, json.dumps(self._info()).encode(), body=body)
            if path.startswith(f"/api/models/{MODEL}/tree/"):
                return self._send(200, json.dumps(self._tree()).encode(), body=body)
            name = path.removeprefix(f"/{MODEL}/resolve/").partition("/")[2]
            if name not in files:
                return self._send(404, b"", body=body, headers={"X-Error-Code": "EntryNotFound"})
            content = files[name].read_bytes()
            if body:
                sent.append(name)
            return self._send(200, content, body=body, headers={"ETag": f'"{etag(name, content)}"'})

        def _send(
            self, status: int, content: bytes, *, body: bool, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def _info(self) -> dict[str, object]:
            return {
                "id": MODEL,
                "sha": COMMIT,
                "siblings": [self._entry("rfilename", n) for n in files],
            }

        def _tree(self) -> list[dict[str, object]]:
            return [self._entry("path", name) | {"type": "file"} for name in files]

        def _entry(self, key: str, name: str) -> dict[str, object]:
            content = files[name].read_bytes()
            entry: dict[str, object] = {key: name, "size": len(content), "oid": "1" * 40}
            if is_large(name):
                sha256 = hashlib.sha256(content).hexdigest()
                lfs = {"sha256": sha256, "oid": sha256, "size": len(content), "pointerSize": 1}
                entry["lfs"] = lfs
            return entry

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".onnx"))


def etag(name: str, content: bytes) -> str:
    """A large file's is its sha256, a small one's the name that git gives it."""
    return (hashlib.sha256 if is_large(name) else hashlib.sha1)(content).hexdigest()


class Machine:
    """A user's machine: its hub cache and its home; asks in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def ask(self, endpoint: str | None, engine: str = "auto") -> str:
        """Which engine the files are for, and the space; torch is not loaded, it takes seconds."""
        code = f"""
import sys
from toastrack import Embedder
from toastrack.errors import ToastrackError
embedder = Embedder({MODEL!r}, engine={engine!r}, device="cpu")
try:
    if embedder._model.files.engine == "openvino":
        print(*embedder.embed_query("bread").shape, end=" ")
    print(embedder._model.files.engine, embedder.space.digest)
except ToastrackError as error:
    print(type(error).__name__, error)
"""
        settings = {
            "HF_ENDPOINT": endpoint or "http://127.0.0.1:9",
            "HF_HUB_OFFLINE": "0" if endpoint else "1",
            "HF_HUB_CACHE": str(self.home / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "XDG_CACHE_HOME": str(self.home / "cache"),
        }
        return run(code, **settings).strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


@pytest.fixture(scope="module")
def repository(
    tiny_folder: Path, openvino_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model as the hub has them: safetensors, OpenVINO and ONNX files, pickles."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("hub") / "m")
    shutil.copytree(openvino_folder / "openvino", folder / "openvino")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"another form of it")
    (folder / "onnx" / "model_quantized.onnx").write_bytes(b"another form of it")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    return folder


def space_of(folder: Path) -> str:
    return Embedder(folder, device="cpu", engine="sentence-transformers").space.digest


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_openvino_fetches_its_file_and_not_the_weights(
    machine: Machine, repository: Path, engine: str
) -> None:
    with hub(repository) as (endpoint, sent):
        said = machine.ask(endpoint, engine)
    assert said == f"32 openvino {space_of(repository)}"
    large = {name for name in sent if is_large(name) or "onnx" in name}
    assert large == {"openvino/openvino_model.bin"}
    assert sorted(set(sent)) == sorted(sent), "nothing is fetched twice"


@pytest.mark.rest
@pytest.mark.parametrize("engine", ["openvino", "sentence-transformers"])
def test_it_runs_afterwards_without_asking_the_hub(
    machine: Machine, repository: Path, engine: str
) -> None:
    with hub(repository) as (endpoint, _):
        first = machine.ask(endpoint, engine)
    assert first.removeprefix("32 ") == f"{engine} {space_of(repository)}"
    assert machine.ask(None, engine) == machine.ask(None) == first


def test_sentence_transformers_fetches_the_weights_and_nothing_else(
    machine: Machine, repository: Path
) -> None:
    with hub(repository) as (endpoint, sent):
        said = machine.ask(endpoint, "sentence-transformers")
    assert said == f"sentence-transformers {space_of(repository)}"
    assert [name for name in sent if is_large(name)] == ["model.safetensors"]
    assert "openvino/openvino_model.xml" not in sent


def test_auto_runs_what_is_here_already(machine: Machine, repository: Path) -> None:
    with hub(repository) as (endpoint, sent):
        machine.ask(endpoint, "sentence-transformers")
        sent.clear()
        assert machine.ask(endpoint).startswith("sentence-transformers ")
        assert not sent
        assert machine.ask(endpoint, "openvino").startswith("32 openvino")
        assert {name for name in sent if is_large(name)} == {"openvino/openvino_model.bin"}


def test_a_model_that_ships_no_file_is_fetched_for_sentence_transformers(
    machine: Machine, tiny_folder: Path
) -> None:
    with hub(tiny_folder) as (endpoint, sent):
        assert machine.ask(endpoint) == f"sentence-transformers {space_of(tiny_folder)}"
    assert [name for name in sent if is_large(name)] == ["model.safetensors"]


def test_asked_for_a_file_that_it_does_not_ship_it_fetches_no_weights(
    machine: Machine, tiny_folder: Path
) -> None:
    with hub(tiny_folder) as (endpoint, sent):
        said = machine.ask(endpoint, "openvino")
    assert said.startswith("ModelError engine='openvino' cannot run 'owner/name': it ships none of")
    assert f"toastrack export {MODEL} DIR" in said
    assert not [name for name in sent if is_large(name)]


def test_shards_that_are_not_fetched_are_named_as_if_they_were(
    machine: Machine, repository: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(repository, tmp_path / "shards")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (folder / names[0]).write_bytes(content[:100])
    (folder / names[1]).write_bytes(content[100:])
    index = {"weight_map": {"a": names[1], "b": names[0]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with hub(folder) as (endpoint, sent):
        said = machine.ask(endpoint)
    assert said == f"32 openvino {space_of(folder)}"
    assert not [name for name in sent if name.endswith(".safetensors")]


def test_of_one_file_and_shards_on_the_hub_the_one_file_names_the_space(
    machine: Machine, repository: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(repository, tmp_path / "both")
    (folder / "old.safetensors").write_bytes(b"left from an earlier version")
    index = {"weight_map": {"a": "old.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with hub(folder) as (endpoint, _):
        assert machine.ask(endpoint) == f"32 openvino {space_of(repository)}"


def test_a_model_without_safetensors_has_no_identity_and_is_refused(
    machine: Machine, repository: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(repository, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    with hub(folder) as (endpoint, sent):
        said = machine.ask(endpoint)
    assert said.startswith(f"ModelError {MODEL!r} has no model.safetensors on the hub, so nothing ")
    assert not [name for name in sent if is_large(name)]


@pytest.mark.rest
def test_what_the_hub_told_is_asked_again_if_it_was_lost(
    machine: Machine, repository: Path
) -> None:
    with hub(repository) as (endpoint, sent):
        first = machine.ask(endpoint)
        shutil.rmtree(machine.home / "cache")
        said = machine.ask(None)
        assert said.startswith(f"ModelError {MODEL!r} is here without its .safetensors, and only ")
        assert "HF_HUB_OFFLINE is set" in said
        assert "Unset it" in said
        sent.clear()
        assert machine.ask(endpoint) == first
        assert not sent
    assert machine.ask(None) == first


def test_a_download_that_stopped_half_way_is_not_taken_for_the_model(
    machine: Machine, repository: Path
) -> None:
    with hub(repository) as (endpoint, _):
        machine.ask(endpoint)
        (folder,) = (machine.home / "hub").glob("models--*/snapshots/*")
        (folder / "openvino" / "openvino_model.bin").unlink()
        said = machine.ask(None)
        assert said.startswith(f"ModelError {MODEL!r} is not in the local cache and HF_HUB_OFFLINE")
        assert machine.ask(endpoint).startswith("32 openvino")
