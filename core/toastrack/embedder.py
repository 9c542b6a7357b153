"""Roles in, unit vectors out: the facade everyone holds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Event, RLock
from typing import TYPE_CHECKING, get_args

from toastrack.digests import weights_digest
from toastrack.engines import EngineName, Precision, shared_worker
from toastrack.engines.worker import EngineWorker, FutureJob, Job
from toastrack.errors import ModelError, UnsupportedError
from toastrack.model_config import PROMPTS_FILE, ModelConfig, read_json
from toastrack.model_files import ModelFiles, looks_like_path, model_name, weight_files
from toastrack.prompts import (
    Prompts,
    Role,
    add_prompt,
    known_prompts,
    resolve_prompts,
    saved_prompts,
)
from toastrack.space import EmbeddingSpace
from toastrack.tokens import Tokenizer, Tokens, check_unicode
from toastrack.truncation import OnTruncate, Truncation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toastrack.engines.base import Engine

    FloatMatrix = NDArray[np.float32]
    FloatVector = NDArray[np.float32]
    Part = tuple[list[int], FloatMatrix]

DEFAULT_MODEL = "mixedbread-ai/mxbai-embed-large-v1"

# Texts that are tokenised and sorted together: enough that batches hold equal lengths, few
# enough that their tokens stay small beside the model.
_WINDOW = 4_096

# Calls of up to this many texts are tokenised by the worker, so that any number of them can be
# awaited at once; larger ones take a thread while they last.
_SHARED = 64


class Embedder:
    """Turns queries and documents into unit vectors, each with the prompt its role needs.

    Building one is free: the model is found, downloaded and loaded at the first text.

        embedder = Embedder()
        embedder.embed_query("why is bread brown?")        # float32, shape (1024,)
        embedder.embed_documents(["The Maillard ..."])     # float32, shape (1, 1024)

    Args:
        model: A hub name or a local folder that ``SentenceTransformer.save`` wrote.
        revision: A branch, tag or commit on the hub; None takes what is cached, else the newest.
        engine: What runs the model; "auto" picks the fastest that is installed.
        device: "cuda", "mps", "cpu", ...; None picks the first of these that is there.
        precision: "auto" is float32 on a CPU and bfloat16 on CUDA. Vectors are always float32.
        query_prompt: Replaces the prompt of queries; None takes the model's own.
        document_prompt: Replaces the prompt of documents; None takes the model's own.
        dimensions: Keep only the first n numbers (Matryoshka) and normalise again.
        max_tokens: Read fewer tokens than the model could; specials and prompt counted.
        on_truncate: What happens to a text over the limit: "warn" once a call, "error", "ignore".
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        engine: EngineName = "auto",
        device: str | None = None,
        precision: Precision = "auto",
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dimensions: int | None = None,
        max_tokens: int | None = None,
        on_truncate: OnTruncate = "warn",
    ) -> None:
        _check_choice("engine", engine, get_args(EngineName))
        _check_choice("precision", precision, get_args(Precision))
        _check_choice("on_truncate", on_truncate, get_args(OnTruncate))
        _check_positive("dimensions", dimensions)
        _check_positive("max_tokens", max_tokens)
        self.model = model_name(model)
        self.revision = revision
        self.engine: EngineName = engine
        self.device = device
        self.precision: Precision = precision
        self.on_truncate: OnTruncate = on_truncate
        self._query_prompt = query_prompt
        self._document_prompt = document_prompt
        self._dimensions = dimensions
        self._max_tokens = max_tokens
        if looks_like_path(self.model):
            # A relative folder would be another one after a change of directory.
            self.model = str(Path(self.model).expanduser().absolute())
        self._start()
        folder = Path(self.model).expanduser()
        if dimensions is not None and self._files.is_local and folder.is_dir():
            # The size is known already, so a wrong one is an error here and not at the first text.
            self._check_dimensions(ModelConfig(folder))

    def _start(self) -> None:
        self._files = ModelFiles(self.model, self.revision)
        self._lock = RLock()
        self._prompts: Prompts | None = None
        self._tokenizer: Tokenizer | None = None
        self._space: EmbeddingSpace | None = None
        self._roomy: set[Role] = set()
        self._model_config: ModelConfig | None = None
        self._loaded: tuple[int, EngineWorker] | None = None

    def __repr__(self) -> str:
        settings = {name: value for name, value in self.settings().items() if value is not None}
        return f"Embedder({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    def __getstate__(self) -> dict[str, object]:
        return self.settings()

    def __setstate__(self, settings: dict[str, object]) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    def settings(self) -> dict[str, object]:
        """Return the arguments that build this embedder anew."""
        return {
            "model": self.model,
            "revision": self.revision,
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "query_prompt": self._query_prompt,
            "document_prompt": self._document_prompt,
            "dimensions": self._dimensions,
            "max_tokens": self._max_tokens,
            "on_truncate": self.on_truncate,
        }

    @classmethod
    def from_space(cls, space: EmbeddingSpace, *, device: str | None = None) -> Embedder:
        """Return the embedder that a recorded space names, with the same prompts and size."""
        return cls(
            space.model,
            device=device,
            revision=space.revision,
            query_prompt=space.query_prompt,
            document_prompt=space.document_prompt,
            dimensions=space.dimensions,
        )

    # -- what is embedded -------------------------------------------------------------------

    def embed_query(self, text: str) -> FloatVector:
        """Embed one search query: float32 of shape ``(dimensions,)``, unit length."""
        if not isinstance(text, str):
            raise TypeError(f"embed_query takes one str, not {type(text).__name__}.")
        vector: FloatVector = self._embed([text], "query", "embed_query")[0]
        return vector

    def embed_queries(self, texts: Iterable[str]) -> FloatMatrix:
        """Embed search queries: float32 of shape ``(n, dimensions)``, unit rows, order kept."""
        return self._embed(texts, "query", "embed_queries")

    def embed_documents(self, texts: Iterable[str]) -> FloatMatrix:
        """Embed texts to be found: float32 of shape ``(n, dimensions)``, unit rows, order kept."""
        return self._embed(texts, "document", "embed_documents")

    def load(self) -> Embedder:
        """Load the model now instead of at the first text."""
        self._worker()
        return self

    async def aembed_query(self, text: str) -> FloatVector:
        """``embed_query``, awaited; the model runs on a thread, never on the event loop."""
        if not isinstance(text, str):
            raise TypeError(f"aembed_query takes one str, not {type(text).__name__}.")
        vector: FloatVector = (await self._aembed([text], "query", "aembed_query"))[0]
        return vector

    async def aembed_queries(self, texts: Iterable[str]) -> FloatMatrix:
        """``embed_queries``, awaited; the model runs on a thread, never on the event loop."""
        return await self._aembed(texts, "query", "aembed_queries")

    async def aembed_documents(self, texts: Iterable[str]) -> FloatMatrix:
        """``embed_documents``, awaited; the model runs on a thread, never on the event loop."""
        return await self._aembed(texts, "document", "aembed_documents")

    async def aload(self) -> Embedder:
        """Load the model now, without blocking the event loop."""
        import asyncio

        await asyncio.to_thread(self._worker)
        return self

    # -- what is known ----------------------------------------------------------------------

    @property
    def prompts(self) -> Prompts:
        """Both prompts and where each came from; known without the model's weights."""
        with self._lock:
            if self._prompts is None:
                prompts = self._resolve_prompts()
                if self._files.cached_folder() is None:
                    return prompts  # the model itself may say otherwise once it is here
                self._prompts = prompts
            return self._prompts

    @property
    def query_prompt(self) -> str:
        """The text put in front of every query."""
        return self.prompts.query

    @property
    def document_prompt(self) -> str:
        """The text put in front of every document."""
        return self.prompts.document

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text are read, specials and prompt counted."""
        limit = self._config().max_tokens
        if self._max_tokens is None:
            if limit is None:
                raise ModelError(
                    f"{self.model!r} does not say how many tokens it reads. Give max_tokens=."
                )
            return limit
        if limit is not None and self._max_tokens > limit:
            raise ValueError(
                f"max_tokens={self._max_tokens} is over the {limit} of {self.model!r}."
            )
        return self._max_tokens

    @property
    def dimensions(self) -> int:
        """The size of every vector."""
        return self._check_dimensions(self._config())

    @property
    def space(self) -> EmbeddingSpace:
        """The identity of this embedder's vectors; takes the weights, but does not load them."""
        if self._space is None:
            with self._lock:
                folder = self._files.folder()
                config = ModelConfig(folder)
                self._space = EmbeddingSpace(
                    weights=weights_digest(weight_files(folder)),
                    tokenizer=config.tokenizer_digest(),
                    pooling=config.pooling_digest(),
                    query_prompt=self.query_prompt,
                    document_prompt=self.document_prompt,
                    dimensions=self.dimensions,
                    model=self.model,
                    revision=self._files.commit(),
                )
        return self._space

    @property
    def known_space(self) -> EmbeddingSpace | None:
        """The space, or None while it would take a download to know it."""
        return self.space if self._space or self._files.cached_folder() else None

    @property
    def running_on(self) -> str:
        """What runs the model, where and how, for people; loads it."""
        return str(self._engine())

    def count_tokens(self, text: str, role: Role = "document") -> int:
        """Count the tokens of a text as the model would read it: specials and prompt included.

        Nothing is cut, so a count over ``max_tokens`` says that the text does not fit.
        """
        return self.tokenizer.count(add_prompt(self.prompts.of(role), text))

    def split(self, text: str, max_tokens: int | None = None, overlap: int = 0) -> list[str]:
        """Split a document into chunks that fit, measured by the model's own tokenizer.

        Args:
            text: The document; if it fits it comes back whole, blank text too.
            max_tokens: The limit of a chunk, specials and document prompt counted.
            overlap: How many tokens of one chunk are repeated at the start of the next.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        _check_positive("max_tokens", limit)
        if limit > self.max_tokens:
            raise ValueError(f"max_tokens={limit} is over this embedder's {self.max_tokens}.")
        return self.tokenizer.split(
            text, max_tokens=limit, overlap=overlap, prompt=self.document_prompt
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer; known without its weights in memory."""
        if self._worker_here is not None:
            return self._worker_here.engine.tokenizer
        if self._tokenizer is None:
            with self._lock:
                self._tokenizer = Tokenizer.from_folder(
                    self._files.folder(), lower_case=self._config().lower_cases
                )
        return self._tokenizer

    # -- how it is done ---------------------------------------------------------------------

    def _embed(self, texts: Iterable[str], role: Role, caller: str) -> FloatMatrix:
        checked = _check_texts(texts, caller)
        truncation = Truncation(self.on_truncate)
        result = _collect(
            self.embed_in_batches(checked, role, truncation), len(checked), self.dimensions
        )
        truncation.warn()
        return result

    async def _aembed(self, texts: Iterable[str], role: Role, caller: str) -> FloatMatrix:
        import asyncio

        checked = _check_texts(texts, caller)
        truncation = Truncation(self.on_truncate)
        if self._worker_here is None:
            await asyncio.to_thread(self._worker)
        if len(checked) > _SHARED:
            stopped = Event()
            parts = _until(stopped, self.embed_in_batches(checked, role, truncation))
            try:
                result = await asyncio.to_thread(
                    lambda: _collect(parts, len(checked), self.dimensions)
                )
            except asyncio.CancelledError:
                stopped.set()
                raise
        else:
            job = FutureJob(
                lambda: self._prepare(checked, role, truncation, first=0),
                prompt=self.prompts.of(role),
            )
            self._worker().submit(job, urgent=role == "query")
            done = await asyncio.wrap_future(job.future)
            size = self.dimensions
            result = _collect(
                ((positions, _unit(raw[:, :size])) for positions, raw in done), len(checked), size
            )
        truncation.warn()
        return result

    def embed_in_batches(
        self, texts: Sequence[str], role: Role, truncation: Truncation
    ) -> Iterator[tuple[list[int], FloatMatrix]]:
        """Yield ``(positions, unit vectors)`` of each engine batch as soon as it is done.

        For code that writes vectors away while the next ones are computed. What was cut is
        counted in ``truncation``.
        """
        size = self.dimensions
        for start in range(0, len(texts), _WINDOW):
            prepared = self._prepare(texts[start : start + _WINDOW], role, truncation, first=start)
            job = Job(partial(list, prepared), prompt=self.prompts.of(role))
            self._worker().submit(job, urgent=role == "query")
            for positions, raw in job.results():
                yield [start + position for position in positions], _unit(raw[:, :size])

    def _prepare(
        self, texts: Sequence[str], role: Role, truncation: Truncation, *, first: int
    ) -> list[Tokens]:
        prompt, limit = self.prompts.of(role), self.max_tokens
        if role not in self._roomy:
            used = self.tokenizer.count(prompt)
            if used >= limit:
                raise ValueError(
                    f"max_tokens={limit} leaves no room for text: the prompt and the special "
                    f"tokens of a {role} take {used}."
                )
            self._roomy.add(role)
        prompted = [add_prompt(prompt, text) for text in texts]
        try:
            prepared = self._engine().prepare(prompted, limit)
        except ValueError:
            for position, text in enumerate(texts, start=first):
                check_unicode(text, f"text {position}")
            raise
        truncation.add([tokens.uncut for tokens in prepared], limit, first=first)
        return prepared

    @property
    def _worker_here(self) -> EngineWorker | None:
        """The worker, if it was made in this process: threads do not survive a fork."""
        return self._loaded[1] if self._loaded and self._loaded[0] == os.getpid() else None

    def _worker(self) -> EngineWorker:
        worker = self._worker_here
        if worker is None:
            with self._lock:
                worker = self._worker_here or self._load()
                self._loaded = (os.getpid(), worker)
        return worker

    def _engine(self) -> Engine:
        return self._worker().engine

    def _load(self) -> EngineWorker:
        if self.engine not in ("auto", "sentence-transformers"):
            raise UnsupportedError(
                f"engine={self.engine!r} is not part of this version. Leave it at 'auto'."
            )
        self._check_dimensions(self._config())
        space = self.space
        return shared_worker(
            self._files.folder(),
            identity=f"{space.weights} {space.tokenizer} {space.pooling}",
            engine=self.engine,
            device=self.device,
            precision=self.precision,
        )

    def _config(self) -> ModelConfig:
        if self._model_config is None:
            self._model_config = ModelConfig(self._files.folder())
        return self._model_config

    def _check_dimensions(self, config: ModelConfig) -> int:
        size = config.dimensions
        if self._dimensions is None:
            return size
        if self._dimensions > size:
            raise ValueError(
                f"dimensions={self._dimensions} is more than the {size} that {self.model!r} makes."
            )
        return self._dimensions

    def _resolve_prompts(self) -> Prompts:
        saved = None
        if self._query_prompt is None or self._document_prompt is None:
            saved = self._saved_prompts()
        return resolve_prompts(
            # A folder may be named like a well-known model and be another.
            "" if self._files.is_local else self.model,
            query=self._query_prompt,
            document=self._document_prompt,
            saved=saved,
        )

    def _saved_prompts(self) -> dict[Role, str] | None:
        if self._files.cached_folder() is None and known_prompts(self.model):
            return None  # what the table says needs no network
        path = self._files.small_file(PROMPTS_FILE)
        return None if path is None else saved_prompts(read_json(path))


def _check_texts(texts: Iterable[str], caller: str) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"{caller} takes a list of texts and was given one str. Write [text].")
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(
                f"{caller} takes str, but text {position} is {type(text).__name__}: {text!r:.40}."
            )
    return checked


def _until(stopped: Event, parts: Iterator[Part]) -> Iterator[Part]:
    """Pass parts on until somebody has stopped waiting for them."""
    for part in parts:
        if stopped.is_set():
            return
        yield part


def _collect(parts: Iterable[tuple[list[int], FloatMatrix]], rows: int, size: int) -> FloatMatrix:
    """Put batches back into the order of the texts: float32 of shape ``(rows, size)``."""
    import numpy as np

    result = np.empty((rows, size), dtype=np.float32)
    for positions, vectors in parts:
        result[positions] = vectors
    return result


def _unit(vectors: FloatMatrix) -> FloatMatrix:
    """Scale rows to length 1; a row that has no direction is an error, not a NaN."""
    import numpy as np

    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise ModelError(
            "The model returned a vector that is zero or not finite. Its weights are damaged, or "
            "precision= is too low for it."
        )
    unit: FloatMatrix = (vectors / norms).astype(np.float32)
    return unit


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")
