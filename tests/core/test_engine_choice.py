"""Which engine "auto" takes, and that it asks no torch for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from programs import run

from toastrack import DEFAULT_MODEL, Embedder
from toastrack.models import engine_choice as choice
from toastrack.models.engine_choice import engines_to_try

BOTH = ("openvino", "sentence-transformers")
TORCH = ("sentence-transformers",)

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in MISSING: raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from toastrack import Embedder
try:
    print(Embedder(FOLDER, engine=ENGINE).load().running_on, "torch" in sys.modules)
except ImportError as error:
    print(type(error).__name__, error)
"""


def without(folder: Path, *missing: str, engine: str = "auto") -> str:
    """What an embedder says in a process that lacks packages."""
    if choice._has_gpu():
        pytest.skip("a GPU runs another engine")
    code = f"MISSING, FOLDER, ENGINE = {missing!r}, {str(folder)!r}, {engine!r}\n{WITHOUT}"
    return run(code).strip()


@pytest.mark.parametrize(
    ("engine", "device", "gpu", "expected"),
    [
        ("auto", None, False, BOTH),
        ("auto", "cpu", False, BOTH),
        ("auto", "cpu", True, BOTH),
        ("auto", None, True, TORCH),
        ("auto", "cuda", True, TORCH),
        ("auto", "mps", False, TORCH),
        ("openvino", None, True, ("openvino",)),
        ("sentence-transformers", "cpu", False, TORCH),
    ],
)
def test_the_engines_that_come_into_question(
    monkeypatch: pytest.MonkeyPatch, engine: Any, device: Any, gpu: bool, expected: Any
) -> None:
    monkeypatch.setattr(choice, "is_installed", lambda package: True)
    monkeypatch.setattr(choice, "_has_gpu", lambda: gpu)
    assert engines_to_try(engine, device) == expected


def test_openvino_that_is_not_installed_does_not_come_into_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "is_installed", lambda package: package != "openvino")
    assert engines_to_try("auto", None) == TORCH


def test_a_model_that_ships_a_file_runs_on_openvino_without_torch(openvino_folder: Path) -> None:
    assert without(openvino_folder).endswith(" False")
    assert without(openvino_folder).startswith("openvino on cpu in ")
    assert without(openvino_folder, "torch", "sentence_transformers", "transformers").startswith(
        "openvino on cpu in "
    )


def test_a_model_that_ships_none_runs_on_sentence_transformers(tiny_folder: Path) -> None:
    assert Embedder(tiny_folder, device="cpu").running_on.startswith("sentence-transformers on cpu")


def test_a_pooling_that_openvino_does_not_know_runs_on_sentence_transformers(
    openvino_folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(openvino_folder, tmp_path / "m")
    (folder / "toastrack.json").unlink()
    shutil.copy(tiny_folder / "model.safetensors", folder)
    config = folder / "1_Pooling" / "config.json"
    config.write_text('{"embedding_dimension": 32, "pooling_mode": "max"}', encoding="utf-8")
    assert Embedder(folder, device="cpu").running_on.startswith("sentence-transformers on cpu")


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_a_missing_engine_names_its_extra(openvino_folder: Path, engine: str) -> None:
    said = without(openvino_folder, "openvino", engine=engine)
    assert said.startswith("MissingExtraError 'openvino' is not installed. Run: pip ")
    assert "[openvino]" in said


def test_where_nothing_is_installed_the_engine_without_torch_is_named() -> None:
    all_of_it = ("huggingface_hub", "openvino", "torch", "sentence_transformers", "tokenizers")
    model = Path(DEFAULT_MODEL)
    assert f"[{choice.best_extra()}]" in without(model, *all_of_it)
    assert choice.best_extra("cuda") == "local"
    assert "[local]" in without(model, *all_of_it, engine="sentence-transformers")


def test_missing_tokenizers_are_of_the_extra_that_is_there(openvino_folder: Path) -> None:
    said = without(openvino_folder, "tokenizers", "torch")
    assert said.startswith("MissingExtraError 'tokenizers' is not installed.")
    assert "[openvino]" in said


def test_without_openvino_a_missing_torch_names_local(tiny_folder: Path) -> None:
    said = without(tiny_folder, "openvino", "torch")
    assert said.startswith("MissingExtraError 'torch' is not installed.")
    assert "[local]" in said
