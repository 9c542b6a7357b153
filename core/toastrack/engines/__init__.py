"""One engine a model, device and precision, shared by everything in the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Literal
from weakref import WeakValueDictionary

from toastrack.engines.base import Engine

EngineName = Literal["auto", "sentence-transformers", "openvino", "hosted"]
Precision = Literal["auto", "float32", "bfloat16"]

_engines: WeakValueDictionary[tuple[object, ...], Engine] = WeakValueDictionary()
_lock = Lock()
_loading: dict[tuple[object, ...], Lock] = {}


def shared_engine(
    folder: Path,
    *,
    identity: str,
    engine: EngineName,
    device: str | None,
    precision: Precision,
) -> Engine:
    """Return the engine for these weights, loading it at most once in this process.

    ``identity`` is the digest of weights, tokenizer and pooling, so that two names of one model
    share an engine and one name with new weights does not.
    """
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine, pick_device

    where = pick_device(device)
    how: Precision = precision
    if precision == "auto":
        how = "bfloat16" if where.startswith("cuda") else "float32"
    # A forked child must not touch its parent's torch threads.
    key = (os.getpid(), identity, "sentence-transformers", where, how)
    return _once(key, lambda: SentenceTransformersEngine(folder, device=where, precision=how))


def _once(key: tuple[object, ...], load: Callable[[], Engine]) -> Engine:
    with _lock:
        turn = _loading.setdefault(key, Lock())
    with turn:
        engine = _engines.get(key)
        if engine is None:
            engine = load()
            _engines[key] = engine
        return engine
