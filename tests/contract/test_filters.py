"""Filters find the same records on every store: those that ``filters.matches`` says."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from filter_table import combined_filters, single_filters, stored

from toastrack import Record
from toastrack.filters import matches, parsed
from toastrack.stores.protocol import Store

if TYPE_CHECKING:
    pass

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


SOME = [*islice(single_filters(), 0, None, 5), *combined_filters(80)]


@pytest.mark.connection
def test_a_search_finds_what_matches(filled: Store) -> None:
    check_search(filled, SOME)


@pytest.mark.rest
def test_a_search_finds_what_matches_whatever_is_asked(filled: Store) -> None:
    check_search(filled, [*single_filters(), *combined_filters(1_000)])
