"""Texts of one role through the worker of an engine, and out as unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from toastrack import arrays
from toastrack.engines.worker import EngineWorker, FutureJob, Job
from toastrack.errors import ModelError
from toastrack.prompts import Role, add_prompt
from toastrack.tokens import Tokens, check_unicode
from toastrack.truncation import Truncation

if TYPE_CHECKING:
    Part = tuple[list[int], arrays.FloatMatrix]

# Texts that are tokenised and sorted together: enough that batches hold equal lengths, few
# enough that their tokens stay small beside the model.
_WINDOW = 4_096

# Calls of up to this many texts are tokenised by the worker, so that any number of them can be
# awaited at once; larger ones take a thread while they last.
_SHARED = 64


class Embedding:
    """How texts of one role become vectors: the prompt in front, cut at the limit, at length 1.

    ``size`` is how many numbers of a vector are kept.
    """

    def __init__(
        self, worker: EngineWorker, role: Role, *, prompt: str, limit: int, size: int
    ) -> None:
        used = worker.engine.tokenizer.count(prompt)
        if used >= limit:
            raise ValueError(
                f"max_tokens={limit} leaves no room for text: the prompt and the special "
                f"tokens of a {role} take {used}."
            )
        self._worker = worker
        self._prompt = prompt
        self._limit = limit
        self._size = size
        self._urgent = role == "query"

    def batches(self, texts: Sequence[str], truncation: Truncation) -> Iterator[Part]:
        """Yield ``(positions, unit vectors)`` of each engine batch as soon as it is done."""
        for start in range(0, len(texts), _WINDOW):
            tokens = self._prepare(texts[start : start + _WINDOW], truncation, first=start)
            job = Job(partial(list, tokens), prompt=self._prompt)
            self._worker.submit(job, urgent=self._urgent)
            for positions, raw in job.results():
                yield [start + position for position in positions], self._unit(raw)

    def matrix(self, texts: Sequence[str], truncation: Truncation) -> arrays.FloatMatrix:
        """Return one unit vector a text, in the order of the texts."""
        return self._collect(self.batches(texts, truncation), len(texts))

    async def amatrix(self, texts: Sequence[str], truncation: Truncation) -> arrays.FloatMatrix:
        """``matrix``, awaited; a call that is cancelled is dropped after the batch that runs."""
        import asyncio

        if len(texts) > _SHARED:
            stopped = Event()
            parts = _until(stopped, self.batches(texts, truncation))
            try:
                return await asyncio.to_thread(self._collect, parts, len(texts))
            except asyncio.CancelledError:
                stopped.set()
                raise
        job = FutureJob(
            partial(self._prepare, texts, truncation, first=0),
            prompt=self._prompt,
        )
        self._worker.submit(job, urgent=self._urgent)
        done = await asyncio.wrap_future(job.future)
        return self._collect(((positions, self._unit(raw)) for positions, raw in done), len(texts))

    def _prepare(self, texts: Sequence[str], truncation: Truncation, *, first: int) -> list[Tokens]:
        prompted = [add_prompt(self._prompt, text) for text in texts]
        try:
            prepared = self._worker.engine.prepare(prompted, self._limit)
        except ValueError:
            for position, text in enumerate(texts, start=first):
                check_unicode(text, f"text {position}")
            raise
        truncation.add([tokens.uncut for tokens in prepared], self._limit, first=first)
        return prepared

    def _unit(self, raw: arrays.FloatMatrix) -> arrays.FloatMatrix:
        """Scale rows to length 1; a row that has no direction is an error, not a NaN."""
        import numpy as np

        vectors = raw[:, : self._size]
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            raise ModelError(
                "The model returned a vector that is zero or not finite. Its weights are damaged, "
                "or precision= is too low for it."
            )
        unit: arrays.FloatMatrix = (vectors / norms).astype(np.float32)
        return unit

    def _collect(self, parts: Iterable[Part], rows: int) -> arrays.FloatMatrix:
        """Put batches back into the order of the texts: float32 of shape ``(rows, size)``."""
        import numpy as np

        result = np.empty((rows, self._size), dtype=np.float32)
        for positions, vectors in parts:
            result[positions] = vectors
        return result


def _until(stopped: Event, parts: Iterator[Part]) -> Iterator[Part]:
    """Pass parts on until somebody has stopped waiting for them."""
    for part in parts:
        if stopped.is_set():
            return
        yield part
