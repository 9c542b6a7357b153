"""The file that OpenVINO reads in a model's folder, and the note that says which weights it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from pathlib import Path
from typing import Literal, get_args

from toastrack.errors import ModelError
from toastrack.models.config import ModelConfig
from toastrack.models.json_files import read_json
from toastrack.models.modules import Task

# Where sentence-transformers and optimum put them; OpenVINO's own form loads faster.
# https://sbert.net/docs/sentence_transformer/usage/efficiency.html
RUN_FILES = (
    "openvino/openvino_model.xml",
    "openvino_model.xml",
    "onnx/model.onnx",
    "model.onnx",
)

NOTE_FILE = "toastrack.json"

NotedPrecision = Literal["float32", "int8"]

LANGUAGE_MODEL = "it is a language model that is asked for a score"


def run_file(folder: Path) -> Path | None:
    """Return the file to run, with its weights beside it; None if the folder holds none."""
    names = {
        name for run_name in RUN_FILES for name in parts(run_name) if (folder / name).is_file()
    }
    name = run_file_name(names)
    return None if name is None else folder / name


def run_file_name(names: Container[str]) -> str | None:
    """Return which of a model's file names is the one to run."""
    for name in RUN_FILES:
        # An ONNX file has a second one only when it is over 2 GB.
        needed = parts(name) if name.endswith(".xml") else parts(name)[:1]
        if all(part in names for part in needed):
            return name
    return None


def parts(name: str) -> tuple[str, str]:
    """Return the file to run and the one beside it that holds the weights."""
    return name, name.removesuffix(".xml") + ".bin" if name.endswith(".xml") else f"{name}_data"


def why_not(folder: Path, task: Task = "embedding") -> str | None:
    """Say what keeps OpenVINO from running the model in a folder as it is meant; None if nothing."""
    if not (folder / "tokenizer.json").is_file():
        return "tokenizer.json is missing"
    if task == "embedding":
        return ModelConfig(folder).beyond_pooling(("cls", "mean"))
    if ModelConfig(folder, task).is_generative:
        return LANGUAGE_MODEL
    return None


def noted_weights(folder: Path) -> str | None:
    """Return the digest of the weights that an exported model was made of, if it says so."""
    path = folder / NOTE_FILE
    digest = read_json(path).get("weights")
    if digest is None:
        return None
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ModelError(f"{str(path)!r} names no sha256 of weights: {digest!r:.80}. Export anew.")
    return digest


def noted_precision(folder: Path) -> NotedPrecision:
    """Return what the numbers of an exported file are; where nothing is said, float32."""
    path = folder / NOTE_FILE
    precision = read_json(path).get("precision", "float32")
    if precision not in get_args(NotedPrecision):
        raise ModelError(
            f"{str(path)!r} names the precision {precision!r:.80}, which this version does not "
            "know. Install a newer toastrack, or export anew."
        )
    found: NotedPrecision = precision
    return found


def noted_model(folder: Path) -> str:
    """Return the name of the model that an exported one was made of, for people; "" if none."""
    name = read_json(folder / NOTE_FILE).get("model")
    return name if isinstance(name, str) else ""


def write_note(
    folder: Path, *, weights: str, model: str, revision: str | None, precision: NotedPrecision
) -> None:
    """Write down which weights an exported model was made of; name and revision are for people."""
    note = {"weights": weights, "model": model, "revision": revision, "precision": precision}
    text = json.dumps(note, indent=2, ensure_ascii=False)
    (folder / NOTE_FILE).write_text(text + "\n", encoding="utf-8")
