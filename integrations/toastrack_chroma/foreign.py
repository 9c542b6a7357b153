"""Collections behind the vector stores of LangChain and LlamaIndex, and Chroma's own objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from threading import Lock
from typing import Any, TypeVar

from chromadb import Collection

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import ForeignCollection, Retry, RetryingSession, after_fork
from toastrack_chroma.backend import ChromaBackend

T = TypeVar("T")

# Chroma has no way to write what a collection says only if nothing is there. Their clients are
# synchronous, so nobody holds this over an await.
_recording = Lock()


def _start_anew() -> None:
    """In a forked child: its parent's locks are the parent's alone."""
    global _recording
    _recording = Lock()


after_fork(_start_anew)


def foreign_collection(host_object: object, *, asynchronous: bool) -> ForeignCollection:
    """Return the collection that an object is over; its asynchronous methods have the same client.

    Raises:
        UnsupportedError: It is none of the objects that this knows.
    """
    found: Any = host_object
    if isinstance(getattr(found, "_collection_name", None), str):  # LangChain's Chroma
        return ForeignCollection(_ForeignBackend(found._client, found._collection_name))
    collection = found if isinstance(found, Collection) else getattr(found, "client", None)
    if isinstance(collection, Collection):  # Chroma's own, or what LlamaIndex calls its client
        return ForeignCollection(_ForeignBackend(_ClientOf(collection), collection.name))
    raise UnsupportedError(
        f"{type(host_object).__name__} is over no collection of Chroma's that toastrack can ask: it "
        "takes a chromadb.Collection, LangChain's Chroma and LlamaIndex' ChromaVectorStore."
    )


class _ForeignBackend(ChromaBackend):
    """A collection of any distance, as the scores are the framework's own."""

    def __init__(self, client: Any, collection: str) -> None:
        super().__init__(client, collection, function=lambda space: None)

    def problems_of(
        self, configuration: Mapping[str, Any], is_filled: bool
    ) -> tuple[list[str], str]:
        """Return nothing."""
        return [], ""

    async def create(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Raise ``StoreError``: a framework has its own way to make one."""
        raise StoreError(
            f"Collection {self.label!r} was deleted while this vector store was open. Make the "
            "vector store anew."
        )

    async def in_session(
        self,
        operation: Callable[[RetryingSession], Awaitable[T]],
        *,
        reads: bool,
        retry: Retry,
    ) -> T:
        """Run one operation, and what records a space without another of this process."""
        if reads:
            return await super().in_session(operation, reads=reads, retry=retry)
        with _recording:
            return await super().in_session(operation, reads=reads, retry=retry)


class _ClientOf:
    """The client of a collection, which keeps a server, a tenant and a database of its own."""

    def __init__(self, collection: Collection) -> None:
        self._server = collection._client
        self._names = {"tenant": collection.tenant, "database": collection.database}
        self.get_max_batch_size = self._server.get_max_batch_size
        self.get_settings = self._server.get_settings

    def get_collection(self, name: str, embedding_function: None) -> Collection:
        """Return a collection as it is now."""
        model = self._server.get_collection(name, **self._names)
        return Collection(client=self._server, model=model, embedding_function=embedding_function)
