"""What a filter may say, and what it means."""

from __future__ import annotations

import enum
import math
import operator
import random
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from filter_table import (
    ABSENT,
    DATES,
    FLOATS,
    INTS,
    KEYS,
    MOMENTS,
    OPERANDS,
    TEXTS,
    VALUES,
    combined_filters,
    single_filters,
    stored,
)

from toastrack.errors import FilterError
from toastrack.filters import Instant, checked_filter, instant_of, matches, parsed

NAN = math.nan


def metadata_of(value: Any) -> dict[str, Any]:
    return {} if value is ABSENT else {"v": value}


# -- what may be said ------------------------------------------------------------------------


@pytest.mark.parametrize("filter", [None, {}, MappingProxyType({})])
def test_nothing_filters_nothing(filter: Any) -> None:
    assert checked_filter(filter) == {}
    for value in VALUES:
        assert matches(metadata_of(value), filter)


@pytest.mark.parametrize(
    "filter",
    [
        {"lang": "en"},
        {"lang": ""},
        {"year": 2026},
        {"year": -1},
        {"large": 10**30},
        {"price": 1.5},
        {"fresh": True},
        {"day": date(2026, 1, 1)},
        {"day": datetime(2026, 1, 1, 12)},
        {"lang": "en", "year": 2026, "price": 0.0, "fresh": False},
        {"price$": 1, "a b": 2, "ü": 3},
        {"year": {"$gte": 2020, "$lt": 2024}},
        {"year": {"$in": [2020, "2020", True, date(2020, 1, 1)], "$nin": []}},
        {"year": {"$exists": False}},
        {"fresh": {"$eq": True, "$ne": False}},
        {"$or": [{"a": 1}, {"$and": [{"b": {"$ne": 2}}, {}]}], "c": "d"},
        {"$and": [{"a": 1}]},
        MappingProxyType({"lang": MappingProxyType({"$eq": "en"})}),
    ],
)
def test_what_may_be_said(filter: Any) -> None:
    result = checked_filter(filter)
    assert result == filter
    assert [type(value) for value in result.values() if not isinstance(value, dict)] == [
        type(value) for value in filter.values() if not isinstance(value, Mapping)
    ]
    assert checked_filter(result) == result


class Flour(str, enum.Enum):
    RYE = "rye"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(1), 1),
        (np.uint8(255), 255),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("rye"), "rye"),
        (np.datetime64("2024-02-29"), date(2024, 2, 29)),
        (np.datetime64("2024-02-29T12:00", "us"), datetime(2024, 2, 29, 12)),
        (Flour.RYE, "rye"),
    ],
)
def test_scalars_of_numpy_and_of_classes_below_pythons_are_taken(value: Any, plain: Any) -> None:
    for filter, expected in [
        ({"v": value}, {"v": plain}),
        ({"v": {"$ne": value}}, {"v": {"$ne": plain}}),
        ({"v": {"$in": (value,)}}, {"v": {"$in": [plain]}}),
    ]:
        result = checked_filter(filter)
        assert result == expected
        found = next(iter(result.values()))
        if isinstance(found, dict):
            found = next(iter(found.values()))
        if isinstance(found, list):
            (found,) = found
        assert type(found) is type(plain)
    assert checked_filter({"v": {"$in": np.arange(2)}}) == {"v": {"$in": [0, 1]}}
    assert checked_filter({"v": {"$exists": np.bool_(False)}}) == {"v": {"$exists": False}}


HOLDS_ITSELF: dict[str, Any] = {}
HOLDS_ITSELF["$and"] = [HOLDS_ITSELF]

