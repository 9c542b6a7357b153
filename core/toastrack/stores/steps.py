"""Work that is written once, as a generator, and run by a sync or an async face.

A piece of work yields what it wants done and is sent the answer; an error of the doing is thrown
into it, so that it can add the reader's next step.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Slow:
    """Something that would hold up an event loop, such as finding the model: done on a thread."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Ask:
    """A call of the host's client.

    The asynchronous face awaits the answer if it is awaitable. For a client that blocks, set
    ``_do = staticmethod(ask_on_a_thread)`` on the asynchronous store.
    """

    function: Callable[[], Any]


@dataclass(frozen=True)
class Pause:
    """Some seconds of waiting, which an event loop spends on others."""

    seconds: float


Steps = Generator[Any, Any, T]
"""A piece of work; what it yields, beside ``Slow`` and ``Pause``, is between it and the face that runs it."""


def run_steps(steps: Steps[T], do: Callable[[Any], Any]) -> T:
    """Run a piece of work, doing what it asks for on this thread."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Slow):
                    answer = step.function()
                elif isinstance(step, Pause):
                    time.sleep(step.seconds)
                    answer = None
                else:
                    answer = do(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def arun_steps(steps: Steps[T], do: Callable[[Any], Awaitable[Any]]) -> T:
    """Run a piece of work on an event loop, awaiting what it asks for."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Slow):
                    answer = await asyncio.to_thread(step.function)
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    answer = None
                else:
                    answer = await do(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def ask(step: Ask) -> Any:
    """Do what an ``Ask`` says, with a synchronous client."""
    return step.function()


async def ask_on_a_thread(step: Ask) -> Any:
    """Do what an ``Ask`` says off the event loop, with a client that blocks."""
    return await asyncio.to_thread(step.function)


async def aask(step: Ask) -> Any:
    """Do what an ``Ask`` says, with an asynchronous client."""
    answer = step.function()
    return await answer if inspect.isawaitable(answer) else answer
