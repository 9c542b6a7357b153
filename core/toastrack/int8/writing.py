"""A model's folder in int8, made of the same in float32, and refused if it loses too much."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toastrack.embedder import Embedder
from toastrack.errors import ModelError
from toastrack.int8.loss import LIMITS, Loss, embed_both, loss
from toastrack.int8.quantise import features, quantise
from toastrack.int8.texts import Samples
from toastrack.models.openvino_files import RUN_FILES, NotedPrecision, parts


def write_int8(
    exact_folder: Path,
    folder: Path,
    drawn: Samples,
    *,
    note: Callable[[Path, NotedPrecision], None],
    on_step: Callable[[str], None],
) -> tuple[Loss, float]:
    """Write the folder; return what int8 costs, and the largest difference of a number.

    ``note`` writes down what the folder holds. It is compared with the same file in float32, which
    takes half the time that torch does.
    """
    import numpy as np

    settings: Any = {"engine": "openvino", "device": "cpu", "on_truncate": "ignore"}
    run_file = RUN_FILES[0]
    exact = Embedder(exact_folder, precision="float32", **settings)
    expected = embed_both(exact, drawn.held_back, on_step, "in float32")
    examples = features(exact, drawn.calibration)
    del exact
    shutil.copytree(
        exact_folder, folder, ignore=shutil.ignore_patterns(*parts(Path(run_file).name))
    )
    quantise(exact_folder / run_file, folder / run_file, examples, on_step)
    note(folder, "int8")
    found = embed_both(Embedder(folder, **settings), drawn.held_back, on_step, "in int8")
    difference = max(
        float(np.abs(ours - theirs).max()) for ours, theirs in zip(expected, found, strict=True)
    )
    return loss(expected, found), difference


def check_loss(model: str, cost: Loss, *, force: bool, on_note: Callable[[str], None]) -> None:
    """Raise ``ModelError`` for a model that loses much, or with ``force`` only say so."""
    if cost.is_small:
        return
    said = f"int8 changes {model!r} much: {cost}. A good one keeps {LIMITS}."
    if not force:
        raise ModelError(
            f"{said} Calibrate it with more texts like those that it will read, or do without int8. "
            "To write it nevertheless: force=True."
        )
    on_note(f"{said} It was written nevertheless.")
