"""Vectors as users give them to unit length, or an error that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from toastrack.errors import RecordError
from toastrack.records import Record
from toastrack.utils import arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What rounding to float32 leaves of length 1: half of 2**-23 in each number, squared twice that.
_ONE = 2**-23
_AT_A_TIME = 64


def vector_of(record: Record) -> str:
    """Say in an error which vector is meant."""
    return f"Record {record.id!r}: its vector"


def unit_vector(vector: arrays.Vector, what: str, dimensions: int | None) -> arrays.FloatVector:
    """Return a vector at length 1: float32 of shape ``(dimensions,)``.

    Raises ``RecordError``, starting with ``what``, for another size, NaN, infinity or zero.
    """
    import numpy as np

    values = _numbers(vector, what)
    if values.ndim != 1 or (dimensions is not None and len(values) != dimensions):
        raise RecordError(f"{what} has shape {values.shape}, not ({dimensions},).")
    if isinstance(vector, np.ndarray) and vector.dtype == np.float32:
        # Squares of float32 fit float64 well, so most vectors need a single look.
        squares = float(values @ values)
        if abs(squares - 1) < _ONE:
            return values.astype(np.float32)  # to the bit as it came
        if 0 < squares < math.inf:
            return (values / math.sqrt(squares)).astype(np.float32)
    if not np.isfinite(values).all():
        position = int(np.flatnonzero(~np.isfinite(values))[0])
        raise RecordError(f"{what} holds {values[position]} at position {position}.")
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        raise RecordError(f"{what} has length 0; cosine needs a direction.")
    values = values / largest  # or the squares of very long and short vectors leave float64
    return (values / np.linalg.norm(values)).astype(np.float32)


def _numbers(vector: arrays.Vector, what: str) -> NDArray[np.float64]:
    """Return a vector as float64; what numpy would make numbers of, such as texts, is none."""
    import numpy as np

    try:
        found = np.asarray(vector)
        if found.dtype.kind in "biuf":
            return found.astype(np.float64, copy=False)
        if found.dtype.kind != "O":
            raise ValueError
        values = np.empty(found.shape)
        for position, value in enumerate(found.flat):
            if isinstance(value, (str, bytes)):
                raise ValueError
            values.flat[position] = math.nan if value is None else float(value)
    except OverflowError:
        raise RecordError(f"{what} holds a number that no float can hold.") from None
    except (TypeError, ValueError):
        raise RecordError(f"{what} is not a list of numbers.") from None
    return values


def float32_vector(record: Record, dimensions: int) -> arrays.FloatVector:
    """Return a record's vector as float32 for ``normalise``, which is left to do if it was that before.

    Raises ``RecordError`` as ``unit_vector`` does.
    """
    import numpy as np

    vector: Any = record.vector
    if not isinstance(vector, np.ndarray) or vector.dtype != _float32():
        return unit_vector(vector, vector_of(record), dimensions)
    if vector.shape != (dimensions,):
        raise RecordError(f"{vector_of(record)} has shape {vector.shape}, not ({dimensions},).")
    return vector


@cache
def _float32() -> np.dtype[np.float32]:
    """Return the type itself: another spelling of it is looked up at each comparison."""
    import numpy as np

    return np.dtype(np.float32)


def normalise(vectors: arrays.FloatMatrix, what: Callable[[int], str]) -> None:
    """Bring each row of float32 ``(rows, dimensions)`` to length 1, as ``unit_vector`` does."""
    import numpy as np

    # Few enough at a time that their float64 stays in the processor's cache.
    for start in range(0, len(vectors), _AT_A_TIME):
        some = vectors[start : start + _AT_A_TIME].astype(np.float64)
        squares = np.einsum("ij,ij->i", some, some)
        # Written so that NaN is among them.
        for row in np.flatnonzero(~(np.abs(squares - 1) < _ONE)).tolist():
            one = start + row
            vectors[one] = unit_vector(vectors[one], what(one), None)
