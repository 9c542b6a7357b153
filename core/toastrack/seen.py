"""Which ids this run has read, kept on disk so that memory stays flat."""

from __future__ import annotations

import sqlite3

from toastrack.errors import SourceError


class SeenIds:
    """Remembers every id with its place; the same id twice in one run is an error."""

    def __init__(self) -> None:
        # "" is a temporary file that sqlite deletes: https://www.sqlite.org/inmemorydb.html#temp_db
        self._database = sqlite3.connect("")
        self._database.execute(
            "create table seen (id text primary key, place text not null, document int not null)"
            " without rowid"
        )
        self.documents = 0

    def add(self, id: str, place: str, *, document: bool) -> None:
        """Note an id; raise ``SourceError`` naming both places if it was there already."""
        try:
            self._database.execute("insert into seen values (?, ?, ?)", (id, place, document))
        except sqlite3.IntegrityError:
            ((first,),) = self._database.execute("select place from seen where id = ?", (id,))
            raise SourceError(
                f"The id {id!r} comes twice: from {first} and from {place}. Ids must be unique "
                "within one run."
            ) from None
        except UnicodeEncodeError:
            raise SourceError(f"{place}: the id {id!r} is not valid Unicode.") from None
        self.documents += document

    def is_document(self, id: str) -> bool:
        """Tell whether a document of this id was read."""
        row = self._database.execute("select document from seen where id = ?", (id,)).fetchone()
        return bool(row and row[0])

    def close(self) -> None:
        """Give the disk space back."""
        self._database.close()
