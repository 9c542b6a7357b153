"""The one thread that runs an engine for everybody in the process.

While the engine is busy, work queues up; then the waiting queries go first, as many at once as a
batch holds, and document jobs share what is left, a batch at a time. There is no timer: an idle
engine starts at once.
"""

from __future__ import annotations

import atexit
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from itertools import islice
from queue import SimpleQueue
from threading import Condition, Thread
from typing import TYPE_CHECKING

from toastrack import arrays
from toastrack.engines.base import Engine
from toastrack.tokens import Tokens

# Jobs whose texts are compared in length before a batch is filled.
_COMPARED = 256

if TYPE_CHECKING:
    Result = tuple[list[int], arrays.FloatMatrix]


class Job:
    """Some texts of one caller; its results come a batch at a time, in any order.

    It waits until all texts of the job ``after`` which it comes are with the engine.
    """

    def __init__(
        self,
        prepare: Callable[[], Sequence[Tokens]],
        *,
        prompt: str,
        after: Job | None = None,
    ) -> None:
        self.prepare = prepare
        self.prompt = prompt
        self._after = after
        self.passed_over = False
        self.cancelled = False
        self._results: SimpleQueue[Result | BaseException | None] = SimpleQueue()
        self._waiting: list[tuple[int, Tokens]] | None = None
        self._open = 0

    def results(self) -> Iterator[Result]:
        """Yield ``(positions, raw vectors)`` as they are done; stop asking and the rest is dropped."""
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

    # What follows is the worker's side.

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

    def turn(self) -> tuple[bool, int]:
        """Say when a started job comes: first if it was passed over, else the longest text first."""
        longest = len(self._waiting[-1][1].ids) if self._waiting else 0
        return (False, 0) if self.passed_over else (True, -longest)

    def take(self, longest: int, taken: int, budget: int) -> list[tuple[int, Tokens]]:
        """Hand over texts for a batch that holds ``taken`` already, padded to ``longest``."""
        batch: list[tuple[int, Tokens]] = []
        waiting = self._waiting or []
        while waiting:
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
        self._results.put(result)

    def fail(self, error: BaseException) -> None:
        """Pass an error to the caller instead."""
        self.cancelled = True
        self._results.put(error)

    def finish(self) -> None:
        """Tell the caller that this was all."""
        self._results.put(None)


class FutureJob(Job):
    """A job whose caller waits on a future for all results at once."""

    def __init__(self, prepare: Callable[[], Sequence[Tokens]], *, prompt: str) -> None:
        super().__init__(prepare, prompt=prompt)
        self.future: Future[list[Result]] = Future()
        self.future.add_done_callback(self._stop)
        self._parts: list[Result] = []

    def _stop(self, future: Future[list[Result]]) -> None:
        self.cancelled = True

    def keep(self, result: Result) -> None:
        """Keep a result until all are there."""
        self._parts.append(result)

    def fail(self, error: BaseException) -> None:
        """Pass an error to the caller instead."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def finish(self) -> None:
        """Hand over what was kept."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self._parts)


class EngineWorker:
    """Runs an engine on a thread of its own, which ends when nobody holds the worker any more."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._urgent: deque[Job] = deque()
        self._patient: deque[Job] = deque()
        self._changed = Condition()
        self._thread: Thread | None = None
        self.stopped = False
        weakref.finalize(self, _wake, self._changed).atexit = False
        _running.add(self)

    def submit(self, job: Job, *, urgent: bool) -> None:
        """Queue a job; urgent ones go first, between two batches of any other."""
        with self._changed:
            (self._urgent if urgent else self._patient).append(job)
            if self._thread is None:
                # The thread holds the worker only while there is work.
                self._thread = Thread(
                    target=_serve,
                    args=(weakref.ref(self), self._changed),
                    name="toastrack-engine",
                    daemon=True,
                )
                self._thread.start()
            self._changed.notify()

    def has_work(self) -> bool:
        """Tell whether a job is queued."""
        return bool(self._urgent or self._patient)

    def run_batch(self) -> None:
        """Run one batch and hand out its results; an error goes to those who wait for them."""
        batch = self._next_batch()
        if not batch:
            return
        tokens = [item for _, items in batch for _, item in items]
        try:
            vectors = self.engine.run(tokens, prompt=batch[0][0].prompt)
            start = 0
            for job, items in batch:
                positions = [position for position, _ in items]
                job.deliver(positions, vectors[start : start + len(items)])
                start += len(items)
        except BaseException as error:
            for job, _ in batch:
                job.fail(error)

    def stop(self) -> None:
        """Drop what is queued and wait for the batch that runs."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _next_batch(self) -> list[tuple[Job, list[tuple[int, Tokens]]]]:
        """Fill one batch from the jobs of the first non-empty queue.

        Among those that came since the last batch the longest texts go first, as equal lengths pad
        least; whoever is passed over by that goes before all others the next time.
        """
        with self._changed:
            queue = self._urgent or self._patient
            waiting = list(islice(queue, _COMPARED))
        jobs: list[Job] = []
        for job in waiting:
            if job.must_wait():
                continue
            if job.cancelled or not job.start():
                self._drop(queue, job)
                continue
            jobs.append(job)
        jobs.sort(key=Job.turn)
        batch: list[tuple[Job, list[tuple[int, Tokens]]]] = []
        taken = longest = 0
        full = False
        for job in jobs:
            items = []
            if not full and (not batch or job.prompt == batch[0][0].prompt):
                items = job.take(longest, taken, self.engine.batch_tokens)
                full = not items
            job.passed_over = not items
            if items:
                batch.append((job, items))
                taken += len(items)
                longest = max(longest, *(len(item.ids) for _, item in items))
                self._drop(queue, job, again=job.start())
        return batch

    def _drop(self, queue: deque[Job], job: Job, *, again: bool = False) -> None:
        """Take a job out of its queue; one that has more to do goes to the end."""
        with self._changed:
            queue.remove(job)
            if again:
                queue.append(job)


def _serve(reference: weakref.ref[EngineWorker], changed: Condition) -> None:
    """Run batches while the worker is there."""
    while True:
        with changed:
            worker = reference()
            while worker is not None and not worker.stopped and not worker.has_work():
                worker = None
                # Letting go may have been the end of it, and then nobody wakes us.
                if reference() is not None:
                    changed.wait()
                worker = reference()
        if worker is None or worker.stopped:
            return
        worker.run_batch()
        del worker


_running: weakref.WeakSet[EngineWorker] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """At exit: a thread that is still inside the engine would abort the whole process."""
    for worker in list(_running):
        worker.stop()


_of_parent: list[EngineWorker] = []


def leave_to_parent() -> None:
    """In a forked child: neither stop the parent's workers nor take them apart.

    Their threads are not here to be waited for, which is what an engine's own end may do.
    """
    _of_parent.extend(_running)
    _running.clear()


def _wake(changed: Condition) -> None:
    with changed:
        changed.notify_all()
