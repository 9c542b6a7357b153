"""A table as it was found, and whether its name still stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from toastrack import EmbeddingSpace
from toastrack.errors import UnsupportedError
from toastrack.stores import CollectionChangedError
from toastrack_postgres.codec import VectorParameter, VectorType
from toastrack_postgres.columns import Found
from toastrack_postgres.packing import Packer
from toastrack_postgres.session import Asked, Parameters, Rows, Session
from toastrack_postgres.space_comment import recorded_in
from toastrack_postgres.sql import Statements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIND = "Table"


@dataclass(frozen=True)
class Table:
    """What the catalogue and the comment on the column of its vectors say of a table."""

    label: str
    """Schema and name."""
    oid: int
    statements: Statements
    storage: VectorType
    vector_oid: int
    """The number of the type of its vectors, and of arrays of them."""
    vector_array_oid: int
    dimensions: int
    comment: str | None
    space: EmbeddingSpace | None
    format: int
    columns: Found | None = None
    """Which hold what, where something else made it; None where all are called as ours are."""
    has_size: bool = True
    """The column of the vectors says how many numbers they have."""
    has_source: bool = False
    may_add_source: bool = False
    """It has no column for sources, and this user may add one."""
    has_own_types: bool = False
    """Its columns are of the very types that we create, so that rows can be copied into it."""

    def check_writable(self) -> None:
        """Raise ``UnsupportedError`` for a table that cannot hold what is written."""
        if self.columns is not None and self.columns.read_only:
            raise UnsupportedError(
                f"Table {self.label!r} is only read: {self.columns.read_only}. Fill one of ours from "
                "it, which embeds nothing anew: other.upsert(store.records(vectors=True))."
            )

    async def check_found(self, session: Session) -> None:
        """Raise ``CollectionChangedError`` unless the name stands for the table that was found.

        It does until the transaction ends.
        """
        self.compare_found(await session.execute(self.statements.found))

    def compare_found(self, rows: Rows) -> None:
        """Raise the same by what ``Statements.found`` answered, be it among other things."""
        oid, comment = rows[0][:2] if rows else (None, None)
        if oid == self.oid and comment == self.comment:
            return
        # Another store may have brought its format up.
        if oid != self.oid or self._space_in(comment) != self.space:
            raise CollectionChangedError(KIND, self.label)

    def _space_in(self, comment: str | None) -> EmbeddingSpace | None:
        return recorded_in(comment, self.label, self.statements.embedding_column)[0]

    async def execute_found(
        self, session: Session, statement: sql.Composable, parameters: Parameters
    ) -> Rows:
        """Execute one statement on the table that was found, or raise ``CollectionChangedError``."""
        found, asked = Asked(self.statements.found), Asked(statement, parameters)
        _, rows = await session.execute_checked(found, self.compare_found, asked)
        return rows

    def parameter(self, vector: NDArray[np.float32]) -> VectorParameter:
        """Return a vector as its column's type."""
        return VectorParameter(vector, self.storage, self.vector_oid)

    def packer(self, session: Session) -> Packer:
        """Return what packs rows for it."""
        return Packer(
            self.storage,
            vector_oid=self.vector_oid,
            array_oid=self.vector_array_oid,
            encoding=session.encoding,
        )
