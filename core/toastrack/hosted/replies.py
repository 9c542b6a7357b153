"""What a server answered, checked before anybody believes it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from toastrack.errors import ModelError
from toastrack.utils import arrays


def vectors_of(reply: object, count: int) -> arrays.FloatMatrix:
    """Read embeddings: float32 of shape ``(count, numbers of a vector)``, in the order asked.

    Raises ``ModelError`` unless there are as many as asked for, each once, of one size, finite and
    not zero.
    """
    import numpy as np

    rows = [_vector(item.get("embedding")) for item in _in_order(reply, ("data",), count)]
    sizes = sorted({len(row) for row in rows})
    if len(sizes) != 1:
        raise _wrong(f"vectors of {' and '.join(map(str, sizes[:5]))} numbers in one answer")
    matrix: arrays.FloatMatrix = np.stack(rows)
    if not np.isfinite(matrix).all():
        raise _wrong("a vector with a number that is not finite")
    if not matrix.any(axis=1).all():
        raise _wrong("a vector of nothing but zeros")
    return matrix


def scores_of(reply: object, count: int) -> arrays.FloatMatrix:
    """Read the scores of a reranking: float32 of shape ``(count, 1)``, in the order asked."""
    import numpy as np

    scores = []
    for item in _in_order(reply, ("results", "data"), count):
        score = item.get("relevance_score", item.get("score"))
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise _wrong("a score that is no number")
        scores.append(float(score))
    with np.errstate(over="ignore"):
        matrix: arrays.FloatMatrix = np.array(scores, dtype=np.float64).astype(np.float32)[:, None]
    if not np.isfinite(matrix).all():
        raise _wrong("a score that is not finite")
    return matrix


def tokens_of(reply: object) -> int:
    """Return how many tokens the server counted; 0 if it does not say."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    if isinstance(usage, Mapping):
        for name in ("total_tokens", "prompt_tokens"):
            number = usage.get(name)
            if isinstance(number, int) and not isinstance(number, bool) and number >= 0:
                return number
    return 0


def _in_order(reply: object, names: Sequence[str], count: int) -> list[Mapping[str, Any]]:
    """Return the items of a list, one for each input, in the order of the inputs."""
    items: object = reply
    if isinstance(reply, Mapping):
        items = next((reply[name] for name in names if name in reply), None)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise _wrong(f"no list called {' or '.join(map(repr, names))}")
    if len(items) != count:
        raise _wrong(f"{len(items)} results where {count} were asked for")
    placed: dict[int, Mapping[str, Any]] = {}
    for item in items:
        index = item.get("index")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise _wrong("a result that does not say which text it is for")
        placed[index] = item
    if len(placed) != count:
        raise _wrong("two results for one text")
    return [placed[index] for index in range(count)]


def _vector(written: object) -> arrays.FloatVector:
    """Read a list of numbers, or the bytes of float32 in base64."""
    import numpy as np

    if isinstance(written, str):
        try:
            found: arrays.FloatVector = np.frombuffer(
                base64.b64decode(written, validate=True), dtype="<f4"
            ).astype(np.float32)
        except ValueError:
            raise _wrong("a vector that is no base64 of float32") from None
    else:
        try:
            read = np.asarray(written)
        except (ValueError, OverflowError):
            raise _wrong("a vector that is no list of numbers") from None
        if read.ndim != 1 or read.dtype.kind not in "if" or not isinstance(written, list):
            raise _wrong("a vector that is no list of numbers")
        with np.errstate(over="ignore"):
            found = read.astype(np.float32)
    if not len(found):
        raise _wrong("an empty vector")
    return found


def _wrong(what: str) -> ModelError:
    return ModelError(
        f"The server answered with {what}. It is no embedding server, or broken: nothing of its "
        "answer was used."
    )
