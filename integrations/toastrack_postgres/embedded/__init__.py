"""A Postgres server of one's own, in a folder."""

from toastrack_postgres.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
