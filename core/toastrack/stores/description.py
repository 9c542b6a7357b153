"""What a host says of a collection, for people who look at it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """One collection as its host describes it.

    Args:
        name: The collection's, as errors name it.
        host: The program that keeps it, with its version.
        storage: How its vectors are kept.
        index: The index of the vectors with its settings, or what there is in its place.
        bytes: What it takes on disk; None where the host does not say.
    """

    name: str
    host: str = ""
    storage: str = ""
    index: str = "the host's own"
    bytes: int | None = None
