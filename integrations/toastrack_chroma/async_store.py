"""The store over an asynchronous Chroma client; the same operations, awaited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chromadb.api import AsyncClientAPI

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match
from toastrack.stores.async_store import AsyncStore
from toastrack.utils import arrays
from toastrack_chroma.base import DEFAULT_COLLECTION, ChromaBase, find
from toastrack_chroma.collection import ChromaCollection, Where
from toastrack_chroma.opening import Settings
from toastrack_chroma.repair import audit_steps, rebuild_steps


class AsyncChromaStore(ChromaBase, AsyncStore[ChromaCollection]):
    """``ChromaStore`` for asyncio, over ``await chromadb.AsyncHttpClient(...)``.

        async with AsyncChromaStore(client, "docs", embedder=Embedder()) as store:
            await store.upsert([Record("1", "Rye keeps longer than wheat.")])
            await store.search("which bread stays fresh?")

    The model runs on another thread. Chroma's own asynchronous collection would run it on the
    event loop.
    """

    def __init__(
        self,
        client: AsyncClientAPI,
        collection: str = DEFAULT_COLLECTION,
        *,
        embedder: Embedder,
        create: bool = True,
        adopt: bool = False,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(client, AsyncClientAPI):
            raise TypeError(
                "AsyncChromaStore takes what `await chromadb.AsyncHttpClient(...)` returns, not "
                f"{type(client).__name__}. For other clients there is ChromaStore."
            )
        super().__init__(collection, embedder=embedder)
        self._client = client
        self._settings = Settings(collection, create, adopt, dict(configuration or {}))

    async def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``ChromaStore.search``."""
        return await self._search(query, k, filter, find(k, filter, exact, where, where_document))

    async def audit(self) -> list[str]:
        """Return the ids whose stored vector is not the one that was written."""
        return await self._run(audit_steps, reads=True)

    async def rebuild(self) -> list[str]:
        """Copy the collection into a new one; see ``ChromaStore.rebuild``."""
        await self._ready()
        return await self._run(
            lambda collection: rebuild_steps(
                collection, self._client, self._settings, self.embedder
            )
        )
