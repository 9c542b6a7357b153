"""What a filter may say, and what it means: the same on every store."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, Literal

from toastrack.errors import FilterError
from toastrack.utils.numbers import MAX_INT_BITS, plain
from toastrack.utils.text import check_unicode, shown

Scalar = str | int | float | bool | date
"""What a field is compared with; a ``datetime`` is a ``date``."""

Filter = Mapping[str, Any]
"""Field names to scalars or to mappings of operators; ``$and`` and ``$or`` to lists of filters."""

Operator = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"]

# What filters are nested in people's code is a handful; what no recursion ends is far more.
_MAX_DEPTH = 32
# A statement of Postgres' takes 65,535 values.
_MAX_CONDITIONS = 10_000

_DAY = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,6}))?)?)?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))?"
)


@dataclass(frozen=True)
class Instant:
    """A moment, which strings that name a date or a time are compared with.

    Args:
        microseconds: Since the start of 1970 in UTC, leap seconds left out.
    """

    microseconds: int


Operand = str | bool | int | float | Instant


@dataclass(frozen=True)
class Comparison:
    """One operator on one field: what remains of a filter once it is taken apart.

    ``value`` is a tuple for ``$in`` and ``$nin`` and a bool for ``$exists``.
    """

    key: str
    operator: Operator
    value: Operand | tuple[Operand, ...]


@dataclass(frozen=True)
class Group:
    """Conditions of which all must hold, or one; of none, all do and one does not."""

    word: Literal["$and", "$or"]
    parts: tuple[Condition, ...]


Condition = Comparison | Group


# -- what may be said -----------------------------------------------------------------------------


def checked_filter(filter: Filter | None) -> dict[str, Any]:
    """Return a filter as a dict of plain Python values, empty for None.

    ``{"lang": "en"}`` is equality: ``1 == 1.0``, ``True != 1``, and a list equals nothing. Else
    a field has operators, ``{"year": {"$gte": 2020, "$lt": 2024}}``: ``$eq $ne $gt $gte $lt $lte
    $in $nin $exists``. Several mean "and", and so does ``$and``; ``$or`` is the other.

    Raises:
        FilterError: It is no filter; names the field and says what is wrong with it.
    """
    if filter is None:
        return {}
    checked = _checked(filter, "A filter", 0)
    size = _size(checked)
    if size > _MAX_CONDITIONS:
        raise FilterError(
            f"A filter has {size:,} conditions, and {_MAX_CONDITIONS:,} at most. For one of many "
            "values write {'$in': [...]}, which is a single one."
        )
    return checked


def checked_fields(names: Collection[str]) -> list[str]:
    """Return the fields of metadata that somebody names, each once.

    Raises:
        FilterError: One is no name that a filter could have.
        TypeError: It is one str, or no collection of them.
    """
    if isinstance(names, str) or not isinstance(names, Collection):
        raise TypeError(f"Fields are a list of names such as ['lang'], not {shown(names)}.")
    return list(dict.fromkeys(map(_checked_key, names)))


def _size(filter: Mapping[str, Any]) -> int:
    return sum(
        sum(map(_size, value))
        if key in ("$and", "$or")
        else len(value)
        if isinstance(value, dict)
        else 1
        for key, value in filter.items()
    )


def _checked(filter: object, where: str, depth: int) -> dict[str, Any]:
    if not isinstance(filter, Mapping):
        raise FilterError(f"{where} is a mapping such as {{'lang': 'en'}}, not {shown(filter)}.")
    if depth > _MAX_DEPTH:
        raise FilterError(f"A filter is nested more than {_MAX_DEPTH} deep, or holds itself.")
    checked: dict[str, Any] = {}
    for key, value in filter.items():
        if key in ("$and", "$or"):
            checked[key] = _checked_parts(key, value, depth)
            continue
        name = _checked_key(key)
        what = f"Filter field {name!r}"
        checked[name] = (
            _checked_operators(what, value)
            if isinstance(value, Mapping)
            else _checked_scalar(what, value)
        )
    return checked


def _checked_parts(word: str, parts: object, depth: int) -> list[dict[str, Any]]:
    if not isinstance(parts, (list, tuple)):
        raise FilterError(f"Filter {word!r} takes a list of filters, not {shown(parts)}.")
    if not parts:
        raise FilterError(f"Filter {word!r} has no members. Leave it out.")
    return [_checked(part, f"Each member of {word!r}", depth + 1) for part in parts]


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise FilterError(f"Filter field {shown(key)} is not a name.")
    if key.startswith("$"):
        raise FilterError(f"Filter field {key!r}: of what starts with '$' there are $and and $or.")
    if "." in key:
        raise FilterError(
            f"Filter field {key!r}: names with '.' mean different things in different hosts. Use "
            "the store's own filter for them."
        )
    _check_text(key, f"Filter field {key!r}")
    return str.__str__(key)


def _checked_operators(what: str, operators: Mapping[Any, Any]) -> dict[str, Any]:
    if not operators:
        raise FilterError(f"{what} has no operators. Leave it out.")
    for word in operators:
        if not isinstance(word, str) or not word.startswith("$"):
            raise FilterError(
                f"{what} is a mapping with the key {shown(word)}; one of operators is meant, such as "
                "{'$gte': 2020}. Nested metadata cannot be compared."
            )
        if word not in _OPERATORS:
            raise FilterError(f"{what}: {word!r} is not one of {' '.join(_OPERATORS)}.")
    return {
        word: _checked_operand(f"{what}: {word}", word, value) for word, value in operators.items()
    }


def _checked_operand(what: str, word: str, value: object) -> Any:
    if word in ("$in", "$nin"):
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
            raise FilterError(f"{what} takes a list of values, not {shown(value)}.")
        return [_checked_scalar(what, one) for one in value]
    if word == "$exists":
        value = plain(value)
        if not isinstance(value, bool):
            raise FilterError(f"{what} takes True or False, not {shown(value)}.")
        return value
    value = _checked_scalar(what, value)
    if isinstance(value, bool) and word not in ("$eq", "$ne"):
        raise FilterError(f"{what} takes no bool: {value} has no order.")
    return value


def _checked_scalar(what: str, value: object) -> Scalar:
    value = plain(value)
    if isinstance(value, str):
        _check_text(value, what)
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise FilterError(
                f"{what} is an int of {value.bit_length()} bits, which no metadata can hold."
            )
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FilterError(f"{what} is {value}, which compares to nothing.")
        return value
    # pandas has a moment that is none, which is not even itself.
    if isinstance(value, date) and value == value:
        return value
    hint = (
        "For one of several values write {'$in': [...]}."
        if isinstance(value, (list, tuple, set, frozenset))
        else "Use the store's own filter for more."
    )
    raise FilterError(
        f"{what} is {type(value).__name__} {shown(value, 40)}; only str, int, float, bool, date "
        f"and datetime can be compared. {hint}"
    )


def _check_text(text: str, what: str) -> None:
    try:
        check_unicode(text, what)
    except ValueError as error:
        raise FilterError(str(error)) from None


# -- what it means --------------------------------------------------------------------------------


def matches(metadata: Mapping[str, object], filter: Filter | Condition | None) -> bool:
    """Tell whether a record's metadata passes a filter: the one definition of what it means.

        from toastrack.filters import matches

        assert matches({"lang": "en", "year": 2021}, {"lang": "en", "year": {"$gte": 2020}})
        assert not matches({"lang": ["en"]}, {"lang": "en"})

    Who asks for many records gives what ``parsed`` returns.

    Raises:
        FilterError: It is no filter.
    """
    if not isinstance(filter, (Comparison, Group)):
        filter = parsed(filter)
    return _holds(metadata, filter)


def parsed(filter: Filter | None) -> Condition:
    """Take a filter apart, for those who ask it of many records or put it into other words.

    Raises:
        FilterError: It is no filter.
    """
    return _group(checked_filter(filter))


def _group(filter: Mapping[str, Any]) -> Condition:
    parts = tuple(_parts(filter))
    return parts[0] if len(parts) == 1 else Group("$and", parts)


def _parts(filter: Mapping[str, Any]) -> Iterator[Condition]:
    for key, value in filter.items():
        if key == "$and":
            yield from (_group(part) for part in value)
        elif key == "$or":
            yield Group("$or", tuple(_group(part) for part in value))
        elif isinstance(value, Mapping):
            yield from (Comparison(key, word, _operand(one)) for word, one in value.items())
        else:
            yield Comparison(key, "$eq", _operand(value))


def _operand(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_operand, value))
    return instant_of(value) if isinstance(value, date) else value


def instant_of(value: str | date) -> Instant | None:
    """Return the moment that a string, date or datetime names, None for a string that does not.

    A string names one in exactly this shape: ``YYYY-MM-DD``, optionally ``T`` or a space and
    ``HH:MM[:SS[.1 to 6 digits]]``, optionally ``Z`` or ``+-HH:MM``. No zone is UTC, and a date its
    midnight.
    """
    # In whole microseconds, as a datetime in UTC can lie outside of the years it knows.
    if isinstance(value, datetime):
        offset = value.utcoffset()
        second = (value.hour * 60 + value.minute) * 60 + value.second
        moment = _microseconds(value, second * 1_000_000 + value.microsecond)
        if offset is not None:
            moment -= (offset.days * 86_400 + offset.seconds) * 1_000_000 + offset.microseconds
        return Instant(moment)
    if isinstance(value, date):
        return Instant(_microseconds(value, 0))
    found = _INSTANT.fullmatch(value)
    if found is None:
        return None
    year, month, day, hour, minute, seconds, fraction, sign, hours, minutes = found.groups()
    try:
        midnight = date(int(year), int(month), int(day))
    except ValueError:  # no such day
        return None
    moment = ((int(hour or 0) * 60 + int(minute or 0)) * 60 + int(seconds or 0)) * 1_000_000
    moment += int((fraction or "").ljust(6, "0"))
    offset_minutes = int(hours or 0) * 60 + int(minutes or 0)
    moment -= (-1 if sign == "-" else 1) * offset_minutes * 60_000_000
    return Instant(_microseconds(midnight, moment))


def moment_of(text: str) -> date | None:
    """Return the date, or datetime, that a string of this shape names; None for any other."""
    if instant_of(text) is None:
        return None
    found = _INSTANT.fullmatch(text)
    assert found is not None
    year, month, day, hour, minute, seconds, fraction, sign, hours, minutes = found.groups()
    if hour is None and text[10:] == "":
        return date(int(year), int(month), int(day))
    zone = timezone.utc if text.endswith("Z") else None
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        zone = timezone(-offset if sign == "-" else offset)
    return datetime(
        int(year),
        int(month),
        int(day),
        int(hour or 0),
        int(minute or 0),
        int(seconds or 0),
        int((fraction or "").ljust(6, "0")),
        zone,
    )


def _microseconds(day: date, rest: int) -> int:
    return (day.toordinal() - _EPOCH) * _DAY + rest


def _holds(metadata: Mapping[str, object], condition: Condition) -> bool:
    if isinstance(condition, Group):
        held = (_holds(metadata, part) for part in condition.parts)
        return all(held) if condition.word == "$and" else any(held)
    is_there = condition.key in metadata
    if condition.operator == "$exists":
        return is_there is condition.value
    stored = plain(metadata[condition.key]) if is_there else None
    return _OPERATORS[condition.operator](stored, condition.value)


def _compare(
    compare: Callable[[Any, Any], bool], stored: object, wanted: Operand | tuple[Operand, ...]
) -> bool:
    """Compare two values of one kind; two of different kinds have nothing to do with each other."""
    if isinstance(wanted, Instant):
        moment = instant_of(stored) if isinstance(stored, str) else None
        return moment is not None and compare(moment.microseconds, wanted.microseconds)
    if isinstance(wanted, bool) or isinstance(stored, bool):
        of_one_kind = isinstance(wanted, bool) and isinstance(stored, bool)
    elif isinstance(wanted, str):
        of_one_kind = isinstance(stored, str)
    else:
        of_one_kind = isinstance(stored, (int, float))
    return of_one_kind and compare(stored, wanted)


def _equal(stored: object, wanted: Any) -> bool:
    return _compare(operator.eq, stored, wanted)


def _among(stored: object, wanted: Any) -> bool:
    return any(_equal(stored, one) for one in wanted)


_OPERATORS: Mapping[str, Callable[[object, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda stored, wanted: not _equal(stored, wanted),
    "$gt": lambda stored, wanted: _compare(operator.gt, stored, wanted),
    "$gte": lambda stored, wanted: _compare(operator.ge, stored, wanted),
    "$lt": lambda stored, wanted: _compare(operator.lt, stored, wanted),
    "$lte": lambda stored, wanted: _compare(operator.le, stored, wanted),
    "$in": _among,
    "$nin": lambda stored, wanted: not _among(stored, wanted),
    "$exists": lambda stored, wanted: bool(wanted),
}
