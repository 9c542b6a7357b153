"""How a collection is found or created, and what it says of the space it is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chromadb.errors import ChromaError, NotFoundError

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace
from toastrack.stores.base_store import missing
from toastrack.stores.space_check import check_space, missing_space
from toastrack.stores.steps import Ask, Slow, Steps
from toastrack_chroma.collection import ChromaCollection
from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction

SPACE = "toastrack"
"""Where the collection's metadata holds the embedding space, as JSON."""
COPY_OF = "toastrack_copy_of"
"""Where a copy that ``rebuild`` makes holds the id of the collection it is made from."""
COMPLETE = "toastrack_copy_complete"
"""Marks a copy that is to take the name of the collection it was made from."""


@dataclass(frozen=True)
class Settings:
    """What the user said of the collection."""

    name: str
    create: bool
    adopt: bool
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Chroma's own settings of a new collection, e.g. ``{"hnsw": {"ef_search": 200}}``."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"A collection's name is str, not {type(self.name).__name__}.")
        distance = _distance(self.configuration)
        if distance not in (None, "cosine"):
            raise StoreError(
                f"configuration= asks for the distance {distance!r}; toastrack's scores are cosine "
                "similarities. Leave it out."
            )


def open_collection_steps(
    client: Any, settings: Settings, embedder: Embedder, *, lost: bool = False
) -> Steps[ChromaCollection]:
    """Find the collection, creating it if that was allowed, and read what it says of itself.

    ``lost`` says that it was there before: then it is not created.
    """
    host = yield from find(client, settings.name)
    if host is None:
        host = yield from finish_rebuild(client, settings.name)
    if host is None:
        if lost or not settings.create:
            raise missing(f"collection {settings.name!r}", lost=lost)
        space: EmbeddingSpace = yield Slow(lambda: embedder.space)
        host = yield from _create(client, settings, embedder, space)
    check_distance(host, settings.name)
    metadata = dict(host.metadata or {})
    stored = space_in(metadata, settings.name)
    dimensions = stored.dimensions if stored else (yield from _size(host))
    if dimensions is None:  # nothing is stored, so that any size will do
        dimensions = yield Slow(lambda: embedder.dimensions)
    max_rows = yield Ask(client.get_max_batch_size)
    return ChromaCollection(
        host=host,
        label=settings.name,
        dimensions=dimensions,
        stored=stored,
        max_rows=max_rows,
        metadata=metadata,
    )


def check_collection(
    collection: ChromaCollection, settings: Settings, embedder: Embedder
) -> Steps[None]:
    """Compare the recorded space with the embedder's, recording it where nothing is stored."""
    ours: EmbeddingSpace = yield Slow(lambda: embedder.space)
    where = f"Collection {collection.label!r}"
    check_space(collection.stored, collection.dimensions, ours, where=where)
    if collection.stored is None:
        number = yield Ask(lambda: collection.host.count())
        if number and not settings.adopt:
            raise missing_space(ours, where=where)
        # The distance is settled; Chroma refuses to be told of it again.
        kept = {key: value for key, value in collection.metadata.items() if key[:5] != "hnsw:"}
        collection.metadata = {**kept, SPACE: dump_space(ours)}
        yield Ask(lambda: collection.host.modify(metadata=collection.metadata))
        collection.stored = ours


def read_space(client: Any, name: str) -> Steps[EmbeddingSpace | None]:
    """Return the space that a collection recorded; None if there is none or it recorded none."""
    host = yield from find(client, name)
    if host is None:
        host = yield from _complete_copy(client, name)
    return None if host is None else space_in(host.metadata or {}, name)


def find(client: Any, name: str) -> Steps[Any]:
    """Return Chroma's collection, or None; without an embedding function, as we embed ourselves."""
    try:
        host = yield Ask(lambda: client.get_collection(name, embedding_function=None))
        # At every write Chroma builds the embedding functions that the server names here, to ask
        # whether they are sparse; one of them can be told to run code
        # (https://github.com/chroma-core/chroma/issues/6717).
        host._model.serialized_schema = None
        return host
    except NotFoundError:
        return None
    except ValueError as error:  # how older servers say it
        if "does not exist" in str(error):
            return None
        raise


