"""A collection looked for by its name, or by that of a complete copy that a kill left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chromadb.errors import ChromaError, NotFoundError

from toastrack.stores import RetryingSession
from toastrack_chroma.rows import vectors_in

COPY_OF = "toastrack_copy_of"
"""Where a copy that ``rebuild`` makes holds the id of the collection it is made from."""
COMPLETE = "toastrack_copy_complete"
"""Marks a copy that is to take the name of the collection it was made from."""


async def get_collection(client: Any, session: RetryingSession, name: str) -> Any:
    """Return Chroma's collection of a name, or raise as Chroma does."""
    # Without an embedding function, as we embed ourselves.
    host = await session.call(client.get_collection, name, embedding_function=None)
    # At every write Chroma builds the embedding functions that the server names here, to ask
    # whether they are sparse; one of them can be told to run code
    # (https://github.com/chroma-core/chroma/issues/6717).
    host._model.serialized_schema = None
    return host


async def lookup(client: Any, session: RetryingSession, name: str) -> Any:
    """Return Chroma's collection of a name, or None."""
    try:
        return await get_collection(client, session, name)
    except NotFoundError:
        return None
    except ValueError as error:  # how older servers say it
        if "does not exist" in str(error):
            return None
        raise


def copy_name(label: str) -> str:
    """Return the name of a collection's copy while ``rebuild`` makes it."""
    return f"{label}__rebuild"


async def finish_rebuild(client: Any, session: RetryingSession, label: str) -> Any:
    """Give a complete copy its name; None if there is none. A kill may have come between."""
    copy = await lookup(client, session, copy_name(label))
    if copy is None or not (copy.metadata or {}).get(COMPLETE):
        return None
    metadata = {
        key: value for key, value in copy.metadata.items() if key not in (COPY_OF, COMPLETE)
    }
    try:
        await session.call(copy.modify, name=label, metadata=metadata)
    except ChromaError:
        # Somebody else opened it at this moment and did the same, or made a new one.
        if await lookup(client, session, label) is None:
            raise
    return await lookup(client, session, label)


def distance_of(configuration: Mapping[str, Any]) -> str | None:
    """Return what vectors are compared by; None if the configuration does not say."""
    for index in ("hnsw", "spann"):
        settings = configuration.get(index)
        if settings and settings.get("space"):
            return str(settings["space"])
    return None


async def size_of(session: RetryingSession, host: Any) -> int | None:
    """Return the size of the vectors that are stored; None if there are none."""
    answer = await session.call(host.get, limit=1, include=["embeddings"])
    vectors = vectors_in(answer)
    return None if not vectors or vectors[0] is None else len(vectors[0])
