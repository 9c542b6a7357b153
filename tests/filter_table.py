"""Values around every limit, and filters over them: what all stores must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from random import Random
from typing import Any

ABSENT = object()
"""Stands for a record without the field."""

INTS = [
    *range(-2, 3),
    100,
    2**31,
    2**53 - 1,
    2**53,
    2**53 + 1,
    2**53 + 2,
    -(2**53) - 1,
    2**62 + 1,
    2**63 - 1025,
    2**63 - 1,
    2**63,
    2**63 + 1,
    -(2**63),
    -(2**63) - 1,
    2**64,
    2**64 + 2**12 + 1,
    10**23,
    10**30,
    10**308,
    10**309,
    -(10**400),
]
FLOATS = [
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    1e-323,
    2.2250738585072014e-308,
    1e-7,
    0.1,
    0.3,
    0.1 + 0.2,
    0.5,
    -0.5,
    0.9999999999999999,
    1.0,
    1.0000000000000002,
    1.5,
    -1.5,
    100.00000000000001,
    2.0**53,
    2.0**53 + 2,
    2.0**63,
    -(2.0**63),
    1e22,
    1e23,
    9.999999999999999e22,
    1e30,
    1e308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
]
TEXTS = [
    "",
    " ",
    "0",
    "1",
    "1.0",
    "01",
    "1e3",
    "True",
    "true",
    "null",
    "NaN",
    "a",
    "A",
    "a ",
    "ab",
    "b",
    "o'brien",
    "'; drop table x; --",
    '"',
    "\\",
    "%s",
    "{}",
    '["a"]',
    "$gt",
    "\t",
    "\x01",
    "e\u0301",
    "\u00e9",
    "\u007f",
    "\uffff",
    "\U0001f35e",
    "\ufeff",
    "ключ",
    "x" * 2_000,
]
DATES = [
    "2024-02-29",
    "2023-02-29",
    "2024-02-29T00:00",
    "2024-02-29 00:00",
    "2024-02-29T00:00:00",
    "2024-02-29T00:00:00Z",
    "2024-02-29T00:00:00.0Z",
    "2024-02-29T01:00+01:00",
    "2024-02-28T23:00:00.000000-01:00",
    "2024-02-29T00:00:00.000001",
    "2024-02-29T00:00:00.0000001",
    "2024-02-29T00:00:00.",
    "2024-02-29T00:00:00,5",
    "2024-02-29T24:00",
    "2024-02-29T23:59:60",
    "2024-02-29T00",
    "2024-02-29T0000",
    "2024-02-29t00:00",
    "2024-02-29T00:00z",
    "2024-02-29T00:00 Z",
    "2024-02-29T00:00+0100",
    "2024-02-29T00:00+01",
    "2024-02-29T00:00+24:00",
    "2024-02-29T00:00+23:59",
    "2024-02-29T00:00-23:59",
    "2024-02-29T00:00+15:60",
    "2024-02-29  00:00",
    " 2024-02-29",
    "2024-02-29 ",
    "2024-02-29\n",
    "2024-2-29",
    "20240229",
    "2024-02",
    "2024-W09-4",
    "2024-060",
    "24-02-29",
    "12024-02-29",
    "+2024-02-29",
    "2024-13-01",
    "2024-00-01",
    "2024-01-00",
    "2024-01-32",
    "2024-04-31",
    "1900-02-29",
    "2000-02-29",
    "0000-01-01",
    "0001-01-01",
    "0001-01-01T00:00+14:00",
    "9999-12-31",
    "9999-12-31T23:59:59.999999-23:59",
    "1582-10-10",
    "1969-12-31T23:59:59.999999Z",
    "1970-01-01",
    "infinity",
    "now",
    "today",
    "January 8, 1999",
    "\u0662\u0660\u0662\u0664-02-29",
]
REST: list[Any] = [
    True,
    False,
    None,
    [],
    [1],
    [True],
    ["a"],
    ["2024-02-29"],
    [None],
    [[1]],
    {},
    {"v": 1},
    {"$gt": 1},
    ABSENT,
]
VALUES: list[Any] = [*INTS, *FLOATS, *TEXTS, *DATES, *REST]

NOON = datetime(2024, 2, 29, 12)
MOMENTS: list[date] = [
    date(2024, 2, 29),
    datetime(2024, 2, 29),
    datetime(2024, 2, 29, tzinfo=timezone.utc),
    datetime(2024, 2, 29, 0, 0, 0, 1),
    datetime(2024, 2, 29, 1, tzinfo=timezone(timedelta(hours=1))),
    datetime(2024, 2, 28, 23, 59, 59, 999999),
    NOON,
    date.min,
    date.max,
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-23, minutes=-59))),
    datetime(1970, 1, 1),
    datetime(1969, 12, 31, 23, 59, 59, 999999),
    datetime(1900, 3, 1),
]
# What no store may hold can still be asked for.
ODD_TEXTS = ["a\0", "\0", "a\0b", "b\0", "zz", "2024-02-3", "\U0010ffff"]
OPERANDS: list[Any] = [*INTS, *FLOATS, *TEXTS, *DATES[:12], *MOMENTS, *ODD_TEXTS, True, False]

KEYS = [
    "it's",
    'say "hi"',
    "two words",
    "my-key",
    "ключ",
    "\U0001f35e",
    "'; drop table x; --",
    "a$b",
    "%s",
    "%(id)s",
    "a\\b",
    "{a}",
    "[0]",
    "v[]",
    "v->w",
    "#x",
    "chroma:document",
    "toastrack_metadata",
    "id",
    "text",
    "metadata",
    " ",
    "\n",
    "k" * 300,
]


def stored() -> dict[str, dict[str, Any]]:
    """The metadata of every record, by its id."""
    records: dict[str, dict[str, Any]] = {
        f"v{number:03}": {} if value is ABSENT else {"v": value}
        for number, value in enumerate(VALUES)
    }
    records.update((f"key {number}", {key: "x"}) for number, key in enumerate(KEYS))
    records.update((f"null {number}", {key: None}) for number, key in enumerate(KEYS))
    # What records mostly are: two fields that are asked for together.
    random = Random(0)
    records.update(
        (f"pair {number}", {"lang": random.choice(["en", "de", 1]), "n": random.randint(0, 9)})
        for number in range(40)
    )
    return records


def single_filters() -> Iterator[dict[str, Any]]:
    """Every operator with every value."""
    for operand in OPERANDS:
        yield {"v": operand}
        for operator in ("$eq", "$ne"):
            yield {"v": {operator: operand}}
        if not isinstance(operand, bool):
            for operator in ("$gt", "$gte", "$lt", "$lte"):
                yield {"v": {operator: operand}}
    for exists in (True, False):
        for key in ("v", "nobody", *KEYS):
            yield {key: {"$exists": exists}}
    for key in KEYS:
        yield {key: "x"}
        yield {key: {"$gt": "w"}}
        yield {key: {"$ne": "x"}}
        yield {key: {"$in": ["x", 1]}}
        yield {key: {"$nin": ["x"]}}


def combined_filters(count: int) -> Iterator[dict[str, Any]]:
    """Several fields and operators, lists of values, "and" and "or", in any order."""
    random = Random(1)

    def operators(operands: list[Any]) -> dict[str, Any]:
        words = random.sample(["$gt", "$gte", "$lt", "$lte", "$ne", "$in", "$nin", "$exists"], 2)
        return {word: operand(word, operands) for word in words}

    def operand(word: str, operands: list[Any]) -> Any:
        if word == "$exists":
            return random.random() < 0.8
        if word in ("$in", "$nin"):
            return random.sample(operands, random.randint(0, min(6, len(operands))))
        ordered = [one for one in operands if not isinstance(one, bool)]
        return random.choice(ordered)

    def field() -> dict[str, Any]:
        key, operands = random.choice(
            [("v", OPERANDS), ("v", TEXTS), ("n", list(range(10))), ("lang", ["en", "de", 1, True])]
        )
        plain = random.random() < 0.3
        return {key: random.choice(operands) if plain else operators(operands)}

    def one(depth: int) -> dict[str, Any]:
        found = field()
        if random.random() < 0.4:
            found |= field()
        if depth < 3 and random.random() < 0.5:
            word = random.choice(["$and", "$or"])
            found[word] = [one(depth + 1) for _ in range(random.randint(1, 3))]
            if random.random() < 0.5:
                found = {word: found[word]}
        return found

    yield {"v": {"$in": []}}
    yield {"v": {"$nin": []}}
    yield {"$or": [{}]}
    yield {"$or": [{"v": "a"}, {"$and": [{}, {"v": {"$gte": 1}}]}]}
    yield {"v": {"$in": list(OPERANDS)}}
    yield {"v": {"$nin": list(OPERANDS)}}
    # So many that a host may look them up in a table of its own.
    many: list[Any] = [*(f"text {n}" for n in range(40)), *range(1_000, 1_040)]
    many += [datetime(1990, 1, 1) + timedelta(hours=n) for n in range(40)]
    many += [2.0**70 + n * 2.0**20 for n in range(40)]
    for taken in (OPERANDS, OPERANDS[::2], OPERANDS[1::2], TEXTS, [0], [-0.0], [True]):
        yield {"v": {"$in": [*many, *taken]}}
        yield {"v": {"$nin": [*many, *taken]}}
    for _ in range(count):
        yield one(0)
