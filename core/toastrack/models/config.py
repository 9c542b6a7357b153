"""What a model's own files say about it: prompts, limits, size, pooling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from toastrack.errors import ModelError
from toastrack.models.json_files import broken, flag, read_json, text, whole
from toastrack.models.modules import Task, is_generative, read_modules
from toastrack.models.settings import TransformerSettings, read_settings
from toastrack.utils.forks import renewing_property_locks

# In the order in which sentence-transformers puts the poolings of a vector side by side:
# https://github.com/huggingface/sentence-transformers, modules/pooling.py
_POOLING_SWITCHES = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
_POOLINGS = list(_POOLING_SWITCHES.values())

# What transformers writes down for people, and the type in which the weights happen to be saved.
_NOTES = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}

CONFIG_FILE = "config.json"
PROMPTS_FILE = "config_sentence_transformers.json"

# Position numbers of these start behind the padding token's, so two of them are never used:
# https://github.com/huggingface/transformers/blob/main/src/transformers/models/roberta/modeling_roberta.py
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}


@renewing_property_locks
class ModelConfig:
    """Reads the configuration files in a model's folder; loads nothing else."""

    def __init__(self, folder: Path, task: Task = "embedding") -> None:
        self.folder = folder
        self.task = task

    @cached_property
    def _transformer(self) -> dict[str, Any]:
        return read_json(self.folder / CONFIG_FILE)

    def check_modules(self) -> None:
        """Raise ``ModelError`` if ``modules.json`` lists what is not for this task."""
        read_modules(self.folder, self.task)

    @cached_property
    def is_generative(self) -> bool:
        """Whether this is a reranker that is a language model, asked for its next token."""
        return self.task == "reranking" and is_generative(self.folder)

    @cached_property
    def _settings(self) -> TransformerSettings:
        return read_settings(self.folder, self.task)

    @cached_property
    def _poolings(self) -> list[tuple[Path, dict[str, Any]]]:
        """The files of the modules behind the transformer, in their order, and what they say."""
        paths = [
            self.folder / module.path / CONFIG_FILE
            for module in read_modules(self.folder, self.task)
            if module.kind not in ("Transformer", "Normalize")
        ]
        return [(path, read_json(path)) for path in paths]

    @cached_property
    def max_tokens(self) -> int | None:
        """How many tokens the model reads, specials and prompt counted; None if it names none."""
        limits = [self._positions(), self._settings.max_tokens]
        if limits[1] is None:
            path = self.folder / "tokenizer_config.json"
            limits[1] = whole(read_json(path), "model_max_length", path)
        # A tokenizer without a limit writes 1e30.
        return min((limit for limit in limits if limit and limit < 1e9), default=None)

    def limit(self, wanted: int | None, name: str) -> int:
        """Return how many tokens are read: so many as are wanted, else all that the model can.

        Raises:
            ModelError: None are wanted, and the model does not say.
            ValueError: It cannot read so many.
        """
        most = self.max_tokens
        if wanted is None:
            if most is None:
                raise ModelError(
                    f"{name!r} does not say how many tokens it reads. Give max_tokens=."
                )
            return most
        if most is not None and wanted > most:
            raise ValueError(f"max_tokens={wanted} is over the {most} of {name!r}.")
        return wanted

    def _positions(self) -> int | None:
        """How many positions the transformer has a vector for; None if it says nothing of it."""
        path, values = self.folder / CONFIG_FILE, self._transformer
        if values.get("max_position_embeddings") == -1:
            return None  # XLNet's way to say that it needs none
        limit = whole(values, "max_position_embeddings", path)
        if limit and text(values, "model_type", path) in _OFFSET_POSITIONS:
            limit -= 2
            if limit < 1:
                raise broken(path, f"max_position_embeddings is {limit + 2}, so no text fits")
        return limit

    @cached_property
    def dimensions(self) -> int:
        """The size of the model's vectors before any cut."""
        size: int | None = None
        for path, config in self._poolings:
            pooled = whole(config, "embedding_dimension", path)
            pooled = pooled or whole(config, "word_embedding_dimension", path)
            if pooled:
                # Several poolings are put side by side.
                pooled *= len(_pooling_modes(config, path)) or 1
            size = whole(config, "out_features", path) or pooled or size
        if size is None:
            path = self.folder / CONFIG_FILE
            names = ("hidden_size", "d_model", "dim")
            sizes = (whole(self._transformer, name, path) for name in names)
            size = next((size for size in sizes if size), None)
        if not size:
            raise ModelError(f"{str(self.folder)!r} does not say how large its vectors are.")
        return size

    @cached_property
    def pad_token_id(self) -> int:
        """The number of the token that fills up the shorter texts of a batch."""
        value = self._transformer.get("pad_token_id")
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            path = self.folder / CONFIG_FILE
            raise broken(path, f"pad_token_id is {value!r:.80} and must be a token's number")
        return value

    @cached_property
    def vocabulary(self) -> int | None:
        """How many tokens the transformer has a vector for; None if it does not say."""
        return whole(self._transformer, "vocab_size", self.folder / CONFIG_FILE)

    @cached_property
    def types(self) -> int | None:
        """How many types of token the transformer has a vector for; None if it does not say."""
        # DeBERTa writes 0: it takes none, and does without them where they are given.
        if self._transformer.get("type_vocab_size") in (None, 0):
            return None
        return whole(self._transformer, "type_vocab_size", self.folder / CONFIG_FILE)

    @cached_property
    def reads_types(self) -> bool:
        """Whether the model is told which of two texts a token is of, as far as its tokenizer says."""
        names = read_json(self.folder / "tokenizer_config.json").get("model_input_names")
        return not isinstance(names, list) or "token_type_ids" in names

    @cached_property
    def is_matryoshka(self) -> bool:
        """Whether a file says that the first numbers of a vector were trained to do for all of it."""
        said = self._transformer  # the two names that vLLM reads
        if said.get("is_matryoshka") is True or said.get("matryoshka_dimensions"):
            return True
        # sentence-transformers names the loss that it trained with among the tags of the page.
        page = self.folder / "README.md"
        try:
            return "- loss:Matryoshka" in page.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False

    @property
    def lower_cases(self) -> bool:
        """Whether sentence-transformers puts a lower-caser in front of the tokenizer's own steps."""
        return self._settings.lower_case

    def pooling_digest(self) -> str:
        """Return a digest of what happens between the last layer and the vector.

        Both spellings of sentence-transformers give the same digest; normalising is left out
        because every vector is normalised here.
        """
        steps: list[object] = []
        for path, config in self._poolings:
            if "pooling_mode" in config or any(key.startswith("pooling_mode_") for key in config):
                steps.append(_pooling(config, path))
            elif config:
                steps.append({key: config[key] for key in sorted(config)})
        # Without modules.json sentence-transformers takes the mean.
        mean = [{"pooling": ["mean"], "include_prompt": True}]
        return _digest(steps or mean, self.folder)

    def poolings(self) -> list[str]:
        """Return the poolings that are put side by side, in their order."""
        modes = [mode for path, config in self._poolings for mode in _pooling_modes(config, path)]
        return modes or ["mean"]

    def named_pooling(self) -> str | None:
        """Return the pooling that the transformer's own configuration speaks for; None if none."""
        classifies = text(self._transformer, "classifier_pooling", self.folder / CONFIG_FILE)
        if classifies is not None:
            return classifies
        made_for = self._transformer.get("architectures")
        if isinstance(made_for, list) and any(
            str(name).endswith("ForCausalLM") for name in made_for
        ):
            # Its last token is the only one that has read all the others.
            return "lasttoken"
        return None

    def pools_prompt(self) -> bool:
        """Tell whether the tokens of the prompt are pooled with those of the text."""
        return all(
            flag(config, "include_prompt", path, default=True) for path, config in self._poolings
        )

    def beyond_pooling(self, known: Collection[str]) -> str | None:
        """Say what the model does to a vector beyond one pooling that is ``known``; None if nothing."""
        kinds = [module.kind for module in read_modules(self.folder)]
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
        layers = self._transformer
        padding = read_json(self.folder / "tokenizer_config.json")
        return _digest(
            [
                {name: layers[name] for name in layers if name not in _NOTES},
                [padding.get(name) for name in ("pad_token", "padding_side", "model_input_names")],
            ],
            self.folder,
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
            return _digest(content, path)
        names = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model")
        files = [self.folder / name for name in names if (self.folder / name).is_file()]
        if not files:
            raise ModelError(f"{str(self.folder)!r} has no tokenizer: tokenizer.json is missing.")
        return _digest(
            [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files],
            self.folder,
        )


def _pooling(config: Mapping[str, Any], path: Path) -> dict[str, object]:
    return {
        "pooling": _pooling_modes(config, path),
        "include_prompt": flag(config, "include_prompt", path, default=True),
    }


def _pooling_modes(config: Mapping[str, Any], path: Path) -> list[str]:
    """Read the modes as version 6 of sentence-transformers spells them."""
    mode = config.get("pooling_mode")
    if mode is not None:
        modes = mode if isinstance(mode, list) else [mode]
        wrong = [mode for mode in modes if mode not in _POOLINGS]
        if wrong or not modes:
            raise broken(path, f"pooling_mode is {mode!r:.80} and must be one of {_POOLINGS}")
        return list(modes)
    switched = [
        switch for switch in _POOLING_SWITCHES if flag(config, f"pooling_mode_{switch}", path)
    ]
    return [_POOLING_SWITCHES[switch] for switch in switched]


def _digest(value: object, path: Path) -> str:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise broken(path, "it is nested too deeply") from None
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
