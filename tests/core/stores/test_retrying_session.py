"""Calls are repeated a few times, other work never, and an event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from toastrack.errors import ConnectionLostError
from toastrack.stores import (
    LONG_BACKOFF,
    SHORT_BACKOFF,
    AsyncRuntime,
    Retry,
    RetryingBackend,
    RetryingSession,
    SyncRuntime,
    run_sync,
)


class Away(Exception):
    """The host does not answer."""


class Host:
    """Answers after so many failures."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or Away()
        self.calls = 0

    def call(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return f"answer {self.calls}"


class NotingRuntime(SyncRuntime):
    """Notes pauses instead of waiting."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Backend(RetryingBackend):
    """A host that is away now and then."""

    label = "docs"

    def is_away(self, error: BaseException) -> bool:
        return isinstance(error, Away)


def run(
    operation: Callable[[RetryingSession], Any], retry: Retry = "long"
) -> tuple[Any, list[float]]:
    """Run an operation without waiting; return the result and the pauses."""
    backend, runtime = Backend(), NotingRuntime()
    backend.runtime = runtime
    return run_sync(backend.in_session(operation, reads=True, retry=retry)), runtime.pauses


async def three_calls(session: RetryingSession, *hosts: Host) -> list[str]:
    return [await session.call(host.call) for host in hosts]


@pytest.mark.parametrize("failures", [0, 1, len(LONG_BACKOFF)])
def test_a_call_is_repeated_until_it_is_answered(failures: int) -> None:
    first, second = Host(0), Host(failures)
    answers, pauses = run(lambda session: three_calls(session, first, second, first))
    assert answers == ["answer 1", f"answer {failures + 1}", "answer 2"]
    assert tuple(pauses) == LONG_BACKOFF[:failures]


@pytest.mark.parametrize(("retry", "pauses"), [("long", LONG_BACKOFF), ("short", SHORT_BACKOFF)])
def test_it_is_given_up(retry: Retry, pauses: tuple[float, ...]) -> None:
    host = Host(99)
    with pytest.raises(ConnectionLostError, match="does not answer") as caught:
        run(lambda session: session.call(host.call), retry)
    assert isinstance(caught.value.__cause__, Away)
    assert host.calls == len(pauses) + 1


def test_what_is_given_up_may_be_explained() -> None:
    class Explaining(Backend):
        def explain(self, error: Exception) -> ConnectionLostError:
            return ConnectionLostError("No host answers.")

    backend = Explaining()
    backend.runtime = NotingRuntime()

    async def ask(session: RetryingSession) -> Any:
        return await session.call(Host(99).call)

    async def fail(session: RetryingSession) -> None:
        raise KeyError("x")

    with pytest.raises(ConnectionLostError, match="No host answers") as caught:
        run_sync(backend.in_session(ask, reads=True, retry="short"))
    assert isinstance(caught.value.__cause__, Away)
    with pytest.raises(KeyError):
        run_sync(backend.in_session(fail, reads=True, retry="short"))


def test_other_errors_are_raised_at_once() -> None:
    host = Host(1, KeyError("x"))
    with pytest.raises(KeyError):
        run(lambda session: session.call(host.call))
    assert host.calls == 1


def test_the_work_may_handle_an_error() -> None:
    host = Host(1, KeyError("x"))

    async def careful(session: RetryingSession) -> str:
        try:
            await session.call(host.call)
        except KeyError:
            return "handled"
        return "not handled"

    assert run(careful) == ("handled", [])


def test_other_work_is_not_repeated() -> None:
    host = Host(1)
    with pytest.raises(ConnectionLostError):
        run(lambda session: session.runtime.offload(host.call))
    assert host.calls == 1


def test_an_event_loop_goes_on_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", None)  # nobody may call it
    monkeypatch.setattr("toastrack.stores.backend.LONG_BACKOFF", (0.01,) * 1_000)
    others = 0
    host = Host(10**6)
    backend = Backend()
    backend.runtime = AsyncRuntime()

    async def other() -> None:
        nonlocal others
        for _ in range(3):
            await asyncio.sleep(0)
            others += 1
        host.failures = 0

    async def use() -> str:
        task = asyncio.create_task(other())
        answer: str = await backend.in_session(
            lambda session: session.call(host.call), reads=True, retry="long"
        )
        await task
        return answer

    assert asyncio.run(use()).startswith("answer")
    assert others == 3


def test_a_host_that_is_silent_is_asked_once() -> None:
    """It may still be at work on what it was asked."""

    class Silent(Backend):
        def is_silent(self, error: BaseException) -> bool:
            return isinstance(error, TimeoutError)

    host, runtime = Host(1, TimeoutError("timed out")), NotingRuntime()
    backend = Silent()
    backend.runtime = runtime

    async def ask(session: RetryingSession) -> Any:
        return await session.call(host.call)

    with pytest.raises(ConnectionLostError, match=r"does not answer \(timed out\)"):
        run_sync(backend.in_session(ask, reads=True, retry="long"))
    assert (host.calls, runtime.pauses) == (1, [])
