"""Filters as they are typed, and as they are said again."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from toastrack.cli.filters import described, filter_of
from toastrack.errors import FilterError
from toastrack.filters import matches

DAY = date(2024, 2, 29)
UTC = timezone.utc


@pytest.mark.parametrize(
    ("typed", "filter"),
    [
        ("lang=en", {"lang": "en"}),
        (" lang = en ", {"lang": "en"}),
        ("year=7", {"year": 7}),
        ("year=7.5", {"year": 7.5}),
        ('year="7"', {"year": "7"}),
        ("draft=true", {"draft": True}),
        ("draft=True", {"draft": "True"}),
        ("price=NaN", {"price": "NaN"}),
        ('note=""', {"note": ""}),
        ("note=a=b", {"note": "a=b"}),
        ("note=bread in oven", {"note": "bread in oven"}),
        ("note=nobody exists", {"note": "nobody exists"}),
        ('note="=x"', {"note": "=x"}),
        ("born in=Ulm", {"born in": "Ulm"}),
        ("lang!=en", {"lang": {"$ne": "en"}}),
        ("year>=2020", {"year": {"$gte": 2020}}),
        ("year > 2020", {"year": {"$gt": 2020}}),
        ("year<2020", {"year": {"$lt": 2020}}),
        ("year<=-1e3", {"year": {"$lte": -1000.0}}),
        ("lang in en,de", {"lang": {"$in": ["en", "de"]}}),
        ("lang in en", {"lang": {"$in": ["en"]}}),
        ("lang in [ ]", {"lang": {"$in": []}}),
        ('lang in ["a=b", "c,d"]', {"lang": {"$in": ["a=b", "c,d"]}}),
        ("year not-in 1, 2.5, x", {"year": {"$nin": [1, 2.5, "x"]}}),
        ("tags exists", {"tags": {"$exists": True}}),
        ("tags exists false", {"tags": {"$exists": False}}),
        ("baked>=2024-02-29", {"baked": {"$gte": DAY}}),
        ("baked=2024-02-29", {"baked": "2024-02-29"}),
        ('baked>="2024-02-29"', {"baked": {"$gte": "2024-02-29"}}),
        ("baked>2024-02", {"baked": {"$gt": "2024-02"}}),
        ("baked<2024-02-29 05:30", {"baked": {"$lt": datetime(2024, 2, 29, 5, 30)}}),
        (
            "baked<2024-02-29T05:30:01.5Z",
            {"baked": {"$lt": datetime(2024, 2, 29, 5, 30, 1, 500_000, UTC)}},
        ),
        (
            "baked<=0001-01-01T00:00-01:30",
            {"baked": {"$lte": datetime(1, 1, 1, tzinfo=timezone(-timedelta(minutes=90)))}},
        ),
        (
            "baked<2024-02-29+01:00",
            {"baked": {"$lt": datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=1)))}},
        ),
    ],
)
def test_what_is_typed(typed: str, filter: dict[str, Any]) -> None:
    found = filter_of([typed], None)
    assert found == filter
    # True == 1, and a filter knows the difference.
    assert repr(found) == repr(filter)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("novalue", "is no condition"),
        ("", "is no condition"),
        ("=x", "is no condition"),
        (">=7", "is no condition"),
        ("x=", "has no value"),
        ("x>", "has no value"),
        ("x==7", "two operators"),
        ("x=>7", "two operators"),
        ("x<>7", "two operators"),
        ("x=null", "KEY exists"),
        ("x=[1, 2]", "KEY in A,B"),
        ('x={"$gte": 1}', "there are texts, numbers"),
        ('x="a', "is no text in JSON"),
        ("x in", "names no values"),
        ("x in [a, b]", "is no list in JSON"),
        ("x in a,,b", "has no value"),
        ("x in [[1]]", "compares with [1]"),
        ("x in null", "compares with null"),
        ("x exists maybe", "nothing, true or false"),
        ("x>true", "has no order"),
        ("x>=2024-02-30", "names no day"),
        ("x>=2024-2-1", "names no day"),
        ("x>=2024-02-29T25:00", "names no day"),
        ("x=" + "9" * 5_000, "5,000 digits"),
        ("a.b=1", "names with '.'"),
        ("$or=1", "$or"),
    ],
)
def test_what_is_malformed(typed: str, says: str) -> None:
    with pytest.raises(FilterError) as error:
        filter_of([typed], None)
    assert says in str(error.value)


def test_several_conditions_must_all_hold() -> None:
    filter = filter_of(["year>=2020", "year<2024"], '{"$or": [{"lang": "en"}, {"lang": "de"}]}')
    assert matches({"year": 2020, "lang": "de"}, filter)
    assert not matches({"year": 2024, "lang": "de"}, filter)
    assert not matches({"year": 2020, "lang": "fr"}, filter)
    assert filter_of([], None) == {}
    assert filter_of([], "{}") == {}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("{", "is not JSON"),
        ('{"x": NaN}', "is not JSON"),
        ("7", "is a mapping"),
        ('{"x": 1, "x": 2}', "'x' twice"),
        ('{"x": {"$near": 1}}', "'$near' is not one of"),
        ('{"x": null}', "'x'"),
    ],
)
def test_malformed_json(typed: str, says: str) -> None:
    with pytest.raises(FilterError) as error:
        filter_of([], typed)
    assert says in str(error.value)
    assert "--filter-json" in str(error.value) or "twice" in says


def test_a_filter_is_said_as_it_is_typed() -> None:
    filter = filter_of(
        ["year>=2020", "baked<2024-02-29", "lang in en,7", "tags exists"],
        '{"$or": [{"a": "1"}, {"b": {"$ne": true, "$gt": 0.5}}]}',
    )
    assert described(filter) == (
        'year >= 2020 and baked < 2024-02-29 (a day) and lang in ["en", 7] and tags exists true '
        'and (a = "1" or b != true and b > 0.5)'
    )
