"""The engines that score a query with a document: a classifier's own logit, and nothing behind it.

Behind a sigmoid all good documents are 1.0 in half precision, and keep the order they came in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from toastrack.engines.openvino import CompiledModel
from toastrack.engines.padding import padded
from toastrack.engines.sentence_transformers import batch_tokens, quiet_loading
from toastrack.errors import ModelError, needs_extra
from toastrack.models.config import ModelConfig
from toastrack.models.tokenizer import Tokenizer, Tokens, check_token_ids
from toastrack.utils import arrays

# Of two lengths, so that the padding is tried, too.
_PROBES = ["probe", "a longer probe"]


class TorchReranker(ABC):
    """Holds one model of transformers with its tokenizer, and feeds it pairs."""

    name = "sentence-transformers"
    batch_texts: int | None = None
    may_be_left = False

    def __init__(self, folder: Path, *, device: str, precision: str) -> None:
        with needs_extra("local", "sentence_transformers"):
            import_module("sentence_transformers")
        import torch

        from toastrack.engines.torch_model import faults

        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        with quiet_loading():
            self.model, self.reads = self.load(folder, device=device, dtype=dtype)
        self.config = ModelConfig(folder, "reranking")
        self.tokenizer = Tokenizer.from_folder(folder, lower_case=self.config.lower_cases)
        self._pad = int(self.reads.pad_token_id or 0)
        self._left = self._pads_left()
        self._inputs = set(self.reads.model_input_names)
        self._torch = torch
        self._device = torch.device(device)
        self._folder = folder
        self._tokens = int(self.model.get_input_embeddings().weight.shape[0])
        self.batch_tokens = batch_tokens(device)
        self._label = f"{self.name} on {device} in {precision}"
        with faults(folder, "no pair can be scored"):
            self.check()
            probe(self, self.config)

    def __str__(self) -> str:
        return self._label

    @abstractmethod
    def load(self, folder: Path, *, device: str, dtype: Any) -> tuple[Any, Any]:
        """Return the model of a folder, and its tokenizer of transformers."""

    @abstractmethod
    def logits(self, features: dict[str, Any]) -> Any:
        """Run the model over a batch: a tensor of shape ``(pairs, 1)``."""

    def check(self) -> None:  # noqa: B027 - most have nothing to check
        """Raise ``ModelError`` for what only the loaded files tell; before the first pair."""

    def _pads_left(self) -> bool:
        return bool(self.reads.padding_side == "left")

    def prepare_pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise a query with each of the documents, and cut them at ``max_tokens``."""
        return self.tokenizer.encode_pairs(query, documents, max_tokens)

    def room_for_pairs(self, max_tokens: int) -> int:
        """Return how many tokens of query and document fit, beside what stands around them."""
        return self.tokenizer.room_for_pairs(max_tokens)

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one logit a pair: float32 of shape ``(len(batch), 1)``."""
        torch = self._torch
        whole = padded(batch, pad=self._pad, left=self._left)
        check_token_ids(int(whole.ids.max()), self._tokens, self._folder)
        features: dict[str, Any] = {
            name: torch.from_numpy(value).to(self._device)
            for name, value in whole.named().items()
            if name in self._inputs
        }
        with torch.inference_mode():
            logits: arrays.FloatMatrix = self.logits(features).float().cpu().numpy()
        return logits


class TorchCrossEncoder(TorchReranker):
    """A ``...ForSequenceClassification``, which ends in one number for a pair."""

    def load(self, folder: Path, *, device: str, dtype: Any) -> tuple[Any, Any]:
        """Return the model of a folder, and its tokenizer of transformers."""
        from toastrack.engines.torch_model import load_classifier

        model, reads = load_classifier(folder, device=device, dtype=dtype)
        return model, reads

    def logits(self, features: dict[str, Any]) -> Any:
        """Run the model over a batch: a tensor of shape ``(pairs, 1)``."""
        return self.model(**features).logits


class OpenVinoCrossEncoder(CompiledModel):
    """Scores pairs with a compiled model."""

    def __init__(self, folder: Path, *, precision: str) -> None:
        config = ModelConfig(folder, "reranking")
        super().__init__(config, precision=precision, outputs=("logits",), rank=2)
        self._reads_types = config.reads_types
        probe(self, config)

    def prepare_pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise a query with each of the documents, and cut them at ``max_tokens``."""
        return self.tokenizer.encode_pairs(query, documents, max_tokens)

    def room_for_pairs(self, max_tokens: int) -> int:
        """Return how many tokens of query and document fit, beside what stands around them."""
        return self.tokenizer.room_for_pairs(max_tokens)

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one logit a pair: float32 of shape ``(len(batch), 1)``."""
        import numpy as np

        whole = padded(batch, pad=self._pad)
        if not self._reads_types:
            whole.types[:] = 0
        logits = self.infer(whole)
        return np.array(logits, dtype=np.float32)


def probe(engine: TorchReranker | OpenVinoCrossEncoder, config: ModelConfig) -> None:
    """Score two pairs; raise ``ModelError`` if that gives more than one number each."""
    room = engine.room_for_pairs(0)
    pairs = engine.prepare_pairs("probe", _PROBES, 8 - room)
    highest = max(max(tokens.types, default=0) for tokens in pairs)
    if config.types is not None and highest >= config.types:
        raise ModelError(
            f"The tokenizer of {str(config.folder)!r} marks a document as type {highest}, and the "
            f"model knows {config.types} types. Its files belong to two models; get the model anew."
        )
    shape = engine.run(pairs, prompt="").shape
    if shape != (len(pairs), 1):
        raise ModelError(
            f"{str(config.folder)!r} gives {shape[-1]} scores for a pair where a reranker gives one. "
            "Choose a cross-encoder with one label."
        )
