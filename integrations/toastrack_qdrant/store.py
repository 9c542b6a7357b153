"""The store over the user's own QdrantClient."""

from __future__ import annotations

from collections.abc import Mapping

from qdrant_client import QdrantClient, models

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match
from toastrack.space import EmbeddingSpace
from toastrack.stores.steps import ask, run_steps
from toastrack.stores.sync_store import SyncStore
from toastrack.utils import arrays
from toastrack_qdrant.base import QdrantBase, find
from toastrack_qdrant.collection import QdrantCollection
from toastrack_qdrant.host import Host
from toastrack_qdrant.opening import Creation, Settings, read_space


class QdrantStore(QdrantBase, SyncStore[QdrantCollection]):
    """A Qdrant collection that embeds what is put into it and is searched by meaning.

        with QdrantStore(QdrantClient("localhost"), "docs", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat.")])
            store.search("which bread stays fresh?")

    The client stays yours: it is never closed, and all else of Qdrant's is asked of it. A record is
    the point ``point_id(record.id)`` with the payload ``{id, document_id, chunk, text, text_hash,
    metadata}``, which is written as a whole; payload keys of your own belong in the metadata.
    The calls of a local client (``:memory:``, ``path=``) are made one at a time. It is exact, ignores
    indexes and quantization, and is for up to about 20,000 records. Its folder holds Python pickles:
    open none that you would not run.

    Args:
        client: A QdrantClient; the server must be Qdrant 1.16 or newer.
        collection: The collection's name. One that you created yourself is taken as it is, if it
            compares vectors of the model's size by cosine.
        embedder: Embeds texts and queries; its space is recorded in the collection's metadata.
        vector_name: Which of the collection's named vectors is meant; None for the unnamed one.
        create: Create the collection if it is missing.
        adopt: Take over a filled collection that does not say which model embedded it.
        on_disk: Of a new collection: keep its vectors on disk. This and all that follow are
            Qdrant's own options and go into ``create_collection`` as they are.
        on_disk_payload: See Qdrant.
        hnsw_config: See Qdrant.
        quantization_config: See Qdrant; search then with ``search_params=`` that rescore and
            oversample.
        optimizers_config: See Qdrant.
        sparse_vectors_config: See Qdrant.
        shard_number: See Qdrant.
        replication_factor: See Qdrant.
        write_consistency_factor: See Qdrant.
    """

    def __init__(
        self,
        client: QdrantClient,
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
        if not isinstance(client, QdrantClient):
            raise TypeError(f"QdrantStore takes a QdrantClient, not {type(client).__name__}.")
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

    def search(
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
        """Return the best ``min(k, matching)`` records by cosine similarity, best first.

        Args:
            query: A text, embedded as a query, or a ready vector.
            k: How many at most.
            filter: Metadata fields that must equal these values, e.g. ``{"lang": "en"}``. A field
                with a quotation mark or a backslash in its name, and numbers that Qdrant does not
                keep to the letter, may take a look at every vector.
            exact: Compare with every vector instead of using the index.
            where: A filter of Qdrant's own; metadata is under ``metadata.``.
            score_threshold: Leave out what is less similar. What the index then gives is taken
                as it is; without one, fewer than k are asked for again exactly.
            search_params: Qdrant's own, e.g. ``SearchParams(hnsw_ef=256)``, or with a
                ``quantization=QuantizationSearchParams(rescore=True, oversampling=3.0)``.
        """
        steps = find(k, filter, exact, where, score_threshold, search_params)
        return self._search(query, k, filter, steps)


def recorded_space(
    client: QdrantClient, collection: str, *, vector_name: str | None = None
) -> EmbeddingSpace | None:
    """Return the space that a collection recorded; None if there is none or it recorded none."""
    return run_steps(read_space(Host(client), Settings(collection, vector_name or "")), ask)
