"""Texts through the worker of an engine, and its results back in the order of the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

from toastrack.batching.jobs import AwaitedJob, StreamedJob
from toastrack.batching.truncation import TruncationCounter, numbered
from toastrack.batching.worker import EngineWorker
from toastrack.engines.base import EmbeddingEngine, Engine, RerankingEngine
from toastrack.engines.hosted import HostedEngine, HostedReranker
from toastrack.models.prompts import Role, add_prompt
from toastrack.models.tokenizer import Tokenizer, Tokens
from toastrack.utils import arrays
from toastrack.utils.text import check_unicode
from toastrack.utils.threads import off_loop

if TYPE_CHECKING:
    Part = tuple[list[int], arrays.FloatMatrix]

# Texts that are tokenised and sorted together: enough that batches hold equal lengths, few
# enough that their tokens stay small beside the model.
_WINDOW = 4_096

# Calls of up to this many texts are tokenised by the worker, so that any number of them can be
# awaited at once; larger ones take a thread while they last.
_SHARED = 64


class Encoder:
    """How texts become rows of numbers, cut at the limit; ``tokens`` says how they are read.

    ``size`` is how many numbers of a row are kept. Somebody waits for those that are ``urgent``.
    """

    def __init__(
        self,
        worker: EngineWorker[Engine],
        tokens: Callable[[Sequence[str]], list[Tokens]],
        *,
        prompt: str,
        limit: int,
        size: int,
        urgent: bool,
    ) -> None:
        self._worker = worker
        self._tokens = tokens
        self._prompt = prompt
        self._limit = limit
        self._size = size
        self._urgent = urgent

    def start(
        self,
        texts: Sequence[str],
        truncation: TruncationCounter,
        *,
        first: int,
        name: Callable[[int], str],
        after: StreamedJob | None,
    ) -> StreamedJob:
        """Tokenise texts and queue them behind a job of the same caller.

        ``first`` is the position of the first of them, and ``name`` says which text a position is.
        """
        tokens = self._prepare(texts, truncation, first=first, name=name)
        job = StreamedJob(partial(list, tokens), prompt=self._prompt, size=self._size, after=after)
        self._worker.submit(job, query=self._urgent)
        return job

    def finished(self, job: StreamedJob, *, first: int) -> Iterator[Part]:
        """Yield ``(positions, rows)`` of each engine batch as soon as it is done."""
        for positions, vectors in job.results():
            yield [first + position for position in positions], vectors

    def encode(
        self,
        texts: Sequence[str],
        truncation: TruncationCounter,
        name: Callable[[int], str] = numbered,
    ) -> arrays.FloatMatrix:
        """Return one row a text, in the order of the texts: float32 of shape ``(n, size)``.

        ``name`` says for errors which text a position is.
        """
        return self._collect(EncodingStream(lambda: self, truncation).add(texts, name), len(texts))

    async def aencode(
        self,
        texts: Sequence[str],
        truncation: TruncationCounter,
        name: Callable[[int], str] = numbered,
    ) -> arrays.FloatMatrix:
        """``encode``, awaited; a call that is cancelled is dropped after the batch that runs."""
        import asyncio

        if len(texts) > _SHARED:
            stopped, stream = Event(), EncodingStream(lambda: self, truncation)

            def embed() -> arrays.FloatMatrix:
                return self._collect(_until(stopped, stream.add(texts, name)), len(texts))

            try:
                return await off_loop(embed)
            except asyncio.CancelledError:
                stopped.set()
                stream.close()
                raise
        job = AwaitedJob(
            partial(self._prepare, texts, truncation, first=0, name=name),
            prompt=self._prompt,
            size=self._size,
        )
        self._worker.submit(job, query=self._urgent)
        return self._collect(await job.all_results(), len(texts))

    def _prepare(
        self,
        texts: Sequence[str],
        truncation: TruncationCounter,
        *,
        first: int,
        name: Callable[[int], str],
    ) -> list[Tokens]:
        try:
            prepared = self._tokens(texts)
        except ValueError:
            for position, text in enumerate(texts, start=first):
                check_unicode(text, name(position))
            raise
        truncation.add([tokens.uncut for tokens in prepared], self._limit, first=first, name=name)
        return prepared

    def _collect(self, parts: Iterable[Part], rows: int) -> arrays.FloatMatrix:
        """Put batches back into the order of the texts: float32 of shape ``(rows, size)``."""
        import numpy as np

        result = np.empty((rows, self._size), dtype=np.float32)
        for positions, vectors in parts:
            result[positions] = vectors
        return result


class RoleEncoder(Encoder):
    """How texts of one role become vectors: the prompt in front, cut at the limit, at length 1."""

    def __init__(
        self,
        worker: EngineWorker[EmbeddingEngine],
        role: Role,
        *,
        prompt: str,
        limit: int,
        size: int,
    ) -> None:
        used = worker.engine.tokenizer.count(prompt)
        if used >= limit:
            raise ValueError(
                f"max_tokens={limit} leaves no room for text: the prompt and the special "
                f"tokens of a {role} take {used}."
            )

        def tokens(texts: Sequence[str]) -> list[Tokens]:
            return worker.engine.prepare([add_prompt(prompt, text) for text in texts], limit)

        urgent = role == "query"
        super().__init__(worker, tokens, prompt=prompt, limit=limit, size=size, urgent=urgent)


class HostedEncoder(Encoder):
    """How texts of one role become vectors on a server: what a text needs for its prompt is sent.

    Without a tokenizer nothing is known of their tokens, and the server cuts them or refuses.
    """

    def __init__(
        self,
        worker: EngineWorker[HostedEngine],
        role: Role,
        *,
        prompt: str,
        tokenizer: Tokenizer | None,
        limit: int,
        size: int,
    ) -> None:
        def tokens(texts: Sequence[str]) -> list[Tokens]:
            return worker.engine.prepare(texts, prompt, tokenizer, limit)

        super().__init__(
            worker,
            tokens,
            prompt=worker.engine.wire_prompt(role, prompt),
            limit=limit,
            size=size,
            urgent=role == "query",
        )


class HostedPairEncoder(Encoder):
    """How documents become scores beside one query on a server, which may cut them."""

    def __init__(self, worker: EngineWorker[HostedReranker], query: str) -> None:
        check_unicode(query, "the query")
        super().__init__(worker, worker.engine.prepare, prompt=query, limit=0, size=1, urgent=True)


class PairEncoder(Encoder):
    """How documents become scores beside one query: rows of one number, the model's own logit."""

    def __init__(self, worker: EngineWorker[RerankingEngine], query: str, *, limit: int) -> None:
        def tokens(documents: Sequence[str]) -> list[Tokens]:
            return worker.engine.prepare_pairs(query, documents, limit)

        super().__init__(worker, tokens, prompt="", limit=limit, size=1, urgent=True)


