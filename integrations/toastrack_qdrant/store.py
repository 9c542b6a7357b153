"""The stores over the user's own QdrantClient and AsyncQdrantClient."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient, models
from typing_extensions import Unpack

from toastrack import Embedder, Match, Reranker
from toastrack.stores import (
    Adopt,
    AsyncBaseStore,
    BaseStore,
    ChooseEmbedder,
    Filter,
    OnProgress,
    OwnClient,
    RetryingSession,
    SearchMode,
    SearchRequest,
    TextSyntax,
    arrays,
    run_sync,
)
from toastrack_qdrant.backend import QdrantBackend
from toastrack_qdrant.creation import Creation
from toastrack_qdrant.layouts import Fields
from toastrack_qdrant.search import SearchOptions
from toastrack_qdrant.text_index import check_language


class QdrantStore(BaseStore[RetryingSession, SearchOptions]):
    """A Qdrant collection that embeds what is put into it and is searched by meaning.

        with QdrantStore(QdrantClient("localhost"), "docs", embedder=Embedder()) as store:
            store.upsert([Record("1", "Rye keeps longer than wheat.")])
            store.search("which bread stays fresh?")

    The client stays yours: it is never closed, serves the process that it was made in (not a fork
    of it), and all else of Qdrant's is asked of it. A record is
    the point ``point_id(record.id)`` with the payload ``{id, document_id, chunk, text, text_hash,
    metadata, source}``; other payload keys and vectors of a point stay as they are until it is deleted.
    The calls of a local client (``:memory:``, ``path=``) are made one at a time. It is exact, ignores
    indexes and quantization, and is for up to about 20,000 records. Its folder holds Python pickles:
    open none that you would not run.

    Args:
        client: A QdrantClient; the server must be Qdrant 1.16 or newer, and 1.20 to search by words.
        collection: The collection's name. One that you created yourself is taken as it is, if it
            compares vectors of the model's size by cosine.
        embedder: Embeds texts and queries; its space is recorded in the collection's metadata. Or
            a function that picks one for the space that the collection recorded.
        vector_name: Which of the collection's named vectors is meant; None for the unnamed one. Stores
            of several names share their records, and each has its own ``text_hash/NAME``.
        fields: Where others' points have what a record has: whose layout it is, "langchain",
            "llama-index" or "haystack", or payload keys such as ``{"text": "body", "metadata": "meta"}``.
            The parts are id, text, metadata (None: all of the payload), document_id and chunk. A point
            without the id's key has its own. What cannot hold what is written is only read.
        create: Create the collection if it is missing.
        adopt: Take over a filled collection that does not say which model embedded it, once some of its
            texts were embedded again and gave the same vectors. "unchecked" believes that they do.
        verify: Compare such a sample at each opening, too.
        text_index: Of a new collection, the language of its index of words, as
            ``build_text_index`` makes one.
        creation: Of a new collection, Qdrant's own options, which go into ``create_collection`` as
            they are: ``on_disk`` (keep its vectors on disk), ``on_disk_payload``, ``hnsw_config``,
            ``quantization_config`` (search then with ``search_params=`` that rescore and
            oversample), ``optimizers_config``, ``sparse_vectors_config``, ``shard_number``,
            ``replication_factor``, ``write_consistency_factor``.
    """

    _backend: QdrantBackend

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        embedder: Embedder | ChooseEmbedder,
        vector_name: str | None = None,
        fields: Fields | None = None,
        create: bool = True,
        adopt: Adopt = False,
        verify: bool = False,
        text_index: str | None = None,
        **creation: Unpack[Creation],
    ) -> None:
        if not isinstance(client, (QdrantClient, OwnClient)):
            raise TypeError(f"QdrantStore takes a QdrantClient, not {type(client).__name__}.")
        _check_creation("QdrantStore", creation)
        if text_index is not None:
            check_language(text_index)
        backend = QdrantBackend(
            client,
            collection,
            vector_name=vector_name or "",
            fields=fields,
            create=create,
            creation=creation,
            text_index=text_index,
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
        where: models.Filter | None = None,
        score_threshold: float | None = None,
        search_params: models.SearchParams | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records by cosine similarity, best first.

        Args:
            query: A text, embedded as a query, or a ready vector.
            k: How many at most.
            filter: What the metadata must be, e.g. ``{"lang": "en", "year": {"$gte": 2020}}``.
            exact: Compare with every vector instead of using the index.
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
            where: A filter of Qdrant's own; metadata is under ``metadata.``.
            score_threshold: Leave out what is less similar; for "vector" alone. What the index then gives is taken
                as it is; without one, fewer than k are asked for again exactly.
            search_params: Qdrant's own, e.g. ``SearchParams(hnsw_ef=256)``, or with a
                ``quantization=QuantizationSearchParams(rescore=True, oversampling=3.0)``.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            RecordError: The query is a vector of another size, or not finite, or zero.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: The query is over the limit and ``on_truncate="error"``.
            ModelError: A model cannot be found, read or run, or its server does not answer.
            UnsupportedError: There is no index of words, which "text" and "hybrid" search by.
            ValueError: ``k``, ``min_score``, ``candidates`` or ``neighbours`` is none, or the query to
                rerank for is a vector or blank.
        """
        options = SearchOptions(where, score_threshold, search_params)
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

    def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
    ) -> bool:
        """Give fields that filters ask for an index; True if something was built.

        Qdrant builds and keeps the index of the vectors by itself. A local client has none.

        Args:
            on_progress: Is not called, as Qdrant does not say.
            rebuild: Bring a collection that was there to the ``hnsw_config`` and
                ``quantization_config`` that were given, and an index of another kind to a field's
                values.
            filter_fields: Fields of the metadata that filters ask for. Each gets a payload index for
                what most of its values are: texts, numbers or bools.

        Raises:
            FilterError: A field's name is none that a filter could have.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone; it has other settings than were asked for, or a field
                an index of another kind, and ``rebuild`` is False; or no record has the field.
            UnsupportedError: A field's name has a quote or a backslash in it.
        """
        build = partial(self._backend.build_index, on_progress=on_progress, rebuild=rebuild)
        return run_sync(self._flow.build_index(build, filter_fields))


