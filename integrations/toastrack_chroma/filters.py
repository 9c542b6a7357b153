"""The shared filter in Chroma's words, as far as it has them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from toastrack.stores import Comparison, Condition, Instant, Span
from toastrack_chroma.codec import CHUNK, DOCUMENT_ID, LARGE, MAX_INT, is_field

Where = Mapping[str, Any]

# How far a number is from what Chroma compares with: it writes 15 digits of it.
_SLACK = 1e-9
# Up to here it finds ints and floats of one value, and hardly another one.
_MAX_EXACT = 2**53
# What lies beyond is left to be checked.
_MAX_FLOAT = 1e308
# Of more numbers one range is asked that holds them all.
_MAX_RANGES = 20
# sqlite takes expressions 1,000 deep and 32,766 values, Chroma conditions 32 deep in each other.
_MAX_CONDITIONS = 200
_MAX_VALUES = 5_000
_MAX_DEPTH = 8


def broad(condition: Condition) -> Where | None:
    """Return a condition that every matching row passes, and hardly another one; None for none."""
    if _count(condition) > _MAX_CONDITIONS:
        return None
    return _broad(condition, 0)


def all_of(conditions: Sequence[Where]) -> Where | None:
    """Return one condition; Chroma takes neither none nor two without a word between them."""
    return _joined("$and", conditions)


def of_spans(spans: Sequence[Span]) -> Where | None:
    """Return a condition for the rows of documents between two chunk numbers."""
    return _joined(
        "$or",
        [
            {
                "$and": [
                    {DOCUMENT_ID: span.document},
                    {CHUNK: {"$gte": span.first}},
                    {CHUNK: {"$lte": span.last}},
                ]
            }
            for span in spans
        ],
    )


def _joined(word: str, conditions: Sequence[Where]) -> Where | None:
    if len(conditions) > 1:
        return {word: list(conditions)}
    return conditions[0] if conditions else None


def _count(condition: Condition) -> int:
    return 1 if isinstance(condition, Comparison) else sum(map(_count, condition.parts))


def _broad(condition: Condition, depth: int) -> Where | None:
    if isinstance(condition, Comparison):
        return _comparison(condition)
    if depth == _MAX_DEPTH:
        return None
    parts = [_broad(part, depth + 1) for part in condition.parts]
    said = [part for part in parts if part is not None]
    if condition.word == "$or" and len(said) < len(parts):
        return None
    return _joined(condition.word, said)


def _comparison(asked: Comparison) -> Where | None:
    key, word = asked.key, asked.operator
    values = asked.value if isinstance(asked.value, tuple) else (asked.value,)
    if not is_field(key) or word == "$exists" or len(values) > _MAX_VALUES:
        return None
    if any(map(_is_unsayable, values)):
        return None
    if word in ("$ne", "$nin"):
        # A number has neighbours, which must not go with it.
        said = _by_kind(key, "$nin", [v for v in values if isinstance(v, (str, bool))])
        return all_of(said)
    if word in ("$eq", "$in"):
        return _joined("$or", _equal(key, values))
    return _ordered(key, word, values[0])


def _is_unsayable(value: object) -> bool:
    """Dates are compared by nobody, and sqlite ends a text at its first NUL."""
    return isinstance(value, Instant) or (isinstance(value, str) and "\0" in value)


def _equal(key: str, values: Sequence[Any]) -> list[Where]:
    scalars: list[Any] = []
    numbers: list[float] = []
    is_large = False
    for value in values:
        if isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) <= _MAX_EXACT):
            scalars.append(value)
        else:
            numbers.append(value)
            is_large = is_large or abs(value) > MAX_INT
    ranges = [(number, number) for number in numbers]
    if len(ranges) > _MAX_RANGES:
        ranges = [(min(numbers), max(numbers))]
    said = _by_kind(key, "$in", scalars)
    for low, high in ranges:
        within = all_of([*_at_least(key, low), *_at_most(key, high)])
        if within is None:
            return []
        said.append(within)
    return [*said, {LARGE: True}] if is_large else said


def _by_kind(key: str, word: str, values: Sequence[Any]) -> list[Where]:
    """Say a list for each kind of value, as Chroma takes no mixed ones."""
    kinds: dict[type, list[Any]] = {}
    for value in values:
        kinds.setdefault(type(value), []).append(value)
    return [{key: {word: some}} for some in kinds.values()]


def _ordered(key: str, word: str, value: Any) -> Where | None:
    if isinstance(value, str):
        return None  # it compares no texts
    said = (_at_least if word in ("$gt", "$gte") else _at_most)(key, value)
    return {"$or": [*said, {LARGE: True}]} if said else None


# With "equal", as it cuts off what is behind the point before it compares with an int.
def _at_least(key: str, value: float) -> list[Where]:
    if value < -_MAX_FLOAT:
        return []
    number = float(min(value, _MAX_FLOAT))
    return [{key: {"$gte": number - _slack(number)}}]


def _at_most(key: str, value: float) -> list[Where]:
    if value > _MAX_FLOAT:
        return []
    number = float(max(value, -_MAX_FLOAT))
    return [{key: {"$lte": number + _slack(number)}}]


def _slack(number: float) -> float:
    return abs(number) * _SLACK + sys.float_info.min
