"""Filters as they are typed: ``'year>=2020'`` into what a store takes, and back for people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NoReturn

from toastrack.errors import FilterError
from toastrack.filters import checked_filter, moment_of

HELP = (
    "Only records whose metadata says so, e.g. lang=en, 'year>=2020', 'lang in en,de', "
    "'tags exists'; may be repeated, and all must hold. A value is JSON where it can be (true, 7, "
    "'\"7\"'), else text; behind > >= < <= a date such as 2024-02-29 is compared as a moment."
)
JSON_HELP = (
    'The same in JSON, for the rest: \'{"$or": [{"lang": "en"}, {"year": {"$gte": 2020}}]}\'.'
)

_WORDS = {
    "=": "$eq",
    "!=": "$ne",
    ">": "$gt",
    ">=": "$gte",
    "<": "$lt",
    "<=": "$lte",
    "in": "$in",
    "not-in": "$nin",
    "exists": "$exists",
}
_SIGNS = {word: sign for sign, word in _WORDS.items()}
_ORDERS = ("$gt", "$gte", "$lt", "$lte")

_OPERATOR = re.compile(r"!=|>=|<=|[=<>]|(?<=\s)(?:in|not-in|exists)(?=\s|$)")
_LIKE_A_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?!\d)")


def filter_of(conditions: Sequence[str], as_json: str | None) -> dict[str, Any]:
    """Return one filter of all that was typed.

    Raises:
        FilterError: Something is no condition; says what is wrong with it.
    """
    parts = [_condition(text) for text in conditions]
    if as_json is not None:
        parts.append(_object(as_json))
    return checked_filter(parts[0] if len(parts) == 1 else {"$and": parts} if parts else None)


def described(filter: Mapping[str, Any]) -> str:
    """Say a filter in the words it is typed in."""
    return " and ".join(_described(filter))


def _described(filter: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    for key, value in filter.items():
        if key == "$and":
            for part in value:
                parts += _described(part)
        elif key == "$or":
            parts.append("(" + " or ".join(map(described, value)) + ")")
        elif isinstance(value, Mapping):
            parts += [f"{key} {_SIGNS[word]} {_shown(one)}" for word, one in value.items()]
        else:
            parts.append(f"{key} = {_shown(value)}")
    return parts


def _shown(value: object) -> str:
    if isinstance(value, date):
        kind = "time" if isinstance(value, datetime) else "day"
        return f"{value.isoformat()} (a {kind})"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _condition(text: str) -> dict[str, Any]:
    found = _OPERATOR.search(text)
    key = text[: found.start()].strip() if found else ""
    if found is None or not key:
        _refuse(
            text,
            "is no condition. Write KEY=VALUE, with = != > >= < <=, or KEY in A,B, KEY not-in A,B, "
            "KEY exists.",
        )
    word, rest = _WORDS[found[0]], text[found.end() :].strip()
    if word == "$exists":
        if rest not in ("", "true", "false"):
            _refuse(text, "goes on behind exists, which takes nothing, true or false.")
        return {key: {word: rest != "false"}}
    if word in ("$in", "$nin"):
        return {key: {word: _list(text, rest)}}
    if rest[:1] in ("=", "<", ">"):
        _refuse(
            text,
            "has two operators. There are = != > >= < <=; a text that begins with one is written "
            f"in quotes: '{key}{found[0]}\"{rest}\"'.",
        )
    value = _scalar(text, rest, word)
    return {key: value if word == "$eq" else {word: value}}


def _list(text: str, written: str) -> list[Any]:
    if not written:
        _refuse(text, "names no values. Write KEY in A,B or KEY in [1, 2].")
    try:
        values = _json(f"[{written}]", text)
    except json.JSONDecodeError:
        if written[0] in "[{":
            _refuse(text, 'is no list in JSON. Write KEY in A,B or KEY in ["A", "B"].')
        return [_scalar(text, one.strip(), "$in") for one in written.split(",")]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    return [_checked(text, value) for value in values]


def _scalar(text: str, written: str, word: str) -> Any:
    if not written:
        _refuse(text, 'has no value. The empty text is written in quotes: KEY="".')
    try:
        value = _json(written, text)
    except json.JSONDecodeError:
        if written[0] == '"':
            _refuse(text, "begins with a quote and is no text in JSON.")
    else:
        return _checked(text, value)
    if word in _ORDERS:
        moment = moment_of(written)
        if moment is None and _LIKE_A_DATE.match(written):
            _refuse(
                text,
                "names no day that there is, or not as YYYY-MM-DD, optionally with HH:MM[:SS] and a "
                "zone. To compare it as text, put it into quotes.",
            )
        return written if moment is None else moment
    return written


def _checked(text: str, value: object) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    _refuse(
        text,
        f"compares with {json.dumps(value)[:60]}, and there are texts, numbers, true and false. For "
        "one of several write KEY in A,B; for a field that is there or not, KEY exists.",
    )


def _object(written: str) -> dict[str, Any]:
    try:
        return checked_filter(_json(written, written))
    except FilterError as error:
        raise FilterError(f"--filter-json: {error}") from None
    except json.JSONDecodeError as error:
        raise FilterError(f"--filter-json {written[:80]!r} is not JSON: {error}.") from None


def _json(written: str, text: str) -> Any:
    """Read JSON to the letter: no word that is none of it, and nothing twice."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        for name in names:
            if names.count(name) > 1:
                raise FilterError(f"{text[:80]!r} has {name!r} twice; two conditions go into $and.")
        return dict(found)

    def integer(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:  # Python reads 4,300 digits and no more
            raise FilterError(
                f"{text[:80]!r} has a number of {len(digits):,} digits, which no metadata can hold."
            ) from None

    def constant(word: str) -> NoReturn:
        raise json.JSONDecodeError(f"{word} is no word of it", written, written.index(word))

    return json.loads(written, object_pairs_hook=pairs, parse_int=integer, parse_constant=constant)


def _refuse(text: str, why: str) -> NoReturn:
    raise FilterError(f"--filter {text!r} {why}")
