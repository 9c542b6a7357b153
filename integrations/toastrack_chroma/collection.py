"""A collection as it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toastrack.errors import StoreError
from toastrack_chroma.rows import Rows


@dataclass(frozen=True)
class Collection:
    """What Chroma and the collection itself say of it, but for its space."""

    label: str
    rows: Rows
    metadata: Mapping[str, Any]
    max_rows: int
    """How many Chroma takes in one request."""

    @property
    def own_metadata(self) -> dict[str, Any]:
        """What the collection says of itself, but for its distance.

        That is settled, and Chroma refuses to be told of it again.
        """
        return {key: value for key, value in self.metadata.items() if key[:5] != "hnsw:"}

    def check_writable(self) -> None:
        """Raise ``StoreError`` for a collection of another distance, which is only read."""
        if self.rows.distance != "cosine":
            raise StoreError(
                f"Collection {self.label!r} compares by {self.rows.distance!r}, which cannot be "
                "changed, so that it is only read. rebuild() makes it one that compares by cosine; "
                "or fill a new one with upsert(store.records(vectors=True)), which embeds nothing."
            )
