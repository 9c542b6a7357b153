"""Which files of a model's folder hold its own weights; pickles are refused."""

from __future__ import annotations

import json
from pathlib import Path

from toastrack.errors import ModelError
from toastrack.model_config import read_modules


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of the model itself, sorted; empty if any listed shard is missing.

    The weights of further modules (``2_Dense/model.safetensors``) are part of the list.
    """
    main = [folder / name for name in main_weight_names(folder)]
    if not all(path.is_file() for path in main):
        return []
    for module in read_modules(folder):
        further = folder / module["path"]
        if module["path"] and further.is_dir():
            found = sorted(further.glob("*.safetensors"))
            if not found and any(further.glob("*.bin")):
                raise ModelError(
                    f"{str(further)!r} holds its weights as a pickle, and toastrack does not load "
                    "pickles. Save the model again with sentence-transformers 6."
                )
            main += found
    return main


def main_weight_names(folder: Path) -> list[str]:
    """Return what the files of the transformer's weights are called, whether they are there or not."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
