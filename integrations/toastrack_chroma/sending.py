"""Rows on their way to Chroma, in requests that it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from toastrack.errors import RecordError
from toastrack.stores import RetryingSession
from toastrack_chroma.codec import Metadata
from toastrack_chroma.host_errors import status
from toastrack_chroma.rows import cut

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOO_LARGE = 413


@dataclass(frozen=True)
class StoredRow:
    """A row in Chroma's own words."""

    id: str
    text: str | None
    metadata: Metadata | None
    vector: NDArray[np.float32] | None
    """None in a row whose stored vector stays."""
    uri: str | None = None


@dataclass(frozen=True)
class Limits:
    """What Chroma takes in one request."""

    max_rows: int
    dimensions: int
    """Of each row's vector."""
    by_http: bool
    """Rows go to a server, which refuses too many bytes."""


async def upsert(
    session: RetryingSession, host: Any, rows: Sequence[StoredRow], limits: Limits
) -> None:
    """Send whole rows in pages, and in smaller ones if the server says that they are too large.

    Chroma in this process takes any size, and each call costs it as much as some hundred rows.
    """
    size_of: Callable[[StoredRow], int]
    size_of = partial(_bytes, limits.dimensions) if limits.by_http else lambda row: 0
    pages = deque(cut(rows, limits.max_rows, size_of))
    while pages:
        page = pages.popleft()
        try:
            await session.call(_upsert, host, page)
        except Exception as error:
            if status(error) != _TOO_LARGE:
                raise
            if len(page) == 1:
                raise RecordError(
                    f"Record {page[0].id!r}: its text, metadata and vector are more than the "
                    "Chroma server takes in one request (its setting max_payload_size_bytes, "
                    "40 MiB unless it was changed). Split the record."
                ) from error
            middle = len(page) // 2
            pages.extendleft([page[middle:], page[:middle]])


def _bytes(dimensions: int, row: StoredRow) -> int:
    """Guess a row's size on the wire from above: a letter takes up to 6 bytes in JSON."""
    letters = sum(len(key) + len(str(value)) for key, value in (row.metadata or {}).items())
    letters += len(row.id) + len(row.text or "") + len(row.uri or "")
    return 22 * dimensions + 6 * letters


def _upsert(host: Any, rows: Sequence[StoredRow]) -> Any:
    uris = [row.uri for row in rows]
    return host.upsert(
        ids=[row.id for row in rows],
        # Chroma checks a list of lists number by number, and a list of arrays one by one.
        embeddings=np.array([row.vector for row in rows], dtype=np.float32),
        documents=[row.text for row in rows],
        metadatas=[row.metadata for row in rows],
        **({"uris": uris} if any(uris) else {}),
    )
