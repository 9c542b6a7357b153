"""How a model wants its transformer run: the file that sentence-transformers writes beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toastrack.errors import ModelError
from toastrack.models.json_files import broken, flag, read_json, whole
from toastrack.models.modules import Task, is_generative

# In the order in which sentence-transformers looks for them: load_config in
# https://github.com/huggingface/sentence-transformers, base/modules/transformer.py
_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# What a transformer for a task does anyway: its task, its output, and what that is called here.
_USUAL: Mapping[Task, tuple[str, str, str]] = {
    "embedding": ("feature-extraction", "last_hidden_state", "token_embeddings"),
    "reranking": ("sequence-classification", "logits", "scores"),
}
_USUAL_OF_LANGUAGE_MODELS = ("text-generation", "logits", "causal_logits")
# What does not change its numbers.
_HARMLESS: Mapping[str, tuple[object, ...]] = {
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "tokenizer_name_or_path": (None,),
}
_ARGUMENTS = (
    *("model_args", "tokenizer_args", "config_args"),
    *("model_kwargs", "processor_kwargs", "config_kwargs"),
)
# Overruled by ours when the model is loaded, or without meaning for a folder.
_OVERRULED = {
    *("trust_remote_code", "torch_dtype", "dtype", "use_safetensors", "device_map"),
    *("local_files_only", "revision", "code_revision", "token", "cache_dir", "subfolder"),
}
_UNDERSTOOD = {"max_seq_length", "do_lower_case", "modality_config", "unpad_inputs"}


@dataclass(frozen=True)
class TransformerSettings:
    """The limit in tokens, None if there is none, and whether texts become lower case first."""

    max_tokens: int | None
    lower_case: bool


def read_settings(folder: Path, task: Task = "embedding") -> TransformerSettings:
    """Read the settings; refuse those that would make other vectors than the space names."""
    path, values = _file(folder)
    is_asked = task == "reranking" and is_generative(folder)
    transformers_task, output, called = _USUAL_OF_LANGUAGE_MODELS if is_asked else _USUAL[task]
    harmless = {
        **_HARMLESS,
        "transformer_task": (None, transformers_task),
        "module_output_name": (None, called),
    }
    for name, value in values.items():
        if name == "processing_kwargs" and is_asked:
            template_arguments(folder)
        elif name in _ARGUMENTS:
            _check_arguments(name, value, path)
        elif name in harmless:
            if value not in harmless[name]:
                raise _refusal(path, name, value)
        elif name not in _UNDERSTOOD:
            raise _refusal(path, name, value)
    _check_modality(values.get("modality_config"), output, path)
    if is_asked and "message" not in (values.get("modality_config") or {}):
        # Without it sentence-transformers would pass over the template, and never say so.
        raise _refusal(path, "modality_config", values.get("modality_config"))
    return TransformerSettings(
        whole(values, "max_seq_length", path), flag(values, "do_lower_case", path)
    )


def template_arguments(folder: Path) -> dict[str, bool]:
    """Return what a language model's chat template is rendered with."""
    path, values = _file(folder)
    given = values.get("processing_kwargs") or {}
    arguments = given.get("chat_template", {}) if isinstance(given, dict) else None
    if (
        not isinstance(arguments, dict)
        or not set(given) <= {"chat_template"}
        or not all(isinstance(value, bool) for value in arguments.values())
        or not set(arguments) <= {"add_generation_prompt", "restore_suffix"}
        or arguments.get("restore_suffix") is False
    ):
        raise _refusal(path, "processing_kwargs", given)
    return {name: value for name, value in arguments.items() if name != "restore_suffix"}


def takes_parts(folder: Path) -> bool:
    """Tell whether a language model's chat template takes a text as a list of parts."""
    modality = _file(folder)[1].get("modality_config")
    message = modality.get("message") if isinstance(modality, dict) else None
    return isinstance(message, dict) and message.get("format") == "structured"


def _file(folder: Path) -> tuple[Path, dict[str, Any]]:
    for name in _FILES:
        # An empty one is passed over there, too.
        if values := read_json(folder / name):
            return folder / name, values
    return folder / _FILES[0], {}


def _check_arguments(name: str, value: object, path: Path) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise broken(path, f"{name} is {value!r:.80} and must be an object")
    for key, setting in value.items():
        if key == "attn_implementation" and setting in (None, "eager", "sdpa"):
            continue
        if key not in _OVERRULED:
            raise _refusal(path, f"{name}.{key}", setting)


def _check_modality(value: object, output: str, path: Path) -> None:
    if value is None:
        return
    reads = value.get("text") if isinstance(value, dict) else None
    if not isinstance(reads, dict):
        raise _refusal(path, "modality_config", value)
    known = {"method": "forward", "method_output_name": output}
    if any(reads.get(name, usual) != usual for name, usual in known.items()):
        raise _refusal(path, "modality_config", value)


def _refusal(path: Path, name: str, value: object) -> ModelError:
    return ModelError(
        f"{str(path)!r} sets {name[:80]} to {value!r:.80}, and toastrack does not run a model that "
        "way. Choose another model."
    )
