"""The public methods of every store, synchronous and asynchronous, in one order."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from toastrack.embedder import Embedder
from toastrack.errors import UnsupportedError
from toastrack.filters import Filter
from toastrack.records import Match, Record, Report
from toastrack.space import EmbeddingSpace
from toastrack.stores.arguments import filter_to_delete, ids_to_delete, listed
from toastrack.stores.backend import Backend, S
from toastrack.stores.description import Description
from toastrack.stores.flow import O, StoreFlow
from toastrack.stores.proof import Adopt, Proof
from toastrack.stores.protocol import (
    AsyncOnWrite,
    ChooseEmbedder,
    Document,
    OnProgress,
    OnWrite,
    SourcedDocument,
    StoredSource,
)
from toastrack.stores.recall_table import RecallTable
from toastrack.stores.runtime import AsyncRuntime, Runtime, SyncRuntime, run_sync
from toastrack.stores.search_request import SearchRequest
from toastrack.stores.windows import (
    AsyncIterableReader,
    Cut,
    Item,
    IterableReader,
    WindowReader,
    document_windows,
    ingest_windows,
    record_windows,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class _Base(Generic[S, O]):
    """A backend, an embedder, and the flow that brings them together."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        store = super().__new__(cls)
        store._arguments = args, options
        return store

    def __init__(
        self,
        backend: Backend[S, O],
        runtime: Runtime,
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool,
        adopt: Adopt,
        verify: bool = False,
    ) -> None:
        if not isinstance(embedder, Embedder) and (
            isinstance(embedder, type) or not callable(embedder)
        ):
            raise TypeError(f"embedder= takes an Embedder, not {type(embedder).__name__}.")
        backend.runtime = runtime
        self._backend = backend
        self._flow = StoreFlow(
            backend, repr(self), embedder=embedder, create=create, adopt=adopt, verify=verify
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._backend.label!r})"

    def __reduce__(self) -> tuple[object, ...]:
        if self._backend.given() is not None:
            raise TypeError(
                f"A {type(self).__name__} over a connection or client of yours cannot be pickled or "
                "copied, as that belongs to its process. Make both where they are needed; the "
                "embedder can be pickled, and so can a store over an address."
            )
        return _made_again, (type(self), *self._arguments)

    @property
    def embedder(self) -> Embedder:
        """What embeds texts and queries."""
        return self._flow.embedder

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the collection recorded.

        Raises:
            StoreError: The store is not open yet.
        """
        return self._flow.space

    def _check(self, record: Record) -> None:
        """Raise ``RecordError`` if the host cannot hold a record; ``ingest`` asks for each alone."""
        self._backend.check(record)


def _made_again(kind: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make a store of a pickle, which opens anew."""
    return kind(*args, **options)


