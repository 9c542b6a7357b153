"""What a Chroma server's errors mean: away for a moment, gone, or given too much at once."""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from chromadb.errors import ChromaError, NotFoundError

from toastrack.errors import StoreError
from toastrack.stores.retrying import retried
from toastrack.stores.steps import Steps

T = TypeVar("T")

# What a proxy or a server that is starting or too busy says.
_AWAY = (429, 502, 503, 504)
_TOO_LARGE = 413
_WITHOUT_SEGMENT = re.compile(r"\[Missing \w+ segment\]")


def guarded(client: Any, steps: Steps[T], *, patient: bool) -> Steps[T]:
    """Run work, asking again while the server is away; then say which server that is."""
    try:
        return (yield from retried(steps, is_away, patient=patient))
    except Exception as error:
        if not is_away(error):
            raise
        raise StoreError(
            f"The Chroma server at {address(client)} does not answer ({error}). Start it, or look "
            "at its log; then run the same call again."
        ) from error


def is_away(error: BaseException) -> bool:
    """Tell whether a server could not be reached, or went away before it answered."""
    return (
        isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError, httpx.TimeoutException))
        or _status(error) in _AWAY
    )


def is_too_large(error: BaseException) -> bool:
    """Tell whether a server, or what stands before it, takes no request of this size."""
    return _status(error) == _TOO_LARGE


def is_gone(error: BaseException) -> bool:
    """Tell whether an error says that a collection is not there."""
    if isinstance(error, NotFoundError):
        return True
    # Chroma looks for the collection first and then for its segments, and it went in between. In
    # this process that is an InternalError, over HTTP a status that the client has no class for.
    return isinstance(error, ChromaError) and bool(_WITHOUT_SEGMENT.search(str(error)))


def _status(error: BaseException) -> int | None:
    # Chroma raises a bare Exception with the server's words, while it handles the one that knows.
    cause = error.__context__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None


def address(client: Any) -> str:
    """Return a client's host and port, without what else its URL may hold."""
    settings = client.get_settings()
    host, port = str(settings.chroma_server_host), settings.chroma_server_http_port
    if "//" in host:
        parts = urlsplit(host)
        return f"{parts.hostname}:{parts.port or port}"
    return f"{host}:{port}"
