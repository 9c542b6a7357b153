"""Store and search texts in Postgres with pgvector."""

from toastrack.errors import needs_extra

with needs_extra("postgres", "psycopg", "pgvector"):
    from toastrack_postgres.embedded import EmbeddedPostgres
    from toastrack_postgres.store import AsyncPostgresStore, PostgresStore

__all__ = ["AsyncPostgresStore", "EmbeddedPostgres", "PostgresStore"]
