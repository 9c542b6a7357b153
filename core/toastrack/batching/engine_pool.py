"""One engine a model, device and precision, with its worker, shared by all in the process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from toastrack.batching.scores import Scores
from toastrack.batching.worker import EngineWorker, leave_to_parent
from toastrack.engines.base import EmbeddingEngine, Engine, RerankingEngine
from toastrack.engines.hosted import HostedEngine, HostedReranker
from toastrack.hosted.server import ModelServer
from toastrack.models.config import ModelConfig
from toastrack.models.engine_choice import EngineKind, RerankerPrecision, RunPrecision
from toastrack.models.engine_choice import EngineName as EngineName
from toastrack.models.engine_choice import Precision as Precision
from toastrack.models.prompts import Role
from toastrack.utils.computing import computing
from toastrack.utils.forks import after_fork

E = TypeVar("E", bound=Engine)

# As many as hide the way to a server and back, and few enough that no server is run over.
_REQUESTS_AT_ONCE = 4

_workers: WeakValueDictionary[tuple[object, ...], EngineWorker[Engine]] = WeakValueDictionary()
_lock = Lock()
# A lock goes with the last who has it: the key would keep a server and its connections.
_loading: WeakValueDictionary[tuple[object, ...], Lock] = WeakValueDictionary()
_forked = False


def shared_worker(
    folder: Path,
    *,
    identity: str,
    engine: EngineKind,
    device: str | None,
    precision: Precision,
) -> EngineWorker[EmbeddingEngine]:
    """Return the worker of the engine for these weights, loading them at most once.

    ``identity`` is the digest of the file that runs, tokenizer and pooling, so that two names of one model
    share an engine and one name with new weights does not.
    """
    where, how = place(engine, device, precision)

    def load() -> EngineWorker[EmbeddingEngine]:
        if engine == "openvino":
            from toastrack.engines.openvino import OpenVinoEngine

            return EngineWorker(OpenVinoEngine(folder, precision=how))
        from toastrack.engines.sentence_transformers import SentenceTransformersEngine

        _spare_threads()
        return EngineWorker(SentenceTransformersEngine(folder, device=where, precision=how))

    return _shared(("embedding", identity, engine, where, how), load)


def shared_reranking_worker(
    folder: Path,
    *,
    identity: str,
    engine: EngineKind,
    device: str | None,
    precision: RerankerPrecision,
) -> EngineWorker[RerankingEngine]:
    """The same for a cross-encoder; "auto" is float32, as less changes the order of documents."""
    where, how = place(engine, device, "float32" if precision == "auto" else precision)

    def load() -> EngineWorker[RerankingEngine]:
        from toastrack.engines.cross_encoder import OpenVinoCrossEncoder, TorchCrossEncoder
        from toastrack.engines.generative_reranker import TorchGenerativeReranker

        if engine == "openvino":
            return EngineWorker(OpenVinoCrossEncoder(folder, precision=how), Scores)
        _spare_threads()
        is_asked = ModelConfig(folder, "reranking").is_generative
        kind = TorchGenerativeReranker if is_asked else TorchCrossEncoder
        return EngineWorker(kind(folder, device=where, precision=how), Scores)

    return _shared(("reranking", identity, engine, where, how), load)


def shared_hosted_worker(server: ModelServer, role: Role) -> EngineWorker[HostedEngine]:
    """Return the worker that asks a server; queries have one, so that no document holds them up.

    Its requests wait for one another, so that queries that come at once share one.
    """
    at_once = 1 if role == "query" else _REQUESTS_AT_ONCE
    return _shared(
        ("hosted", server, role), lambda: EngineWorker(HostedEngine(server), at_once=at_once)
    )


def shared_hosted_reranking_worker(server: ModelServer) -> EngineWorker[HostedReranker]:
    """The same for a reranker, whose requests have one query each."""

    return _shared(
        ("hosted reranking", server),
        lambda: EngineWorker(HostedReranker(server), Scores, at_once=_REQUESTS_AT_ONCE),
    )


def place(engine: EngineKind, device: str | None, precision: Precision) -> tuple[str, RunPrecision]:
    """Return the device and the precision in which an engine runs here."""
    if precision == "int8":
        return "cpu", precision  # the file's own, which only OpenVINO has
    if engine == "openvino":
        from toastrack.engines.openvino import pick_precision

        return "cpu", pick_precision(precision)
    from toastrack.engines.sentence_transformers import pick_device

    where = pick_device(device)
    if precision == "auto":
        return where, "bfloat16" if where.startswith("cuda") else "float32"
    return where, precision


def _spare_threads() -> None:
    if _forked:
        # The OpenMP pool of the parent's torch hangs a child that asks for more than one thread:
        # https://github.com/pytorch/pytorch/issues/17199
        sys.modules["torch"].set_num_threads(1)


def _shared(key: tuple[object, ...], load: Callable[[], EngineWorker[E]]) -> EngineWorker[E]:
    with _lock:
        turn = _loading.setdefault(key, Lock())
    with turn:
        worker: Any = _workers.get(key)  # the key names the kind of its engine
        if worker is None:
            with computing():
                worker = _workers[key] = load()
        return cast("EngineWorker[E]", worker)


def _start_anew() -> None:
    global _lock, _forked
    _lock = Lock()
    _forked = True
    _loading.clear()
    _workers.clear()
    leave_to_parent()


after_fork(_start_anew)
