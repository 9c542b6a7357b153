"""Values of Parquet files, frames and YAML to what JSON can hold."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID


def as_json(value: Any, *, maps: bool = False) -> Any:
    """Return a value as JSON has it: dates in ISO 8601, decimals and UUIDs as text, NaN as None.

    ``maps``: lists of pairs are mappings, as Arrow gives its own. What is not known comes back as it
    is, and a store refuses it by name.
    """
    # pandas' values for what is not there; one of them cannot even be compared.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return _datetime(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {_key(key): as_json(member, maps=maps) for key, member in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        # Nothing else of Arrow's is a tuple.
        if maps and value and all(isinstance(member, tuple) for member in value):
            return {_key(key): as_json(member, maps=maps) for key, member in value}
        return [as_json(member, maps=maps) for member in value]
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return as_json(value.tolist())
    return value


def _datetime(value: datetime) -> str:
    # pandas' own have nanoseconds, which no filter knows.
    return value.isoformat(timespec="microseconds" if value.microsecond else "seconds")


def _duration(value: timedelta) -> str:
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = value.days * 86_400 + value.seconds
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    return f"{sign}PT{seconds}{fraction}S"


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(as_json(key))
