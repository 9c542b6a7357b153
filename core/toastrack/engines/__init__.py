"""One engine a model, device and precision, with its worker, shared by all in the process."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Lock
from typing import Literal
from weakref import WeakValueDictionary

from toastrack.engines.worker import EngineWorker, leave_to_parent
from toastrack.forks import after_fork

EngineName = Literal["auto", "sentence-transformers", "openvino", "hosted"]
Precision = Literal["auto", "float32", "bfloat16"]

_workers: WeakValueDictionary[tuple[object, ...], EngineWorker] = WeakValueDictionary()
_lock = Lock()
_loading: dict[tuple[object, ...], Lock] = {}
_forked = False


def shared_worker(
    folder: Path,
    *,
    identity: str,
    engine: EngineName,
    device: str | None,
    precision: Precision,
) -> EngineWorker:
    """Return the worker of the engine for these weights, loading them at most once.

    ``identity`` is the digest of weights, tokenizer and pooling, so that two names of one model
    share an engine and one name with new weights does not.
    """
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine, pick_device

    where = pick_device(device)
    how: Precision = precision
    if precision == "auto":
        how = "bfloat16" if where.startswith("cuda") else "float32"
    key = (identity, "sentence-transformers", where, how)
    with _lock:
        turn = _loading.setdefault(key, Lock())
    with turn:
        worker = _workers.get(key)
        if worker is None:
            if _forked:
                # The OpenMP pool of the parent's torch hangs a child that asks for more than one
                # thread: https://github.com/pytorch/pytorch/issues/17199
                sys.modules["torch"].set_num_threads(1)
            worker = EngineWorker(SentenceTransformersEngine(folder, device=where, precision=how))
            _workers[key] = worker
        return worker


def _start_anew() -> None:
    global _lock, _forked
    _lock = Lock()
    _forked = True
    _loading.clear()
    _workers.clear()
    leave_to_parent()


after_fork(_start_anew)
