"""The engine that runs a model with sentence-transformers and torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from toastrack.engines.padding import padded
from toastrack.errors import ModelError, needs_extra
from toastrack.models.tokenizer import Tokenizer, Tokens, check_token_ids
from toastrack.utils import arrays

# Small batches stay in the processor's cache; a GPU wants its units filled.
_CPU_BATCH_TOKENS = 2_048
_GPU_BATCH_TOKENS = 32_768


def batch_tokens(device: str) -> int:
    """Return the budget of padded tokens at which torch is fastest on a device."""
    return _CPU_BATCH_TOKENS if device == "cpu" else _GPU_BATCH_TOKENS


class SentenceTransformersEngine:
    """Holds one ``SentenceTransformer`` and feeds it token ids."""

    name = "sentence-transformers"
    batch_texts: int | None = None
    may_be_left = False

    def __init__(self, folder: Path, *, device: str, precision: str) -> None:
        with needs_extra("local", "sentence_transformers"):
            import_module("sentence_transformers")
        import torch

        from toastrack.engines.torch_model import faults, load_model

        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        with quiet_loading():
            self._model = load_model(folder, device=device, dtype=dtype).to(dtype).eval()
        self._torch = torch
        self._device = torch.device(device)
        self._folder = folder
        self.inputs, self._pad = _text_inputs(self._model, folder)
        with faults(folder, "its tokenizer cannot be used"):
            self.tokenizer = Tokenizer(self._model.tokenizer.backend_tokenizer, source=folder)
        self.batch_tokens = batch_tokens(device)
        self._tokens = int(self.transformer.get_input_embeddings().weight.shape[0])
        self._leaves_prompt_out = any(
            getattr(module, "include_prompt", True) is False for module in self._model
        )
        self._label = f"{self.name} on {device} in {precision}"
        # Texts of two lengths, so that the padding is tried, too.
        with faults(folder, "no text can be embedded"):
            probe = self.run(self.prepare(["probe", "a longer probe"], 8), prompt="")
        self.dimensions = int(probe.shape[1])

    def __str__(self) -> str:
        return self._label

    @property
    def transformer(self) -> Any:
        """The torch module that makes one vector a token."""
        return self._model[0].auto_model

    def prepare(self, texts: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise texts and cut them at ``max_tokens``."""
        return self.tokenizer.encode(texts, max_tokens)

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one raw vector a text."""
        torch = self._torch
        whole = padded(batch, pad=self._pad["id"], left=self._pad["left"])
        check_token_ids(int(whole.ids.max()), self._tokens, self._folder)
        features: dict[str, Any] = {
            name: torch.from_numpy(value).to(self._device)
            for name, value in whole.named().items()
            if name != "token_type_ids" or name in self.inputs
        }
        if self._leaves_prompt_out and prompt:
            # The closing special token stands behind the text, not behind the prompt.
            features["prompt_length"] = len(self.tokenizer.ids(prompt)) - 1
        with torch.inference_mode():
            vectors = self._model(features)["sentence_embedding"]
        result: arrays.FloatMatrix = vectors.float().cpu().numpy()
        return result


def pick_device(device: str | None) -> str:
    """Return the device asked for, else the best one here (cuda, mps, cpu), by its one name."""
    with needs_extra("local", "torch"):
        import torch

    if device is None:
        if torch.cuda.is_available():
            return one_name("cuda", current=torch.cuda.current_device())
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        # A "meta" device makes tensors without numbers in them.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:150].rstrip(".")
        raise ModelError(
            f"device={device!r} cannot be used here: {reason}. Leave it out for the best one."
        ) from None
    return one_name(device, current=torch.cuda.current_device() if "cuda" in device else 0)


def one_name(device: str, *, current: int) -> str:
    """Return the one name of a device that has several, with ``current`` the GPU in use.

    "cuda" is that GPU; of "cpu" and "mps" there is only one, however it is numbered.
    """
    kind = device.partition(":")[0]
    if device == "cuda":
        return f"cuda:{current}"
    return kind if kind in ("cpu", "mps") else device


def _text_inputs(model: Any, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the model's input names and padding; refuse what is not a plain text transformer."""
    first = model[0]
    tokenizer: Any = getattr(model, "tokenizer", None)
    modalities = set(getattr(first, "modality_config", None) or {"text"})
    if getattr(tokenizer, "backend_tokenizer", None) is None or modalities != {"text"}:
        raise ModelError(
            f"{str(folder)!r} starts with {type(first).__name__} for {sorted(modalities)}; "
            "toastrack runs text transformers with a fast tokenizer."
        )
    pad = {"id": tokenizer.pad_token_id or 0, "left": tokenizer.padding_side == "left"}
    return list(tokenizer.model_input_names), pad


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' own progress bar out of ours while a model loads."""
    from transformers.utils import logging

    # The functions carry no annotations.
    settings: Any = logging
    was_on = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            settings.enable_progress_bar()
