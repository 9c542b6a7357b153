"""A model of sentence-transformers put together from a folder, every tensor of it out of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from toastrack.errors import ModelError, ToastrackError
from toastrack.models.config import CONFIG_FILE, ModelConfig
from toastrack.models.json_files import broken, read_json
from toastrack.models.modules import Task, check_activation, read_modules
from toastrack.models.weights import weight_files

# Nothing in the folder may send transformers elsewhere, or bring code.
_HERE = {"local_files_only": True, "trust_remote_code": False}

# Counts of parts, each of which takes time to build before anything is compared with the weights.
_COUNTS = re.compile(r"layer|block|group|expert|depth")
_MOST_PARTS = 4_096
# A model may leave out what it has twice, or has a pooler too many: never most of it.
_FACTOR, _SMALL = 4, 10_000_000


def load_model(folder: Path, *, device: str, dtype: Any) -> Any:
    """Return the ``SentenceTransformer`` of a folder.

    Raises ``ModelError`` if its files do not fit together or lack a tensor that vectors depend on.
    """
    from sentence_transformers import SentenceTransformer

    check_sizes(ModelConfig(folder))
    first = _load_transformer(folder, dtype)
    rest = [_load_module(folder, module.kind, module.path) for module in read_modules(folder)[1:]]
    if not rest:
        rest = [_modules().Pooling(ModelConfig(folder).dimensions, pooling_mode="mean")]
    with faults(folder, "its modules do not fit together"):
        return SentenceTransformer(modules=[first, *rest], device=device)


def _modules() -> Any:
    import sentence_transformers.sentence_transformer.modules as modules

    return modules


def _load_transformer(folder: Path, dtype: Any) -> Any:
    loaded: list[dict[str, Any]] = []

    class Reporting(_modules().Transformer):  # type: ignore[misc]
        """Keeps what transformers says of the tensors that it did not find."""

        def _load_model(self, *arguments: Any, **options: Any) -> Any:
            model, report = super()._load_model(*arguments, output_loading_info=True, **options)
            loaded.append(report)
            return model

    try:
        transformer = Reporting(
            str(folder),
            do_lower_case=ModelConfig(folder).lower_cases,
            # Weights saved as fp16 (mxbai's are) would run as fp16 on a CPU: slow and inexact.
            model_kwargs={**_HERE, "use_safetensors": True, "torch_dtype": dtype},
            processor_kwargs=dict(_HERE),
            config_kwargs=dict(_HERE),
        )
    except Exception as error:  # of transformers, torch, or whatever a class of theirs raises
        where = "its tokenizer files" if loaded else f"{CONFIG_FILE} and the weights"
        raise _fault(folder, f"{where} cannot be loaded", error) from error
    (report,) = loaded
    _check_missing(folder, report, "embedding")
    return transformer


def load_classifier(folder: Path, *, device: str, dtype: Any) -> Any:
    """Return the ``...ForSequenceClassification`` of a folder with its tokenizer.

    Raises ``ModelError`` if its files do not fit together or lack a tensor that scores depend on.
    """
    from transformers import AutoModelForSequenceClassification

    return _load_reranker(folder, AutoModelForSequenceClassification, device=device, dtype=dtype)


def load_language_model(folder: Path, *, device: str, dtype: Any) -> Any:
    """Return the ``...ForCausalLM`` of a folder with its tokenizer; raises the same."""
    from transformers import AutoModelForCausalLM

    return _load_reranker(folder, AutoModelForCausalLM, device=device, dtype=dtype)


def _load_reranker(folder: Path, kind: Any, *, device: str, dtype: Any) -> Any:
    from transformers import AutoTokenizer

    check_sizes(ModelConfig(folder, "reranking"))
    load: Any = kind.from_pretrained  # it carries no annotations
    with faults(folder, f"{CONFIG_FILE} and the weights cannot be loaded"):
        model, report = load(
            str(folder), **_HERE, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    _check_missing(folder, report, "reranking")
    with faults(folder, "its tokenizer files cannot be loaded"):
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **_HERE)
    return model.to(device).eval(), tokenizer


def _check_missing(folder: Path, report: dict[str, Any], task: Task) -> None:
    """Refuse what transformers would fill up with random numbers, other ones at each load."""
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if task == "embedding":
        # No pooling reads the pooler: it is for classifiers, and many models are saved without it.
        absent = {key for key in absent if "pooler" not in key.split(".")}
    needed = sorted(absent)
    if needed or report["error_msgs"]:
        files = " and ".join(repr(str(path)) for path in weight_files(folder, task)[:3])
        more = f" and {len(needed) - 3} more" if len(needed) > 3 else ""
        made = "vectors" if task == "embedding" else "scores"
        raise ModelError(
            f"{files} lacks {', '.join(needed[:3])}{more}, which the {made} depend on. It was not "
            f"saved whole, or {CONFIG_FILE} belongs to another model. Get the model anew."
        )


def _load_module(folder: Path, kind: str, path: str) -> Any:
    if kind == "Dense":
        check_activation(folder / path / CONFIG_FILE)
    if kind == "Normalize":
        return _modules().Normalize()
    try:
        module = getattr(_modules(), kind)
        return module.load(str(folder), subfolder=path, local_files_only=True)
    except Exception as error:  # of torch, or of the module's own arguments
        raise _fault(folder / path, f"the module {kind} cannot be loaded", error) from error


def check_sizes(config: ModelConfig) -> None:
    """Refuse weights that are not whole, and a configuration for a model of another size.

    transformers makes room for all that the configuration asks for before it compares.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    folder = config.folder
    kind: Any = AutoModel
    if config.task == "reranking":
        kind = AutoModelForCausalLM if config.is_generative else AutoModelForSequenceClassification
    stored = sum(_numbers(path) for path in weight_files(folder, config.task))
    path = folder / CONFIG_FILE
    _check_values(read_json(path), path)
    try:
        described = AutoConfig.from_pretrained(str(folder), **_HERE)
    except Exception as error:
        raise _fault(path, "transformers cannot read it", error) from error
    try:
        with torch.device("meta"):
            model = kind.from_config(described, trust_remote_code=False)
    except Exception as error:
        raise _fault(path, "transformers cannot make a model of it", error) from error
    wanted = sum(prod(tensor.shape) for tensor in model.parameters())
    if wanted > _FACTOR * stored + _SMALL:
        raise broken(
            path, f"it describes a model of {wanted:,} numbers, and the weights hold {stored:,}"
        )


def _check_values(values: dict[str, Any], path: Path) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _check_values(value, path)
        elif name.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ModelError(
                f"{str(path)!r} names code on the hub, {value!r:.80}, and toastrack runs none that "
                "comes with a model. Delete that line."
            )
        elif isinstance(value, (int, float)) and value > _MOST_PARTS and _COUNTS.search(name):
            raise broken(path, f"{name[:80]} is {value!r:.80}")


def _numbers(path: Path) -> int:
    """How many numbers a file of weights holds."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(
            f"{str(path)!r} is damaged or was not copied whole ({error}). Delete it and get the "
            "model anew."
        ) from None


@contextmanager
def faults(where: Path, what: str) -> Iterator[None]:
    """Turn whatever torch and transformers raise into a ``ModelError`` that names the file."""
    try:
        yield
    except ToastrackError:
        raise
    except Exception as error:
        raise _fault(where, what, error) from error


def _fault(where: Path, what: str, error: Exception) -> ModelError:
    if isinstance(error, ToastrackError):
        raise error
    reason = " ".join(str(error).split())
    return broken(where, f"{what} ({type(error).__name__}: {reason:.300})")
