"""What the sync and the async store have in common: settings, checks and how a search is put."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.filters import Filter, checked_filter
from toastrack.records import Match, Record, unit_vector
from toastrack.space import EmbeddingSpace
from toastrack_postgres import operations
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import VectorType, check_record
from toastrack_postgres.operations import Settings, Steps, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toastrack.records import Vector

DEFAULT_TABLE = "toastrack_documents"

# How often a transaction is run again that another writer's made impossible.
RETRIES = 5


class PostgresStoreBase:
    """Holds what the user said and what is known of the table; talks to nobody."""

    def __init__(
        self,
        table: str,
        *,
        embedder: Embedder,
        schema: str | None,
        create: bool,
        adopt: bool,
        storage: VectorType,
    ) -> None:
        if storage not in ("halfvec", "vector"):
            raise ValueError(f"storage={storage!r} is not 'halfvec' or 'vector'.")
        self.embedder = embedder
        self._settings = Settings(
            table=statements.check_name("Table", table),
            schema=None if schema is None else statements.check_name("Schema", schema),
            create=create,
            adopt=adopt,
            storage=storage,
        )
        self._table: Table | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self._settings.label!r})"

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if Postgres cannot store this record, e.g. for NUL in its text."""
        check_record(record)

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the table recorded; known once the store is open."""
        if self._table is None:
            raise StoreError(f"{self!r} is not open yet. Call open(), or use it in a with block.")
        return self._table.stored or self.embedder.space


def search_operation(
    vector: NDArray[np.float32] | Vector,
    table: Table,
    *,
    k: int,
    filter: Filter | None,
    exact: bool,
    where: sql.Composable | None,
    params: Mapping[str, Any] | None,
) -> Callable[[Table], Steps[list[Match]]]:
    """Check a search's arguments and return the operation."""
    return partial(
        operations.search,
        vector=unit_vector(vector, "The query vector", table.dimensions),
        k=k,
        filter=checked_filter(filter),
        where=where,
        parameters=params or {},
        exact=exact,
    )


def delete_operation(
    ids: Iterable[str] | None, documents: Iterable[str] | None
) -> Callable[[Table], Steps[int]]:
    """Check what is to be deleted and return the operation."""
    if ids is None and documents is None:
        raise ValueError("Say what to delete: ids= or documents=.")
    return partial(
        operations.delete,
        ids=listed("ids", ids or ()),
        documents=listed("documents", documents or ()),
    )


def listed(name: str, values: Iterable[str]) -> list[str]:
    """Return a list of ids; one str is a mistake, not a list of letters."""
    if isinstance(values, str):
        raise TypeError(f"{name} takes a list of str and was given one str. Write [id].")
    found = list(values)
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} takes str and was given {value!r:.60}.")
    return found


def check_search(k: int, filter: Filter | None) -> None:
    """Refuse what is wrong with a search before a model is loaded for it."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 0:
        raise ValueError(f"k={k!r} must be a whole number of at least 0.")
    checked_filter(filter)


def may_retry(error: BaseException) -> bool:
    """Tell whether the same transaction can succeed when it is simply run again."""
    return isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure))


def is_inside_transaction(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
) -> bool:
    """Tell whether somebody else's transaction is open on a connection."""
    return connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE


def check_idle(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Refuse to build concurrently inside a transaction, which Postgres cannot do."""
    if is_inside_transaction(connection):
        raise ValueError("concurrently=True needs a connection that is not inside a transaction.")