class EncodingStream:
    """Texts that are embedded in the order they were added, while their caller does other things.

    ``encoder`` is asked for with the first text, since it takes the engine.
    """

    def __init__(self, encoder: Callable[[], Encoder], truncation: TruncationCounter) -> None:
        self._encoder = encoder
        self._truncation = truncation
        self._last: StreamedJob | None = None
        self._jobs: WeakSet[StreamedJob] = WeakSet()
        self._lock = Lock()
        self._closed = False

    def add(self, texts: Sequence[str], name: Callable[[int], str] = numbered) -> Iterator[Part]:
        """Tokenise and queue texts now; yield ``(positions, rows)`` of each engine batch.

        ``name`` says for errors which text a position is. Of very many texts the engine has the
        next window while the vectors of one are taken.
        """
        if not texts:
            return iter(())
        return self._parts(texts, name, self._start(texts, 0, name))

    def close(self) -> None:
        """Drop what the engine has not begun."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()

    def _start(self, texts: Sequence[str], first: int, name: Callable[[int], str]) -> StreamedJob:
        window = texts[first : first + _WINDOW]
        self._last = self._encoder().start(
            window, self._truncation, first=first, name=name, after=self._last
        )
        with self._lock:
            self._jobs.add(self._last)
            closed = self._closed
        if closed:
            self._last.cancel()
        return self._last

    def _parts(
        self, texts: Sequence[str], name: Callable[[int], str], job: StreamedJob
    ) -> Iterator[Part]:
        for first in range(0, len(texts), _WINDOW):
            following = first + _WINDOW
            ahead = job
            try:
                if following < len(texts):
                    ahead = self._start(texts, following, name)
                yield from self._encoder().finished(job, first=first)
            except BaseException:
                job.cancel()
                ahead.cancel()
                raise
            job = ahead


def _until(stopped: Event, parts: Iterator[Part]) -> Iterator[Part]:
    """Pass parts on until somebody has stopped waiting for them."""
    for part in parts:
        if stopped.is_set():
            return
        yield part