class AsyncQdrantStore(AsyncBaseStore[RetryingSession, SearchOptions]):
    """The twin of ``QdrantStore``: the same arguments, and every call is awaited.

        client = AsyncQdrantClient("localhost")
        async with AsyncQdrantStore(client, "docs", embedder=Embedder()) as store:
            await store.upsert([Record("1", "Rye keeps longer than wheat.")])
            await store.search("which bread stays fresh?")

    The model never runs on the event loop, nor do the calls of a local client (``:memory:``,
    ``path=``), which would hold it up.
    """

    _backend: QdrantBackend

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        *,
        embedder: Embedder | ChooseEmbedder,
        vector_name: str | None = None,
        fields: Fields | None = None,
        create: bool = True,
        adopt: Adopt = False,
        verify: bool = False,
        text_index: str | None = None,
        **creation: Unpack[Creation],
    ) -> None:
        if not isinstance(client, AsyncQdrantClient):
            raise TypeError(
                f"AsyncQdrantStore takes an AsyncQdrantClient, not {type(client).__name__}."
            )
        _check_creation("AsyncQdrantStore", creation)
        if text_index is not None:
            check_language(text_index)
        backend = QdrantBackend(
            client,
            collection,
            vector_name=vector_name or "",
            fields=fields,
            create=create,
            creation=creation,
            text_index=text_index,
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
        where: models.Filter | None = None,
        score_threshold: float | None = None,
        search_params: models.SearchParams | None = None,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records; see ``QdrantStore.search``.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            RecordError: The query is a vector of another size, or not finite, or zero.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: The query is over the limit and ``on_truncate="error"``.
            ModelError: A model cannot be found, read or run, or its server does not answer.
            UnsupportedError: There is no index of words, which "text" and "hybrid" search by.
            ValueError: ``k``, ``min_score``, ``candidates`` or ``neighbours`` is none, or the query to
                rerank for is a vector or blank.
        """
        options = SearchOptions(where, score_threshold, search_params)
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

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
    ) -> bool:
        """Give fields that filters ask for an index; see ``QdrantStore.build_index``.

        Raises:
            FilterError: A field's name is none that a filter could have.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone; it has other settings than were asked for, or a field
                an index of another kind, and ``rebuild`` is False; or no record has the field.
            UnsupportedError: A field's name has a quote or a backslash in it.
        """
        build = partial(self._backend.build_index, on_progress=on_progress, rebuild=rebuild)
        return await self._flow.build_index(build, filter_fields)


def _check_creation(name: str, creation: Any) -> None:
    unknown = [option for option in creation if option not in Creation.__annotations__]
    if unknown:
        raise TypeError(f"{name} has no argument {unknown[0]!r}.")
