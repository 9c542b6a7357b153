"""What Qdrant's clients raise, each in its own way, and what it means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
from grpc import RpcError, StatusCode
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack.errors import ConnectionLostError, StoreError

_NO_COLLECTION = re.compile(r"(?i)\bcollection\b.*(doesn't exist|does not exist|not found)")
# What a proxy or a server that is starting or too busy says.
_AWAY = (429, 502, 503, 504)
_UNREACHED = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
# The default of `service.max_request_size_mb`.
_MAX_REQUEST_BYTES = 32 * 2**20


def is_away(error: BaseException) -> bool:
    """Tell whether a server could not be reached, or is starting or too busy."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, _UNREACHED)
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _AWAY
    return isinstance(error, RpcError) and error.code() == StatusCode.UNAVAILABLE


def is_silent(error: BaseException) -> bool:
    """Tell whether a server did not answer in the client's time, which its ``timeout`` is."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TimeoutException)
    return isinstance(error, RpcError) and error.code() == StatusCode.DEADLINE_EXCEEDED


def no_answer(address: str, error: Exception) -> ConnectionLostError:
    """Return the error that says which server it is that does not answer."""
    said = error.details() if isinstance(error, RpcError) else error
    reason = str(said).partition("\n")[0]  # behind it comes the page of a proxy
    return ConnectionLostError(
        f"No Qdrant answers at {address}: {reason}. Is the server running, and is this its port? "
        "What was written stays; run the same call again."
    )


def is_collection_gone(error: BaseException) -> bool:
    """Tell whether there is no such collection; a 404 may be a proxy's, or be of something else."""
    if isinstance(error, UnexpectedResponse):
        content = error.content.decode(errors="replace")
        return error.status_code == 404 and bool(_NO_COLLECTION.search(content))
    if isinstance(error, RpcError):
        said = error.details() or ""
        return error.code() == StatusCode.NOT_FOUND and bool(_NO_COLLECTION.search(said))
    return isinstance(error, ValueError) and bool(_NO_COLLECTION.search(str(error)))


def is_point_gone(error: Exception) -> bool:
    """Tell whether a point is not there any more."""
    return isinstance(error, KeyError) or "No point with id" in str(error)


def is_forbidden(error: UnexpectedResponse | RpcError) -> bool:
    """Tell whether the caller may not do this."""
    if isinstance(error, UnexpectedResponse):
        return bool(error.status_code in (401, 403))
    return bool(error.code() in (StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED))


@contextmanager
def naming_too_large(points: Sequence[models.PointStruct]) -> Iterator[None]:
    """Raise ``StoreError`` naming the record if a request with these points is too large."""
    try:
        yield
    except (UnexpectedResponse, ResponseHandlingException, RpcError) as error:
        weights = [len(json.dumps(point.payload)) for point in points]
        if not _is_too_large(error, sum(weights)):
            raise
        largest = points[weights.index(max(weights))].payload or {}
        raise StoreError(
            f"The server refused a request as too large; its largest record is "
            f"{largest.get('id')!r:.80} with {max(weights):,} bytes of text and metadata. "
            "Split it, or raise service.max_request_size_mb in the server's configuration."
        ) from None


def _is_too_large(error: Exception, weight: int) -> bool:
    if isinstance(error, ResponseHandlingException):
        # A server that stops reading is seen as a timeout or a broken connection.
        return weight > _MAX_REQUEST_BYTES
    if isinstance(error, UnexpectedResponse) and error.status_code == 413:
        return True
    return re.search("larger than|too large", str(error)) is not None
