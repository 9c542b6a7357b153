"""Asking a host again that was away for a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from toastrack.stores.steps import Ask, Pause, Steps

T = TypeVar("T")

# Seconds to wait before each further try: a server that is restarted is back within a few. The
# first try comes at once, as often only the connection died.
PATIENT = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0)
# Somebody waits for the answer to a question: only a server that is back already is asked again.
BRIEF = (0.0, 0.1, 0.3)


def retried(
    steps: Steps[T], may_retry: Callable[[BaseException], bool], *, patient: bool
) -> Steps[T]:
    """Run work and repeat each of its calls while ``may_retry`` says that the error will pass.

    Only a call is repeated, not the work; so each must be harmless to do twice, as the host may
    have done it before its answer was lost.
    """
    try:
        step = next(steps)
        while True:
            try:
                answer = yield from _asked(step, may_retry, PATIENT if patient else BRIEF)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _asked(
    step: Any, may_retry: Callable[[BaseException], bool], pauses: Sequence[float]
) -> Steps[Any]:
    if isinstance(step, Ask):
        for seconds in pauses:
            try:
                return (yield step)
            except Exception as error:
                if not may_retry(error):
                    raise
            yield Pause(seconds)
    return (yield step)
