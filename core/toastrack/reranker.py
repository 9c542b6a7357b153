"""A query and documents in, scores out: the best of what a search found, read once more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import RLock
from typing import Any, TypedDict, get_args
from weakref import WeakSet

from toastrack.batching.encoder import Encoder, HostedPairEncoder, PairEncoder
from toastrack.batching.engine_pool import shared_hosted_reranking_worker, shared_reranking_worker
from toastrack.batching.truncation import OnTruncate, TruncationCounter
from toastrack.batching.worker import EngineWorker
from toastrack.engines.base import RerankingEngine
from toastrack.errors import ModelError
from toastrack.hosted.server import ModelServer, shared_server
from toastrack.hosted.settings import Hosted, Usage, hosted_engine
from toastrack.models.engine_choice import EngineName, RerankerPrecision
from toastrack.models.files import looks_like_path, model_name
from toastrack.models.reranker import RerankerModel
from toastrack.utils import arrays
from toastrack.utils.arguments import (
    check_choice,
    check_positive,
    check_setting,
    check_text,
    checked_texts,
)
from toastrack.utils.forks import after_fork
from toastrack.utils.threads import off_loop

DEFAULT_RERANKER = "mixedbread-ai/mxbai-rerank-base-v1"

# A token of the query and one of the document.
_LEAST_ROOM = 2


class RerankerSettings(TypedDict, total=False):
    """The arguments of ``Reranker``, for a function that hands them on.

        settings: RerankerSettings = {"max_tokens": 256, "on_truncate": "ignore"}
        quick = Reranker(**settings)

    ``Reranker.settings()`` returns them; pickling and copying carry nothing else.
    """

    model: str | os.PathLike[str]
    revision: str | None
    engine: EngineName | Hosted
    device: str | None
    precision: RerankerPrecision
    max_tokens: int | None
    on_truncate: OnTruncate


class Reranker:
    """Reads a query together with each document and says how well they match.

        reranker = Reranker()
        texts = ["Salt the dough.", "Rye bread keeps for a week."]
        for position, score in reranker.rank("which bread stays fresh?", texts):
            print(f"{score:.2f}", texts[position])

    An embedder looks at query and document apart, a reranker at both at once: slower by far and
    better, so it is for the best of what a search found. Building one is free; the model is found,
    downloaded and loaded at the first score. One reranker serves any number of threads and event
    loops, and rerankers of the same model share it in memory. A copy or a pickle carries the
    settings and no weights.

    Args:
        model: A hub name or a local folder: a cross-encoder with one label, such as the family
            mxbai-rerank-v1, or one of mxbai-rerank-v2.
        revision: A branch, tag or commit on the hub; None takes what is cached, else the newest.
        engine: What runs the model: "sentence-transformers", or "openvino" on CPUs, for models
            with an OpenVINO or ONNX file. "auto" is the fastest that is installed and can. "hosted"
            is mixedbread's API, and ``Hosted(base_url=)`` any server with a rerank endpoint; scores
            are then what that server gives, mostly from 0 to 1, and it cuts what is too long.
        device: "cuda", "mps", "cpu", ...; None picks the first of these that is there.
        precision: "auto" is float32 everywhere, as less can change the order of documents.
        max_tokens: Read fewer tokens of a query with its document than the model could, special
            tokens counted.
        on_truncate: What happens to a pair over the limit: "warn" once a call, "error", "ignore".

    Raises:
        ValueError: An argument has a value that it cannot have.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_RERANKER,
        *,
        revision: str | None = None,
        engine: EngineName | Hosted = "auto",
        device: str | None = None,
        precision: RerankerPrecision = "auto",
        max_tokens: int | None = None,
        on_truncate: OnTruncate = "warn",
    ) -> None:
        if not isinstance(engine, Hosted):
            check_choice("engine", engine, get_args(EngineName))
        check_choice("precision", precision, get_args(RerankerPrecision))
        check_choice("on_truncate", on_truncate, get_args(OnTruncate))
        check_setting("revision", revision, none="the newest", example="'main'")
        check_setting("device", device, none="the best one here", example="'cuda:0' or 'cpu'")
        check_positive("max_tokens", max_tokens)
        self._hosted = hosted_engine(
            engine,
            *(["revision"] if revision is not None else []),
            *(["device"] if device is not None else []),
            *(["precision"] if precision != "auto" else []),
            *(["max_tokens"] if max_tokens is not None else []),
        )
        self.model = model_name(model)
        self.revision = revision
        self.engine: EngineName | Hosted = engine
        self.device = device
        self.precision: RerankerPrecision = precision
        self.on_truncate: OnTruncate = on_truncate
        self._max_tokens = max_tokens
        if self._hosted is None and looks_like_path(self.model):
            # A relative folder would be another one after a change of directory.
            self.model = str(Path(self.model).expanduser().absolute())
        self._start()
        _rerankers.add(self)

    def _start(self) -> None:
        self._model = RerankerModel(
            self.model,
            revision=self.revision,
            engine="auto" if isinstance(self.engine, Hosted) else self.engine,
            device=self.device,
            max_tokens=self._max_tokens,
        )
        self._server: ModelServer | None = None
        if self._hosted is not None:
            self._server = shared_server(self.model, self._hosted, None)
        self._lock = RLock()
        self._loaded: EngineWorker[RerankingEngine] | None = None

    def __repr__(self) -> str:
        settings = {name: value for name, value in self.settings().items() if value is not None}
        return f"Reranker({', '.join(f'{name}={value!r}' for name, value in settings.items())})"

    def __getstate__(self) -> RerankerSettings:
        return self.settings()

    def __setstate__(self, settings: RerankerSettings) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    def settings(self) -> RerankerSettings:
        """Return the arguments that build this reranker anew: those that it was given."""
        return {
            "model": self.model,
            "revision": self.revision,
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "max_tokens": self._max_tokens,
            "on_truncate": self.on_truncate,
        }

    # -- what is scored ---------------------------------------------------------------------

    def score(self, query: str, documents: Iterable[str]) -> arrays.FloatVector:
        """Score documents for a query: float32 of shape ``(n,)``, order kept, higher is better.

        The scores are the model's own logits, of any size and sign, and compare for one query. No
        documents give no scores. A document that comes twice is read once.

        Warns:
            TruncationWarning: A query with its document is over the limit and was cut; once a call.

        Raises:
            ValueError: The query is blank.
            TruncationError: One is over the limit and ``on_truncate="error"``; names the document.
            ModelError: The model cannot be found, read or run, or is no reranker.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take the query or a document.
            MissingExtraError: What runs the model is not installed.
        """
        pairs = _Pairs(query, documents, "score")
        if not pairs.different:
            return pairs.nothing()
        truncation = self._truncation()
        rows = self._encoder(query).encode(pairs.different, truncation, pairs.name)
        truncation.warn()
        return pairs.in_order(rows)

    def rank(
        self, query: str, documents: Iterable[str], k: int | None = None
    ) -> list[tuple[int, float]]:
        """Return ``(position, score)`` of the best documents, best first; ties as they were given.

        Args:
            query: What is looked for.
            documents: What was found; a position counts them from 0.
            k: How many are returned at most; None returns all.

        Warns:
            TruncationWarning: A query with its document is over the limit and was cut; once a call.

        Raises:
            ValueError: The query is blank, or ``k`` is no whole number of at least 1.
            TruncationError: One is over the limit and ``on_truncate="error"``; names the document.
            ModelError: The model cannot be found, read or run, or is no reranker.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take the query or a document.
            MissingExtraError: What runs the model is not installed.
        """
        check_positive("k", k)
        return _best(self.score(query, documents), k)

    async def ascore(self, query: str, documents: Iterable[str]) -> arrays.FloatVector:
        """``score``, awaited; the model runs on a thread, never on the event loop.

        Raises:
            ValueError: The query is blank.
            TruncationError: One is over the limit and ``on_truncate="error"``; names the document.
            ModelError: The model cannot be found, read or run, or is no reranker.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take the query or a document.
            MissingExtraError: What runs the model is not installed.
        """
        truncation = self._truncation()
        scores = await self._acounted(query, documents, truncation)
        truncation.warn()
        return scores

    async def arank(
        self, query: str, documents: Iterable[str], k: int | None = None
    ) -> list[tuple[int, float]]:
        """``rank``, awaited; the model runs on a thread, never on the event loop.

        Raises:
            ValueError: The query is blank, or ``k`` is no whole number of at least 1.
            TruncationError: One is over the limit and ``on_truncate="error"``; names the document.
            ModelError: The model cannot be found, read or run, or is no reranker.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take the query or a document.
            MissingExtraError: What runs the model is not installed.
        """
        check_positive("k", k)
        return _best(await self.ascore(query, documents), k)

    def load(self) -> Reranker:
        """Load the model now instead of at the first score, downloading it if it must be.

        Raises:
            ModelError: The model cannot be found, read or run, or is no reranker.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take the query or a document.
            MissingExtraError: What runs the model is not installed.
        """
        self._ready()
        return self

    async def aload(self) -> Reranker:
        """Load the model now, without blocking the event loop; raises what ``load`` does."""
        await off_loop(self._ready)
        return self

    # -- what is known ----------------------------------------------------------------------

    @property
    def max_tokens(self) -> int | Any:  # None is rare enough that few must look for it
        """How many tokens of a query with its document are read, special tokens counted.

        None for a hosted model: its server knows.

        Raises:
            ModelError: The model cannot be found or read, is no reranker, or does not say.
            ValueError: ``max_tokens=`` is over what the model reads.
        """
        return self._model.max_tokens if self._server is None else None

    @property
    def usage(self) -> Usage:
        """How much a hosted model was asked for in this process; see ``Embedder.usage``."""
        return Usage(0, 0) if self._server is None else self._server.usage

    @property
    def running_on(self) -> str:
        """What runs the model, where and in which precision, for people; loads it.

        Raises:
            ModelError: The model cannot be found, read or run, or is no reranker.
            NoAnswerError: Its server does not answer.
            RefusedError: Its server does not take the query or a document.
            MissingExtraError: What runs the model is not installed.
        """
        return str(self._worker().engine) if self._server is None else f"hosted: {self._server}"

    # -- how it is done ---------------------------------------------------------------------

    async def _acounted(
        self, query: str, documents: Iterable[str], truncation: TruncationCounter
    ) -> arrays.FloatVector:
        """Score documents whose tokens somebody else counts, and says what was cut."""
        pairs = _Pairs(query, documents, "ascore")
        if not pairs.different:
            return pairs.nothing()
        if self._loaded is None and self._server is None:
            await off_loop(self._worker)
        rows = await self._encoder(query).aencode(pairs.different, truncation, pairs.name)
        return pairs.in_order(rows)

    def _truncation(self) -> TruncationCounter:
        return TruncationCounter(
            self.on_truncate,
            "Embedder.split, before they are stored",
            loss="What lies behind the limit was not read",
        )

    def _ready(self) -> None:
        """Load the model, or ask its server whether it can be asked."""
        if self._server is None:
            self._worker()
        else:
            self._server.score("ready", ["ready"])

    def _encoder(self, query: str) -> Encoder:
        if self._server is not None:
            return HostedPairEncoder(shared_hosted_reranking_worker(self._server), query)
        return PairEncoder(self._worker(), query, limit=self.max_tokens)

    def _worker(self) -> EngineWorker[RerankingEngine]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> EngineWorker[RerankingEngine]:
        files, limit = self._model.files, self._model.max_tokens
        worker = shared_reranking_worker(
            files.folder(),
            identity=self._model.identity(),
            engine=files.engine,
            device=self.device,
            precision=self.precision,
        )
        room = worker.engine.room_for_pairs(limit)
        if room < _LEAST_ROOM:
            reason = f"leaves no room for text: what stands around a pair takes {limit - room}"
            if self._max_tokens is None:
                raise ModelError(
                    f"{self.model!r} says that it reads {limit} tokens, which {reason}. Its files "
                    "belong to two models; get the model anew."
                )
            raise ValueError(f"max_tokens={limit} {reason}.")
        return worker


