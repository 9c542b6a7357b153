"""Points that are on their way, and the request that is too large for the server."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from typing import Any

from grpc import RpcError
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack.errors import StoreError
from toastrack.stores.steps import Ask

# The default of `service.max_request_size_mb`.
_LIMIT = 32 * 2**20


def sent(points: Sequence[models.PointStruct], request: Ask) -> Generator[Ask, Any, None]:
    """Do the request; raise ``StoreError`` naming the record if it is too large."""
    try:
        yield request
    except (UnexpectedResponse, ResponseHandlingException, RpcError) as error:
        weights = [len(json.dumps(point.payload)) for point in points]
        if not _is_too_large(error, sum(weights)):
            raise
        largest = points[weights.index(max(weights))].payload or {}
        raise StoreError(
            f"The server refused a request as too large; its largest record is "
            f"{largest.get('id')!r:.80} with {max(weights):,} bytes of text and metadata. Split it, "
            "or raise service.max_request_size_mb in the server's configuration."
        ) from None


def _is_too_large(error: Exception, weight: int) -> bool:
    if isinstance(error, ResponseHandlingException):
        # A server that stops reading is seen as a timeout or a broken connection.
        return weight > _LIMIT
    if isinstance(error, UnexpectedResponse) and error.status_code == 413:
        return True
    return re.search("larger than|too large", str(error)) is not None
