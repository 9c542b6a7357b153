"""Each id once, out of a stream that repeats them, with flat memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


class Distinct:
    """A set of ids on disk, for hosts that cannot list a document once."""

    def __init__(self) -> None:
        # "" is a temporary file that sqlite deletes: https://www.sqlite.org/inmemorydb.html#temp_db
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("create table seen (id text primary key) without rowid")

    def add(self, ids: Iterable[str]) -> None:
        """Take ids in, whether they came before or not."""
        self._database.executemany("insert or ignore into seen values (?)", ((id,) for id in ids))

    def page(self, after: str | None, size: int) -> list[str]:
        """Return the next ids behind ``after``, in the order of their bytes."""
        rows = self._database.execute(
            "select id from seen where ? is null or id > ? order by id limit ?",
            (after, after, size),
        )
        return [id for (id,) in rows]

    def __len__(self) -> int:
        ((number,),) = self._database.execute("select count(*) from seen")
        return int(number)

    def __del__(self) -> None:
        self._database.close()
