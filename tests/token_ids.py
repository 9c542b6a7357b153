"""What the model reads: the ids that enter it, and those that its own tokenizer would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from models import READY

from toastrack import Embedder
from toastrack.engines.openvino import OpenVinoEngine
from toastrack.engines.sentence_transformers import SentenceTransformersEngine

Ids = list[int]


@cache
def own_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


@cache
def _plain_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read(folder: Path, text: str, *, specials: bool = True) -> Ids:
    """What transformers' own tokenizer makes of a text: nothing of toastrack is in it."""
    if READY:
        # There is no transformers then, whose tokenizer does this.
        return list(_plain_tokenizer(folder).encode(text, add_special_tokens=specials).ids)
    ids = own_tokenizer(folder)(text, add_special_tokens=specials, truncation=False)["input_ids"]
    return list(ids)


def times(part: Ids, row: Ids) -> int:
    return sum(row[i : i + len(part)] == part for i in range(len(row) - len(part) + 1))


@contextmanager
def seen_by_the_model(embedder: Embedder) -> Iterator[list[Ids]]:
    """Collect every row of ids that enters the BERT itself, without its padding; it still runs."""
    engine = embedder._engine()
    rows: list[Ids] = []

    def note(inputs: Any) -> None:
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            assert set(ids[mask == 0].tolist()) <= {0}, "only padding is hidden"
            rows.append(ids[mask == 1].tolist())

    with pytest.MonkeyPatch.context() as patch:
        if isinstance(engine, OpenVinoEngine):
            infer = engine._request.infer

            def infer_noted(inputs: Any, **settings: Any) -> Any:
                note(inputs)
                return infer(inputs, **settings)

            patch.setattr(engine._request, "infer", infer_noted)
        else:
            assert isinstance(engine, SentenceTransformersEngine)
            from transformers import BertModel

            bert = next(part for part in engine._model.modules() if isinstance(part, BertModel))
            forward = bert.forward

            def forward_noted(**inputs: Any) -> Any:
                note(inputs)
                return forward(**inputs)

            # sentence-transformers 6 calls forward itself, past every hook of torch.
            patch.setattr(bert, "forward", forward_noted)
        yield rows
