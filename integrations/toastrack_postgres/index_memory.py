"""How much memory the building of an HNSW index takes, and what a server of ours may give it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toastrack.stores import warn_at_caller

# Of a row beside its vector: an element with its links, 32 bytes for each of m. Measured with
# pgvector 0.8.5 from the notice that the graph no longer fits, 384 and 1,024 dimensions, m of 16 and
# 32: 201 to 205 bytes and 32 m (2026-11-28).
_BYTES_OF_ELEMENT = 220
_BYTES_OF_LINK = 32
_BYTES_AT_LEAST = 16 << 20
_MAX_BYTES = 2**31 * 512  # what Postgres takes, in kB, as an int

_SHARED = Path("/dev/shm")
_NO_LONGER_FITS = "no longer fits into maintenance_work_mem"


def bytes_of_graph(rows: int, bytes_of_one: int, m: int) -> int:
    """Return the bytes that the graph of so many rows takes in memory, with a tenth to spare.

    ``bytes_of_one`` is what it keeps of each vector.
    """
    row = bytes_of_one + _BYTES_OF_LINK * m + _BYTES_OF_ELEMENT
    return _BYTES_AT_LEAST + rows * row * 11 // 10


def bytes_to_spare() -> int:
    """Return what a build on this machine may take: a quarter of its memory.

    Several processes build in shared memory, of which containers often have 64 MB; so not more than
    most of that.
    """
    pages: int = os.sysconf("SC_PHYS_PAGES")
    spare = pages * os.sysconf("SC_PAGE_SIZE") // 4
    if _SHARED.is_dir():
        shared = os.statvfs(_SHARED)
        spare = min(spare, shared.f_bavail * shared.f_frsize * 8 // 10)
    return min(spare, _MAX_BYTES)


class FullMemory:
    """Notes whether a build ran out of its memory, from where on it takes many times as long."""

    def __init__(self) -> None:
        self.message: str | None = None
        self.needed = 0
        """The bytes that would have done, about."""

    @contextmanager
    def watching(self, connection: Any) -> Iterator[None]:
        """Listen to what the server says meanwhile."""
        connection.add_notice_handler(self._note)
        try:
            yield
        finally:
            connection.remove_notice_handler(self._note)

    def _note(self, notice: Any) -> None:
        if _NO_LONGER_FITS in (notice.message_primary or ""):
            self.message = str(notice.message_primary)

    def warn(self) -> None:
        """Say so, and what to do."""
        if self.message is not None:
            warn_at_caller(
                f"The index took long to build: {self.message}, and its rows need about "
                f"{self.needed >> 20} MB. Give the build more of what the server has: "
                "maintenance_work_mem='1GB'.",
                UserWarning,
            )
