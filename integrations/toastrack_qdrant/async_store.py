"""The store over the user's own AsyncQdrantClient; the same operations, awaited."""

from __future__ import annotations

from collections.abc import Mapping

from qdrant_client import AsyncQdrantClient, models

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match
from toastrack.stores.async_store import AsyncStore
from toastrack.utils import arrays
from toastrack_qdrant.base import QdrantBase, find
from toastrack_qdrant.collection import QdrantCollection
from toastrack_qdrant.host import Host
from toastrack_qdrant.opening import Creation, Settings


class AsyncQdrantStore(QdrantBase, AsyncStore[QdrantCollection]):
    """The twin of ``QdrantStore``: the same arguments, and every call is awaited.

        async with AsyncQdrantStore(client, "docs", embedder=Embedder()) as store:
            await store.upsert([Record("1", "Rye keeps longer than wheat.")])
            await store.search("which bread stays fresh?")

    The model never runs on the event loop, nor do the calls of a local client (``:memory:``,
    ``path=``), which would hold it up.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        *,
        embedder: Embedder,
        vector_name: str | None = None,
        create: bool = True,
        adopt: bool = False,
        on_disk: bool | None = None,
        on_disk_payload: bool | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        quantization_config: models.QuantizationConfig | None = None,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
    ) -> None:
        if not isinstance(client, AsyncQdrantClient):
            raise TypeError(
                f"AsyncQdrantStore takes an AsyncQdrantClient, not {type(client).__name__}."
            )
        super().__init__(collection, embedder=embedder)
        self._host = Host(client)
        self._settings = Settings(
            collection,
            vector_name or "",
            create=create,
            adopt=adopt,
            creation=Creation(
                on_disk=on_disk,
                on_disk_payload=on_disk_payload,
                hnsw_config=hnsw_config,
                quantization_config=quantization_config,
                optimizers_config=optimizers_config,
                sparse_vectors_config=sparse_vectors_config,
                shard_number=shard_number,
                replication_factor=replication_factor,
                write_consistency_factor=write_consistency_factor,
            ),
        )

    async def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        where: models.Filter | None = None,
        score_threshold: float | None = None,
        search_params: models.SearchParams | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``QdrantStore.search``."""
        steps = find(k, filter, exact, where, score_threshold, search_params)
        return await self._search(query, k, filter, steps)
