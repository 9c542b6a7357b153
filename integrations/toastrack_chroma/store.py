"""The store over a Chroma client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chromadb.api import ClientAPI

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match
from toastrack.space import EmbeddingSpace
from toastrack.stores.steps import ask, run_steps
from toastrack.stores.sync_store import SyncStore
from toastrack.utils import arrays
from toastrack_chroma.base import DEFAULT_COLLECTION, ChromaBase, find
from toastrack_chroma.collection import ChromaCollection, Where
from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction
from toastrack_chroma.opening import (
    Settings,
    check_collection,
    check_function,
    open_collection_steps,
    read_space,
)
from toastrack_chroma.repair import audit_steps, rebuild_steps
from toastrack_chroma.server import guarded

if TYPE_CHECKING:
    import chromadb


class ChromaStore(ChromaBase, SyncStore[ChromaCollection]):
    """A Chroma collection that embeds what is put into it and is searched by meaning.

        with ChromaStore(chromadb.PersistentClient("db"), "docs", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat.")])
            store.search("which bread stays fresh?")

    The client is the user's own and stays open. Top-level scalars of the metadata are stored as
    Chroma's own fields, and all of it as JSON beside them. Chroma has no transactions: of a
    document that is replaced the new records are there before the stale ones go.

    Args:
        client: ``chromadb.EphemeralClient``, ``PersistentClient``, ``HttpClient``, ...
        collection: Its name: 3 to 512 of letters, digits, ``.``, ``_`` and ``-``.
        embedder: Embeds texts and queries; its space is recorded in the collection and compared.
        create: Create the collection if it is missing.
        adopt: Take over a filled collection that does not say which model embedded it.
        configuration: Chroma's settings of a new collection, e.g. ``{"hnsw": {"ef_search": 200}}``.
    """

    def __init__(
        self,
        client: ClientAPI,
        collection: str = DEFAULT_COLLECTION,
        *,
        embedder: Embedder,
        create: bool = True,
        adopt: bool = False,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(client, ClientAPI):
            raise TypeError(
                f"ChromaStore takes a Chroma client such as chromadb.PersistentClient(path), not "
                f"{type(client).__name__}. For an AsyncHttpClient there is AsyncChromaStore."
            )
        super().__init__(collection, embedder=embedder)
        self._client = client
        self._settings = Settings(collection, create, adopt, dict(configuration or {}))

    def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records by cosine similarity, best first.

        Args:
            query: A text, embedded as a query, or a ready vector.
            k: How many at most.
            filter: Metadata fields that must equal these values, e.g. ``{"lang": "en"}``.
            exact: Read every matching vector and compare it here, as Chroma has no exact search.
            where: A condition in Chroma's words, e.g. ``{"year": {"$gt": 2020}}``.
            where_document: A condition on the text, e.g. ``{"$contains": "rye"}``.
        """
        return self._search(query, k, filter, find(k, filter, exact, where, where_document))

    def audit(self) -> list[str]:
        """Return the ids whose stored vector is not the one that was written.

        A server that is killed while it writes its index can lose acknowledged vectors, or put
        one in another's place, and not say so (https://github.com/chroma-core/chroma/issues/7678).
        """
        return self._run(audit_steps, reads=True)

    def rebuild(self) -> list[str]:
        """Copy the collection into a new one, embedding again what ``audit`` finds.

        The new one takes the old one's name when it is complete; nobody may write meanwhile.
        Returns the ids of damaged records whose vector did not come from this embedder and its
        ``max_tokens``, but perhaps with the record: if so, only you have it. Stopped half-way,
        the collection is as it was, or is found complete when it is opened next.
        """
        self._ready()
        return self._run(
            lambda collection: rebuild_steps(
                collection, self._client, self._settings, self.embedder
            )
        )


def open_collection(
    client: ClientAPI,
    name: str,
    embedder: Embedder,
    *,
    create: bool = True,
    adopt: bool = False,
    configuration: Mapping[str, Any] | None = None,
) -> chromadb.Collection:
    """Return Chroma's own collection, after its space and distance were compared with ours.

    What is added to it and asked of it as text is embedded by ``embedder``. Raises
    ``SpaceMismatchError`` if it was built with another model or prompt, and ``StoreError`` if it
    is missing and ``create`` is False, compares by another distance than cosine, or was made with
    another embedding function.
    """
    settings = Settings(name, create, adopt, dict(configuration or {}))
    opening = guarded(client, open_collection_steps(client, settings, embedder), patient=False)
    collection = run_steps(opening, ask)
    check_function(collection.host)
    run_steps(guarded(client, check_collection(collection, settings, embedder), patient=False), ask)
    function: Any = ToastrackEmbeddingFunction.recorded(embedder, embedder.space)
    return client.get_collection(name, embedding_function=function)


def recorded_space(client: ClientAPI, name: str) -> EmbeddingSpace | None:
    """Return the space that a collection recorded; None if there is none or it recorded none."""
    return run_steps(guarded(client, read_space(client, name), patient=False), ask)
