"""Texts of one caller on their way through the worker, and how the vectors come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from toastrack.models.tokenizer import Tokens
from toastrack.utils import arrays

if TYPE_CHECKING:
    import asyncio

    Result = tuple[list[int], arrays.FloatMatrix]


class Job:
    """Some texts of one caller; its results come a batch at a time, in any order.

    Of each vector ``size`` numbers are kept. The job waits until all texts of the one ``after``
    which it comes are with the engine.
    """

    def __init__(
        self,
        prepare: Callable[[], Sequence[Tokens]],
        *,
        prompt: str,
        size: int,
        after: Job | None = None,
    ) -> None:
        self.prepare = prepare
        self.prompt = prompt
        self.size = size
        self._after = after
        self.skipped_last = False
        self.cancelled = False
        self._waiting: list[tuple[int, Tokens]] | None = None
        self._open = 0

    def must_wait(self) -> bool:
        """Tell whether another job of the caller comes first."""
        if self._after is not None and self._after._is_through():
            self._after = None
        return self._after is not None

    def _is_through(self) -> bool:
        return self.cancelled or (self._waiting is not None and not self._waiting)

    def start(self) -> bool:
        """Tokenise, longest text first; True if there is something to run."""
        if self._waiting is None:
            try:
                tokens = list(self.prepare())
            except BaseException as error:
                self.fail(error)
                return False
            order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i].ids))
            self._waiting = [(position, tokens[position]) for position in reversed(order)]
            self._open = len(tokens)
            if not tokens:
                self.finish()
        return bool(self._waiting) and not self.cancelled

    def priority(self) -> tuple[bool, int]:
        """Say when a started job comes: first if it was skipped, else the longest text first."""
        longest = len(self._waiting[-1][1].ids) if self._waiting else 0
        return (False, 0) if self.skipped_last else (True, -longest)

    def take(
        self, longest: int, taken: int, budget: int, most: int | None = None
    ) -> list[tuple[int, Tokens]]:
        """Hand over texts for a batch that holds ``taken`` already, padded to ``longest``.

        It holds ``most`` texts and, counted so, ``budget`` tokens.
        """
        batch: list[tuple[int, Tokens]] = []
        waiting = self._waiting or []
        while waiting and (most is None or taken + len(batch) < most):
            width = max(longest, len(waiting[-1][1].ids))
            if taken + len(batch) and width * (taken + len(batch) + 1) > budget:
                break
            longest = width
            batch.append(waiting.pop())
        return batch

    def deliver(self, positions: list[int], vectors: arrays.FloatMatrix) -> None:
        """Pass results on, and say so when they were the last."""
        self.keep((positions, vectors))
        self._open -= len(positions)
        if not self._open:
            self.finish()

    def keep(self, result: Result) -> None:
        """Pass one result to the caller."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Pass an error to the caller instead."""
        raise NotImplementedError

    def finish(self) -> None:
        """Tell the caller that this was all."""
        raise NotImplementedError


class StreamedJob(Job):
    """A job whose caller takes each result as it comes."""

    def __init__(
        self,
        prepare: Callable[[], Sequence[Tokens]],
        *,
        prompt: str,
        size: int,
        after: Job | None = None,
    ) -> None:
        super().__init__(prepare, prompt=prompt, size=size, after=after)
        self._results: SimpleQueue[Result | BaseException | None] = SimpleQueue()

    def results(self) -> Iterator[Result]:
        """Yield ``(positions, unit vectors)`` as they are done; stop asking and the rest is dropped."""
        try:
            while (result := self._results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self.cancelled = True

    def cancel(self) -> None:
        """Drop what the engine has not begun; who still waits for results gets an error."""
        self.cancelled = True
        self._results.put(CancelledError())

    def keep(self, result: Result) -> None:
        """Pass one result to the caller."""
        self._results.put(result)

    def fail(self, error: BaseException) -> None:
        """Pass an error to the caller instead."""
        self.cancelled = True
        self._results.put(error)

    def finish(self) -> None:
        """Tell the caller that this was all."""
        self._results.put(None)


class AwaitedJob(Job):
    """A job whose caller awaits all results at once, on the event loop that runs when it is made."""

    def __init__(self, prepare: Callable[[], Sequence[Tokens]], *, prompt: str, size: int) -> None:
        import asyncio

        super().__init__(prepare, prompt=prompt, size=size)
        self.loop = asyncio.get_running_loop()
        self.answered = False
        self._future: asyncio.Future[list[Result]] = self.loop.create_future()
        self._parts: list[Result] = []
        self._error: BaseException | None = None

    async def all_results(self) -> list[Result]:
        """Wait for all results; who is cancelled drops what the engine has not begun."""
        try:
            return await self._future
        finally:
            self.cancelled = True

    def keep(self, result: Result) -> None:
        """Keep a result until all are there."""
        self._parts.append(result)

    def fail(self, error: BaseException) -> None:
        """Keep an error for the caller instead."""
        if self.answered:
            return
        self.cancelled = True
        if isinstance(error, StopIteration):  # no future takes it
            error = RuntimeError(f"The engine raised {error!r}.")
        self._error = error
        self.answered = True

    def finish(self) -> None:
        """Note that this was all."""
        self.answered = True

    def settle(self) -> None:
        """Wake the caller, on its event loop."""
        if self._future.done():
            return
        if self._error is None:
            self._future.set_result(self._parts)
        else:
            self._future.set_exception(self._error)


def answer(jobs: Iterable[Job]) -> None:
    """Give those of them that are finished to the event loops they are awaited on.

    Each loop is called once, as that is what wakes it.
    """
    finished: dict[asyncio.AbstractEventLoop, list[AwaitedJob]] = {}
    for job in jobs:
        if isinstance(job, AwaitedJob) and job.answered:
            finished.setdefault(job.loop, []).append(job)
    for loop, some in finished.items():
        # A loop that is closed, or coming to its end: nobody waits there any more. The worker's
        # thread must go on for the others.
        with suppress(Exception):
            loop.call_soon_threadsafe(_settle, some)


def _settle(jobs: Iterable[AwaitedJob]) -> None:
    for job in jobs:
        job.settle()
