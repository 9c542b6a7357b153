"""What a caller queues: who is answered, and who is not disturbed by others."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from toastrack.batching.jobs import AwaitedJob, answer
from toastrack.models.tokenizer import Tokens

ROW = np.ones((1, 2), np.float32)


def started() -> AwaitedJob:
    """A job of one text that is with the engine."""
    job = AwaitedJob(lambda: [Tokens([1], 1)], prompt="", size=2)
    assert job.start()
    job.take(0, 0, 10)
    return job


def test_those_who_wait_on_one_loop_are_answered_in_one_call() -> None:
    async def wait() -> int:
        jobs = [started() for _ in range(5)]
        loop = asyncio.get_running_loop()
        calls = 0
        real = loop.call_soon_threadsafe

        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return real(*args)

        loop.call_soon_threadsafe = counted  # type: ignore[assignment,method-assign]
        for job in jobs:
            job.deliver([0], ROW)
        await asyncio.to_thread(answer, jobs)
        calls -= 1  # that of the thread
        for job in jobs:
            ((positions, vectors),) = await job.all_results()
            assert positions == [0]
            assert vectors is ROW
        return calls

    assert asyncio.run(wait()) == 1


def test_a_loop_that_is_gone_keeps_nobody_else_from_an_answer() -> None:
    async def make() -> AwaitedJob:
        return started()

    gone = asyncio.run(make())  # and its loop is closed

    async def wait() -> Any:
        job = started()
        for one in (gone, job):
            one.deliver([0], ROW)
        answer([gone, job])
        return await job.all_results()

    assert asyncio.run(wait()) == [([0], ROW)]


@pytest.mark.parametrize("error", [OSError("no memory"), StopIteration()], ids=["error", "stop"])
def test_an_error_reaches_those_who_have_no_answer_yet(error: Exception) -> None:
    async def wait() -> Any:
        done, open_ = started(), started()
        done.deliver([0], ROW)
        for job in (done, open_):
            job.fail(error)
        answer([open_, done])
        with pytest.raises(RuntimeError if isinstance(error, StopIteration) else OSError):
            await open_.all_results()
        return await done.all_results()

    assert asyncio.run(wait()) == [([0], ROW)]


def test_who_is_cancelled_drops_what_was_queued() -> None:
    async def wait() -> AwaitedJob:
        job = started()
        waiting = asyncio.create_task(job.all_results())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        job.deliver([0], ROW)
        answer([job])
        await asyncio.sleep(0)
        return job

    assert asyncio.run(wait()).cancelled
