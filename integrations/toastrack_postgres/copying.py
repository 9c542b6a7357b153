"""A COPY into a table, whose rows are held back until a batch of texts is together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from toastrack.stores import AsyncRuntime, Runtime, SyncRuntime, run_sync
from toastrack_postgres.dumpers import register_column_dumpers
from toastrack_postgres.embedding import embed, holds_text
from toastrack_postgres.landing import CopyColumns
from toastrack_postgres.registry import Registration

HELD_ROWS = 256

_SYNC = SyncRuntime()
_ASYNC = AsyncRuntime()


class _HeldRows:
    """The rows that wait for their vectors, from the first one with a text on."""

    def __init__(self, registration: Registration, columns: CopyColumns) -> None:
        self._registration = registration
        self._columns = columns
        self._rows: list[list[Any]] = []

    def hold(self, row: Sequence[Any]) -> bool:
        """Hold a row back; False for one that nothing needs to be done with."""
        has_text = any(map(holds_text, row))
        if has_text:
            self._columns.oids(self._registration, row)
        if not has_text and not self._rows:
            return False
        self._rows.append(list(row))
        return True

    @property
    def are_enough(self) -> bool:
        return len(self._rows) >= HELD_ROWS

    async def take(self, runtime: Runtime) -> list[list[Any]]:
        """Return the rows with their vectors, each of its column's own type, and hold none."""
        rows, self._rows = self._rows, []
        vectors = await embed(runtime, self._registration, rows)
        return [self._with_vectors(row, vectors) for row in rows]

    def _with_vectors(self, row: list[Any], vectors: Any) -> list[Any]:
        if not any(map(holds_text, row)):
            return row
        oids = self._columns.oids(self._registration, row)
        kind_of = self._registration.oids.kind_of
        # Binary COPY never casts.
        return [
            vectors.of(value, kind_of(oid)) if holds_text(value) else value
            for value, oid in zip(row, oids, strict=False)
        ]

    def teach(self, copy: Any) -> None:
        """Let a column whose type is about to be said take our vectors."""
        register_column_dumpers(
            copy.cursor.adapters, self._registration.oids, copy.formatter.format
        )


class EmbeddingCopy(psycopg.Copy):
    """A ``psycopg.Copy`` whose ``write_row`` takes texts where the columns are vectors."""

    def __init__(self, copy: psycopg.Copy, registration: Registration, columns: CopyColumns):
        # The same copy under another class: what its cursor ends is this one.
        self.__dict__ = copy.__dict__
        self._held = _HeldRows(registration, columns)

    def set_types(self, types: Sequence[int | str]) -> None:
        """Say of which types the columns are."""
        self._held.teach(self)
        super().set_types(types)

    def write(self, buffer: Any) -> None:
        """Write a block, behind the rows that were held back."""
        self.release()
        super().write(buffer)

    def write_row(self, row: Sequence[Any]) -> None:
        """Write a row; up to 256 are held back until their texts are embedded together."""
        if not self._held.hold(row):
            super().write_row(row)
        elif self._held.are_enough:
            self.release()

    def release(self) -> None:
        """Write the rows that were held back."""
        for row in run_sync(self._held.take(_SYNC)):
            super().write_row(row)


class AsyncEmbeddingCopy(psycopg.AsyncCopy):
    """A ``psycopg.AsyncCopy`` whose ``write_row`` takes texts where the columns are vectors."""

    def __init__(self, copy: psycopg.AsyncCopy, registration: Registration, columns: CopyColumns):
        self.__dict__ = copy.__dict__
        self._held = _HeldRows(registration, columns)

    def set_types(self, types: Sequence[int | str]) -> None:
        """Say of which types the columns are."""
        self._held.teach(self)
        super().set_types(types)

    async def write(self, buffer: Any) -> None:
        """Write a block, behind the rows that were held back."""
        await self.release()
        await super().write(buffer)

    async def write_row(self, row: Sequence[Any]) -> None:
        """Write a row; up to 256 are held back until their texts are embedded together."""
        if not self._held.hold(row):
            await super().write_row(row)
        elif self._held.are_enough:
            await self.release()

    async def release(self) -> None:
        """Write the rows that were held back."""
        for row in await self._held.take(_ASYNC):
            await super().write_row(row)
