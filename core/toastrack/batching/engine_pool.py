"""One engine a model, device and precision, with its worker, shared by all in the process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal
from weakref import WeakValueDictionary

from toastrack.batching.worker import EngineWorker, leave_to_parent
from toastrack.engines.base import Engine
from toastrack.models.engine_choice import EngineKind
from toastrack.models.engine_choice import EngineName as EngineName
from toastrack.utils.forks import after_fork

Precision = Literal["auto", "float32", "bfloat16"]

_workers: WeakValueDictionary[tuple[object, ...], EngineWorker] = WeakValueDictionary()
_lock = Lock()
_loading: dict[tuple[object, ...], Lock] = {}
_forked = False


def shared_worker(
    folder: Path,
    *,
    identity: str,
    engine: EngineKind,
    device: str | None,
    precision: Precision,
) -> EngineWorker:
    """Return the worker of the engine for these weights, loading them at most once.

    ``identity`` is the digest of the file that runs, tokenizer and pooling, so that two names of one model
    share an engine and one name with new weights does not.
    """
    where, how, load = _SPECS[engine](folder, device, precision)
    key = (identity, engine, where, how)
    with _lock:
        turn = _loading.setdefault(key, Lock())
    with turn:
        worker = _workers.get(key)
        if worker is None:
            worker = _workers[key] = EngineWorker(load())
        return worker


EngineSpec = tuple[str, Precision, Callable[[], Engine]]
"""Device, precision, and what loads the engine for them."""


def _sentence_transformers(folder: Path, device: str | None, precision: Precision) -> EngineSpec:
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine, pick_device

    where = pick_device(device)
    how = precision
    if precision == "auto":
        how = "bfloat16" if where.startswith("cuda") else "float32"

    def load() -> Engine:
        if _forked:
            # The OpenMP pool of the parent's torch hangs a child that asks for more than one
            # thread: https://github.com/pytorch/pytorch/issues/17199
            sys.modules["torch"].set_num_threads(1)
        return SentenceTransformersEngine(folder, device=where, precision=how)

    return where, how, load


def _openvino(folder: Path, device: str | None, precision: Precision) -> EngineSpec:
    from toastrack.engines.openvino import OpenVinoEngine, pick_precision

    how = pick_precision(precision)
    return "cpu", how, partial(OpenVinoEngine, folder, precision=how)


_SPECS: dict[EngineKind, Callable[[Path, str | None, Precision], EngineSpec]] = {
    "sentence-transformers": _sentence_transformers,
    "openvino": _openvino,
}


def _start_anew() -> None:
    global _lock, _forked
    _lock = Lock()
    _forked = True
    _loading.clear()
    _workers.clear()
    leave_to_parent()


after_fork(_start_anew)
