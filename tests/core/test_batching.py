"""Batches as they reach the model: what must hold for any list of texts and any budget."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertModel

from toastrack import Embedder
from toastrack.batching.jobs import StreamedJob
from toastrack.batching.worker import EngineWorker
from toastrack.engines.sentence_transformers import SentenceTransformersEngine
from toastrack.models.tokenizer import Tokens

Batch = list[list[int]]

WORDS = ["bread", "rye", "flour", "water", "salt", "yeast", "dough", "oven", "crust", "the"]
seeds = pytest.mark.parametrize("seed", range(24))


def random_texts(seed: int) -> tuple[list[str], int]:
    """Texts of a length that only their words tell, and a budget of padded tokens."""
    pick = random.Random(seed)
    longest = pick.choice([0, 3, 20, 62])
    texts = [
        " ".join(pick.choices(WORDS, k=pick.randint(0, longest)))
        for _ in range(pick.choice([1, 2, 7, 40, 120]))
    ]
    return texts, pick.choice([1, 30, 200, 700, 10**6])


@contextmanager
def batches_of(embedder: Embedder, budget: int) -> Iterator[list[Batch]]:
    """Collect the ids of every batch that enters the model, padding included."""
    engine = embedder._engine()
    assert isinstance(engine, SentenceTransformersEngine)
    bert = next(module for module in engine._model.modules() if isinstance(module, BertModel))
    forward = bert.forward
    batches: list[Batch] = []

    def record(**inputs: Any) -> Any:
        batches.append(inputs["input_ids"].tolist())
        return forward(**inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "batch_tokens", budget)
        patch.setattr(bert, "forward", record)
        yield batches


def document_batches(embedder: Embedder, texts: Sequence[str], budget: int) -> list[Batch]:
    with batches_of(embedder, budget) as batches:
        embedder.embed_documents(texts)
    return batches


def without_padding(row: Sequence[int]) -> list[int]:
    return [number for number in row if number]


@seeds
def test_every_text_is_in_exactly_one_batch(embedder: Embedder, seed: int) -> None:
    texts, budget = random_texts(seed)
    rows = [row for batch in document_batches(embedder, texts, budget) for row in batch]
    expected = [embedder.tokenizer.ids(text) for text in texts]
    assert sorted(map(without_padding, rows)) == sorted(expected)


@seeds
def test_padded_tokens_stay_within_the_budget_unless_a_text_is_alone(
    embedder: Embedder, seed: int
) -> None:
    texts, budget = random_texts(seed)
    for batch in document_batches(embedder, texts, budget):
        assert len(batch) == 1 or len(batch) * len(batch[0]) <= budget


@seeds
def test_no_batch_is_padded_further_than_its_longest_text(embedder: Embedder, seed: int) -> None:
    texts, budget = random_texts(seed)
    for batch in document_batches(embedder, texts, budget):
        assert max(len(without_padding(row)) for row in batch) == len(batch[0])


@seeds
def test_the_longest_texts_come_first(embedder: Embedder, seed: int) -> None:
    texts, budget = random_texts(seed)
    batches = document_batches(embedder, texts, budget)
    sizes = [len(without_padding(row)) for batch in batches for row in batch]
    assert sizes == sorted(sizes, reverse=True)


@seeds
def test_no_batch_ends_while_the_next_text_would_fit(embedder: Embedder, seed: int) -> None:
    texts, budget = random_texts(seed)
    for batch in document_batches(embedder, texts, budget)[:-1]:
        assert (len(batch) + 1) * len(batch[0]) > budget


def test_a_text_over_the_budget_goes_alone(embedder: Embedder) -> None:
    texts = ["bread", "bread " * 60, "rye"]
    assert list(map(len, document_batches(embedder, texts, 10))) == [1, 2]


def test_queries_are_batched_with_their_prompt_counted(
    embedder: Embedder, tiny_folder: Path
) -> None:
    size = embedder.count_tokens("bread", role="query")
    with batches_of(embedder, 2 * size) as batches:
        embedder.embed_queries(["bread"] * 4)
    assert [(len(batch), len(batch[0])) for batch in batches] == [(2, size), (2, size)]


def test_no_texts_make_no_batch(embedder: Embedder) -> None:
    assert document_batches(embedder, [], 10) == []


def test_queries_that_wait_are_batched_by_length_and_skipped_once() -> None:
    """Equal lengths share a batch; whoever it left out goes before all who come later."""

    class Engine:
        batch_tokens = 20
        batch_texts = None
        may_be_left = False

    engine: Any = Engine()
    worker = EngineWorker(engine)

    def come(*sizes: int) -> None:
        for size in sizes:
            job = StreamedJob(lambda size=size: [Tokens([1] * size, size)], prompt="", size=1)  # type: ignore[misc]
            worker._queries.append(job)

    def next_batch() -> list[int]:
        return [len(tokens.ids) for _, items in worker._next_batch() for _, tokens in items]

    come(2, 9, 3, 10, 2)
    assert next_batch() == [10, 9]
    come(10, 10, 10)
    assert next_batch() == [2, 3, 2]
    assert next_batch() == [10, 10]
    assert next_batch() == [10]
    assert not worker.has_work()


def test_any_number_of_streams_that_wait_do_not_keep_the_worker_busy() -> None:
    """A window waits for the one before it, which has come behind all who wait."""

    class Engine:
        batch_tokens = 1
        batch_texts = None
        may_be_left = False

        def __init__(self) -> None:
            self.runs = 0

        def run(self, batch: Sequence[Tokens], *, prompt: str) -> Any:
            self.runs += 1
            return np.ones((len(batch), 1), dtype=np.float32)

    engine: Any = Engine()
    worker = EngineWorker(engine)

    def job(texts: int, after: StreamedJob | None = None) -> StreamedJob:
        tokens = [Tokens([1], 1)] * texts
        return StreamedJob(lambda: tokens, prompt="", size=1, after=after)

    firsts = [job(2) for _ in range(300)]
    jobs = [each for first in firsts for each in (first, job(1, first))]
    worker._documents.extend(jobs)
    steps = 0
    while worker.has_work():
        before = engine.runs
        worker.run_batch()
        steps += 1
        assert engine.runs > before, f"{len(worker._documents)} wait for one another"
    assert steps == engine.runs == 900
    for one in jobs:
        assert sum(len(positions) for positions, _ in one.results()) in (1, 2)
