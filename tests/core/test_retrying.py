"""Calls are repeated a few times, other work never, and an event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from toastrack.stores.retrying import PATIENT, retried
from toastrack.stores.steps import Ask, Pause, Slow, Steps, aask, arun_steps, ask, run_steps


class Away(Exception):
    """The host does not answer."""


def is_away(error: BaseException) -> bool:
    return isinstance(error, Away)


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


def work(*functions: Callable[[], Any]) -> Steps[list[Any]]:
    answers = []
    for function in functions:
        answers.append((yield Ask(function)))
    return answers


def run(steps: Steps[Any]) -> tuple[Any, list[float]]:
    """Run steps without waiting; return the result and the pauses."""
    pauses: list[float] = []

    def noting() -> Steps[Any]:
        inner = retried(steps, is_away, patient=True)
        answer = None
        try:
            step = next(inner)
            while True:
                if isinstance(step, Pause):
                    pauses.append(step.seconds)
                    step = inner.send(None)
                    continue
                try:
                    answer = yield step
                except Exception as error:
                    step = inner.throw(error)
                else:
                    step = inner.send(answer)
        except StopIteration as stop:
            return stop.value

    return run_steps(noting(), ask), pauses


@pytest.mark.parametrize("failures", [0, 1, len(PATIENT)])
def test_a_call_is_repeated_until_it_is_answered(failures: int) -> None:
    first, second = Host(0), Host(failures)
    answers, pauses = run(work(first.call, second.call, first.call))
    assert answers == ["answer 1", f"answer {failures + 1}", "answer 2"]
    assert tuple(pauses) == PATIENT[:failures]


def test_it_is_given_up() -> None:
    host = Host(99)
    with pytest.raises(Away):
        run(work(host.call))
    assert host.calls == len(PATIENT) + 1


def test_other_errors_are_raised_at_once() -> None:
    host = Host(1, KeyError("x"))
    with pytest.raises(KeyError):
        run(work(host.call))
    assert host.calls == 1


def test_the_work_may_handle_an_error() -> None:
    host = Host(1, KeyError("x"))

    def careful() -> Steps[str]:
        try:
            yield Ask(host.call)
        except KeyError:
            return "handled"
        return "not handled"

    assert run(careful()) == ("handled", [])


def test_slow_work_is_not_repeated() -> None:
    host = Host(1)

    def slow() -> Steps[str]:
        answer: str = yield Slow(host.call)
        return answer

    with pytest.raises(Away):
        run_steps(retried(slow(), is_away, patient=True), ask)
    assert host.calls == 1


def test_an_event_loop_goes_on_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toastrack.stores.steps.time.sleep", None)  # nobody may call it
    monkeypatch.setattr("toastrack.stores.retrying.PATIENT", (0.01,) * 1_000)
    others = 0
    host = Host(10**6)

    async def other() -> None:
        nonlocal others
        for _ in range(3):
            await asyncio.sleep(0)
            others += 1
        host.failures = 0

    async def use() -> list[Any]:
        task = asyncio.create_task(other())
        answers = await arun_steps(retried(work(host.call), is_away, patient=True), aask)
        await task
        return answers

    assert len(asyncio.run(use())) == 1
    assert others == 3
