"""Where a model's files are: a folder on disk, or the hub's cache, filled when something is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from toastrack.errors import MissingExtraError, ModelError, needs_extra
from toastrack.models.config import PROMPTS_FILE
from toastrack.models.digests import (
    cache_hub_digest,
    cached_hub_digest,
    file_digest,
    joint_digest,
    weights_digest,
)
from toastrack.models.engine_choice import (
    EngineKind,
    EngineName,
    Precision,
    best_extra,
    engines_to_try,
    is_installed,
)
from toastrack.models.hub import check_reachable, hub_errors
from toastrack.models.json_files import read_json, read_value
from toastrack.models.modules import LOGIT_SCORE, MODULES_FILE, Task, read_modules
from toastrack.models.openvino_files import (
    LANGUAGE_MODEL,
    RUN_FILES,
    noted_model,
    noted_precision,
    noted_weights,
    parts,
    run_file,
    run_file_name,
    why_not,
)
from toastrack.models.weights import main_weight_names, weight_files

# Everything the tokenizer and the identity of a model need; no pickles.
_SMALL = ["*.json", "*.txt", "*.model", "*.jinja"]
_WEIGHTS = ["*.safetensors"]
_SMALL_FILES = [
    MODULES_FILE,
    PROMPTS_FILE,
    "sentence_bert_config.json",
    "tokenizer_config.json",
]
# For people: a model for each task, and the class whose folders are read.
_EXAMPLES: Mapping[Task, str] = {
    "embedding": "mixedbread-ai/mxbai-embed-large-v1",
    "reranking": "mixedbread-ai/mxbai-rerank-base-v1",
}
_WRITERS: Mapping[Task, str] = {
    "embedding": "SentenceTransformer.save()",
    "reranking": "CrossEncoder.save_pretrained()",
}
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


def find_task(model: str, revision: str | None) -> Task:
    """Tell by a model's own small files what it is for; a download of these if they are not here.

    Raises ``ModelError`` for an unknown name or no network.
    """
    files = ModelFiles(model, revision)
    modules: Path | None
    config: Path | None
    if files.is_local:
        folder = Path(model).expanduser()
        modules, config = folder / MODULES_FILE, folder / "config.json"
    else:
        modules, config = (files.here_or_fetched(name) for name in (MODULES_FILE, "config.json"))
    listed = read_value(modules) if modules is not None else None
    if isinstance(listed, list) and listed:
        named = [str(entry.get("type")) if isinstance(entry, dict) else "" for entry in listed]
        kinds = [name.rpartition(".")[2] for name in named]
        # What is broken, or of a third kind, is an embedder's to refuse.
        return "reranking" if kinds == ["Transformer"] or LOGIT_SCORE in kinds else "embedding"
    made_for = read_json(config).get("architectures") if config is not None else None
    is_classifier = "ForSequenceClassification" in str(made_for)
    return "reranking" if is_classifier else "embedding"


class ModelFiles:
    """Finds the files of one model for an engine; downloads only when asked for what is not there."""

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        engine: EngineName = "auto",
        device: str | None = None,
        precision: Precision = "auto",
        task: Task = "embedding",
    ) -> None:
        self.model = model
        self.revision = revision
        self.task = task
        self.is_local = looks_like_path(model)
        self._asked = (engine, device)
        self._precision = precision
        self._folder: Path | None = None
        self._engine: EngineKind | None = None
        self._hub_digest: str | None = None

    @property
    def extra(self) -> str:
        """The extra that brings what reads these files."""
        engine = self._engine or self._asked[0]
        if engine == "auto" and not is_installed("torch"):
            return "openvino" if is_installed("openvino") else best_extra(self._asked[1])
        return "openvino" if engine == "openvino" else "local"

    @property
    def engine(self) -> EngineKind:
        """What runs the model; the files are here then."""
        self.folder()
        assert self._engine is not None
        return self._engine

    @property
    def precision(self) -> Precision:
        """The precision to run in: that of a file in int8, else the one asked for."""
        if self.engine == "openvino" and noted_precision(self.folder()) == "int8":
            return "int8"
        return self._precision

    def folder(self) -> Path:
        """Return a folder that holds the whole model, downloading it if it must be.

        Raises ``ModelError`` for a folder without a model, an unknown name, or no network.
        """
        if self._folder is None:
            folder = self.cached_folder() or self._download()
            self._engine = self._runner(folder)
            self._folder = folder
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
            with needs_extra(self.extra, "huggingface_hub"):
                from huggingface_hub import snapshot_download
                from huggingface_hub.errors import LocalEntryNotFoundError
        except ImportError:
            return None
        with hub_errors(self.model, self.revision):
            try:
                found = Path(
                    snapshot_download(
                        self.model,
                        revision=self.revision,
                        local_files_only=True,
                        # Left out, newer clients ask for every file of the repository.
                        allow_patterns=["config.json"],
                    )
                )
            except LocalEntryNotFoundError:
                return None
        return found if self._has_small_files(found) and self._runner(found) else None

    def _runner(self, folder: Path) -> EngineKind | None:
        """Return the first engine that can run what the folder holds."""
        engines = engines_to_try(*self._asked)
        if self.is_local and self._asked == ("auto", None) and is_installed("openvino"):
            # An exported folder has nothing for the GPU that goes first.
            engines = tuple(dict.fromkeys([*engines, "openvino"]))
        for engine in engines:
            if self._runs(engine, folder):
                return engine
        return None

    def _runs(self, engine: EngineKind, folder: Path) -> bool:
        if engine == "sentence-transformers":
            return self._precision != "int8" and bool(weight_files(folder, self.task))
        return (
            run_file(folder) is not None
            and self._has_precision(folder)
            and not why_not(folder, self.task)
        )

    def _has_precision(self, folder: Path) -> bool:
        """Tell whether the folder's file for OpenVINO may run as asked.

        One in int8 runs in nothing else, and beside the model's own weights only on request.
        """
        if noted_precision(folder) != "int8":
            return self._precision != "int8"
        if self._precision == "auto":
            return self._asked[0] == "openvino" or not weight_files(folder, self.task)
        return self._precision == "int8"

    def _has_small_files(self, snapshot: Path) -> bool:
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
            and all(
                (snapshot / module.path / "config.json").is_file()
                for module in read_modules(snapshot, self.task)
                if module.kind != "Normalize"
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
        return self._fetch(name)

    def here_or_fetched(self, name: str) -> Path | None:
        """``small_file``, whatever else of the model is here and whatever the model is for."""
        with needs_extra(self.extra, "huggingface_hub"):
            from huggingface_hub import try_to_load_from_cache
        with hub_errors(self.model, self.revision):
            cached = try_to_load_from_cache(self.model, name, revision=self.revision)
        if cached is None:
            return self._fetch(name)
        return Path(cached) if isinstance(cached, str) else None  # known not to exist

    def _fetch(self, name: str) -> Path | None:
        with needs_extra(self.extra, "huggingface_hub"):
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

    def known_weights(self) -> str | None:
        """Return the sha256 of the model's own weights, or None while only the hub can tell it.

        Raises ``ModelError`` if a local folder does not say which weights it holds.
        """
        folder = self.cached_folder()
        if folder is None:
            return None
        files, noted = weight_files(folder, self.task), noted_weights(folder)
        if files:
            digest = weights_digest(files)
            if noted not in (None, digest) and self._runner(folder) == "openvino":
                raise ModelError(
                    f"{str(folder)!r} holds other weights than its OpenVINO file was made of. "
                    "Delete model.safetensors or export the model anew."
                )
            return digest
        if noted is not None or not self.is_local:
            return noted or self._hub_digest or cached_hub_digest(self.model, folder.name)
        raise ModelError(
            f"{str(folder)!r} does not say which weights {run_file(folder)} was made of. Make the "
            "folder with toastrack export, or put model.safetensors beside it."
        )

    def weights(self) -> str:
        """Return the sha256 of the model's own weights, asking the hub if they are not here."""
        folder = self.folder()
        digest = self.known_weights()
        if digest is None:
            try:
                with hub_errors(self.model, self.revision):
                    check_reachable()
                    digest = self._ask_for_weights(folder, self._hub_files(folder.name))
            except ModelError as error:
                raise ModelError(
                    f"{self.model!r} is here without its .safetensors, and only the hub knows "
                    f"their sha256: {error}"
                ) from None
        return digest

    def running_digest(self) -> str:
        """Return the sha256 of the file that the engine reads, which may be made of the weights."""
        folder = self.folder()
        path = run_file(folder) if self._engine == "openvino" else None
        if path is None:
            return self.weights()
        files = (path.with_name(name) for name in parts(path.name))
        return weights_digest([file for file in files if file.is_file()])

    def _download(self) -> Path:
        if self._precision == "int8":
            raise ModelError(self._no_int8(self.model))
        with needs_extra(self.extra, "huggingface_hub"):
            from huggingface_hub import hf_hub_download, snapshot_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        asked = engines_to_try(*self._asked)
        if asked == ("openvino",) and not is_installed("openvino"):
            raise MissingExtraError("openvino", "openvino")
        with hub_errors(self.model, self.revision):
            check_reachable()
            may_choose = "openvino" in asked
            folder = Path(
                snapshot_download(
                    self.model,
                    revision=self.revision,
                    allow_patterns=_SMALL if may_choose else [*_SMALL, *_WEIGHTS],
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
            if may_choose:
                run_name = self._run_name(folder, asked)
                snapshot_download(
                    self.model,
                    revision=folder.name,
                    allow_patterns=_WEIGHTS if run_name is None else list(parts(run_name)),
                    ignore_patterns=_UNWANTED if run_name is None else None,
                )
        if self._runner(folder) is None:
            raise ModelError(
                f"{self.model!r} has no .safetensors weights on the hub, and toastrack does not "
                "load pickles. Choose a revision that has them (often 'refs/pr/1')."
            )
        return folder

    def _run_name(self, folder: Path, asked: Sequence[EngineKind]) -> str | None:
        """Return the file on the hub for OpenVINO; None if sentence-transformers is to run it."""
        files = self._hub_files(folder.name)
        run_name, reason = run_file_name(files), why_not(folder, self.task)
        if run_name is None:
            reason = f"it ships none of {', '.join(RUN_FILES)}"
        if run_name is not None and reason is None:
            if self.task == "embedding":
                # Asked before the large download, which is of no use without: the space names them.
                self._ask_for_weights(folder, files)
            return run_name
        if asked == ("openvino",):
            raise ModelError(self._refusal(self.model, reason))
        return None

    def _hub_files(self, commit: str) -> dict[str, str | None]:
        """Ask the hub for the names of a model's files, and the sha256 of the large ones."""
        from huggingface_hub import HfApi

        info = HfApi().model_info(self.model, revision=commit, files_metadata=True)
        return {
            file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or []
        }

    def _ask_for_weights(self, folder: Path, files: Mapping[str, str | None]) -> str:
        """Return the sha256 of weights that are on the hub only, and remember it."""
        from huggingface_hub import hf_hub_download

        digests = {}
        for name in main_weight_names(folder, files):
            if name not in files:
                raise ModelError(
                    f"{self.model!r} has no {name} on the hub, so nothing says which weights its "
                    "OpenVINO or ONNX file holds. Choose a revision that has it (often "
                    "'refs/pr/1')."
                )
            # A small file has no sha256 there.
            digests[name] = files[name] or file_digest(
                Path(hf_hub_download(self.model, name, revision=folder.name))
            )
        self._hub_digest = joint_digest(digests)
        cache_hub_digest(self.model, folder.name, self._hub_digest)
        return self._hub_digest

    def _check_local(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ModelError(
                f"There is no folder {str(folder)!r}. Give the folder of a model, or a hub name "
                f"such as {_EXAMPLES[self.task]!r}."
            )
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{str(folder)!r} holds no model: config.json is missing. Give the folder that "
                f"{_WRITERS[self.task]} wrote."
            )
        if self._runner(folder) is not None:
            return
        run_name = run_file(folder)
        if run_name is not None and noted_precision(folder) == "int8":
            if self._precision in ("float32", "bfloat16"):
                raise ModelError(
                    f"{str(folder)!r} holds a model in int8, and precision={self._precision!r} is asked "
                    f"for. Leave it out, or take the model that it was made of, {noted_model(folder)!r}."
                )
        elif self._precision == "int8":
            raise ModelError(self._no_int8(str(folder)))
        if self._asked[0] == "openvino":
            reason = (
                why_not(folder, self.task)
                if run_name
                else f"it holds none of {', '.join(RUN_FILES)}"
            )
            raise ModelError(self._refusal(str(folder), reason))
        if run_name is not None:
            if not is_installed("openvino"):
                raise MissingExtraError("openvino", "openvino")
            raise ModelError(
                f"{str(folder)!r} has no .safetensors weights, and its {run_name.name} runs with "
                "engine='openvino' on the CPU only. Leave engine= and device= out."
            )
        raise ModelError(
            f"{str(folder)!r} has no .safetensors weights, and toastrack does not load "
            "pickles. Save the model again with safe_serialization=True."
        )

    def _no_int8(self, model: str) -> str:
        return (
            f"{model!r} holds no model in int8. Make a folder that does, and name that one: "
            f"toastrack export {model} DIR --precision int8."
        )

    def _refusal(self, model: str, reason: str | None) -> str:
        refusal = f"engine='openvino' cannot run {model!r}: {reason}. Leave engine= out"
        if reason == LANGUAGE_MODEL:
            return f"{refusal}."
        return f"{refusal}, or try to make a folder for it: toastrack export {model} DIR."


def model_name(model: str | os.PathLike[str]) -> str:
    """Turn a name or path into the text that names the model."""
    if not isinstance(model, (str, os.PathLike)) or not isinstance(os.fspath(model), str):
        raise TypeError(f"model={model!r:.60} must be a hub name or the path of a local folder.")
    name = os.fspath(model)
    if not name.strip():
        raise ValueError("The model's name is empty. Give a hub name or a local folder.")
    return name
