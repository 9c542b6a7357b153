"""A body runs within one step of ``run_sync``, or on an event loop; it never waits unseen."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from toastrack.stores import AsyncRuntime, Ended, Runtime, SyncRuntime, run_sync


async def body(runtime: Runtime) -> list[Any]:
    """Use everything that a runtime has."""
    done: list[Any] = [await runtime.call(lambda value: value, "call")]
    done.append(await runtime.offload(lambda: "offload"))
    await runtime.sleep(0.001)
    lock = threading.Lock()
    async with runtime.lock(), runtime.enter(lock):
        done.append(lock.locked())

    async def beside(ended: Ended) -> None:
        while not await ended.within(0.001):
            pass
        done.append("background")

    async with runtime.background(beside):
        done.append("block")
    return done


DONE = ["call", "offload", True, "block", "background"]


def test_a_body_runs_in_both_ways() -> None:
    assert run_sync(body(SyncRuntime())) == DONE
    assert asyncio.run(body(AsyncRuntime())) == DONE


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_body_that_really_waits_fails_at_once_in_a_synchronous_store(seconds: float) -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append("closed")

    async def beside_a_loop() -> None:
        with pytest.raises(RuntimeError, match=r"^A synchronous store awaited .* not done\.$"):
            run_sync(waits())

    asyncio.run(beside_a_loop())
    assert ended == ["closed"]


def test_an_error_of_the_background_is_raised_at_the_end_of_the_block() -> None:
    async def fails(ended: Ended) -> None:
        await ended.within(10)
        raise KeyError("background")

    async def use(runtime: Runtime, error: Exception | None) -> None:
        async with runtime.background(fails):
            if error is not None:
                raise error

    for error, expected in ((None, KeyError), (OSError("block"), OSError)):
        with pytest.raises(expected):
            run_sync(use(SyncRuntime(), error))
        with pytest.raises(expected):
            asyncio.run(use(AsyncRuntime(), error))


async def queueing(runtime: Runtime) -> None:
    async def perform(method: Any, reads: bool) -> None:
        """Do nothing."""

    async with runtime.write_queue(perform, lambda thread: None):
        """Write nothing."""


async def looking_on(runtime: Runtime) -> None:
    async def watch(ended: Ended) -> None:
        while not await ended.within(0.001):
            """Look again."""

    async with runtime.background(watch):
        """Be done at once."""


@pytest.mark.parametrize("use", [queueing, looking_on])
def test_ctrl_c_while_a_thread_starts_leaves_none(
    use: Callable[[Runtime], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sync(use(SyncRuntime()))
    gc.collect()
    (thread,) = started
    thread.join(30)
    assert not thread.is_alive()


def test_a_lock_keeps_threads_apart_and_lets_its_own_in_again() -> None:
    runtime = SyncRuntime()
    lock = runtime.lock()
    order: list[str] = []
    waiting = threading.Event()

    async def other() -> None:
        waiting.set()
        async with lock:
            order.append("other")

    async def first(thread: threading.Thread) -> None:
        async with lock, lock:
            thread.start()
            waiting.wait(30)
            order.append("first")

    thread = threading.Thread(target=lambda: run_sync(other()))
    run_sync(first(thread))
    thread.join()
    assert order == ["first", "other"]


def test_each_event_loop_has_a_lock_of_its_own() -> None:
    lock = AsyncRuntime().lock()
    inside = 0
    most = 0

    async def one() -> None:
        nonlocal inside, most
        async with lock:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async def several() -> None:
        await asyncio.gather(*(one() for _ in range(4)))

    for _ in range(2):  # an asyncio.Lock of the first loop would fail on the second
        asyncio.run(several())
    assert most == 1
