"""A search of a table: by an index and, where that gives too few, by every row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql

from toastrack import Match
from toastrack.errors import StoreError
from toastrack.stores import Filter, TextHits, TextQuery, Trial, parsed
from toastrack_postgres import text_search
from toastrack_postgres.codec import metadata_of
from toastrack_postgres.filters import Where
from toastrack_postgres.search_plan import SearchOptions, SearchPlan, no_such_index, planned, trials
from toastrack_postgres.seen_indexes import SeenIndexes
from toastrack_postgres.session import Asked, Rows, Session
from toastrack_postgres.sql import Statements
from toastrack_postgres.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Wrap = Callable[[sql.Composed, bool], sql.Composed]
"""Makes more of a search; it is told whether that says how many rows were compared again."""


class _Question(NamedTuple):
    """What is asked of a table."""

    table: Table
    session: Session
    statements: Statements
    """About its rows, or those of them that pass a condition on names of its own."""
    k: int
    options: SearchOptions
    conditions: list[sql.Composable]
    """What a row must pass."""
    values: dict[str, Any]


class Searcher:
    """Searches a table, and remembers its indexes.

    Args:
        ef_search: How many rows an index looks at, at least; None leaves it to each search.
    """

    def __init__(self, ef_search: int | None) -> None:
        self.indexes = SeenIndexes()
        self._ef_search = ef_search

    async def search(
        self,
        table: Table,
        session: Session,
        vector: NDArray[np.float32],
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` rows; asked again exactly if an index gave fewer."""
        question = _question(table, session, k, filter, options)
        question.values["toastrack_query"] = table.parameter(vector)
        rows: Rows = []
        if not exact:
            plan, rows = await self._ask_index(question)
            compared = rows[0][6] if rows and plan.candidates else 0
            # Without an index that answer was exact already.
            exact = self.indexes.vectors.any and plan.is_short(len(rows), compared, k)
        if exact:
            search = question.statements.search(question.conditions, exact=True)
            rows = await table.execute_found(session, search, question.values)
        matches = [
            Match(id, text, float(score), metadata_of(metadata), document, chunk)
            for id, text, metadata, document, chunk, score, *_ in rows
            # A row of zeros has no cosine. It stands behind all others, and is in no HNSW index.
            if not math.isnan(score)
        ]
        # A relaxed index scan may swap neighbours; equal scores stand in the order of their ids.
        return sorted(matches, key=lambda match: (-match.score, match.id))

    async def search_text(
        self,
        table: Table,
        session: Session,
        query: TextQuery,
        vector: NDArray[np.float32] | None,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: SearchOptions,
    ) -> TextHits:
        """Return the best k rows by their words, or with a vector by both, of one statement."""
        question = _question(table, session, k, filter, options)
        # Postgres takes no NUL.
        text = query.text.replace("\0", " ")
        question.values.update(
            toastrack_text=text,
            toastrack_vector_weight=query.vector_weight,
            toastrack_text_weight=query.text_weight,
        )
        if vector is not None:
            question.values["toastrack_query"] = table.parameter(vector)

        def both(search: sql.Composed, compared: bool) -> sql.Composed:
            return text_search.statement(
                question.statements,
                self.indexes.of_words(table),
                question.conditions,
                syntax=query.syntax,
                search=None if vector is None else search,
                compared=compared,
            )

        await self.indexes.look_for_words(table, session)
        rows: Rows = []
        if not exact or vector is None:
            plan, rows = await self._ask_index(question, both)
            near, compared = rows[0][8:] if rows else (0, 0)
            is_short = self.indexes.vectors.any and plan.is_short(near, compared, k)
            exact = vector is not None and is_short
        if exact:
            rows = await self._ask_exactly(question, both)
        kind = "text" if vector is None else "rrf"
        matches = [text_search.match_of(row, kind=kind) for row in rows]
        matches.sort(key=lambda match: (-match.score, match.id))
        on = self.indexes.of_words(table)
        if matches or await text_search.has_words(session, on, text, query.syntax):
            return TextHits(matches)
        return TextHits([], on.language)

    async def recall_trials(
        self, table: Table, session: Session, k: int
    ) -> list[Trial[SearchOptions]]:
        """Return the ways to search whose recall is measured.

        Raises:
            StoreError: There is no index.
        """
        await self.indexes.look(table, session)
        if not self.indexes.vectors.usable:
            raise StoreError(
                f"Table {table.label!r} has no index, so that each search is exact. Build one with "
                "build_index()."
            )
        return trials(self.indexes.vectors.usable, k=k, ef_search=self._ef_search)

    async def prefix_trial(self, table: Table, session: Session, k: int) -> Trial[SearchOptions]:
        """Return how a search by the first numbers goes by itself."""
        options = SearchOptions(index="prefix")
        await self.indexes.look(table, session)
        plan = self._planned(k, options, filtered=False)
        return Trial(options, str(plan.on), plan.ef_search)

    async def _ask_index(
        self, question: _Question, wrap: _Wrap | None = None
    ) -> tuple[SearchPlan, Rows]:
        """Ask the index that is best for it, if there is one; return how, and what was found."""
        table, session, about, k, options, conditions, values = question
        if self.indexes.vectors.mark is None:
            await self.indexes.look(table, session)
        while True:
            plan = self._planned(k, options, filtered=bool(conditions))
            if options.index != "auto" and plan.on is None:
                await self.indexes.look(table, session)  # somebody may have built it
                plan = self._planned(k, options, filtered=bool(conditions))
                if plan.on is None:
                    raise no_such_index(table.label, options.index)
            if plan.on is None or not plan.candidates:
                statement = about.search(conditions, exact=False)
                given = values
            else:
                statement = about.search_again(plan.on, table.storage, conditions)
                given = {**values, "toastrack_candidates": plan.candidates}
            if wrap is not None:
                statement = wrap(statement, plan.on is not None and plan.candidates > 0)
            told, rows = await session.execute_checked(
                Asked(table.statements.search_settings, plan.settings),
                table.compare_found,
                Asked(statement, given),
            )
            if told[0][2] == self.indexes.vectors.mark:
                return plan, rows
            await self.indexes.look(table, session)

    async def _ask_exactly(self, question: _Question, wrap: _Wrap) -> Rows:
        """Compare with every row, beside the words of the index that is there now."""
        table, session = question.table, question.session
        while True:
            search = question.statements.search(question.conditions, exact=True)
            told, rows = await session.execute_checked(
                Asked(table.statements.found_indexes),
                table.compare_found,
                Asked(wrap(search, False), question.values),
            )
            if told[0][2] == self.indexes.vectors.mark:
                return rows
            await self.indexes.look(table, session)

    def _planned(self, k: int, options: SearchOptions, *, filtered: bool) -> SearchPlan:
        there = self.indexes.vectors.usable
        return planned(there, k=k, filtered=filtered, options=options, ef_search=self._ef_search)


def _question(
    table: Table, session: Session, k: int, filter: Filter, options: SearchOptions
) -> _Question:
    about = table.statements
    conditions: list[sql.Composable] = []
    values: dict[str, Any] = dict(options.params)
    if filter:
        passing = Where(parsed(filter))
        conditions.append(passing.sql)
        values.update(passing.values)
    if options.where is not None and table.columns is None:
        conditions.append(sql.SQL("({})").format(options.where))
    elif options.where is not None:  # it stands where the table has its own names
        about = about.narrowed(options.where)
        conditions.append(sql.SQL("true"))
    values["toastrack_k"] = k
    return _Question(table, session, about, k, options, conditions, values)