def rebuild_name(name: str) -> str:
    """Return the name of a collection's copy while it is made."""
    return f"{name}__rebuild"


def finish_rebuild(client: Any, name: str) -> Steps[Any]:
    """Give a complete copy its name; None if there is none. A kill may have come between."""
    copy = yield from _complete_copy(client, name)
    if copy is None:
        return None
    metadata = {
        key: value for key, value in copy.metadata.items() if key not in (COPY_OF, COMPLETE)
    }
    try:
        yield Ask(lambda: copy.modify(name=name, metadata=metadata))
    except ChromaError:
        # Somebody else opened it at this moment and did the same, or made a new one.
        if (yield from find(client, name)) is None:
            raise
    return (yield from find(client, name))


def _complete_copy(client: Any, name: str) -> Steps[Any]:
    copy = yield from find(client, rebuild_name(name))
    return copy if copy is not None and (copy.metadata or {}).get(COMPLETE) else None


def _create(
    client: Any, settings: Settings, embedder: Embedder, space: EmbeddingSpace
) -> Steps[Any]:
    configuration = dict(settings.configuration.items())
    index = "spann" if configuration.get("spann") else "hnsw"
    configuration[index] = {**(configuration.get(index) or {}), "space": "cosine"}
    try:
        # Of two that create at once the second gets the first one's collection.
        yield Ask(
            lambda: client.get_or_create_collection(
                settings.name,
                configuration=configuration,
                metadata={SPACE: dump_space(space)},
                embedding_function=ToastrackEmbeddingFunction.recorded(embedder, space),
            )
        )
    except ChromaError as error:
        raise StoreError(f"Collection {settings.name!r} cannot be created: {error}") from error
    return (yield from find(client, settings.name))


def _size(host: Any) -> Steps[int | None]:
    """Return the size of the vectors that are stored; None if there are none."""
    answer = yield Ask(lambda: host.get(limit=1, include=["embeddings"]))
    return len(answer["embeddings"][0]) if len(answer["ids"]) else None


def check_distance(host: Any, name: str) -> None:
    """Refuse a collection that does not compare by cosine; Chroma cannot change it later."""
    distance = _distance(host.configuration_json) or "l2"
    if distance != "cosine":
        raise StoreError(
            f"Collection {name!r} compares by {distance!r} and toastrack's scores are cosine "
            "similarities. A collection's distance cannot be changed: use a new one."
        )


def check_function(host: Any) -> None:
    """Refuse a collection of another embedding function; Chroma would take none other for it."""
    recorded = (host.configuration_json.get("embedding_function") or {}).get("name")
    if recorded not in (None, ToastrackEmbeddingFunction.name()):
        raise StoreError(
            f"Collection {host.name!r} was made with Chroma's embedding function {recorded!r} and "
            "Chroma takes none other for it. ChromaStore does without. If the vectors are this "
            f"embedder's, ChromaStore(client, {host.name!r}, embedder=..., adopt=True).rebuild() "
            "makes it a collection of toastrack's."
        )


def _distance(configuration: Mapping[str, Any]) -> str | None:
    for index in ("hnsw", "spann"):
        settings = configuration.get(index)
        if settings and settings.get("space"):
            return str(settings["space"])
    return None


def dump_space(space: EmbeddingSpace) -> str:
    """Write a space as a value of a collection's metadata."""
    return json.dumps(space.to_dict(), sort_keys=True, ensure_ascii=False)


def space_in(metadata: Mapping[str, Any], name: str) -> EmbeddingSpace | None:
    """Read what ``dump_space`` wrote."""
    written = metadata.get(SPACE)
    if written is None:
        return None
    try:
        return EmbeddingSpace.from_dict(json.loads(written))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"Collection {name!r}: its metadata {SPACE!r} is damaged ({error}). Restore it, or "
            "remove it and open the collection with adopt=True."
        ) from None
