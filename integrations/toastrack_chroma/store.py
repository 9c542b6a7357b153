"""The stores over the user's own Chroma client, and Chroma's own collection, checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from chromadb.api import AsyncClientAPI, ClientAPI

from toastrack import Embedder, Match, Reranker
from toastrack.stores import (
    Adopt,
    AsyncBaseStore,
    BaseStore,
    ChooseEmbedder,
    Filter,
    OwnClient,
    RetryingSession,
    SearchMode,
    SearchRequest,
    SyncRuntime,
    TextSyntax,
    arrays,
    run_sync,
)
from toastrack_chroma.backend import ChromaBackend
from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction
from toastrack_chroma.filters import Where
from toastrack_chroma.repair import audit, rebuild
from toastrack_chroma.search import SearchOptions

if TYPE_CHECKING:
    import chromadb

DEFAULT_COLLECTION = "toastrack_documents"


class ChromaStore(BaseStore[RetryingSession, SearchOptions]):
    """A Chroma collection that embeds what is put into it and is searched by meaning.

        with ChromaStore(chromadb.PersistentClient("db"), "docs", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat.")])
            store.search("which bread stays fresh?")

    The client is the user's own, stays open, and serves the process that it was made in (not a fork
    of it). Top-level scalars of the metadata are stored as
    Chroma's own fields, and all of it as JSON beside them. Chroma has no transactions: of a
    document that is replaced the new records are there before the stale ones go.

    Args:
        client: ``chromadb.EphemeralClient``, ``PersistentClient``, ``HttpClient``, ...
        collection: Its name: 3 to 512 of letters, digits, ``.``, ``_`` and ``-``.
        embedder: Embeds texts and queries; its space is recorded in the collection and compared.
            Or a function that picks one for the space that the collection recorded.
        create: Create the collection if it is missing.
        adopt: Take over a filled collection that does not say which model embedded it, once some of its
            texts were embedded again and gave the same vectors. "unchecked" believes that they do.
        verify: Compare such a sample at each opening, too.
        configuration: Chroma's settings of a new collection, e.g. ``{"hnsw": {"ef_search": 200}}``.
    """

    _backend: ChromaBackend

    def __init__(
        self,
        client: ClientAPI,
        collection: str = DEFAULT_COLLECTION,
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool = True,
        adopt: Adopt = False,
        verify: bool = False,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(client, (ClientAPI, OwnClient)):
            raise TypeError(
                f"ChromaStore takes a Chroma client such as chromadb.PersistentClient(path), not "
                f"{type(client).__name__}. For an AsyncHttpClient there is AsyncChromaStore."
            )
        backend = ChromaBackend(
            client,
            collection,
            function=lambda space: ToastrackEmbeddingFunction.recorded(self.embedder, space),
            configuration=configuration,
        )
        super().__init__(backend, embedder=embedder, create=create, adopt=adopt, verify=verify)

    def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        mode: SearchMode = "vector",
        weights: tuple[float, float] = (1.0, 1.0),
        text_syntax: TextSyntax = "any",
        min_score: float | None = None,
        rerank: Reranker | None = None,
        candidates: int = 50,
        group_by_document: bool = False,
        neighbours: int = 0,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records by cosine similarity, best first.

        Args:
            query: A text, embedded as a query, or a ready vector.
            k: How many at most.
            filter: What the metadata must be, e.g. ``{"lang": "en", "year": {"$gte": 2020}}``.
            exact: Read every matching vector and compare it here, as Chroma has no exact search.
            mode: "vector" goes by meaning, "text" by the words of the texts, "hybrid" by both, fused by
                reciprocal rank.
            weights: How much the list by vectors and that by words count in "hybrid".
            text_syntax: "any" word of the query may match; "web" reads quotes and ``-word`` as in web
                search.
            min_score: Leave out what is less similar than this, from -1 to 1; for "vector" alone.
            rerank: Puts what was found into a better order; ``Match.score`` is its score then, and
                ``Match.scores`` keeps the cosine.
            candidates: How many it reads at least, and how many each of two lists has; k, if that is
                more.
            group_by_document: Return one match a document, its best record by the score that ranks:
                ``min(k, matching documents)`` of them.
            neighbours: How many chunks on each side of a match are joined with it in
                ``Match.context``, whether they match or not.
            where: A condition in Chroma's words, e.g. ``{"year": {"$gt": 2020}}``.
            where_document: A condition on the text, e.g. ``{"$contains": "rye"}``.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            RecordError: The query is a vector of another size, or not finite, or zero.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: The query is over the limit and ``on_truncate="error"``.
            ModelError: A model cannot be found, read or run, or its server does not answer.
            UnsupportedError: ``mode`` is "text" or "hybrid", which Chroma has not.
            ValueError: ``k``, ``min_score``, ``candidates`` or ``neighbours`` is none, or the query to
                rerank for is a vector or blank.
        """
        options = SearchOptions(where, where_document)
        request = SearchRequest(
            query,
            k,
            filter,
            exact,
            mode,
            weights,
            text_syntax,
            min_score,
            rerank,
            candidates,
            group_by_document,
            neighbours,
        )
        return self._search(request, options)

    def audit(self) -> list[str]:
        """Return the ids whose stored vector is not the one that was written.

        A server that is killed while it writes its index can lose acknowledged vectors, or put
        one in another's place, and not say so (https://github.com/chroma-core/chroma/issues/7678).

        Raises:
            StoreError: The collection is gone, or cannot be used as it is.
        """
        return run_sync(self._flow.perform(partial(audit, self._backend), reads=True))

    def rebuild(self) -> list[str]:
        """Copy the collection into a new one, embedding again what ``audit`` finds.

        The new one takes the old one's name when it is complete; nobody may write meanwhile.
        Returns the ids of damaged records whose vector did not come from this embedder and its
        ``max_tokens``, but perhaps with the record: if so, only you have it. Stopped half-way,
        the collection is as it was, or is found complete when it is opened next.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone or was written to meanwhile, or another one has the
                name that the copy needs.
            TruncationError: A damaged text is over the limit and ``on_truncate="error"``.
        """
        return run_sync(_rebuild(self))


