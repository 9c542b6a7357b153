"""A Postgres server of one's own, in a folder."""

from toastrack_postgres.embedded.server import EmbeddedPostgres, OwnServer

__all__ = ["EmbeddedPostgres", "OwnServer"]
