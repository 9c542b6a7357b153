"""The indexes of a table as they were when they were last looked at."""

from __future__ import annotations

from typing import NamedTuple

from toastrack_postgres import catalogue, text_index
from toastrack_postgres.index_kinds import Indexed, read_indexes
from toastrack_postgres.session import Asked, Session
from toastrack_postgres.table import Table


class Seen(NamedTuple):
    """The indexes of the vectors."""

    mark: str | None = None
    """What the server said of those that are valid; another one when that changes."""
    usable: tuple[Indexed, ...] = ()
    any: bool = False


class SeenIndexes:
    """What a search knows of the indexes without asking.

    Each search is told the mark of those that are valid, and looks again when it is another one.
    """

    def __init__(self) -> None:
        self.vectors = Seen()
        self._words = text_index.TextIndexes()
        self._asks_words = False

    async def look(self, table: Table, session: Session) -> None:
        """Look at those of the vectors and, once somebody searched by words, at those of words."""
        # In this order: what comes between the two is noticed by the next search.
        told, rows = await session.execute_checked(
            Asked(table.statements.found_indexes),
            table.compare_found,
            Asked(catalogue.VECTOR_INDEXES, [table.oid, table.statements.embedding_column]),
        )
        there = read_indexes(rows)
        found = [one.indexed(table.storage, table.dimensions) for one in there if one.valid]
        self.vectors = Seen(told[0][2], tuple(filter(None, found)), bool(there))
        if self._asks_words:
            self._words = await text_index.find(session, table.oid, table.statements.text_column)

    async def look_for_words(self, table: Table, session: Session) -> None:
        """Look at those of words, too, from now on; nothing if one is known."""
        if not self._words.usable:
            self._asks_words = True
            await self.look(table, session)

    def of_words(self, table: Table) -> text_index.TextIndex:
        """Return the index of words; raises ``UnsupportedError`` if there was none."""
        if not self._words.usable:
            raise text_index.no_index(table.label, self._words)
        return self._words.usable[0]
