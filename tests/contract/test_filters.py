"""Filters find the same records on every store: those that ``filters.matches`` says."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any

import pytest
from filter_table import combined_filters, single_filters, stored

from toastrack import Record
from toastrack.errors import FilterError
from toastrack.filters import matches, parsed
from toastrack.stores.protocol import Store

DIMENSIONS = 32
METADATA = stored()


def axis(position: int) -> list[float]:
    return [float(number == position) for number in range(DIMENSIONS)]


@pytest.fixture
def filled(store: Store) -> Store:
    store.upsert(
        Record(id, "rye", metadata, vector=axis(number % DIMENSIONS), document_id=f"d{number % 7}")
        for number, (id, metadata) in enumerate(METADATA.items())
    )
    return store


def expected(filter: dict[str, Any]) -> set[str]:
    condition = parsed(filter)
    return {id for id, metadata in METADATA.items() if matches(metadata, condition)}


def check_search(store: Store, filters: Iterable[dict[str, Any]]) -> None:
    wrong = []
    for number, filter in enumerate(filters):
        ids = expected(filter)
        # An index that looks at few rows and one that looks at all; every other way exactly.
        k = (3, 20, len(METADATA))[number % 3]
        found = store.search(axis(number % DIMENSIONS), k, filter, exact=number % 2 == 1)
        ours = {match.id for match in found}
        if len(ours) != min(k, len(ids)) or not ours <= ids:
            wrong.append((filter, k, sorted(ours - ids), sorted(ids - ours)))
        scores = [match.score for match in found]
        assert scores == sorted(scores, reverse=True)
    assert not wrong, f"{len(wrong)} filters, such as {wrong[:3]}"


def check_count(store: Store, filters: Iterable[dict[str, Any]]) -> None:
    documents = {record: f"d{number % 7}" for number, record in enumerate(METADATA)}
    wrong = []
    for filter in filters:
        ids = expected(filter)
        counted = store.count(filter=filter), store.count(True, filter)
        if counted != (len(ids), len({documents[id] for id in ids})):
            wrong.append((filter, counted, len(ids)))
    assert not wrong, f"{len(wrong)} filters, such as {wrong[:3]}"


SOME = [*islice(single_filters(), 0, None, 5), *combined_filters(80)]


def test_a_search_finds_what_matches(filled: Store) -> None:
    check_search(filled, SOME)


@pytest.mark.rest
def test_a_search_finds_what_matches_whatever_is_asked(filled: Store) -> None:
    check_search(filled, [*single_filters(), *combined_filters(1_000)])


def test_a_count_is_of_what_matches(filled: Store) -> None:
    check_count(filled, SOME[::4])
    assert filled.count(filter={}) == filled.count(filter=None) == len(METADATA)


def test_an_index_for_fields_changes_no_answer(filled: Store) -> None:
    filled.build_index(filter_fields=["v", "lang"])
    assert filled.build_index(filter_fields=["v", "lang"]) is False
    check_search(filled, SOME[::4])
    check_count(filled, SOME[::8])


@pytest.mark.rest
def test_an_index_for_fields_changes_no_answer_whatever_is_asked(filled: Store) -> None:
    # Where there are none, all is as it is without.
    if filled.build_index(filter_fields=["v", "lang", "n"]):
        check_search(filled, [*single_filters(), *combined_filters(300)])
        check_count(filled, [*single_filters(), *combined_filters(300)])
    assert filled.build_index(filter_fields=["v", "lang", "n"]) is False


def test_a_field_has_a_name(store: Store) -> None:
    for wrong in ("", "a.b", "$or", "\ud800", 7):
        names: Any = [wrong]
        with pytest.raises(FilterError):
            store.build_index(filter_fields=names)
    with pytest.raises(TypeError, match=r"\['lang'\]"):
        store.build_index(filter_fields="lang")


@pytest.mark.rest
def test_a_count_is_of_what_matches_whatever_is_asked(filled: Store) -> None:
    check_count(filled, [*single_filters(), *combined_filters(300)])


def test_a_delete_is_of_what_matches(filled: Store) -> None:
    left = set(METADATA)
    filters: list[dict[str, Any]] = [
        {"v": {"$gte": 2**63, "$lt": 10**400}},
        {"v": {"$lt": -0.5}},
        {"v": datetime(2024, 2, 29)},
        {"v": {"$gt": "a", "$lte": "b"}},
        {"v": 1},
        {"v": {"$in": [0.1, True, "NaN"]}},
        {"lang": {"$nin": ["en", "de"]}, "n": {"$exists": True}},
        {"it's": "x"},
        {'say "hi"': "x"},
        {"%s": {"$exists": True}},
        {"nobody": "x"},
        {"v": {"$in": []}},
    ]
    for filter in filters:
        doomed = expected(filter) & left
        assert filled.delete(filter=filter) == len(doomed), filter
        left -= doomed
        assert filled.count() == len(left)
    assert {match.id for match in filled.search(axis(0), k=len(METADATA))} == left
    assert filled.delete(filter={"nobody": {"$exists": False}}) == len(left)
    assert filled.count() == 0


def test_what_delete_takes(filled: Store) -> None:
    nothing: list[Any] = [{}, MappingProxyType({})]
    for empty in nothing:
        with pytest.raises(FilterError, match="every record"):
            filled.delete(filter=empty)
    beside: list[Any] = [(["v000"], None), (None, ["d0"]), ([], None), (None, [])]
    for ids, documents in beside:
        with pytest.raises(ValueError, match="never both"):
            filled.delete(ids, documents, {"v": 1})
    with pytest.raises(ValueError, match="what to delete"):
        filled.delete()
    with pytest.raises(FilterError, match="'v'"):
        filled.delete(filter={"v": None})
    with pytest.raises(FilterError, match="'v'"):
        filled.count(filter={"v": None})
    assert filled.count() == len(METADATA)
