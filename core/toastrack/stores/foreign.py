"""The space beside a collection that a framework's vector store is over, not one of ours."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from toastrack.embedder import Embedder
from toastrack.space import COMPARED_FIELDS, EmbeddingSpace
from toastrack.stores.addresses import foreign_adapter
from toastrack.stores.flow import StoreFlow
from toastrack.stores.foreign_collection import ForeignCollection
from toastrack.stores.proof import Adopt
from toastrack.stores.space_check import check_space


def recorded_space(host_object: object) -> EmbeddingSpace | None:
    """Return the space that stands beside a framework's collection; None if none does.

        vectors = Chroma("bread", embeddings, persist_directory="data")  # LangChain's own
        recorded_space(vectors)

    Args:
        host_object: A vector store of LangChain's or LlamaIndex' over Postgres, Qdrant or Chroma, or
            a collection of Chroma's.

    Raises:
        UnsupportedError: It is none of these.
        StoreError: What is recorded is damaged, or of a newer version.
        TypeError: Its client is asynchronous.
    """
    collection = collection_of(host_object, asynchronous=False)
    backend = collection.backend

    async def read() -> EmbeddingSpace | None:
        is_there = await backend.in_session(backend.find, reads=True, retry="short")
        return backend.space if is_there else None

    return collection.perform(read)


def record_space(host_object: object, space: EmbeddingSpace) -> None:
    """Write a space down beside a framework's collection, where our stores would; nothing if it is there.

        record_space(vectors, embedder.space)

    No vector is looked at. Of a collection that holds some already the space is written down as said
    and not shown (``unproven``); ``guard`` of our embeddings proves it first.

    Args:
        host_object: A vector store of LangChain's or LlamaIndex' over Postgres, Qdrant or Chroma, or
            a collection of Chroma's.
        space: What its vectors are, or will be.

    Raises:
        UnsupportedError: ``host_object`` is none of these.
        SpaceMismatchError: Another space is written down.
        StoreError: There is no such collection.
        TypeError: Its client is asynchronous.
    """
    collection = collection_of(host_object, asynchronous=False)
    backend = collection.backend

    async def record(session: Any) -> None:
        if not await backend.find(session):
            await backend.create(session, space)
        if backend.space is None:
            is_empty = await backend.is_empty(session)
            said = space if is_empty else replace(space, unproven=COMPARED_FIELDS)
            await backend.record_space(session, said)
        stored = space.dimensions if backend.dimensions is None else backend.dimensions
        check_space(backend.space, stored, space, where=collection.where)

    collection.perform(partial(backend.in_session, record, reads=False, retry="short"))


class SpaceCheck:
    """Makes sure that a framework's collection is of an embedder's space, and says so in it.

    Nothing is remembered of the collection between two checks: another process may replace it at
    any time, and reading what it says takes a call or two of its host's.
    """

    def __init__(self, embedder: Embedder, adopt: Adopt) -> None:
        self._embedder = embedder
        self._adopt = adopt
        self._ours: EmbeddingSpace | None = None

    def check(self, host_object: object, *, writes: bool) -> None:
        """Compare, and record what is not recorded yet; raises ``SpaceMismatchError``."""
        collection = collection_of(host_object, asynchronous=False)
        collection.perform(partial(self._check, collection, writes))

    async def acheck(self, host_object: object, *, writes: bool) -> None:
        """``check``, over the client of the asynchronous methods."""
        collection = collection_of(host_object, asynchronous=True)
        await collection.aperform(partial(self._check, collection, writes))

    async def _check(self, collection: ForeignCollection, writes: bool) -> None:
        backend, embedder = collection.backend, self._embedder
        is_there = await backend.in_session(backend.find, reads=True, retry="short")
        if not is_there and not writes:
            return  # the framework says so itself
        if self._ours is None:
            self._ours = await backend.runtime.offload(lambda: embedder.space)
        if is_there and backend.space is not None and not backend.space.differences(self._ours):
            return
        opened: Any = backend  # which is all that is asked of it
        await StoreFlow[Any, Any](
            opened, collection.where, embedder=embedder, create=writes, adopt=self._adopt
        ).ready()


def collection_of(host_object: object, *, asynchronous: bool) -> ForeignCollection:
    """Return what a framework's object is over, for its methods of one kind; asks nothing yet."""
    return foreign_adapter(host_object).foreign_collection(host_object, asynchronous=asynchronous)
