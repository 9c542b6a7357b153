"""The shared filter in Chroma's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toastrack.stores import Scalar
from toastrack_chroma.codec import MAX_INT, is_field


def native_filter(
    filter: Mapping[str, Scalar],
) -> tuple[list[Mapping[str, Any]], dict[str, Scalar]]:
    """Return the conditions that Chroma can check, and the fields that it cannot."""
    conditions: list[Mapping[str, Any]] = []
    rest: dict[str, Scalar] = {}
    for key, value in filter.items():
        if not is_field(key) or not _is_comparable(value):
            rest[key] = value
        elif isinstance(value, float) and not value.is_integer():
            # Chroma compares it to ints without its fraction: 0.5 finds 0, too.
            conditions.append({key: value})
            rest[key] = value
        elif isinstance(value, (str, bool)):
            conditions.append({key: value})
        else:
            conditions.append(_number(key, value))
    return conditions, rest


def all_of(conditions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return one condition; Chroma takes neither none nor two without a word between them."""
    if len(conditions) > 1:
        return {"$and": list(conditions)}
    return conditions[0] if conditions else None


def _is_comparable(value: Scalar) -> bool:
    """Numbers over 64 bits are kept as JSON alone, also those that a float would equal."""
    return isinstance(value, (str, bool)) or abs(value) <= MAX_INT


def _number(key: str, value: int | float) -> Mapping[str, Any]:
    """Chroma keeps ints and floats apart, and 1 is to find 1.0."""
    forms: list[int | float] = [value]
    if isinstance(value, int):
        if float(value) == value:
            forms.append(float(value))
    elif value.is_integer():
        forms.append(int(value))
    return {"$or": [{key: form} for form in forms]} if len(forms) > 1 else {key: value}
