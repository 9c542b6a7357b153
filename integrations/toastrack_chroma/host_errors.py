"""What Chroma raises, here and over HTTP, and what it means."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx
from chromadb.errors import ChromaError, NotFoundError

from toastrack.errors import ConnectionLostError

# What a proxy or a server that is starting or too busy says.
_AWAY = (429, 502, 503, 504)
_WITHOUT_SEGMENT = re.compile(r"\[Missing \w+ segment\]")


def is_away(error: BaseException) -> bool:
    """Tell whether a server could not be reached, or went away before it answered."""
    unreached = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.TimeoutException)
    return isinstance(error, unreached) or status(error) in _AWAY


def is_collection_gone(error: BaseException) -> bool:
    """Tell whether Chroma says, in one of its ways, that there is no such collection."""
    if isinstance(error, NotFoundError):
        return True
    # Chroma looks for the collection first and then for its segments, and it went in between. In
    # this process that is an InternalError, over HTTP a status that the client has no class for.
    return isinstance(error, ChromaError) and bool(_WITHOUT_SEGMENT.search(str(error)))


def status(error: BaseException) -> int | None:
    """Return the HTTP status of a server's answer; None if it is no such error."""
    # Chroma raises a bare Exception with the server's words, while it handles the one that knows.
    cause = error.__context__
    return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None


def no_answer(client: Any, error: Exception) -> ConnectionLostError:
    """Return the error that says which server it is that does not answer."""
    return ConnectionLostError(
        f"The Chroma server at {address(client)} does not answer ({error}). Start it, or "
        "look at its log; then run the same call again."
    )


def address(client: Any) -> str:
    """Return a client's host and port, without what else its URL may hold."""
    settings = client.get_settings()
    host, port = str(settings.chroma_server_host), settings.chroma_server_http_port
    if "//" in host:
        parts = urlsplit(host)
        return f"{parts.hostname}:{parts.port or port}"
    return f"{host}:{port}"
