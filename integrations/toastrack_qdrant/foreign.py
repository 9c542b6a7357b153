"""Collections behind the vector stores of LangChain and LlamaIndex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import ForeignCollection, RetryingSession
from toastrack_qdrant.backend import QdrantBackend
from toastrack_qdrant.layouts import Fields
from toastrack_qdrant.points import Points
from toastrack_qdrant.recorded import dimensions_in, identity


def foreign_collection(host_object: object, *, asynchronous: bool) -> ForeignCollection:
    """Return the collection that an object is over, through the client of such methods.

    Raises:
        UnsupportedError: It is none of the objects that this knows.
    """
    found: Any = host_object
    if hasattr(found, "content_payload_key"):  # LangChain's QdrantVectorStore
        return ForeignCollection(
            _ForeignBackend(
                found.client,
                found.collection_name,
                vector_name=found.vector_name,
                fields={
                    "text": found.content_payload_key,
                    "metadata": found.metadata_payload_key,
                },
            )
        )
    if not hasattr(found, "dense_vector_name"):
        raise UnsupportedError(
            f"{type(host_object).__name__} is over no collection of Qdrant's that toastrack can ask: "
            "it takes LangChain's QdrantVectorStore and LlamaIndex' QdrantVectorStore."
        )
    client = found._aclient if asynchronous else found._client
    if client is None:  # it was given the other one only
        client = found._client or found._aclient
    awaited = isinstance(client, AsyncQdrantClient)
    backend = _ForeignBackend(
        client,
        found.collection_name,
        vector_name=found.dense_vector_name,
        fields="llama-index",
        create=found._acreate_collection if awaited else found._create_collection,
    )
    return ForeignCollection(backend, awaited)


class _ForeignBackend(QdrantBackend):
    """A collection of any distance, as the scores are the framework's own.

    Args:
        client: The framework's own.
        collection: The collection's name.
        vector_name: Of its vectors the one that holds the texts'; the unnamed one, where there is
            none of that name, as LlamaIndex does.
        fields: Where a payload holds the text.
        create: Makes the collection as the framework does; None where it is there before.
    """

    def __init__(
        self,
        client: QdrantClient | AsyncQdrantClient,
        collection: str,
        *,
        vector_name: str,
        fields: Fields,
        create: Callable[[str, int], Any] | None = None,
    ) -> None:
        super().__init__(client, collection, vector_name=vector_name, fields=fields)
        self._create = create

    async def find(self, session: RetryingSession) -> bool:
        """Look for the collection, and read what it says of itself."""
        if not await self._exists(session):
            return False
        info = await self._read_info(session)
        size, _ = identity(info, self.points.vector_name)
        if size is None and identity(info, "")[0] is not None:
            self._use_points(Points(self.host, self.label, "", self.points.layout))
            info = await self._read_info(session)
            size, _ = identity(info, "")
        self.dimensions = size or dimensions_in(info, self.label, self.points.vector_name)
        return True

    async def create(self, session: RetryingSession, space: EmbeddingSpace) -> None:
        """Let the framework create it, and write the space down before anything is in it."""
        if self._create is None:
            raise StoreError(
                f"Collection {self.label!r} was deleted while this vector store was open. Create it, "
                "or make the vector store anew."
            )
        await session.call(self._create, self.label, space.dimensions)
        await self.find(session)
        if self.space is None and await self.is_empty(session):
            await self.record_space(session, space)

    async def check_adoptable(self, session: RetryingSession) -> None:
        """Do nothing: its points are the framework's, and stay so."""
