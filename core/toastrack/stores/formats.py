"""What a collection says of itself: its embedding space, and beside it the format of what it keeps.

The format is a number that is written from 2 on:

1. What the first version wrote, and what most collections hold today.
2. A hash for each named vector of a Qdrant collection, and who owned the one there was.
3. One field of a Chroma row in place of four.

What is only added, and harms no earlier version, has no number: where documents came from, in a
column or key that is there or not, and where a chunk begins, in its metadata.

An older format opens, reads and counts as unchanged, and is brought up by the first write that
needs it. A newer one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace

NEWEST = 3
"""The newest format that this version knows."""

_FORMAT = "format"


def to_recorded(space: EmbeddingSpace, format: int) -> dict[str, Any]:
    """Return what a collection records, in plain values that JSON can hold."""
    recorded: dict[str, Any] = space.to_dict()
    return recorded if format == 1 else {**recorded, _FORMAT: format}


def from_recorded(recorded: Mapping[str, Any], *, where: str) -> tuple[EmbeddingSpace, int]:
    """Read the space and the format of what ``to_recorded`` returned.

    Args:
        recorded: What is stored, parsed.
        where: Names the collection, for errors.

    Raises:
        StoreError: The format is newer than this version knows.
        TypeError: It is no mapping.
        ValueError: Something that is needed is missing or damaged.
    """
    format = format_of(recorded, where=where)
    return EmbeddingSpace.from_dict(recorded), format


def format_of(recorded: Mapping[str, Any], *, where: str) -> int:
    """Return the format alone; raises as ``from_recorded`` does."""
    if not isinstance(recorded, Mapping):
        raise TypeError("it is no mapping")
    format = recorded.get(_FORMAT, 1)
    if isinstance(format, float) and format.is_integer():
        format = int(format)  # as some hosts give numbers back
    if not isinstance(format, int) or isinstance(format, bool) or format < 1:
        raise ValueError(f"its format is {format!r}")
    if format > NEWEST:
        raise StoreError(
            f"{where} is stored in format {format}, and this version of toastrack knows formats up "
            f"to {NEWEST}. Upgrade toastrack, or use another {where.partition(' ')[0].lower()}."
        )
    return format
