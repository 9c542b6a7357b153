"""What the sync and the async store have in common beside what every store has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql

from toastrack.filters import Filter, checked_filter
from toastrack.records import Match, Record
from toastrack.stores.base_store import BaseStore
from toastrack.stores.steps import Steps
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import VectorType, check_record
from toastrack_postgres.opening import Settings
from toastrack_postgres.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_TABLE = "toastrack_documents"

# How often a transaction is run again that another writer's made impossible.
RETRIES = 5


class PostgresBase(BaseStore[Table]):
    """Holds what the user said of the table."""

    _settings: Settings

    def _set(
        self, table: str, *, schema: str | None, create: bool, adopt: bool, storage: VectorType
    ) -> None:
        if storage not in ("halfvec", "vector"):
            raise ValueError(f"storage={storage!r} is not 'halfvec' or 'vector'.")
        self._settings = Settings(
            table=statements.check_name("Table", table),
            schema=None if schema is None else statements.check_name("Schema", schema),
            create=create,
            adopt=adopt,
            storage=storage,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(table={self._settings.label!r})"

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if Postgres cannot store this record, e.g. for NUL in its text."""
        check_record(record)


def find(
    k: int,
    filter: Filter | None,
    exact: bool,
    where: sql.Composable | None,
    params: Mapping[str, Any] | None,
) -> Callable[[Table, NDArray[np.float32]], Steps[list[Match]]]:
    """Return what a search does with the table and the query's vector."""
    return partial(
        Table.search,
        k=k,
        filter=checked_filter(filter),
        where=where,
        parameters=params or {},
        exact=exact,
    )


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
