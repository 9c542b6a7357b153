"""Which modules of sentence-transformers a model is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toastrack.errors import ModelError
from toastrack.models.json_files import broken, name_inside, read_json, read_value, text

MODULES_FILE = "modules.json"

Task = Literal["embedding", "reranking"]
"""What a model is for: a text becomes a vector, or a query and a document become a score."""

LOGIT_SCORE = "LogitScore"

# Those whose files are one config.json and one model.safetensors, which is what the space is made
# of. Any other has files of its own, which nobody would compare.
KNOWN_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")


@dataclass(frozen=True)
class Module:
    """One step from tokens to a vector: its kind, and the folder in the model's that holds it."""

    kind: str
    path: str


def read_modules(folder: Path, task: Task = "embedding") -> list[Module]:
    """Return what ``modules.json`` lists, in order; nothing if the folder has none.

    Raises ``ModelError`` for a model that brings its own code, leads out of its folder, or is made
    of something else than one transformer, with a pooling behind it if it makes vectors.
    """
    path = folder / MODULES_FILE
    listed = read_value(path)
    if listed is None and not path.is_file():
        return []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise broken(path, "it does not hold a list of modules")
    modules = []
    for entry in listed:
        kind = text(entry, "type", path)
        if kind is None or "path" not in entry:
            raise broken(path, "a module in it has no type or no path")
        if not kind.startswith("sentence_transformers."):
            raise ModelError(
                f"{str(folder)!r} names code of its own, {kind!r:.80}, and toastrack runs none that "
                "comes with a model. Choose a model without it."
            )
        place = name_inside(entry["path"], path, what="a module's path")
        modules.append(Module(kind.rpartition(".")[2], place))
    (_check if task == "embedding" else _check_lone)(modules, path)
    return modules


def is_generative(folder: Path) -> bool:
    """Tell whether a reranker is a language model that is asked, and no classifier of pairs."""
    return any(module.kind == LOGIT_SCORE for module in read_modules(folder, "reranking"))


def _check(modules: list[Module], path: Path) -> None:
    kinds = [module.kind for module in modules]
    unknown = [kind for kind in kinds if kind not in KNOWN_MODULES]
    if unknown:
        raise ModelError(
            f"{str(path)!r} lists a module {unknown[0]!r:.80}, and toastrack runs "
            f"{', '.join(KNOWN_MODULES)}. Choose another model."
        )
    if kinds[:1] != ["Transformer"] or kinds.count("Transformer") > 1 or "Pooling" not in kinds:
        raise broken(path, f"it lists {kinds} and must begin with one Transformer, with a Pooling")
    if modules[0].path not in ("", "."):
        raise ModelError(
            f"{str(path)!r} has the transformer in {modules[0].path!r:.80}, and toastrack reads it "
            "from the model's own folder. Save the model again with sentence-transformers 6."
        )
    for module in modules[1:]:
        if module.kind != "Normalize" and module.path in ("", "."):
            raise broken(path, f"{module.kind} has no folder of its own")


def _check_lone(modules: list[Module], path: Path) -> None:
    kinds = [module.kind for module in modules]
    if "Pooling" in kinds:
        raise ModelError(
            f"{str(path)!r} lists a Pooling: this model makes vectors and scores no pairs. Give it to "
            "Embedder, and a cross-encoder to Reranker."
        )
    if kinds not in (["Transformer"], ["Transformer", LOGIT_SCORE]):
        raise broken(
            path,
            f"it lists {kinds}, and a reranker is a Transformer, with a {LOGIT_SCORE} or without",
        )
    if modules[0].path not in ("", ".") or any(module.path in ("", ".") for module in modules[1:]):
        raise broken(path, "a module in it is in another folder than sentence-transformers puts it")


def check_activation(path: Path) -> None:
    """Refuse a layer whose activation sentence-transformers would replace by another."""
    name = text(read_json(path), "activation_function", path)
    if name is not None and not re.fullmatch(r"torch\.nn(\.\w+)+", name):
        raise ModelError(
            f"{str(path)!r} names code of its own, {name!r:.80}, and toastrack runs none that comes "
            "with a model. Choose a model without it."
        )
