"""Numbers and words as Python's own, where numpy's stand for them."""

from __future__ import annotations

import sys
from typing import Any

MAX_INT_BITS = 14_000
"""Python refuses to write more than 4,300 digits:
https://docs.python.org/3/library/stdtypes.html#int-max-str-digits"""


def plain(value: Any) -> Any:
    """Return a scalar of numpy's, or of a class below Python's own, as Python's own.

    All else comes back as it is, and so does a scalar that Python has none for.
    """
    kind = type(value)
    if kind in (str, int, float, bool) or value is None:
        return value
    if is_numpy_scalar(value):
        found = value.item()
        # Nanoseconds become an int, which would be another value than was meant.
        return value if value.dtype.kind in "mM" and isinstance(found, int) else found
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else value


def is_numpy_scalar(value: object) -> bool:
    """Tell whether a value is a scalar of numpy's, which is not imported for it."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)
