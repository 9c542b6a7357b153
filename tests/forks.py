"""Work in a forked child, and its answer."""

from __future__ import annotations

import os
import pickle
import signal
import warnings
from collections.abc import Callable
from typing import Generic, TypeVar

import pytest

T = TypeVar("T")

# Far more than any of them takes, so that a busy machine is no failure.
_SECONDS = 300


class Child(Generic[T]):
    """A fork of this process that does one thing and answers with a value or an error."""

    def __init__(self, work: Callable[[], T]) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("this system cannot fork")
        self._answer, answers = os.pipe()
        with warnings.catch_warnings():
            # From Python 3.12 on, where there are other threads: which is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_SECONDS)
            status = 1
            try:
                os.close(self._answer)
                answer: tuple[bool, object]
                try:
                    answer = True, work()
                except Exception as error:
                    answer = False, error
                with os.fdopen(answers, "wb") as file:
                    pickle.dump(answer, file)
                status = 0
            finally:
                os._exit(status)
        os.close(answers)

    def answer(self) -> T:
        """Wait for its end; return its value, or raise its error."""
        with os.fdopen(self._answer, "rb") as file:
            answer = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert status == 0, f"the child ended with {status}"
        succeeded, value = pickle.loads(answer)
        if not succeeded:
            raise value
        result: T = value
        return result
