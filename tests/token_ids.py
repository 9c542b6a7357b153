"""What the model reads: the ids that enter it, and those that its own tokenizer would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertModel

from toastrack import Embedder
from toastrack.engines.sentence_transformers import SentenceTransformersEngine

Ids = list[int]


@cache
def own_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(str(folder))


def read(folder: Path, text: str, *, specials: bool = True) -> Ids:
    """What transformers' own tokenizer makes of a text: nothing of toastrack is in it."""
    ids = own_tokenizer(folder)(text, add_special_tokens=specials, truncation=False)["input_ids"]
    return list(ids)


def times(part: Ids, row: Ids) -> int:
    return sum(row[i : i + len(part)] == part for i in range(len(row) - len(part) + 1))


@contextmanager
def seen_by_the_model(embedder: Embedder) -> Iterator[list[Ids]]:
    """Collect every row of ids that enters the BERT itself, without its padding; it still runs."""
    engine = embedder._engine()
    assert isinstance(engine, SentenceTransformersEngine)
    bert = next(module for module in engine._model.modules() if isinstance(module, BertModel))
    rows: list[Ids] = []

    forward = bert.forward

    def record(**inputs: Any) -> Any:
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            assert set(ids[mask == 0].tolist()) <= {0}, "only padding is hidden"
            rows.append(ids[mask == 1].tolist())
        return forward(**inputs)

    with pytest.MonkeyPatch.context() as patch:
        # sentence-transformers 6 calls forward itself, past every hook of torch.
        patch.setattr(bert, "forward", record)
        yield rows
