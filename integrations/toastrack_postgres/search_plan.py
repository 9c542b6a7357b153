"""How a search asks an index: which one, how much of it, and how many rows it compares again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, get_args

from psycopg import sql

from toastrack.errors import StoreError
from toastrack.stores import Trial
from toastrack_postgres.index_kinds import KINDS, IndexChoice, Indexed, best

# https://github.com/pgvector/pgvector#query-options
_MAX_EF_SEARCH = 1_000
_MIN_EF_SEARCH = 40
_FILTERED_EF_SEARCH = 400

_OVERSAMPLING = 10
_MIN_CANDIDATES = 100

# What a table of recall shows beside what a search does by itself.
_EF_SEARCH_TRIED = (40, 100, 200, 400)
_OVERSAMPLING_TRIED = (4, 10, 20, 40)


@dataclass(frozen=True)
class SearchOptions:
    """What only Postgres' search knows: a condition in SQL with its values, and the index."""

    where: sql.Composable | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    index: IndexChoice = "auto"
    ef_search: int | None = None
    oversampling: float | None = None

    def __post_init__(self) -> None:
        if self.index not in get_args(IndexChoice):
            raise ValueError(
                f"index={self.index!r} is not 'auto', 'full', 'binary' or 'prefix'. exact=True "
                "searches without any."
            )
        check_ef_search(self.ef_search)
        # Written so that NaN is refused, too.
        if self.oversampling is not None and not 1 <= self.oversampling < math.inf:
            raise ValueError(f"oversampling={self.oversampling!r} must be 1 or more.")


class SearchPlan(NamedTuple):
    """How one search goes."""

    on: Indexed | None
    """What it asks; None where nothing of the kind is there."""
    ef_search: int
    """How many rows the index looks at, at least."""
    iterative_scan: str
    candidates: int
    """How many rows of the index are compared again by their whole vectors; 0 for none."""
    filtered: bool

    @property
    def settings(self) -> list[str]:
        """What ``Statements.search_settings`` takes."""
        return [str(self.ef_search), self.iterative_scan]

    def is_short(self, rows: int, compared: int, k: int) -> bool:
        """Tell whether an index gave so few rows that the exact search has to follow.

        Behind a filter those that were compared again were not chosen from as many as they should be.
        """
        return rows < k or (self.filtered and compared < self.candidates)


def check_ef_search(ef_search: int | None) -> None:
    """Raise ``ValueError`` for what pgvector does not take."""
    if ef_search is not None and not 1 <= ef_search <= _MAX_EF_SEARCH:
        raise ValueError(f"ef_search={ef_search!r} must be from 1 to {_MAX_EF_SEARCH:,}.")


def planned(
    there: Iterable[Indexed],
    *,
    k: int,
    filtered: bool,
    options: SearchOptions,
    ef_search: int | None,
) -> SearchPlan:
    """Return how a search goes; ``ef_search`` is the store's own.

    Behind a filter only the rows nearest to the query are trusted, and where too few of them
    match, the exact search follows. Letting the index go on instead finds rows, but not the best:
    where the matching rows lie apart from the query, recall@10 fell below .8 and to nothing, and
    it took longer than an exact search (benchmarks/filters.py).
    """
    on = best(there, options.index)
    candidates = 0
    if on is not None and on.kind != "full":
        given = options.oversampling
        candidates = (
            max(_MIN_CANDIDATES, _OVERSAMPLING * k) if given is None else math.ceil(given * k)
        )
    chosen = options.ef_search or ef_search
    if chosen is None:
        least = max(_FILTERED_EF_SEARCH, 10 * k) if filtered else _MIN_EF_SEARCH
        chosen = min(max(least, k, candidates), _MAX_EF_SEARCH)
    return SearchPlan(on, chosen, "off" if filtered else "relaxed_order", candidates, filtered)


def trials(
    there: Sequence[Indexed], *, k: int, ef_search: int | None
) -> list[Trial[SearchOptions]]:
    """Return the ways to ask each kind that is there, the quickest first."""
    tried: list[Trial[SearchOptions]] = []
    for kind in KINDS:
        on = best(there, kind)
        if on is None:
            continue
        plan = partial(planned, there, k=k, filtered=False, ef_search=ef_search)
        by_itself = plan(options=SearchOptions(index=kind))
        if kind == "full":
            sizes = {by_itself.ef_search, *(size for size in _EF_SEARCH_TRIED if size >= k)}
            for size in sorted(sizes):
                options = SearchOptions(index=kind, ef_search=size)
                tried.append(Trial(options, str(on), size))
        else:
            for times in sorted({by_itself.candidates / k, *_OVERSAMPLING_TRIED}):
                options = SearchOptions(index=kind, oversampling=times)
                tried.append(Trial(options, str(on), plan(options=options).ef_search, times))
    return tried


def no_such_index(label: str, choice: IndexChoice) -> StoreError:
    """Return the error for a search that names an index that is not there."""
    return StoreError(
        f"Table {label!r} has no index of the kind {choice!r}. Build it with "
        f"build_index(kind={choice!r}), or leave out index=."
    )
