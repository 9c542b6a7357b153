"""A new collection, with what the user wants of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from qdrant_client import models

from toastrack.stores import RetryingSession
from toastrack_qdrant.points import Points


class Creation(TypedDict, total=False):
    """What the user wants of a new collection, in Qdrant's own words."""

    on_disk: bool | None
    on_disk_payload: bool | None
    hnsw_config: models.HnswConfigDiff | None
    quantization_config: models.QuantizationConfig | None
    optimizers_config: models.OptimizersConfigDiff | None
    sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None
    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None


async def create_collection(
    points: Points,
    session: RetryingSession,
    creation: Creation,
    *,
    dimensions: int,
    metadata: Mapping[str, Any],
) -> None:
    """Create the collection with vectors of one name and what it is to say of itself."""
    wanted: dict[str, Any] = dict(creation)
    vector = models.VectorParams(
        size=dimensions,
        distance=models.Distance.COSINE,
        on_disk=wanted.pop("on_disk", None),
    )
    await points.call(
        session,
        "create_collection",
        points.label,
        {points.vector_name: vector} if points.vector_name else vector,
        metadata=metadata,
        **wanted,
    )
