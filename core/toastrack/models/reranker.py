"""What is known of a cross-encoder before it runs: that it is one, and how much it reads."""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from typing import Any

from toastrack.errors import ModelError
from toastrack.models.config import CONFIG_FILE, PROMPTS_FILE, ModelConfig
from toastrack.models.engine_choice import EngineName
from toastrack.models.files import ModelFiles
from toastrack.models.json_files import broken, read_json, text
from toastrack.models.modules import LOGIT_SCORE, MODULES_FILE


class RerankerModel:
    """Reads a cross-encoder's files as far as a question needs them, once.

    ``max_tokens=None`` leaves the limit to the model.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None,
        engine: EngineName,
        device: str | None,
        max_tokens: int | None,
    ) -> None:
        self.name = name
        self.files = ModelFiles(name, revision, engine=engine, device=device, task="reranking")
        self._max_tokens = max_tokens
        self._lock = RLock()
        self._config: ModelConfig | None = None

    @property
    def config(self) -> ModelConfig:
        """The model's own configuration; raises ``ModelError`` if it is no reranker."""
        if self._config is None:
            with self._lock:
                config = ModelConfig(self.files.folder(), "reranking")
                check_reranker(config)
                self._config = config
        return self._config

    @property
    def max_tokens(self) -> int:
        """How many tokens of a query with its document are read, specials counted."""
        return self.config.limit(self._max_tokens, self.name)

    def identity(self) -> str:
        """Return what tells this model from any other that runs: weights, tokenizer, layers."""
        config = self.config
        return " ".join(
            (self.files.running_digest(), config.tokenizer_digest(), config.run_digest())
        )


def check_reranker(config: ModelConfig) -> None:
    """Raise ``ModelError`` for what gives no single score for a query and a document."""
    path = config.folder / CONFIG_FILE
    values = read_json(path)
    config.check_modules()
    if values.get("auto_map"):
        raise ModelError(
            f"{str(path)!r} names code of its own, and toastrack runs none that comes with a model. "
            "Choose a model without it."
        )
    made_for = values.get("architectures")
    kinds = [str(name) for name in made_for] if isinstance(made_for, list) else []
    if any(kind.endswith("ForCausalLM") for kind in kinds):
        if not config.is_generative:
            raise ModelError(
                f"{str(config.folder)!r} is a language model without the files that make it a "
                f"reranker ({MODULES_FILE} with a {LOGIT_SCORE}), so nothing says what it is asked and "
                "which of its tokens are the answers. Get a revision that has them."
            )
        _check_settings(config.folder, values)
        return
    if config.is_generative:
        what = kinds[0] if kinds else "no class of model"
        raise broken(
            path,
            f"it names {what:.80}, and {MODULES_FILE} a {LOGIT_SCORE}, which asks a ...ForCausalLM",
        )
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        what = kinds[0] if kinds else "no class of model"
        raise ModelError(
            f"{str(path)!r} names {what:.80}, and toastrack runs rerankers that are a "
            "...ForSequenceClassification with one label. Choose one, such as "
            "'mixedbread-ai/mxbai-rerank-base-v1'."
        )
    labels = _labels(values)
    if labels != 1:
        raise ModelError(
            f"{str(path)!r} has {labels} labels, so the model tells classes apart, and a reranker "
            "gives one score. Choose a cross-encoder with one label."
        )
    _check_settings(config.folder, values)


def _labels(values: dict[str, Any]) -> int:
    """Count the labels as transformers does, who takes two where nothing is said."""
    named = values.get("id2label")
    if isinstance(named, dict):
        return len(named)
    count = values.get("num_labels")
    return count if isinstance(count, int) and not isinstance(count, bool) else 2


def _check_settings(folder: Path, values: dict[str, Any]) -> None:
    """Refuse what sentence-transformers would put before a pair, or run behind its score."""
    path = folder / PROMPTS_FILE
    saved = read_json(path)
    own = values.get("sentence_transformers")
    activations = [
        text(saved, "activation_fn", path),
        text(own, "activation_fn", folder / CONFIG_FILE) if isinstance(own, dict) else None,
        text(values, "sbert_ce_default_activation_function", folder / CONFIG_FILE),
    ]
    for name in activations:
        if name is not None and not name.startswith("torch.nn."):
            raise ModelError(
                f"{str(folder)!r} names code of its own, {name!r:.80}, and toastrack runs none that "
                "comes with a model. Choose a model without it."
            )
    prompts, default = saved.get("prompts"), text(saved, "default_prompt_name", path)
    if default is None:
        return
    prompt = prompts.get(default) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise broken(path, f"default_prompt_name is {default!r:.80}, and prompts has no such text")
    if prompt:
        raise ModelError(
            f"{str(path)!r} wants the prompt {prompt!r:.80} before each query, and toastrack's "
            "rerankers take none. Choose another model."
        )
