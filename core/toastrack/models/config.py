"""What a model's own files say about it: prompts, limits, size, pooling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from toastrack.errors import ModelError
from toastrack.models.prompts import Role, saved_prompts

# In the order in which sentence-transformers puts the poolings of a vector side by side:
# https://github.com/huggingface/sentence-transformers, modules/pooling.py
_POOLING_SWITCHES = (
    "cls_token",
    "max_tokens",
    "mean_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
)

# What transformers writes down for people, and the type in which the weights happen to be saved.
_NOTES = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}

PROMPTS_FILE = "config_sentence_transformers.json"

# Position numbers of these start behind the padding token's, so two of them are never used:
# https://github.com/huggingface/transformers/blob/main/src/transformers/models/roberta/modeling_roberta.py
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; an absent file is an empty one."""
    value = _read(path)
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(path)!r} is not valid JSON: {error}. Get the model anew.") from None


class ModelConfig:
    """Reads the configuration files in a model's folder; loads nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def saved_prompts(self) -> dict[Role, str] | None:
        """Return the prompts saved with the model, or None if it names none."""
        return saved_prompts(read_json(self.folder / PROMPTS_FILE))

    @cached_property
    def max_tokens(self) -> int | None:
        """How many tokens the model reads, specials and prompt counted; None if it names none."""
        transformer = read_json(self.folder / "config.json")
        limits = [transformer.get("max_position_embeddings")]
        if limits[0] and transformer.get("model_type") in _OFFSET_POSITIONS:
            limits[0] -= 2
        saved = read_json(self.folder / "sentence_bert_config.json").get("max_seq_length")
        # A tokenizer without a limit writes 1e30.
        limits.append(
            saved or read_json(self.folder / "tokenizer_config.json").get("model_max_length")
        )
        known = [int(limit) for limit in limits if limit and limit < 1e9]
        return min(known, default=None)

    @cached_property
    def dimensions(self) -> int:
        """The size of the model's vectors before any cut."""
        size: int | None = None
        for path in self._modules():
            config = read_json(self.folder / path / "config.json")
            pooled = config.get("embedding_dimension") or config.get("word_embedding_dimension")
            if pooled:
                # Several poolings are put side by side.
                pooled *= len(_pooling_modes(config)) or 1
            size = config.get("out_features") or pooled or size
        if size is None:
            config = read_json(self.folder / "config.json")
            size = config.get("hidden_size") or config.get("d_model") or config.get("dim")
        if not size:
            raise ModelError(f"{str(self.folder)!r} does not say how large its vectors are.")
        return int(size)

    @cached_property
    def lower_cases(self) -> bool:
        """Whether sentence-transformers puts a lower-caser in front of the tokenizer's own steps."""
        return bool(read_json(self.folder / "sentence_bert_config.json").get("do_lower_case"))

    def pooling_digest(self) -> str:
        """Return a digest of what happens between the last layer and the vector.

        Both spellings of sentence-transformers give the same digest; normalising is left out
        because every vector is normalised here.
        """
        steps: list[object] = []
        for path in self._modules():
            config = read_json(self.folder / path / "config.json")
            if "pooling_mode" in config or any(key.startswith("pooling_mode_") for key in config):
                steps.append(_pooling(config))
            elif config:
                steps.append({key: config[key] for key in sorted(config)})
        # Without modules.json sentence-transformers takes the mean.
        return _digest(steps or [{"pooling": ["mean"], "include_prompt": True}])

    def poolings(self) -> list[str]:
        """Return the poolings that are put side by side, in their order."""
        configs = [read_json(self.folder / path / "config.json") for path in self._modules()]
        return [mode for config in configs for mode in _pooling_modes(config)] or ["mean"]

    def pools_prompt(self) -> bool:
        """Tell whether the tokens of the prompt are pooled with those of the text."""
        configs = [read_json(self.folder / path / "config.json") for path in self._modules()]
        return all(config.get("include_prompt", True) for config in configs)

    def beyond_pooling(self, known: Collection[str]) -> str | None:
        """Say what the model does to a vector beyond one pooling that is ``known``; None if nothing."""
        kinds = [module["type"].rpartition(".")[2] for module in read_modules(self.folder)]
        for position, kind in enumerate(kinds):
            if kind not in ("Transformer", "Pooling", "Normalize") or kinds.index(kind) < position:
                return f"it has a module {kind!r}"
        if kinds and kinds[:2] != ["Transformer", "Pooling"]:
            return f"its modules are {kinds}"
        unknown = [mode for mode in self.poolings() if mode not in known]
        return f"its pooling is {unknown[0]!r}" if unknown else None

    def run_digest(self) -> str:
        """Return a digest of what else decides how the weights run: layers and padding.

        Two models with the same weights may differ in it, for instance in their activation.
        """
        layers = read_json(self.folder / "config.json")
        padding = read_json(self.folder / "tokenizer_config.json")
        return _digest(
            [
                {name: layers[name] for name in layers if name not in _NOTES},
                [padding.get(name) for name in ("pad_token", "padding_side", "model_input_names")],
            ]
        )

    def tokenizer_digest(self) -> str:
        """Return a digest of the tokenizer, without the truncation and padding of its last user."""
        path = self.folder / "tokenizer.json"
        if path.is_file():
            content = read_json(path)
            content.pop("truncation", None)
            content.pop("padding", None)
            if self.lower_cases and '"lowercase": true' not in json.dumps(content):
                content["do_lower_case"] = True
            return _digest(content)
        names = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model")
        files = [self.folder / name for name in names if (self.folder / name).is_file()]
        if not files:
            raise ModelError(f"{str(self.folder)!r} has no tokenizer: tokenizer.json is missing.")
        return _digest(
            [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
        )

    def _modules(self) -> list[str]:
        """The folders of the modules behind the transformer, in their order."""
        return [
            module["path"]
            for module in read_modules(self.folder)
            if module["path"] and not module["type"].endswith(("Transformer", "Normalize"))
        ]


def read_modules(folder: Path) -> list[dict[str, str]]:
    """Return what ``modules.json`` lists, in order; refuse a model that brings its own code."""
    modules: list[dict[str, str]] = _read(folder / "modules.json") or []
    for module in modules:
        if not module["type"].startswith("sentence_transformers."):
            raise ModelError(
                f"{str(folder)!r} names code of its own, {module['type']!r}, and toastrack runs "
                "none that comes with a model. Choose a model without it."
            )
    return modules


def _pooling(config: Mapping[str, Any]) -> dict[str, object]:
    return {
        "pooling": _pooling_modes(config),
        "include_prompt": bool(config.get("include_prompt", True)),
    }


def _pooling_modes(config: Mapping[str, Any]) -> list[str]:
    """Read the modes as version 6 of sentence-transformers spells them."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else list(mode)
    names = [name for name in _POOLING_SWITCHES if config.get(f"pooling_mode_{name}")]
    return [
        name if "sqrt" in name else name.removesuffix("_tokens").removesuffix("_token")
        for name in names
    ]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
