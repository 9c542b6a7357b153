"""A Postgres server of one's own, in a folder."""

from toastrack_postgres.embedded.server import SETTINGS, EmbeddedPostgres, OwnServer

__all__ = ["SETTINGS", "EmbeddedPostgres", "OwnServer"]
