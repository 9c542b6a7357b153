"""An adapter is free to build and to copy, and one model in memory serves them all."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from toastrack import Embedder

if TYPE_CHECKING:
    from contract_embeddings.conftest import Adapter, Build

SECRET = "tr-5up3r-53cr37"


def test_building_one_needs_no_model(
    adapter: Adapter, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    build()
    build(model="toastrack/nowhere", device="cpu", dimensions=16)


def test_two_of_them_and_the_core_load_one_model(
    build: Build, fresh_folder: Path, loads: list[str]
) -> None:
    core = Embedder(fresh_folder, device="cpu")
    own = {"model": fresh_folder, "device": "cpu"}
    faces = [build(**own), build(**own), build(core)]
    assert not loads
    for face in faces:
        face.query("bread")
        face.documents(["rye"])
    core.embed_query("bread")
    assert loads == ["fresh"]


def test_one_embedder_can_be_shared(build: Build, embedder: Embedder) -> None:
    own = Embedder(embedder.model, device="cpu", dimensions=8)
    assert len(build(own).query("bread")) == 8


@pytest.mark.usefixtures("copies")
@pytest.mark.parametrize(
    "duplicate",
    [lambda held: pickle.loads(pickle.dumps(held)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_copy_has_the_settings_and_loads_nothing(
    adapter: Adapter,
    build: Build,
    loaded: Embedder,
    tiny_folder: Path,
    loads: list[str],
    duplicate: Callable[[Any], Any],
    used: bool,
) -> None:
    face = build(model=tiny_folder, device="cpu", query_prompt="why: ", dimensions=16)
    if used:
        face.query("bread")
    other = duplicate(face.held)
    assert repr(other) == repr(face.held) or "object at 0x" in repr(other)
    copied = copy.copy(face)
    copied.held = other
    np.testing.assert_allclose(copied.query("bread"), face.query("bread"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        copied.documents(["rye"]), face.documents(["rye"]), rtol=0, atol=1e-5
    )
    assert not loads


@pytest.mark.usefixtures("copies")
def test_a_pickle_is_small_and_holds_no_weights(build: Build, tiny_folder: Path) -> None:
    face = build(model=tiny_folder, device="cpu")
    face.query("bread")
    assert len(pickle.dumps(face.held)) < 2_000


@pytest.mark.usefixtures("copies")
def test_a_pickle_works_in_another_process(build: Build, tiny_folder: Path, tmp_path: Path) -> None:
    face = build(model=tiny_folder, device="cpu")
    (tmp_path / "held").write_bytes(pickle.dumps(face.held))
    code = (
        "import pathlib, pickle, sys\n"
        f"held = pickle.loads(pathlib.Path({str(tmp_path / 'held')!r}).read_bytes())\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_no_secret_is_shown_or_pickled(
    adapter: Adapter, build: Build, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "MXBAI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    face = build(model=tiny_folder, device="cpu")
    face.query("bread")
    shown = [repr(face.held), str(face.held)]
    if adapter.copies:
        shown.append(pickle.dumps(face.held).decode("latin-1"))
    assert not [text for text in shown if SECRET in text]


def test_all_adapters_together_load_one_model(
    request: pytest.FixtureRequest, fresh_folder: Path, loads: list[str]
) -> None:
    from contract_embeddings.conftest import ADAPTERS

    with ExitStack() as stack:
        faces = [
            stack.enter_context(a.start(request))(model=fresh_folder, device="cpu")
            for a in ADAPTERS
        ]
        vectors = [face.query("bread") for face in faces]
    for vector, adapter in zip(vectors, ADAPTERS, strict=True):
        np.testing.assert_allclose(vector, vectors[0], rtol=0, atol=adapter.precision)
    assert loads == ["fresh"]
