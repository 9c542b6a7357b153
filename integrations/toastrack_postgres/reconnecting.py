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
from psycopg import conninfo as libpq
from psycopg import errors, pq
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


# How libpq tells of a connection that ended before the server had said yes or no, or of a server
# that is coming or going.
_BROKE = re.compile(
    "closed the connection unexpectedly|(receive|send).* data|SSL SYSCALL error"
    "|database system is (starting|shutting|not (yet )?accepting|in recovery)"
)
# What a server says itself stands behind a word in its own language and two blanks; and somebody
# is there, too, where the two do not agree on who it is.
_ANSWERED = re.compile(
    r"failed: [^\s:][^:\n]*:  |\b(SSL|GSS|fe_sendauth|SCRAM|authentication|certificate|password)\b"
)
_QUOTED = re.compile('"[^"]*"')


class ConnectionLostError(our_errors.ConnectionLostError, psycopg.OperationalError):
    """The connection to the server broke, or could not be made, or not again."""


class NeverConnectedError(ConnectionLostError):
    """There was no connection to begin with, which is told at once, and after a loss waited for."""


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
def connecting(conninfo: str, *, again: bool = False, once: bool = False) -> Iterator[None]:
    """Turn a failure to connect into ``ConnectionLostError``, unless the server said no.

    What it says at the first time is the user's mistake, such as a password, and passes through.

    Args:
        conninfo: Where to.
        again: There was a connection before.
        once: Nobody waits for a server that comes or goes.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        reason = _first_line(error)
        broke = _BROKE.search(str(error)) is not None
        if again or (broke and not once):
            raise ConnectionLostError(reason) from error
        if not broke and _ANSWERED.search(_QUOTED.sub("", str(error))):
            raise
        raise NeverConnectedError(
            f"No Postgres answers at {_place(conninfo)}: {reason}. Is the server running, and is "
            "this its address? Then run the same call again."
        ) from error


@contextmanager
def borrowing(pool: Any) -> Iterator[None]:
    """Turn a pool's refusal to lend a connection into ``ConnectionLostError``.

    Whether its server is away or it has lent all that it has, a pool only says that it waited.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        reason = _first_line(error)
        if getattr(pool, "closed", False):
            raise NeverConnectedError(
                f"The pool that this store was given is not open ({reason}). Open it before the "
                "store is used. One that was closed cannot be opened again: make another, and a "
                "store over it."
            ) from error
        raise NeverConnectedError(
            f"The pool that this store was given has no connection to lend ({reason}). Either no "
            "server answers, of which the log of psycopg.pool says why, or all its connections are "
            "in use: give it a larger max_size or timeout. Then run the same call again."
        ) from error


def _place(conninfo: str) -> str:
    """Return host and port as libpq takes them, without what else a conninfo may hold."""
    known = {
        option.keyword.decode(): (option.val or option.compiled or b"").decode()
        for option in pq.Conninfo.get_defaults()
    }
    given = {name: str(value) for name, value in libpq.conninfo_to_dict(conninfo).items()}
    host = given.get("host") or given.get("hostaddr") or known.get("host") or "its usual socket"
    return f"{host}:{given.get('port') or known.get('port') or 5432}"


class Outage:
    """The tries of one piece of work while the server is away."""

    def __init__(self, *, own: bool, retry: Retry, monotonic: Callable[[], float]) -> None:
        self._own = own
        self._pauses = iter(LONG_BACKOFF if retry == "long" else SHORT_BACKOFF)
        self._monotonic = monotonic
        self._began: float | None = None

    def pause(self, error: psycopg.OperationalError) -> float:
        """Return the seconds to wait before the next try, or raise what ends the work."""
        if self._began is None and isinstance(error, NeverConnectedError):
            raise error
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