class BaseStore(_Base[S, O]):
    """A store whose methods return when they are done; safe to share between threads."""

    def __init__(
        self,
        backend: Backend[S, O],
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool,
        adopt: Adopt,
        verify: bool = False,
    ) -> None:
        super().__init__(
            backend, SyncRuntime(), embedder=embedder, create=create, adopt=adopt, verify=verify
        )

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self) -> Self:
        """Connect, create what is missing and compare the recorded space; happens by itself.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: It is not there and may not be created, or cannot be used as it is.
        """
        try:
            run_sync(self._flow.open())
        except BaseException:
            self.close()  # a `with` that was never entered will not
            raise
        return self

    def close(self) -> None:
        """Close what this store opened itself; the next call opens it again."""
        run_sync(self._flow.close())

    # -- writing --------------------------------------------------------------------------------

    def upsert(self, records: Iterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed.

        Records are taken from any iterable in windows, on this thread, while earlier ones are
        embedded and written, the latter on a thread of its own. The last of equal ids wins.

        Raises:
            ModelError: The model cannot be found, read or run, or its server does not answer.
            RecordError: A record cannot be stored; names it. Nothing of its window is written.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: A text is over the limit and ``on_truncate="error"``.
        """
        return self._write(record_windows, records, None)

    def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document; its others are deleted.

        Raises:
            ModelError: The model cannot be found, read or run, or its server does not answer.
            RecordError: A record cannot be stored; names it. Nothing of the document is changed.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: A text is over the limit and ``on_truncate="error"``.
        """
        return self.replace_many([(document_id, list(records))])

    def replace_many(
        self, documents: Iterable[Document], on_write: OnWrite | None = None
    ) -> Report:
        """Do ``replace`` for many documents, streaming.

        Where the host has transactions each one changes at once or not at all; elsewhere its new
        records are there before the stale ones go.

        Args:
            documents: Pairs of a document's id and all the records it consists of.
            on_write: Called after each write, and each second while a long document is embedded,
                with the numbers so far and the documents that are
                now complete.

        Raises:
            ModelError: The model cannot be found, read or run, or its server does not answer.
            RecordError: A record cannot be stored; names it.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: A text is over the limit and ``on_truncate="error"``.
        """
        return self._write(document_windows, documents, on_write)

    def delete(
        self,
        ids: Iterable[str] | None = None,
        documents: Iterable[str] | None = None,
        filter: Filter | None = None,
    ) -> int:
        """Delete records by id, whole documents, or what a filter finds; return how many went.

        A record that another writer changed meanwhile, so that it does not match any more, stays.

        Args:
            ids: The ids of records.
            documents: The ids of documents, which may go together with ``ids``.
            filter: What the metadata must be, in place of both.

        Raises:
            FilterError: The filter is empty, or says what no store can compare.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            ValueError: Nothing was given, or ids or documents beside a filter.
        """
        if filter is not None:
            chosen = filter_to_delete(filter, ids, documents)
            return run_sync(self._flow.perform(self._backend.delete_matching, chosen))
        records, whole = ids_to_delete(ids, documents)
        return run_sync(self._flow.perform(self._backend.delete, records, whole))

    # -- reading --------------------------------------------------------------------------------

    def get(self, ids: Iterable[str], vectors: bool = False) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there.

        Args:
            ids: The ids of records; one may come twice.
            vectors: Bring their vectors along, so that ``upsert`` stores them as they are.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            UnsupportedError: The host does not give its vectors back.
        """
        return run_sync(self._flow.get(listed("ids", ids), vectors))

    def records(self, filter: Filter | None = None, vectors: bool = False) -> Iterator[Record]:
        """Yield every record, in pages, in no promised order.

        With their vectors they make a copy that is not embedded again:
        ``other.upsert(store.records(vectors=True))``.

        Args:
            filter: What the metadata must be.
            vectors: Bring the vectors along.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            UnsupportedError: The host cannot be read in pages.
        """
        after = None
        while True:
            page, after = run_sync(self._flow.read_page(after, filter, vectors))
            yield from page
            if after is None:
                return

    def count(self, documents: bool = False, filter: Filter | None = None) -> int:
        """Count the records, or the documents they belong to.

        Args:
            documents: Count the documents.
            filter: Count only what matches, and the documents that have such a record.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
        """
        return run_sync(self._flow.count(documents, filter))

    def document_ids(self) -> Iterator[str]:
        """Yield the id of every document, in pages, in no promised order.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
        """
        after = None
        while True:
            page, after = run_sync(
                self._flow.perform(self._backend.document_page, after, reads=True)
            )
            yield from page
            if after is None:
                return

    # -- the index ------------------------------------------------------------------------------

    def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
    ) -> bool:
        """Do nothing and return False: this host keeps its index by itself, also that of fields.

        Raises:
            FilterError: A field's name is none that a filter could have.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
        """
        build = partial(self._backend.build_index, on_progress=on_progress, rebuild=rebuild)
        return run_sync(self._flow.build_index(build, filter_fields))

    def build_text_index(
        self, language: str = "english", concurrently: bool = False, rebuild: bool = False
    ) -> bool:
        """Build an index of the words of the texts, which ``mode="text"`` and "hybrid" search by.

        Args:
            language: Whose stop words and endings are known: in Postgres a text search configuration of the
                server's, in Qdrant a language of its own; "simple" takes words as they are.
            concurrently: In Postgres, let others write meanwhile; slower, and neither on a connection
                that is inside a transaction nor over a pooler such as PgBouncer.
            rebuild: Build it anew if it is there, as for another language.

        Returns:
            True if one was built, False if it is there.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or its index is for another language.
            UnsupportedError: The host has no such index, or not so; says why.
            ValueError: The host has no such language, or ``concurrently`` on a connection that is
                inside a transaction.
        """
        build = partial(
            self._backend.build_text_index,
            language=language,
            concurrently=concurrently,
            rebuild=rebuild,
        )
        return run_sync(self._flow.build_text_index(build))

    def _check_index(self, memory: str | None = None) -> None:
        """Raise ``UnsupportedError`` if ``_build_index`` could not build one here, or not so."""
        run_sync(self._flow.open())
        self._backend.check_index()
        if memory is not None:
            run_sync(self._flow.perform(self._backend.check_index_memory, memory, reads=True))

    def _check_text_index(self, language: str) -> None:
        """Raise what ``build_text_index`` would raise for this language, and build nothing."""
        run_sync(self._flow.perform(self._backend.check_text_index, language, reads=True))

    def _describe(self) -> Description:
        """Say what the host keeps, and how, for people."""
        return run_sync(self._flow.perform(self._backend.describe, reads=True, retry="short"))

    def _prove(self) -> Proof:
        """Embed some of the texts again, and compare."""
        return run_sync(self._flow.prove())

    def _build_index(self, *, on_progress: OnProgress | None, memory: str | None) -> bool:
        """``build_index``; there is no memory to give, which ``_check_index`` says."""
        return self.build_index(on_progress=on_progress)

    def _recall(self, k: int, sample: int, queries: Iterable[str] | None) -> RecallTable:
        """Raise ``UnsupportedError``; an adapter whose index has settings measures them."""
        raise UnsupportedError(
            f"{self._backend.kind} {self._backend.label!r}: recall is measured on Postgres alone. "
            "search(exact=True) compares with every record here, too."
        )

    # -- for the classes of the adapters ----------------------------------------------------------

    def _search(self, request: SearchRequest, options: O) -> list[Match]:
        return run_sync(self._flow.search(request, options))

    def _ingest(
        self,
        documents: Iterable[SourcedDocument],
        run_sources: Collection[str],
        on_write: OnWrite | None,
    ) -> Report:
        """``replace_many`` that takes nothing from another document or source; raises instead."""
        cut = partial(ingest_windows, run_sources=run_sources)
        return self._write(cut, documents, on_write)

    def _check_sources(
        self, documents: Iterable[SourcedDocument], run_sources: Collection[str]
    ) -> None:
        """Raise the ``SourceError`` that ``_ingest`` would, and write nothing."""
        cut = partial(ingest_windows, run_sources=run_sources)
        run_sync(self._flow.check_sources(IterableReader(cut, documents)))

    def _has_other_source(self, sources: Collection[str]) -> bool:
        """Tell whether a document is stored from a source that is none of these."""
        ask = self._backend.has_other_source
        return run_sync(self._flow.perform(ask, list(sources), reads=True))

    def _stored_sources(self, documents: Sequence[str]) -> Mapping[str, StoredSource]:
        """Return where stored documents came from; those without a source are left out."""
        ask = self._backend.stored_sources
        return run_sync(self._flow.perform(ask, documents, reads=True))

    def _documents_of(self, sources: Collection[str] | None) -> Iterator[str]:
        """Yield the documents that came from these sources; None: those without a source."""
        chosen = None if sources is None else list(sources)
        after = None
        while True:
            page, after = run_sync(
                self._flow.perform(self._backend.source_page, after, chosen, reads=True)
            )
            yield from page
            if after is None:
                return

    def _write(self, cut: Cut[Item], items: Iterable[Item], on_write: OnWrite | None) -> Report:
        return run_sync(self._flow.write(IterableReader(cut, items), on_write))


class AsyncBaseStore(_Base[S, O]):
    """A store whose methods are awaited; the model and plain sources never hold up the event loop."""

    def __init__(
        self,
        backend: Backend[S, O],
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool,
        adopt: Adopt,
        verify: bool = False,
    ) -> None:
        super().__init__(
            backend, AsyncRuntime(), embedder=embedder, create=create, adopt=adopt, verify=verify
        )

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def open(self) -> Self:
        """Connect, create what is missing and compare the recorded space; happens by itself.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: It is not there and may not be created, or cannot be used as it is.
        """
        try:
            await self._flow.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close what this store opened itself; the next call opens it again."""
        await self._flow.close()

    # -- writing --------------------------------------------------------------------------------

    async def upsert(self, records: Iterable[Record] | AsyncIterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed.

        A plain iterable is read on other threads, an asynchronous one on the event loop. The last
        of equal ids wins.

        Raises:
            ModelError: The model cannot be found, read or run, or its server does not answer.
            RecordError: A record cannot be stored; names it. Nothing of its window is written.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: A text is over the limit and ``on_truncate="error"``.
        """
        return await self._write(record_windows, records, None)

    async def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document; its others are deleted.

        Raises:
            ModelError: The model cannot be found, read or run, or its server does not answer.
            RecordError: A record cannot be stored; names it. Nothing of the document is changed.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: A text is over the limit and ``on_truncate="error"``.
        """
        return await self.replace_many([(document_id, list(records))])

    async def replace_many(
        self,
        documents: Iterable[Document] | AsyncIterable[Document],
        on_write: AsyncOnWrite | None = None,
    ) -> Report:
        """Do ``replace`` for many documents, streaming.

        Where the host has transactions each one changes at once or not at all; elsewhere its new
        records are there before the stale ones go.

        Args:
            documents: Pairs of a document's id and all the records it consists of.
            on_write: Called after each write, and each second while a long document is embedded,
                with the numbers so far and the documents that are
                now complete; may be a coroutine function.

        Raises:
            ModelError: The model cannot be found, read or run, or its server does not answer.
            RecordError: A record cannot be stored; names it.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            TruncationError: A text is over the limit and ``on_truncate="error"``.
        """
        return await self._write(document_windows, documents, on_write)

    async def delete(
        self,
        ids: Iterable[str] | None = None,
        documents: Iterable[str] | None = None,
        filter: Filter | None = None,
    ) -> int:
        """Delete records by id, whole documents, or what a filter finds; return how many went.

        A record that another writer changed meanwhile, so that it does not match any more, stays.

        Args:
            ids: The ids of records.
            documents: The ids of documents, which may go together with ``ids``.
            filter: What the metadata must be, in place of both.

        Raises:
            FilterError: The filter is empty, or says what no store can compare.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            ValueError: Nothing was given, or ids or documents beside a filter.
        """
        if filter is not None:
            chosen = filter_to_delete(filter, ids, documents)
            return await self._flow.perform(self._backend.delete_matching, chosen)
        records, whole = ids_to_delete(ids, documents)
        return await self._flow.perform(self._backend.delete, records, whole)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, ids: Iterable[str], vectors: bool = False) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there.

        Args:
            ids: The ids of records; one may come twice.
            vectors: Bring their vectors along, so that ``upsert`` stores them as they are.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            UnsupportedError: The host does not give its vectors back.
        """
        return await self._flow.get(listed("ids", ids), vectors)

    async def records(
        self, filter: Filter | None = None, vectors: bool = False
    ) -> AsyncIterator[Record]:
        """Yield every record, in pages, in no promised order.

        With their vectors they make a copy that is not embedded again:
        ``other.upsert(store.records(vectors=True))``.

        Args:
            filter: What the metadata must be.
            vectors: Bring the vectors along.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
            UnsupportedError: The host cannot be read in pages.
        """
        after = None
        while True:
            page, after = await self._flow.read_page(after, filter, vectors)
            for record in page:
                yield record
            if after is None:
                return

    async def count(self, documents: bool = False, filter: Filter | None = None) -> int:
        """Count the records, or the documents they belong to.

        Args:
            documents: Count the documents.
            filter: Count only what matches, and the documents that have such a record.

        Raises:
            FilterError: The filter says what no store can compare; names the field.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
        """
        return await self._flow.count(documents, filter)

    async def document_ids(self) -> AsyncIterator[str]:
        """Yield the id of every document, in pages, in no promised order.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
        """
        after = None
        while True:
            page, after = await self._flow.perform(self._backend.document_page, after, reads=True)
            for document in page:
                yield document
            if after is None:
                return

    # -- the index ------------------------------------------------------------------------------

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
    ) -> bool:
        """Do nothing and return False: this host keeps its index by itself, also that of fields.

        Raises:
            FilterError: A field's name is none that a filter could have.
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or cannot be used as it is.
        """
        build = partial(self._backend.build_index, on_progress=on_progress, rebuild=rebuild)
        return await self._flow.build_index(build, filter_fields)

    async def build_text_index(
        self, language: str = "english", concurrently: bool = False, rebuild: bool = False
    ) -> bool:
        """Build an index of the words of the texts; see the synchronous store's.

        Raises:
            SpaceMismatchError: The collection was built with another model, prompt or size.
            StoreError: The collection is gone, or its index is for another language.
            UnsupportedError: The host has no such index, or not so; says why.
            ValueError: The host has no such language, or ``concurrently`` on a connection that is
                inside a transaction.
        """
        build = partial(
            self._backend.build_text_index,
            language=language,
            concurrently=concurrently,
            rebuild=rebuild,
        )
        return await self._flow.build_text_index(build)

    async def _check_index(self, memory: str | None = None) -> None:
        """Raise ``UnsupportedError`` if ``_build_index`` could not build one here, or not so."""
        await self._flow.open()
        self._backend.check_index()
        if memory is not None:
            await self._flow.perform(self._backend.check_index_memory, memory, reads=True)

    async def _check_text_index(self, language: str) -> None:
        """Raise what ``build_text_index`` would raise for this language, and build nothing."""
        await self._flow.perform(self._backend.check_text_index, language, reads=True)

    async def _describe(self) -> Description:
        """Say what the host keeps, and how, for people."""
        return await self._flow.perform(self._backend.describe, reads=True, retry="short")

    # -- for the classes of the adapters ----------------------------------------------------------

    async def _search(self, request: SearchRequest, options: O) -> list[Match]:
        return await self._flow.search(request, options)

    async def _ingest(
        self,
        documents: Iterable[SourcedDocument],
        run_sources: Collection[str],
        on_write: AsyncOnWrite | None,
    ) -> Report:
        """``replace_many`` that takes nothing from another document or source; raises instead."""
        cut = partial(ingest_windows, run_sources=run_sources)
        return await self._write(cut, documents, on_write)

    async def _check_sources(
        self, documents: Iterable[SourcedDocument], run_sources: Collection[str]
    ) -> None:
        """Raise the ``SourceError`` that ``_ingest`` would, and write nothing."""
        cut = partial(ingest_windows, run_sources=run_sources)
        await self._flow.check_sources(IterableReader(cut, documents))

    async def _has_other_source(self, sources: Collection[str]) -> bool:
        """Tell whether a document is stored from a source that is none of these."""
        ask = self._backend.has_other_source
        return await self._flow.perform(ask, list(sources), reads=True)

    async def _stored_sources(self, documents: Sequence[str]) -> Mapping[str, StoredSource]:
        """Return where stored documents came from; those without a source are left out."""
        ask = self._backend.stored_sources
        return await self._flow.perform(ask, documents, reads=True)

    async def _documents_of(self, sources: Collection[str] | None) -> AsyncIterator[str]:
        """Yield the documents that came from these sources; None: those without a source."""
        chosen = None if sources is None else list(sources)
        after = None
        while True:
            page, after = await self._flow.perform(
                self._backend.source_page, after, chosen, reads=True
            )
            for document in page:
                yield document
            if after is None:
                return

    async def _write(
        self,
        cut: Cut[Item],
        items: Iterable[Item] | AsyncIterable[Item],
        on_write: AsyncOnWrite | None,
    ) -> Report:
        source: WindowReader = (
            AsyncIterableReader(cut, items)
            if isinstance(items, AsyncIterable)
            else IterableReader(cut, items)
        )
        return await self._flow.write(source, on_write)