REFUSED: list[dict[Any, Any]] = [
    {"lang": None},
    {"lang": ["en", "de"]},
    {"lang": ("en",)},
    {"lang": {"en"}},
    {"a": {"b": 1}},
    {"a": {}},
    {"a": {"$gt": 1, "b": 2}},
    {"a": {"$not": 1}},
    {"a": {"gt": 1}},
    {"a": {1: 1}},
    {"a": {"$or": [1]}},
    {"a": {"$gt": None}},
    {"a": {"$eq": None}},
    {"a": {"$eq": {"$eq": 1}}},
    {"a": {"$eq": [1]}},
    {"a": {"$in": None}},
    {"a": {"$in": "en"}},
    {"a": {"$in": 1}},
    {"a": {"$in": [None]}},
    {"a": {"$in": [[1]]}},
    {"a": {"$nin": {"b": 1}}},
    {"a": {"$in": [NAN]}},
    {"a": {"$exists": 1}},
    {"a": {"$exists": "yes"}},
    {"a": {"$exists": None}},
    {"a": {"$gt": True}},
    {"a": {"$gte": False}},
    {"a": {"$lt": True}},
    {"a": {"$lte": np.bool_(True)}},
    {"a": {"$gt": NAN}},
    {"a": {"$lt": math.inf}},
    {"$or": []},
    {"$and": []},
    {"$or": {}},
    {"$or": {"a": 1}},
    {"$or": "x"},
    {"$or": None},
    {"$or": [None]},
    {"$or": [1]},
    {"$and": [{"a": None}]},
    {"$nor": [{"a": 1}]},
    {"a": b"en"},
    {"a": 1j},
    {"a": timedelta(1)},
    {"a": object()},
    {"a": NAN},
    {"a": math.inf},
    {"a": np.float32("inf")},
    {"a": np.datetime64("NaT")},
    {"a": np.datetime64("2024-02-29", "ns")},
    {"a": np.array([1])},
    {"a": 10**5_000},
    {"a": {"$in": [10**5_000]}},
    {"a": {"$in": 10**5_000}},
    {"a": [10**5_000]},
    {"a.b": 1},
    {".": 1},
    {"a.b": {"$exists": True}},
    {"$": 1},
    {"$eq": 1},
    {"": 1},
    {1: "x"},
    {None: "x"},
    {"a": "\ud800"},
    {"\ud800": "a"},
    {"a": {"$in": ["\ud800"]}},
    {"lang": "en", "year": None},
]


@pytest.mark.parametrize("filter", REFUSED, ids=lambda filter: ascii(sorted(map(repr, filter))))
def test_what_means_nothing_or_differs_between_hosts_is_refused(filter: dict[Any, Any]) -> None:
    for asked in (checked_filter, parsed, lambda filter: matches({}, filter)):
        with pytest.raises(FilterError) as caught:
            asked(filter)
        (key,) = [key for key in filter if key != "lang" or len(filter) == 1]
        if key not in ("$or", "$and"):
            assert repr(key) in str(caught.value)


def test_a_filter_that_holds_itself_is_refused() -> None:
    with pytest.raises(FilterError, match="deep"):
        checked_filter(HOLDS_ITSELF)


@pytest.mark.parametrize("filter", ["lang", ["lang"], [("lang", "en")], 5, True, {"lang"}])
def test_a_filter_is_a_mapping(filter: Any) -> None:
    with pytest.raises(FilterError, match=r"A filter is a mapping such as"):
        checked_filter(filter)


def test_the_callers_filter_is_not_the_one_that_is_returned() -> None:
    values = [1]
    filter = {"lang": "en", "v": {"$in": values}}
    checked = checked_filter(filter)
    checked["lang"] = "de"
    checked["v"]["$in"].append(2)
    assert filter == {"lang": "en", "v": {"$in": [1]}}


def test_a_refused_filter_is_a_value_error() -> None:
    assert issubclass(FilterError, ValueError)


