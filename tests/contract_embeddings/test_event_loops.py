"""Awaited calls run the model elsewhere, on whatever event loop they are called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from threads_seen import calls_seen, of

from toastrack import Embedder
from toastrack.engines.sentence_transformers import SentenceTransformersEngine

if TYPE_CHECKING:
    from contract_embeddings.conftest import Adapter, Build, Face

pytestmark = pytest.mark.usefixtures("asynchronous")

# Longer than any machine needs to get through one step of the loop.
PATIENCE = 30
# What loads and runs a model.
MODEL = ("torch", "tokenizers", "openvino", "toastrack.engines")


@pytest.mark.parametrize(
    "ask",
    [lambda face: face.aquery("bread"), lambda face: face.adocuments(["bread", "rye"] * 50)],
    ids=["query", "documents"],
)
def test_the_event_loop_runs_while_the_model_does(
    build: Build,
    loaded: Embedder,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Face], Any],
) -> None:
    """The model waits for something that only a running loop can do."""
    face = build(model=tiny_folder, device="cpu")
    may_go_on = threading.Event()
    run = SentenceTransformersEngine.run

    async def main() -> None:
        loop, running = asyncio.get_running_loop(), asyncio.Event()

        def held(self: SentenceTransformersEngine, *args: Any, **options: Any) -> Any:
            loop.call_soon_threadsafe(running.set)
            assert may_go_on.wait(PATIENCE), "the event loop stands still"
            return run(self, *args, **options)

        monkeypatch.setattr(SentenceTransformersEngine, "run", held)
        task = asyncio.ensure_future(ask(face))
        waiting = asyncio.ensure_future(running.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        may_go_on.set()
        await task
        await waiting

    asyncio.run(main())


def test_neither_model_nor_blocking_client_runs_on_the_loops_thread(
    adapter: Adapter, build: Build, fresh_folder: Path
) -> None:
    face = build(model=fresh_folder, device="cpu")

    async def main() -> int:
        await face.aquery("bread")
        await face.adocuments(["bread", "rye"])
        return threading.get_ident()

    with calls_seen() as seen:
        on_the_loop = seen.pop(asyncio.run(main()))
    elsewhere = set().union(*seen.values())
    for places in (MODEL, adapter.blocking):
        assert of(places, on_the_loop) == set()
        assert of(places, elsewhere) or not places


def test_three_event_loops_in_a_row(
    adapter: Adapter, build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    face = build(model=tiny_folder, device="cpu")

    async def both() -> list[float]:
        await face.adocuments(["rye"])
        return await face.aquery("bread")

    expected = embedder.embed_query("bread")
    for _ in range(3):
        np.testing.assert_allclose(asyncio.run(both()), expected, rtol=0, atol=adapter.precision)


def test_many_at_once_on_several_event_loops(
    adapter: Adapter, build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    face = build(model=tiny_folder, device="cpu")
    texts = ["bread", "rye flour", "my starter is sour", "why", "salt and water"]

    async def all_of_them() -> list[list[float]]:
        return await asyncio.gather(*(face.aquery(text) for text in texts))

    expected = embedder.embed_queries(texts)
    with ThreadPoolExecutor(3) as pool:
        for vectors in pool.map(lambda _: asyncio.run(all_of_them()), range(3)):
            np.testing.assert_allclose(vectors, expected, rtol=0, atol=adapter.precision)
