"""The engine that asks a language model whether a document matches: mxbai-rerank-v2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toastrack.engines.cross_encoder import TorchReranker
from toastrack.models.rerank_template import FRAME, answers, check_template
from toastrack.models.settings import takes_parts, template_arguments
from toastrack.models.tokenizer import Tokens


class TorchGenerativeReranker(TorchReranker):
    """A ``...ForCausalLM``: by how much "1" is the likelier next token than "0"."""

    def load(self, folder: Path, *, device: str, dtype: Any) -> tuple[Any, Any]:
        """Return the model of a folder, and its tokenizer of transformers."""
        from toastrack.engines.torch_model import load_language_model

        model, reads = load_language_model(folder, device=device, dtype=dtype)
        return model, reads

    def check(self) -> None:
        """Raise ``ModelError`` if the model is asked otherwise, or answers otherwise."""
        self._yes, self._no = answers(self.config, self.tokenizer)
        folder = self.config.folder
        arguments, in_parts = template_arguments(folder), takes_parts(folder)

        def message(role: str, text: str) -> dict[str, Any]:
            return {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}

        def render(query: str, document: str) -> str:
            messages = [message("query", query), message("document", document)]
            rendered: str = self.reads.apply_chat_template(messages, tokenize=False, **arguments)
            return rendered

        check_template(self.config, render)

    def _pads_left(self) -> bool:
        # So that the last position is of every pair the one behind which the answer stands.
        return True

    def prepare_pairs(self, query: str, documents: Sequence[str], max_tokens: int) -> list[Tokens]:
        """Tokenise the question about a query and each of the documents."""
        return self.tokenizer.encode_framed(FRAME, query, documents, max_tokens)

    def room_for_pairs(self, max_tokens: int) -> int:
        """Return how many tokens of query and document fit, beside the words of the question."""
        return self.tokenizer.room_in_frame(FRAME, max_tokens)

    def logits(self, features: dict[str, Any]) -> Any:
        """Run the model over a batch: a tensor of shape ``(pairs, 1)``."""
        positions = (features["attention_mask"].cumsum(1) - 1).clamp(min=0)
        last = self.model(
            **features, position_ids=positions, use_cache=False, logits_to_keep=1
        ).logits[:, -1]
        # The difference of two numbers in bfloat16 would lose what bfloat16 left of it.
        last = last.float()
        return (last[:, self._yes] - last[:, self._no])[:, None]
