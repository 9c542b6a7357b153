"""A collection as it was read last, and whether its name still stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from toastrack import EmbeddingSpace
from toastrack.errors import UnsupportedError
from toastrack.stores import CollectionChangedError, RetryingSession
from toastrack_qdrant import text_index
from toastrack_qdrant.hashes import Hashes, hash_key
from toastrack_qdrant.points import Points
from toastrack_qdrant.recorded import identity, recorded_in

KIND = "Collection"


@dataclass(frozen=True)
class Collection:
    """What a collection says of its vectors of one name."""

    points: Points
    hashes: Hashes
    space: EmbeddingSpace | None = None
    format: int = 1
    language: str | None = None
    """That of its index of words; None if there is none."""
    said: tuple[int | None, Any] | None = None
    """What it is known by; None until it was read."""

    @classmethod
    def unread(cls, points: Points) -> Collection:
        """Return one that nothing is known of yet."""
        return cls(points, Hashes(hash_key(points.vector_name)))

    @classmethod
    def read_in(cls, info: models.CollectionInfo, points: Points) -> Collection:
        """Return what the host says of it."""
        recorded = recorded_in(info, points.label, points.vector_name)
        return cls(
            points,
            recorded.hashes,
            recorded.space,
            recorded.format,
            text_index.language_of(info, local=points.host.local, field=points.layout.text_path),
            identity(info, points.vector_name),
        )

    async def check_found(self, session: RetryingSession) -> Collection:
        """Return it as it is now.

        Raises:
            CollectionChangedError: Name or alias stand for vectors of another space.
        """
        points = self.points
        info = await points.call(session, "get_collection", points.label)
        if identity(info, points.vector_name) != self.said:
            raise CollectionChangedError(KIND, points.label)
        return Collection.read_in(info, points)

    def check_writable(self) -> None:
        """Raise ``UnsupportedError`` for a layout that cannot hold what is written."""
        layout = self.points.layout
        if layout.read_only:
            raise UnsupportedError(
                f"Collection {self.points.label!r} is only read in the layout {layout.name!r}: "
                f"{layout.read_only}. Fill one of ours from it, which embeds nothing anew: "
                "other.upsert(store.records(vectors=True))."
            )
