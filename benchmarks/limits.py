"""What the processor can do at best: matrix products of a model's shapes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from inputs import Subject
from measuring import Contestant, Outcome, needs

PRECISIONS = ("float32", "bfloat16")
TOOLS = ("torch", "openvino")
ROWS = (512, 2_048)
# Long enough to last, short enough to take turns with the rest.
GFLOP = {"float32": 60, "bfloat16": 120}
CHAIN = 4

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def limits(subject: Subject, precisions: tuple[str, ...] = PRECISIONS) -> dict[str, Contestant]:
    """Return products to be timed among the contestants, by ``precision/tool/rows``."""
    makers = {"torch": _torch, "openvino": _openvino}
    found = {}
    for precision in precisions:
        for tool in TOOLS:
            for rows in ROWS:
                name = f"limit: {tool}, {rows} rows, {precision}"
                found[f"{precision}/{tool}/{rows}"] = Contestant(
                    name, partial(makers[tool], subject, precision, rows)
                )
    return found


def rate(subject: Subject, precision: str, rows: int, seconds: float) -> float:
    """Return GFLOP/s of one turn."""
    return _times(subject, precision, rows) * _gflop(subject, rows) / seconds


def best_rate(
    subject: Subject, precision: str, contestants: dict[str, Contestant], turns: dict[str, Outcome]
) -> tuple[float, str]:
    """Return the quickest of all turns of all products in a precision, and which that was.

    The quickest and not the median: a limit is what nothing here went over.
    """
    found = [(0.0, "none")]
    for key, contestant in contestants.items():
        of, _, rows = key.split("/")
        took = turns[contestant.name].seconds
        if of == precision and took:
            name = contestant.name.removeprefix("limit: ")
            found.append((rate(subject, precision, int(rows), min(took)), name))
    return max(found)


def _gflop(subject: Subject, rows: int) -> float:
    """Multiplications and additions of a pair of products, there and back, in billions."""
    return 4 * rows * subject.hidden * subject.intermediate / 1e9


def _times(subject: Subject, precision: str, rows: int) -> int:
    """Return how many pairs of products a turn takes."""
    return CHAIN * max(1, round(GFLOP[precision] / _gflop(subject, rows) / CHAIN))


def _matrices(subject: Subject, rows: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return rows of a layer, and the two wide matrices that they go through, as in the model."""
    pick = np.random.default_rng(0)
    shapes = (
        (rows, subject.hidden),
        (subject.hidden, subject.intermediate),
        (subject.intermediate, subject.hidden),
    )
    # So small that the numbers neither vanish nor overflow on the way.
    first, second, third = (
        (pick.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for shape in shapes
    )
    return first, second, third


def _torch(subject: Subject, precision: str, rows: int) -> Callable[[], object]:
    needs("torch", "torch")
    import torch

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    start, out, back = (torch.from_numpy(m).to(dtype) for m in _matrices(subject, rows))

    def run() -> None:
        with torch.inference_mode():
            for _ in range(_times(subject, precision, rows)):
                torch.matmul(torch.matmul(start, out), back)

    return run


def _openvino(subject: Subject, precision: str, rows: int) -> Callable[[], object]:
    from toastrack.engines.openvino import import_openvino, pick_precision

    needs("openvino", "openvino")
    pick_precision(precision)
    openvino: Any = import_openvino()
    ops: Any = openvino.opset13
    start, out, back = _matrices(subject, rows)
    # A chain as in the model, so that converting what goes in and out is paid once for many.
    given = ops.parameter(list(start.shape), np.float32)
    wide, narrow = ops.constant(out), ops.constant(back)
    last = given
    for _ in range(CHAIN):
        last = ops.matmul(ops.matmul(last, wide, False, False), narrow, False, False)
    model = openvino.Model([ops.result(last)], [given])
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    request = (
        openvino.Core()
        .compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        .create_infer_request()
    )
    times = _times(subject, precision, rows) // CHAIN

    def run() -> None:
        for _ in range(times):
            request.infer([start], share_inputs=True, share_outputs=True)

    return run