# -- what it means ---------------------------------------------------------------------------

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def ordered(value: Any) -> tuple[str, Any] | None:
    """The kind of a value and where it stands among those of its kind, as DESIGN has it."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, (int, float)):
        return "number", Fraction(value)
    return ("text", list(map(ord, value))) if isinstance(value, str) else None


@pytest.mark.parametrize("word", ORDERS)
def test_numbers_and_texts_compare_with_their_kind(word: str) -> None:
    operands = [one for one in OPERANDS if not isinstance(one, date)]
    if word != "$eq":
        operands = [one for one in operands if not isinstance(one, bool)]
    for wanted in operands:
        condition = parsed({"v": {word: wanted}})
        kind, place = ordered(wanted) or ("", None)
        for value in VALUES:
            found = ordered(value)
            expected = found is not None and found[0] == kind and ORDERS[word](found[1], place)
            assert matches(metadata_of(value), condition) is expected, (value, word, wanted)


def test_a_value_equals_itself_and_stands_in_one_place_of_the_order() -> None:
    for values in (INTS + FLOATS, TEXTS + DATES):
        for value in values:
            for other in values:
                held = {word: matches({"v": value}, {"v": {word: other}}) for word in ORDERS}
                assert [held["$lt"], held["$eq"], held["$gt"]].count(True) == 1
                assert held["$lte"] is (held["$lt"] or held["$eq"])
                assert held["$gte"] is (held["$gt"] or held["$eq"])
        assert all(matches({"v": value}, {"v": value}) for value in values)


NO_MOMENTS = {
    "2023-02-29",
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
    "0000-01-01",
    "infinity",
    "now",
    "today",
    "January 8, 1999",
    "\u0662\u0660\u0662\u0664-02-29",
}


def test_only_one_shape_of_text_is_a_moment() -> None:
    assert {text for text in DATES if instant_of(text) is None} == NO_MOMENTS
    for text in TEXTS:
        assert instant_of(text) is None


EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def moment(text: str) -> Instant:
    found = instant_of(text)
    assert found is not None
    return found


def test_a_moment_is_where_its_zone_puts_it() -> None:
    rng = random.Random(0)
    for _ in range(2_000):
        zone = timezone(timedelta(minutes=rng.randint(-1439, 1439)))
        moment_in_utc = EPOCH + timedelta(
            days=rng.randint(-700_000, 2_900_000),
            seconds=rng.randint(0, 86_399),
            microseconds=rng.choice([0, 1, 500_000, 999_999]),
        )
        there = moment_in_utc.astimezone(zone)
        expected = Instant((moment_in_utc - EPOCH) // timedelta(microseconds=1))
        assert instant_of(there) == expected
        assert moment(there.isoformat()) == expected
        assert moment(there.isoformat(" ")) == expected
    assert moment("0001-01-01T00:00+14:00").microseconds < moment("0001-01-01").microseconds
    assert moment("9999-12-31T23:59-01:00").microseconds > moment("9999-12-31T23:59").microseconds
    assert moment("2024-02-29") == moment("2024-02-29T00:00Z") == instant_of(date(2024, 2, 29))
    assert moment("2024-02-29T00:00:00.5") == moment("2024-02-29 00:00:00.500000")
    assert moment("2024-02-29Z") == moment("2024-02-29")


@pytest.mark.parametrize("word", ORDERS)
def test_moments_compare_with_texts_that_name_one(word: str) -> None:
    for wanted in MOMENTS:
        condition = parsed({"v": {word: wanted}})
        place = instant_of(wanted)
        assert place is not None
        for value in VALUES:
            found = instant_of(value) if isinstance(value, str) else None
            expected = found is not None and ORDERS[word](found.microseconds, place.microseconds)
            assert matches(metadata_of(value), condition) is expected, (value, word, wanted)


def test_what_is_not_equal_or_not_among_them_is_all_the_rest() -> None:
    for value in VALUES:
        metadata = metadata_of(value)
        for wanted in OPERANDS:
            equal = matches(metadata, {"v": wanted})
            assert matches(metadata, {"v": {"$eq": wanted}}) is equal
            assert matches(metadata, {"v": {"$ne": wanted}}) is not equal
        several = OPERANDS[::7]
        among = any(matches(metadata, {"v": wanted}) for wanted in several)
        assert matches(metadata, {"v": {"$in": several}}) is among
        assert matches(metadata, {"v": {"$nin": several}}) is not among
        assert not matches(metadata, {"v": {"$in": []}})
        assert matches(metadata, {"v": {"$nin": []}})


def test_what_exists_is_a_matter_of_the_key() -> None:
    for value in VALUES:
        there = value is not ABSENT
        assert matches(metadata_of(value), {"v": {"$exists": True}}) is there
        assert matches(metadata_of(value), {"v": {"$exists": False}}) is not there


def meaning(metadata: dict[str, Any], filter: dict[str, Any]) -> bool:
    """ "And" and "or", written once more over filters of a single operator."""
    for key, value in filter.items():
        if key == "$and":
            held = all(meaning(metadata, part) for part in value)
        elif key == "$or":
            held = any(meaning(metadata, part) for part in value)
        elif isinstance(value, dict):
            held = all(matches(metadata, {key: {word: one}}) for word, one in value.items())
        else:
            held = matches(metadata, {key: {"$eq": value}})
        if not held:
            return False
    return True


def test_and_and_or() -> None:
    records = stored()
    for filter in combined_filters(300):
        condition = parsed(filter)
        for metadata in records.values():
            assert matches(metadata, condition) is meaning(metadata, filter), (metadata, filter)


@pytest.mark.rest
def test_the_table_says_something() -> None:
    """Most filters find some records and leave some out."""
    records = stored()
    filters = [*single_filters(), *combined_filters(300)]
    found = [sum(matches(metadata, filter) for metadata in records.values()) for filter in filters]
    assert sum(0 < count < len(records) for count in found) > 0.8 * len(filters)
    assert {key for filter in filters for key in filter} >= {"v", "n", "lang", "$or", *KEYS}


def test_scalars_of_numpy_in_metadata_compare_as_pythons() -> None:
    assert matches({"v": np.int64(3)}, {"v": {"$gt": 2}})
    assert matches({"v": np.float32(0.5)}, {"v": 0.5})
    assert matches({"v": np.bool_(True)}, {"v": True})
    assert not matches({"v": np.bool_(True)}, {"v": 1})