class _Pairs:
    """The documents beside one query, each different one once."""

    def __init__(self, query: str, documents: Iterable[str], caller: str) -> None:
        check_text(query, caller)
        if not query.strip():
            raise ValueError(f"{caller} was given a blank query, and nothing matches that.")
        self._texts = checked_texts(documents, caller)
        self._rows: dict[str, int] = {}
        self._firsts: list[int] = []
        for position, text in enumerate(self._texts):
            if text not in self._rows:
                self._rows[text] = len(self._rows)
                self._firsts.append(position)
        self.different = list(self._rows)

    def name(self, row: int) -> str:
        """Name a document by where it was given first."""
        return f"document {self._firsts[row]}"

    def nothing(self) -> arrays.FloatVector:
        """Return the scores of no documents."""
        import numpy as np

        return np.empty(0, dtype=np.float32)

    def in_order(self, rows: arrays.FloatMatrix) -> arrays.FloatVector:
        """Return the score of each document, in the order in which they were given."""
        scores: arrays.FloatVector = rows[[self._rows[text] for text in self._texts], 0]
        return scores


def _best(scores: arrays.FloatVector, k: int | None) -> list[tuple[int, float]]:
    values = scores.tolist()
    order = sorted(range(len(values)), key=lambda position: -values[position])
    return [(position, values[position]) for position in order[:k]]


_rerankers: WeakSet[Reranker] = WeakSet()


def _start_anew() -> None:
    for reranker in list(_rerankers):
        reranker._start()


after_fork(_start_anew)
