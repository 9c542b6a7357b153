"""Which files hold a model's weights: the ones that are loaded are the ones that are digested."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from toastrack.errors import ModelError
from toastrack.models.json_files import broken, name_inside, read_json
from toastrack.models.modules import Task, read_modules

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# is_sharded_checkpoint in https://github.com/huggingface/transformers, distributed/checkpoint.py
_PART = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors$")


def weight_files(folder: Path, task: Task = "embedding") -> list[Path]:
    """Return the weight files of the model itself, sorted; empty if any of them is missing.

    The weights of further modules (``2_Dense/model.safetensors``) are part of the list.
    """
    main = [folder / name for name in main_weight_names(folder)]
    if not all(path.is_file() for path in main):
        return []
    for module in read_modules(folder, task)[1:]:
        further = folder / module.path / WEIGHTS_FILE
        if module.kind == "Normalize":
            continue
        if further.is_file():
            main.append(further)
        elif any(further.parent.glob("*.bin")):
            raise ModelError(
                f"{str(further.parent)!r} holds its weights as a pickle, and toastrack does not "
                "load pickles. Save the model again with sentence-transformers 6."
            )
    return main


def main_weight_names(folder: Path, names: Container[str] = ()) -> list[str]:
    """Return what the files of the transformer's weights are called, whether they are there or not.

    One file goes before shards, as with transformers. ``names`` are those that the folder would
    hold, had all been fetched.
    """
    refuse_other_weights(folder)
    index = folder / INDEX_FILE
    if WEIGHTS_FILE in names or (folder / WEIGHTS_FILE).is_file() or not index.is_file():
        return [WEIGHTS_FILE]
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise broken(index, "its weight_map does not say which file holds which tensor")
    shards = {name_inside(name, index, what="a file of weights") for name in placed.values()}
    wrong = [name for name in shards if not name.endswith(".safetensors")]
    if wrong:
        raise ModelError(
            f"{str(index)!r} names {wrong[0]!r:.80} as a file of weights, and toastrack loads "
            "nothing but .safetensors. Save the model again with safe_serialization=True."
        )
    return sorted(shards)


def refuse_other_weights(folder: Path) -> None:
    """Refuse a folder whose files send transformers to other weights than those it holds."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        raise ModelError(
            f"{str(adapter)!r} makes this an adapter for weights that lie elsewhere. Merge it into "
            "its model with peft's merge_and_unload(), and save that."
        )
    parts = [path.name for path in folder.glob("shard-*.safetensors") if _PART.match(path.name)]
    if parts:
        raise ModelError(
            f"{str(folder)!r} holds {parts[0]}, a part of a checkpoint that transformers would load "
            f"in place of {WEIGHTS_FILE}. Move such files elsewhere."
        )
    path = folder / "config.json"
    other = read_json(path).get("transformers_weights")
    if other is not None:
        raise ModelError(
            f"{str(path)!r} names {other!r:.80} as its weights, and toastrack reads "
            f"{WEIGHTS_FILE} or the shards of {INDEX_FILE}. Rename the file and delete that line."
        )
