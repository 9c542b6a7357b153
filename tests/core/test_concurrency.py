"""One embedder between threads, event loops and processes."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import WORDS, embed_in_another_process
from programs import SECONDS

from toastrack import Embedder
from toastrack.engines.sentence_transformers import SentenceTransformersEngine
from toastrack.errors import TruncationError, TruncationWarning
from toastrack.utils.threads import off_loop


def texts(count: int, seed: int = 0) -> list[str]:
    pick = random.Random(seed)
    return [" ".join(pick.choices(WORDS, k=pick.randint(1, 40))) for _ in range(count)]


def test_eight_threads_get_the_right_vectors(embedder: Embedder) -> None:
    """8 threads, 200 queries and documents each: every vector as if it had been alone."""
    wanted = texts(200)
    queries, documents = embedder.embed_queries(wanted), embedder.embed_documents(wanted)

    def work(seed: int) -> float:
        pick = random.Random(seed)
        worst = 0.0
        for _ in range(200):
            i = pick.randrange(len(wanted))
            if pick.random() < 0.5:
                difference = embedder.embed_query(wanted[i]) - queries[i]
            else:
                difference = embedder.embed_documents([wanted[i]])[0] - documents[i]
            worst = max(worst, float(np.abs(difference).max()))
        return worst

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) <= 1e-5


def test_no_call_tokenises_or_runs_the_model_on_the_loops_thread(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder.load()
    threads: dict[str, set[int]] = {"prepare": set(), "run": set()}

    def watch(name: str) -> None:
        done = getattr(SentenceTransformersEngine, name)

        def watched(self: SentenceTransformersEngine, *args: Any, **options: Any) -> Any:
            threads[name].add(threading.get_ident())
            return done(self, *args, **options)

        monkeypatch.setattr(SentenceTransformersEngine, name, watched)

    for name in threads:
        watch(name)

    async def main() -> None:
        await embedder.aembed_query("rye")
        await embedder.aembed_documents(texts(300))

    asyncio.run(main())
    assert all(threads.values())
    assert threading.get_ident() not in threads["prepare"] | threads["run"]


def test_async_equals_sync(embedder: Embedder) -> None:
    wanted = texts(300)

    async def both() -> tuple[Any, Any, Any]:
        return (
            await embedder.aembed_query(wanted[0]),
            await embedder.aembed_queries(wanted[:64]),
            await embedder.aembed_documents(wanted),
        )

    query, queries, documents = asyncio.run(both())
    np.testing.assert_allclose(query, embedder.embed_query(wanted[0]), atol=1e-5)
    np.testing.assert_allclose(queries, embedder.embed_queries(wanted[:64]), atol=1e-5)
    np.testing.assert_allclose(documents, embedder.embed_documents(wanted), atol=1e-5)
    assert query.shape == (32,)


def test_three_event_loops_in_a_row(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu")
    results = [asyncio.run(embedder.aembed_query("bread")) for _ in range(3)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_event_loops_on_several_threads_at_once(embedder: Embedder) -> None:
    async def many(seed: int) -> Any:
        return await asyncio.gather(*map(embedder.aembed_query, texts(20, seed)))

    with ThreadPoolExecutor(4) as pool:
        for seed, found in enumerate(pool.map(lambda seed: asyncio.run(many(seed)), range(4))):
            np.testing.assert_allclose(found, embedder.embed_queries(texts(20, seed)), atol=1e-5)


def test_aload_and_empty_input(tiny_folder: Path) -> None:
    async def run() -> Any:
        embedder = await Embedder(tiny_folder, device="cpu").aload()
        return await embedder.aembed_documents([])

    assert asyncio.run(run()).shape == (0, 32)


def test_async_calls_check_and_warn_as_the_sync_ones_do(tiny_folder: Path) -> None:
    long = "bread " * 100
    with pytest.raises(TypeError, match=r"Write \[text\]"):
        asyncio.run(Embedder(tiny_folder).aembed_documents("bread"))
    with pytest.raises(TypeError, match="one str"):
        asyncio.run(Embedder(tiny_folder).aembed_query(["bread"]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text 1 holds a lone surrogate"):
        asyncio.run(Embedder(tiny_folder).aembed_queries(["bread", "\ud800"]))
    with pytest.raises(TruncationError, match="text 0"):
        asyncio.run(Embedder(tiny_folder, on_truncate="error").aembed_query(long))

    async def caller() -> None:
        await Embedder(tiny_folder).aembed_query(long)

    with pytest.warns(TruncationWarning) as warned:
        asyncio.run(caller())
    assert [warning.filename for warning in warned] == [__file__]


class Held:
    """Holds the engine inside its first batch, and notes the order of the others."""

    def __init__(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.batches: list[list[int]] = []
        run = SentenceTransformersEngine.run

        def held(engine: SentenceTransformersEngine, batch: Sequence[Any], *, prompt: str) -> Any:
            self.batches.append([len(tokens.ids) for tokens in batch])
            self.entered.set()
            assert self.release.wait(300)
            return run(engine, batch, prompt=prompt)

        monkeypatch.setattr(SentenceTransformersEngine, "run", held)
        monkeypatch.setattr(embedder._engine(), "batch_tokens", 64)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


def test_queries_that_came_while_the_engine_was_busy_share_a_batch_and_go_first(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(embedder, monkeypatch)
    worker = embedder._worker()
    with ThreadPoolExecutor(8) as pool:
        # 6 texts of 22 tokens each: three batches of two.
        job = pool.submit(embedder.embed_documents, ["bread " * 20] * 6)
        assert held.entered.wait(300)
        queries = [pool.submit(embedder.embed_query, "rye") for _ in range(4)]
        wait_for(lambda: len(worker._queries) == 4)
        held.release.set()
        job.result()
        for query in queries:
            query.result()
    size = embedder.count_tokens("rye", "query")
    assert held.batches == [[22, 22], [size] * 4, [22, 22], [22, 22]]


def test_long_jobs_of_several_callers_take_turns(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(embedder, monkeypatch)
    worker = embedder._worker()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(embedder.embed_documents, ["bread " * 20] * 4)
        assert held.entered.wait(300)
        second = pool.submit(embedder.embed_documents, ["rye " * 25] * 4)
        wait_for(lambda: len(worker._documents) == 2)
        held.release.set()
        first.result()
        second.result()
    # Neither waits for the other's end.
    assert {27, 22} <= {size for batch in held.batches[1:3] for size in batch}


def test_an_error_of_the_engine_reaches_its_callers_and_the_worker_lives_on(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(engine: Any, batch: Sequence[Any], *, prompt: str) -> Any:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformersEngine, "run", broken)
        with pytest.raises(MemoryError, match="no room"):
            embedder.embed_documents(["bread"])
        with pytest.raises(MemoryError, match="no room"):
            asyncio.run(embedder.aembed_query("bread"))
    assert embedder.embed_query("bread").shape == (32,)


def test_a_cancelled_call_does_not_hold_up_others(embedder: Embedder) -> None:
    async def run() -> Any:
        calls = [asyncio.create_task(embedder.aembed_query(text)) for text in texts(20)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return await embedder.aembed_query("bread")

    np.testing.assert_allclose(asyncio.run(run()), embedder.embed_query("bread"), atol=1e-5)


def test_the_worker_goes_with_its_last_embedder(other_folder: Path) -> None:
    before = threading.active_count()
    embedder = Embedder(other_folder, device="cpu").load()
    embedder.embed_query("bread")
    worker = weakref.ref(embedder._worker())
    (thread,) = embedder._worker()._threads
    del embedder
    gc.collect()
    thread.join(30)
    assert worker() is None
    assert not thread.is_alive()
    assert threading.active_count() <= before


def test_ctrl_c_as_the_engines_thread_starts_leaves_one(
    fresh_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(fresh_folder, device="cpu").load()
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if started:  # the first one's start comes before the system is asked for a thread
            start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                embedder.embed_query("bread")
    assert embedder.embed_query("bread").shape == (32,)
    assert embedder._worker()._threads == started[1:]


def test_the_threads_of_a_closed_loop_end_though_somebody_keeps_it() -> None:
    kept: list[asyncio.AbstractEventLoop] = []

    async def thread_of_a_new_loop() -> threading.Thread:
        kept.append(asyncio.get_running_loop())
        return await off_loop(threading.current_thread)

    first = asyncio.run(thread_of_a_new_loop())
    asyncio.run(thread_of_a_new_loop())
    first.join(30)
    assert not first.is_alive()


@pytest.mark.parametrize("method", [pytest.param("spawn", marks=pytest.mark.rest), "forkserver"])
def test_other_processes_get_the_same_vectors(
    embedder: Embedder, tiny_folder: Path, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    context: Any = multiprocessing.get_context(method)
    vectors = context.Queue()
    process = context.Process(target=embed_in_another_process, args=(tiny_folder, vectors))
    process.start()
    found = vectors.get(timeout=SECONDS)
    process.join()
    np.testing.assert_allclose(found, embedder.embed_queries(["bread", "rye"]), atol=1e-5)