class AsyncChromaStore(AsyncBaseStore[RetryingSession, SearchOptions]):
    """``ChromaStore`` for asyncio, over ``await chromadb.AsyncHttpClient(...)``.

        client = await chromadb.AsyncHttpClient(host="localhost", port=8000)
        async with AsyncChromaStore(client, "docs", embedder=Embedder()) as store:
            await store.upsert([Record("1", "Rye keeps longer than wheat.")])
            await store.search("which bread stays fresh?")

    The model runs on another thread. Chroma's own asynchronous collection would run it on the
    event loop.
    """

    _backend: ChromaBackend

    def __init__(
        self,
        client: AsyncClientAPI,
        collection: str = DEFAULT_COLLECTION,
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool = True,
        adopt: Adopt = False,
        verify: bool = False,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(client, AsyncClientAPI):
            raise TypeError(
                "AsyncChromaStore takes what `await chromadb.AsyncHttpClient(...)` returns, not "
                f"{type(client).__name__}. For other clients there is ChromaStore."
            )
        backend = ChromaBackend(
            client,
            collection,
            function=lambda space: ToastrackEmbeddingFunction.recorded(self.embedder, space),
            configuration=configuration,
        )
        super().__init__(backend, embedder=embedder, create=create, adopt=adopt, verify=verify)

    async def search(
        self,
        query: str | arrays.Vector,
        k: int = 10,
        filter: Filter | None = None,
        exact: bool = False,
        *,
        mode: SearchMode = "vector",
        weights: tuple[float, float] = (1.0, 1.0),
        text_syntax: TextSyntax = "any",
        min_score: float | None = None,
        rerank: Reranker | None = None,
        candidates: int = 50,
        group_by_document: bool = False,
        neighbours: int = 0,
        where: Where | None = None,
        where_document: Where | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``ChromaStore.search``.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            RecordError: The query is a vector of another size, or not finite, or zero.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: The query is over the limit and ``on_truncate="error"``.
            ModelError: A model cannot be found, read or run, or its server does not answer.
            UnsupportedError: ``mode`` is "text" or "hybrid", which Chroma has not.
            ValueError: ``k``, ``min_score``, ``candidates`` or ``neighbours`` is none, or the query to
                rerank for is a vector or blank.
        """
        options = SearchOptions(where, where_document)
        request = SearchRequest(
            query,
            k,
            filter,
            exact,
            mode,
            weights,
            text_syntax,
            min_score,
            rerank,
            candidates,
            group_by_document,
            neighbours,
        )
        return await self._search(request, options)

    async def audit(self) -> list[str]:
        """Return the ids whose stored vector is not the one that was written.

        Raises:
            StoreError: The collection is gone, or cannot be used as it is.
        """
        return await self._flow.perform(partial(audit, self._backend), reads=True)

    async def rebuild(self) -> list[str]:
        """Copy the collection into a new one; see ``ChromaStore.rebuild``.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone or was written to meanwhile, or another one has the
                name that the copy needs.
            TruncationError: A damaged text is over the limit and ``on_truncate="error"``.
        """
        return await _rebuild(self)


async def _rebuild(store: ChromaStore | AsyncChromaStore) -> list[str]:
    await store._flow.ready()  # what is damaged is embedded again, so by no other model
    return await store._flow.perform(partial(rebuild, store._backend), store.embedder)


def open_collection(
    client: ClientAPI,
    name: str,
    embedder: Embedder,
    *,
    create: bool = True,
    adopt: Adopt = False,
    verify: bool = False,
    configuration: Mapping[str, Any] | None = None,
) -> chromadb.Collection:
    """Return Chroma's own collection, after its space and distance were compared with ours.

    What is added to it and asked of it as text is embedded by ``embedder``.

    Args:
        client: A synchronous client.
        name: The collection's name.
        embedder: Embeds texts and queries; its space is recorded in the collection and compared.
        create: Create the collection if it is missing.
        adopt: Take over a filled collection that does not say which model embedded it, once some of
            its texts were embedded again and gave the same vectors. "unchecked" believes that they do.
        verify: Compare such a sample now, too.
        configuration: Chroma's settings of a new collection.

    Raises:
        TypeError: The client is asynchronous.
        SpaceMismatchError: The collection was built with another model, prompt or size.
        StoreError: It is missing and ``create`` is False, compares by another distance than
            cosine, or was made with another embedding function.
    """
    if not isinstance(client, ClientAPI):
        raise TypeError(
            "open_collection takes a synchronous Chroma client such as "
            f"chromadb.PersistentClient(path), not {type(client).__name__}. For an AsyncHttpClient "
            "there is AsyncChromaStore."
        )
    backend = _OwnFunctionBackend(
        client,
        name,
        function=lambda space: ToastrackEmbeddingFunction.recorded(embedder, space),
        configuration=configuration,
    )
    backend.runtime = SyncRuntime()
    # If it was, Chroma itself wrote down which model it is, in place of a space.
    made = partial(backend.was_made_with, ToastrackEmbeddingFunction(embedder=embedder))
    if not adopt and run_sync(backend.in_session(made, reads=True, retry="short")):
        adopt = "unchecked"
    store = BaseStore(backend, embedder=embedder, create=create, adopt=adopt, verify=verify)
    run_sync(store._flow.ready())
    function: Any = ToastrackEmbeddingFunction.recorded(embedder, embedder.space)
    return client.get_collection(name, embedding_function=function)


class _OwnFunctionBackend(ChromaBackend):
    """Refuses a collection of another embedding function; Chroma would take none other for it."""

    def problems_of(
        self, configuration: Mapping[str, Any], is_filled: bool
    ) -> tuple[list[str], str]:
        """See, too, which function the collection was made with; Chroma itself would write to it."""
        problems, instead = super().problems_of(configuration, False)
        recorded = (configuration.get("embedding_function") or {}).get("name")
        if recorded in (None, ToastrackEmbeddingFunction.name()):
            return problems, instead
        made = (
            f"it was made with Chroma's embedding function {recorded!r} and Chroma takes none "
            "other for it"
        )
        return [*problems, made], instead or (
            "ChromaStore does without. If the vectors are this embedder's, ChromaStore(client, "
            f"{self.label!r}, embedder=..., adopt=True).rebuild() makes it a collection of "
            "toastrack's."
        )

    async def was_made_with(
        self, function: ToastrackEmbeddingFunction, session: RetryingSession
    ) -> bool:
        """Tell whether the collection is there and records this function with these settings."""
        found = await self.lookup(session, self.label)
        recorded = (found.configuration_json if found else {}).get("embedding_function") or {}
        ours = function.name(), function.get_config()
        return (recorded.get("name"), recorded.get("config")) == ours
