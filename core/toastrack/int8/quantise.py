"""Static quantisation after training, with SmoothQuant, by NNCF."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from toastrack.embedder import Embedder
from toastrack.engines.openvino import OpenVinoEngine, import_openvino, undisturbed_import
from toastrack.errors import needs_extra
from toastrack.int8.texts import query_of
from toastrack.models.prompts import add_prompt

# Longer texts took more time and memory here, and brought nothing.
_MOST_TOKENS = 256
# Of so many texts one is asked for, too.
_QUERY_EVERY = 3


def features(embedder: Embedder, texts: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return texts as the model reads them: as documents, some as queries, with their prompts."""
    engine = embedder._engine()
    assert isinstance(engine, OpenVinoEngine)
    prompts = embedder.prompts
    whole = [add_prompt(prompts.document, text) for text in texts]
    whole += [add_prompt(prompts.query, query_of(text)) for text in texts[::_QUERY_EVERY]]
    limit = min(_MOST_TOKENS, embedder.max_tokens)
    return [engine.features(engine.pad([tokens])) for tokens in engine.prepare(whole, limit)]


def quantise(
    source: Path,
    target: Path,
    examples: Sequence[Mapping[str, Any]],
    on_step: Callable[[str], None],
) -> None:
    """Write OpenVINO's file ``source`` in int8, with the ranges that the examples go through."""
    nncf, openvino = import_nncf(), import_openvino()
    read = 0

    def noted(example: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal read
        read += 1
        # They are read once for each of its steps.
        on_step(f"calibrating in {len(examples)} texts and queries, {read} read")
        return example

    model = openvino.Core().read_model(source)
    # It prints bars of its own.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        small = nncf.quantize(
            model,
            nncf.Dataset(examples, noted),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(examples),
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(small, target, compress_to_fp16=False)


def import_nncf() -> Any:
    """Import NNCF without its telemetry, and without its loggers in place of everybody's."""
    import_openvino()
    with undisturbed_import("nncf"), needs_extra("int8", "nncf"):
        import nncf
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
