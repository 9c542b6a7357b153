"""How a collection is found or created, and what it says of the space it is in."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from grpc import RpcError, StatusCode
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace
from toastrack.stores.base_store import missing
from toastrack.stores.space_check import check_space, missing_space
from toastrack.stores.steps import Ask, Slow, Steps
from toastrack_qdrant.collection import QdrantCollection
from toastrack_qdrant.host import Host

_METADATA_KEY = "toastrack"


@dataclass(frozen=True)
class Creation:
    """What the user wants of a new collection, in Qdrant's own words."""

    on_disk: bool | None = None
    on_disk_payload: bool | None = None
    hnsw_config: models.HnswConfigDiff | None = None
    quantization_config: models.QuantizationConfig | None = None
    optimizers_config: models.OptimizersConfigDiff | None = None
    sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None


@dataclass(frozen=True)
class Settings:
    """What the user said of the collection."""

    collection: str
    vector_name: str = ""
    create: bool = False
    adopt: bool = False
    creation: Creation = Creation()

    @property
    def metadata_key(self) -> str:
        """Where the space is recorded; each named vector has its own."""
        return f"{_METADATA_KEY}/{self.vector_name}" if self.vector_name else _METADATA_KEY


def open_collection(
    host: Host, settings: Settings, embedder: Embedder, *, lost: bool = False
) -> Steps[QdrantCollection]:
    """Find the collection, creating it if that was allowed, and read what it says of itself.

    ``lost`` says that it was there before: then it is not created.
    """
    if not (yield from _exists(host, settings)):
        if lost or not settings.create:
            raise missing(f"collection {settings.collection!r}", lost=lost)
        space = yield Slow(lambda: embedder.space)
        yield from _create(host, settings, space)
    info = yield from _info(host, settings)
    dimensions = _dimensions(info, settings)
    if settings.create and not host.local and "document_id" not in info.payload_schema:
        yield host.ask(
            lambda: host.client.create_payload_index(
                settings.collection, "document_id", models.PayloadSchemaType.KEYWORD
            )
        )
    return QdrantCollection(
        host,
        settings.collection,
        settings.vector_name,
        dimensions,
        stored=_space_in(info, settings),
    )


def check_collection(
    collection: QdrantCollection, settings: Settings, embedder: Embedder
) -> Steps[None]:
    """Compare the recorded space with the embedder's, recording it where nothing is stored."""
    ours: EmbeddingSpace = yield Slow(lambda: embedder.space)
    host, where = collection.host, f"Collection {settings.collection!r}"
    if collection.stored is None:
        # Somebody may have been faster.
        collection.stored = _space_in((yield from _info(host, settings)), settings)
    check_space(collection.stored, collection.dimensions, ours, where=where)
    if collection.stored is not None:
        return
    if (yield from collection.count(False)):
        if not settings.adopt:
            raise missing_space(ours, where=where)
        yield from collection.check_payloads()
    yield host.ask(
        lambda: host.client.update_collection(
            settings.collection, metadata=_metadata(settings, ours)
        )
    )
    collection.stored = _space_in((yield from _info(host, settings)), settings)
    if collection.stored is None:
        raise StoreError(
            f"{where}: this Qdrant server does not keep the metadata of a collection, where the "
            "embedding space is recorded. Use Qdrant 1.16 or newer."
        )
    check_space(collection.stored, collection.dimensions, ours, where=where)


def read_space(host: Host, settings: Settings) -> Steps[EmbeddingSpace | None]:
    """Return the space that a collection recorded; None if there is none or it recorded none."""
    if not (yield from _exists(host, settings)):
        return None
    return _space_in((yield from _info(host, settings)), settings)


def _exists(host: Host, settings: Settings) -> Generator[Ask, Any, bool]:
    try:
        found: bool = yield host.ask(lambda: host.client.collection_exists(settings.collection))
    except (ResponseHandlingException, RpcError) as error:
        if isinstance(error, RpcError) and error.code() != StatusCode.UNAVAILABLE:
            raise
        reason = error.details() if isinstance(error, RpcError) else error
        raise StoreError(
            f"No Qdrant answers at {host.address}: {reason}. Is the server running, and is this "
            "its port?"
        ) from None
    return found


def _create(host: Host, settings: Settings, space: EmbeddingSpace) -> Steps[None]:
    wanted = settings.creation
    vector = models.VectorParams(
        size=space.dimensions, distance=models.Distance.COSINE, on_disk=wanted.on_disk
    )
    try:
        yield host.ask(
            lambda: host.client.create_collection(
                settings.collection,
                {settings.vector_name: vector} if settings.vector_name else vector,
                on_disk_payload=wanted.on_disk_payload,
                hnsw_config=wanted.hnsw_config,
                quantization_config=wanted.quantization_config,
                optimizers_config=wanted.optimizers_config,
                sparse_vectors_config=wanted.sparse_vectors_config,
                shard_number=wanted.shard_number,
                replication_factor=wanted.replication_factor,
                write_consistency_factor=wanted.write_consistency_factor,
                metadata=_metadata(settings, space),
            )
        )
    except (ValueError, UnexpectedResponse, RpcError):
        # A local client, REST and gRPC each say "already exists" in their own way.
        if not (yield from _exists(host, settings)):
            raise


def _info(host: Host, settings: Settings) -> Generator[Ask, Any, models.CollectionInfo]:
    info: models.CollectionInfo = yield host.ask(
        lambda: host.client.get_collection(settings.collection)
    )
    return info


def _dimensions(info: models.CollectionInfo, settings: Settings) -> int:
    """Return the size of the vectors, having made sure that they are compared by cosine."""
    where = f"Collection {settings.collection!r}"
    vectors = info.config.params.vectors or {}
    named = {"": vectors} if isinstance(vectors, models.VectorParams) else vectors
    found = named.get(settings.vector_name)
    if found is None:
        names = ", ".join(f"vector_name={name!r}" for name in named) or "none at all"
        raise StoreError(
            f"{where} has no vectors of the name {settings.vector_name!r}; there are: {names}."
        )
    if found.distance != models.Distance.COSINE:
        raise StoreError(
            f"{where} compares vectors by {found.distance.value} and not by Cosine, so its scores "
            "would mean something else. Use another collection."
        )
    if found.multivector_config is not None or found.datatype == models.Datatype.UINT8:
        raise StoreError(
            f"{where} stores several vectors a point, or whole numbers. Use one for single float "
            "vectors."
        )
    return found.size


def _space_in(info: models.CollectionInfo, settings: Settings) -> EmbeddingSpace | None:
    recorded = (info.config.metadata or {}).get(settings.metadata_key)
    if recorded is None:
        return None
    try:
        return EmbeddingSpace.from_dict(recorded)
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"Collection {settings.collection!r}: {settings.metadata_key!r} in its metadata is "
            f"damaged ({error}). Restore it, or remove it and open the collection with adopt=True."
        ) from None


def _metadata(settings: Settings, space: EmbeddingSpace) -> dict[str, Any]:
    # In a collection's metadata null means: remove this.
    known = {name: value for name, value in space.to_dict().items() if value is not None}
    return {settings.metadata_key: known}
