"""A set of ids on disk, so that memory stays flat however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


class IdSet:
    """Each id once, with where it was met first: pages of them in the order of their bytes."""

    def __init__(self) -> None:
        # "" is a temporary file that sqlite deletes: https://www.sqlite.org/inmemorydb.html#temp_db
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute(
            "create table ids (id text primary key, location text) without rowid"
        )

    def add(self, ids: Iterable[str]) -> None:
        """Take ids in, whether they came before or not; ``TypeError`` for one str."""
        if isinstance(ids, str):
            raise TypeError(f"add takes ids and was given one: {ids!r:.40}. Write [id].")
        self._database.executemany(
            "insert or ignore into ids (id) values (?)", ((id,) for id in ids)
        )

    def remove(self, others: IdSet) -> None:
        """Let the ids of another set go."""
        last: str | None = None
        while page := others.page(last, 1_000):
            self._database.executemany("delete from ids where id = ?", ((id,) for id in page))
            last = page[-1]

    def add_at(self, id: str, location: str) -> str | None:
        """Take one id in; return where it was met first, if it came before."""
        try:
            self._database.execute("insert into ids values (?, ?)", (id, location))
        except sqlite3.IntegrityError:
            ((first,),) = self._database.execute("select location from ids where id = ?", (id,))
            return str(first)
        return None

    def __contains__(self, id: str) -> bool:
        return (
            self._database.execute("select 1 from ids where id = ?", (id,)).fetchone() is not None
        )

    def page(self, after: str | None, size: int) -> list[str]:
        """Return the next ids behind ``after``, in the order of their bytes."""
        rows = self._database.execute(
            "select id from ids where ? is null or id > ? order by id limit ?",
            (after, after, size),
        )
        return [id for (id,) in rows]

    def page_and_next(
        self, after: str | None, size: int
    ) -> tuple[list[str], tuple[IdSet, str] | None]:
        """Return a page, and this set with where the next one begins; None behind the last.

        That is what ``Backend.document_page`` and its like take and return, for a host whose own
        pages shift as rows go.
        """
        page = self.page(after, size)
        return page, (self, page[-1]) if len(page) == size else None

    def __len__(self) -> int:
        ((number,),) = self._database.execute("select count(*) from ids")
        return int(number)

    def close(self) -> None:
        """Give the disk space back."""
        self._database.close()

    def __del__(self) -> None:
        self.close()
