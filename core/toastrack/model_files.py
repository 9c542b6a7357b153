"""Where a model's files are: a folder on disk, or the hub's cache, filled when something is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gaierror
from typing import Any

from toastrack.errors import ModelError, needs_extra
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
        with self._hub_errors():
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
        with self._hub_errors():
            _check_reachable()
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
        with self._hub_errors():
            _check_reachable()
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

    @contextmanager
    def _hub_errors(self) -> Iterator[None]:
        """Say in one sentence what the hub's own errors mean and what to do."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        # Its bases are the errors of the HTTP library that this version of the hub's client uses.
        client_errors: tuple[type[Any], ...] = (OSError, *HfHubHTTPError.__bases__)
        try:
            yield
        except GatedRepoError:
            raise ModelError(
                f"{self.model!r} asks for an agreement on the hub. Accept it on its page and set "
                "HF_TOKEN."
            ) from None
        except RepositoryNotFoundError:
            raise ModelError(
                f"There is no model {self.model!r} on the hub. Check the spelling, set HF_TOKEN "
                "if it is private, or give a local folder."
            ) from None
        except RevisionNotFoundError:
            raise ModelError(
                f"{self.model!r} has no revision {self.revision!r} on the hub. Leave it out for "
                "the newest."
            ) from None
        except HFValidationError:
            raise ModelError(
                f"{self.model!r} is neither a folder nor a hub name such as "
                "'mixedbread-ai/mxbai-embed-large-v1'."
            ) from None
        except client_errors as error:
            raise ModelError(f"{self.model!r} {_what_happened(error)}") from error


def _what_happened(error: BaseException) -> str:
    """Say what stands between us and the hub's files, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    not_here = isinstance(error, LocalEntryNotFoundError)
    cause = error.__cause__ if not_here and error.__cause__ is not None else error
    reason = getattr(cause, "reason", cause)  # a URLError wraps what happened
    network = not isinstance(reason, OSError) or isinstance(
        reason, (ConnectionError, TimeoutError, gaierror)
    )
    response = getattr(cause, "response", None)
    if not network and isinstance(reason, OSError) and reason.errno is not None:
        return (
            f"cannot be kept in or read from the hub's cache: {reason}. Mend that, or set HF_HOME "
            "to another folder."
        )
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    elif response is not None:
        return (
            f"is not in the local cache and the hub answered {response.status_code}. Try again "
            "later, or give a local folder."
        )
    elif network or not_here:
        why = f"the hub cannot be reached ({reason})"
    else:
        return f"cannot be downloaded: {reason}. Try again, or give a local folder."
    return (
        f"is not in the local cache and {why}. Connect once to download it, or give a local folder."
    )


def _check_reachable() -> None:
    """Raise ``OSError`` at once where there is no network: the hub's client retries for 23 s."""
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except URLError as error:
        # Anything but a host that is not there is for the hub's own client to judge.
        if isinstance(error.reason, (gaierror, ConnectionError)):
            raise
    except OSError:
        return


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
