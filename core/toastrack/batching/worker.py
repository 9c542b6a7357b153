"""The thread that runs an engine for everybody in the process; some where the engine is elsewhere.

While the engine is busy, work queues up; then the waiting queries go first, as many at once as a
batch holds, and document jobs share what is left, a batch at a time. There is no timer: an idle
engine starts at once.
"""

from __future__ import annotations

import atexit
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice
from threading import Condition, Lock, Thread, current_thread
from typing import Generic, Protocol, TypeVar

from toastrack.batching.jobs import Job, answer
from toastrack.batching.unit_vectors import UnitVectors
from toastrack.engines.base import Engine
from toastrack.errors import ModelError, RefusedError
from toastrack.models.tokenizer import Tokens
from toastrack.utils import arrays
from toastrack.utils.computing import computing

E = TypeVar("E", bound=Engine, covariant=True)

# Jobs whose texts are compared in length before a batch is filled.
_COMPARED = 256


class Results(Protocol):
    """What became of one batch, which can belong to several callers."""

    def rows(self, start: int, end: int) -> arrays.FloatMatrix:
        """Return one caller's rows; raise ``ModelError`` if one of them is of no use."""
        ...


class EngineWorker(Generic[E]):
    """Runs an engine on threads of its own, which end when nobody holds the worker any more.

    ``results`` makes of the engine's rows, and of how many numbers of each are kept, what callers
    get. ``at_once`` batches run at a time: an engine that only asks another machine waits.
    """

    def __init__(
        self,
        engine: E,
        results: Callable[[arrays.FloatMatrix, int], Results] = UnitVectors,
        *,
        at_once: int = 1,
    ) -> None:
        self.engine = engine
        self._results = results
        self._at_once = at_once
        self._queries: deque[Job] = deque()
        self._documents: deque[Job] = deque()
        self._changed = Condition()
        self._filling = Lock()
        self._answering = Lock()
        self._threads: list[Thread] = []
        self.stopped = False
        weakref.finalize(self, _wake, self._changed).atexit = False
        _running.add(self)

    def submit(self, job: Job, *, query: bool) -> None:
        """Queue a job; those of queries go first, between two batches of any other."""
        with self._changed:
            (self._queries if query else self._documents).append(job)
            # Ctrl-C may come to who starts a thread, before it runs or after.
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            while len(self._threads) < self._at_once:
                # A thread holds the worker only while there is work.
                thread = Thread(
                    target=_serve,
                    args=(weakref.ref(self), self._changed),
                    name="toastrack-engine",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def has_thread(self, thread: Thread) -> bool:
        """Tell whether a thread is one of the worker's, and was not taken for one that never ran."""
        return thread in self._threads

    def has_work(self) -> bool:
        """Tell whether a job is queued."""
        return bool(self._queries or self._documents)

    def run_batch(self) -> None:
        """Run one batch and hand out its results; an error goes to those who wait for them."""
        with self._filling:
            batch = self._next_batch()
        if not batch:
            return
        with self._changed:
            self._changed.notify()  # there may be more than one thread, and more work
        self._run(batch)
        answer(job for job, _ in batch)

    def _run(self, batch: Sequence[tuple[Job, list[tuple[int, Tokens]]]]) -> None:
        """Run a batch; what an engine refuses for the texts of one caller is run for each alone."""
        tokens = [item for _, items in batch for _, item in items]
        try:
            # An engine that only asks another machine holds no fork up.
            with nullcontext() if self.engine.may_be_left else computing():
                raw = self.engine.run(tokens, prompt=batch[0][0].prompt)
            cut = {size: self._results(raw, size) for size in {job.size for job, _ in batch}}
            start = 0
            for job, items in batch:
                end = start + len(items)
                try:
                    vectors = cut[job.size].rows(start, end)
                except ModelError as error:
                    job.fail(error)
                else:
                    with self._answering:
                        job.deliver([position for position, _ in items], vectors)
                start = end
        except RefusedError as error:
            if len(batch) == 1:
                batch[0][0].fail(error)
                return
            for part in batch:
                self._run([part])
        except BaseException as error:
            for job, _ in batch:
                job.fail(error)

    def stop(self) -> None:
        """Drop what is queued and wait for the batch that runs, if its engine may not be left."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()
        if not self.engine.may_be_left:
            for thread in self._threads:
                if thread.is_alive():
                    thread.join()

    def _next_batch(self) -> list[tuple[Job, list[tuple[int, Tokens]]]]:
        """Fill one batch from the jobs of the first non-empty queue.

        Among those that came since the last batch the longest texts go first, as equal lengths pad
        least; whoever is skipped by that goes before all others the next time.
        """
        with self._changed:
            queue = self._queries or self._documents
            # However many there are that wait: what they wait for is in the queue behind them.
            waiting = list(islice((job for job in queue if not job.must_wait()), _COMPARED))
        jobs: list[Job] = []
        for job in waiting:
            if job.cancelled or not job.start():
                self._drop(queue, job)
                answer([job])
                continue
            jobs.append(job)
        jobs.sort(key=Job.priority)
        batch: list[tuple[Job, list[tuple[int, Tokens]]]] = []
        taken = longest = 0
        full = False
        for job in jobs:
            items = []
            if not full and (not batch or job.prompt == batch[0][0].prompt):
                items = job.take(longest, taken, self.engine.batch_tokens, self.engine.batch_texts)
                full = not items
            job.skipped_last = not items
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


def _serve(reference: weakref.ref[EngineWorker[Engine]], changed: Condition) -> None:
    """Run batches while the worker is there."""
    with changed:
        worker = reference()
        if worker is None or not worker.has_thread(current_thread()):
            return
        worker = None
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


_running: weakref.WeakSet[EngineWorker[Engine]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """At exit: a thread that is still inside the engine would abort the whole process."""
    for worker in list(_running):
        worker.stop()


_of_parent: list[EngineWorker[Engine]] = []


def leave_to_parent() -> None:
    """In a forked child: neither stop the parent's workers nor take them apart.

    Their threads are not here to be waited for, which is what an engine's own end may do.
    """
    _of_parent.extend(_running)
    _running.clear()


def _wake(changed: Condition) -> None:
    with changed:
        changed.notify_all()
