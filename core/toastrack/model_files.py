"""Where a model's files are: a folder on disk, or the hub's cache, filled when something is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from toastrack.errors import ModelError, needs_extra
from toastrack.hub_errors import check_reachable, hub_errors
from toastrack.model_config import PROMPTS_FILE, read_modules

# Everything an engine, the tokenizer and the identity of a model need; no pickles.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model"]
_SMALL_FILES = [
    "modules.json",
    PROMPTS_FILE,
    "sentence_bert_config.json",
    "tokenizer_config.json",
]
_UNWANTED = ["onnx/*", "openvino/*", "*.onnx", "gguf/*", "checkpoint-*"]


def looks_like_path(model: str) -> bool:
    """Tell a local folder from a hub name such as ``owner/name``."""
    return (
        Path(model).expanduser().is_dir()
        or Path(model).is_absolute()
        or model.startswith((".", "~"))
        or model.count("/") > 1
        or "\\" in model
    )


class ModelFiles:
    """Finds the files of one model; downloads only when asked for what is not there."""

    def __init__(self, model: str, revision: str | None = None) -> None:
        self.model = model
        self.revision = revision
        self.is_local = looks_like_path(model)
        self._folder: Path | None = None

    def folder(self) -> Path:
        """Return a folder that holds the whole model, downloading it if it must be.

        Raises ``ModelError`` for a folder without a model, an unknown name, or no network.
        """
        if self._folder is None:
            self._folder = self.cached_folder() or self._download()
        return self._folder

    def cached_folder(self) -> Path | None:
        """Return the folder if the whole model is on this machine; never touches the network.

        Raises ``ModelError`` if the model is a local folder that holds no model.
        """
        if self._folder is not None:
            return self._folder
        if self.is_local:
            folder = Path(self.model).expanduser().absolute()
            self._check_local(folder)
            return folder
        try:
            with needs_extra("local", "huggingface_hub"):
                from huggingface_hub import snapshot_download
                from huggingface_hub.errors import LocalEntryNotFoundError
        except ImportError:
            return None
        with hub_errors(self.model, self.revision):
            try:
                found = Path(
                    snapshot_download(self.model, revision=self.revision, local_files_only=True)
                )
            except LocalEntryNotFoundError:
                return None
        return found if self._is_whole(found) else None

    def _is_whole(self, snapshot: Path) -> bool:
        """Tell whether a cached snapshot has all we need: other libraries fetch less of a model.

        Without ``modules.json`` a model would be pooled otherwise, and without its prompts asked
        otherwise, and nobody would notice.
        """
        from huggingface_hub import try_to_load_from_cache

        known = (
            try_to_load_from_cache(self.model, name, revision=snapshot.name)
            for name in _SMALL_FILES
        )
        return (
            all(found is not None for found in known)  # there, or known not to exist
            and (snapshot / "config.json").is_file()
            and bool(weight_files(snapshot))
            and all(
                (snapshot / module["path"] / "config.json").is_file()
                for module in read_modules(snapshot)
                if not module["type"].endswith("Normalize")
            )
        )

    def commit(self) -> str | None:
        """Return the hub's commit of the files in use; for a local folder, the revision given."""
        folder = self.folder()
        return folder.name if folder.parent.name == "snapshots" else self.revision

    def small_file(self, name: str) -> Path | None:
        """Return one small file of the model, without fetching its weights; None if it has none.

        Raises ``ModelError`` if that takes a hub which cannot be reached.
        """
        folder = self.cached_folder()
        if folder is not None:
            return folder / name if (folder / name).is_file() else None
        with needs_extra("local", "huggingface_hub"):
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        with hub_errors(self.model, self.revision):
            check_reachable()
            try:
                return Path(hf_hub_download(self.model, name, revision=self.revision))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                return None

    def _download(self) -> Path:
        with needs_extra("local", "huggingface_hub"):
            from huggingface_hub import hf_hub_download, snapshot_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        with hub_errors(self.model, self.revision):
            check_reachable()
            folder = Path(
                snapshot_download(
                    self.model,
                    revision=self.revision,
                    allow_patterns=_WANTED,
                    ignore_patterns=_UNWANTED,
                )
            )
            for name in _SMALL_FILES:
                if not (folder / name).is_file():
                    # So that the cache knows that the model has no such file.
                    try:
                        hf_hub_download(self.model, name, revision=folder.name)
                    except LocalEntryNotFoundError:
                        raise
                    except EntryNotFoundError:
                        continue
        if not weight_files(folder):
            raise ModelError(
                f"{self.model!r} has no .safetensors weights on the hub, and toastrack does not "
                "load pickles. Choose a revision that has them (often 'refs/pr/1')."
            )
        return folder

    def _check_local(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ModelError(
                f"There is no folder {str(folder)!r}. Give the folder of a model, or a hub name "
                "such as 'mixedbread-ai/mxbai-embed-large-v1'."
            )
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{str(folder)!r} holds no model: config.json is missing. Give the folder that "
                "SentenceTransformer.save() wrote."
            )
        if not weight_files(folder):
            raise ModelError(
                f"{str(folder)!r} has no .safetensors weights, and toastrack does not load "
                "pickles. Save the model again with safe_serialization=True."
            )


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of the model itself, sorted; empty if any listed shard is missing.

    The weights of further modules (``2_Dense/model.safetensors``) are part of the list.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        main = [folder / name for name in names]
    else:
        main = [folder / "model.safetensors"]
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


def model_name(model: str | os.PathLike[str]) -> str:
    """Turn a name or path into the text that names the model."""
    if not isinstance(model, (str, os.PathLike)) or not isinstance(os.fspath(model), str):
        raise TypeError(f"model={model!r:.60} must be a hub name or the path of a local folder.")
    name = os.fspath(model)
    if not name.strip():
        raise ValueError("The model's name is empty. Give a hub name or a local folder.")
    return name
