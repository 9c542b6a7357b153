"""How long a store waits for a server that went away, and what counts as gone.

A transaction that was under way is run again on a new connection. Whether its commit came through
is not known then, and does not matter: every write here may be done twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import PipelineStatus

from toastrack import errors as our_errors
from toastrack.stores import LONG_BACKOFF as LONG_BACKOFF
from toastrack.stores import SHORT_BACKOFF as SHORT_BACKOFF
from toastrack.stores import Retry

# No further try begins later than this after the loss, however long connecting took.
_MAX_SECONDS = 15.0

# The server says goodbye before the connection shows that it is closed.
# https://www.postgresql.org/docs/current/errcodes-appendix.html, class 57
_GOODBYES = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)


# How libpq tells of a connection that ended before the server had said yes or no.
_BROKE = re.compile("closed the connection unexpectedly|(receive|send).* data|SSL SYSCALL error")


class ConnectionLostError(our_errors.ConnectionLostError, psycopg.OperationalError):
    """The connection to the server broke, or could not be made again."""


@contextmanager
def noticing_loss(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
) -> Iterator[None]:
    """Turn an error after which the connection is gone into ``ConnectionLostError``."""
    in_pipeline = _is_in_pipeline(connection)
    try:
        yield
    except psycopg.OperationalError as error:
        # A pipeline that breaks down cannot be left, and hides why.
        is_stuck = _is_in_pipeline(connection) and not in_pipeline
        if connection.closed or is_stuck or isinstance(error, _GOODBYES):
            raise ConnectionLostError(_first_line(error)) from error
        raise


def _is_in_pipeline(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


@contextmanager
def connecting(*, again: bool) -> Iterator[None]:
    """Turn a failure to connect into ``ConnectionLostError`` where somebody is or was there.

    At the first time it is the user's mistake or nobody there, and passes through.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        if again or _BROKE.search(str(error)):
            raise ConnectionLostError(_first_line(error)) from error
        raise


class Outage:
    """The tries of one piece of work while the server is away."""

    def __init__(self, *, own: bool, retry: Retry, monotonic: Callable[[], float]) -> None:
        self._own = own
        self._pauses = iter(LONG_BACKOFF if retry == "long" else SHORT_BACKOFF)
        self._monotonic = monotonic
        self._began: float | None = None

    def pause(self, error: psycopg.OperationalError) -> float:
        """Return the seconds to wait before the next try, or raise what ends the work."""
        lost = isinstance(error, ConnectionLostError)
        if not lost and (self._began is None or error.sqlstate is not None):
            raise error
        if not self._own:
            raise ConnectionLostError(
                f"The connection that this store was given is lost ({error}). What was committed "
                "stays. Give the store a new connection, or a conninfo or a pool, over which it "
                "connects again by itself."
            ) from error.__cause__
        now = self._monotonic()
        self._began = self._began or now
        pause = next(self._pauses, None)
        away = now - self._began
        if pause is None or away + pause > _MAX_SECONDS:
            raise ConnectionLostError(
                f"The connection to Postgres was lost and could not be made again within "
                f"{away:.0f} s ({_first_line(error)}). What was written stays: run the same again "
                "when the server is back."
            ) from (error.__cause__ or error)
        return pause


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
