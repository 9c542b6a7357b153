"""Store and search texts in Postgres with pgvector."""

from toastrack.errors import needs_extra
from toastrack.stores import RecallRow, RecallTable

with needs_extra("postgres", "psycopg", "pgvector"):
    from toastrack_postgres.column_space import (
        check_column_space,
        check_column_space_async,
        record_column_space,
        record_column_space_async,
    )
    from toastrack_postgres.embedded import EmbeddedPostgres
    from toastrack_postgres.parameters import DocumentText, ParameterError, QueryText
    from toastrack_postgres.register import (
        register_embedder,
        register_embedder_async,
        unregister_embedder,
    )
    from toastrack_postgres.store import AsyncPostgresStore, PostgresStore

__all__ = [
    "AsyncPostgresStore",
    "DocumentText",
    "EmbeddedPostgres",
    "ParameterError",
    "PostgresStore",
    "QueryText",
    "RecallRow",
    "RecallTable",
    "check_column_space",
    "check_column_space_async",
    "record_column_space",
    "record_column_space_async",
    "register_embedder",
    "register_embedder_async",
    "unregister_embedder",
]
