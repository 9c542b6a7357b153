"""What every store can do, so that ingest, the command line and the tests are written once."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import NamedTuple, Protocol, runtime_checkable

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match, Record, Report
from toastrack.reranker import Reranker
from toastrack.space import EmbeddingSpace
from toastrack.stores.description import Description
from toastrack.stores.proof import Proof
from toastrack.stores.recall_table import RecallTable
from toastrack.stores.text_query import SearchMode, TextSyntax
from toastrack.utils import arrays

Document = tuple[str, Sequence[Record]]
"""A document's id and all the records it consists of."""

SourcedDocument = tuple[str, Sequence[Record], str | None]
"""A document's id, all the records it consists of, and where it comes from, if that is known."""

OnWrite = Callable[[Report, Sequence[str]], None]
"""Called after each write, and each second while a long document is embedded.

With the numbers so far and the documents that are now complete.
"""

AsyncOnWrite = Callable[[Report, Sequence[str]], Awaitable[None] | None]
"""``OnWrite``, which may also be a coroutine function."""

ChooseEmbedder = Callable[[EmbeddingSpace | None], Embedder]
"""Given the space that a collection recorded, or None, the embedder to open it with."""

OnProgress = Callable[[float], None]
"""Called now and then with the part that is done, from 0 to 1."""


class StoredSource(NamedTuple):
    """Where a stored document came from."""

    source: str
    records: int
    """How many records it consists of."""


@runtime_checkable
class Store(Protocol):
    """A collection in some database, bound to the embedder that fills and asks it."""

    @property
    def embedder(self) -> Embedder:
        """What embeds texts and queries."""
        ...

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the collection recorded; known once the store is open."""
        ...

    def __enter__(self) -> Store: ...

    def __exit__(self, *exception: object) -> None: ...

    def open(self) -> Store:
        """Connect, create what is missing and compare the recorded space. Happens by itself."""
        ...

    def close(self) -> None:
        """Close what this store opened itself."""
        ...

    def upsert(self, records: Iterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed."""
        ...

    def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document; its others are deleted."""
        ...

    def replace_many(
        self, documents: Iterable[Document], on_write: OnWrite | None = None
    ) -> Report:
        """Do ``replace`` for many documents, streaming.

        Where the host has transactions each one changes at once or not at all; elsewhere its new
        records are there before the stale ones go.
        """
        ...

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
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records, best first."""
        ...

    def get(self, ids: Iterable[str], vectors: bool = False) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there."""
        ...

    def records(self, filter: Filter | None = None, vectors: bool = False) -> Iterator[Record]:
        """Yield every record that matches, in pages, in no promised order."""
        ...

    def delete(
        self,
        ids: Iterable[str] | None = None,
        documents: Iterable[str] | None = None,
        filter: Filter | None = None,
    ) -> int:
        """Delete records by id, whole documents, or what a filter finds; return how many went."""
        ...

    def count(self, documents: bool = False, filter: Filter | None = None) -> int:
        """Count the records, or the documents they belong to."""
        ...

    def document_ids(self) -> Iterator[str]:
        """Yield the id of every document, in pages, in no promised order."""
        ...

    def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
    ) -> bool:
        """Build the search index if the host needs to be told; True if one was built.

        ``on_progress`` is called with the share that is done, 0 to 1, by a host that knows it.
        ``rebuild`` builds anew what is there; ``filter_fields`` names fields of the metadata that
        filters will ask for.
        """
        ...

    def build_text_index(
        self, language: str = "english", concurrently: bool = False, rebuild: bool = False
    ) -> bool:
        """Build an index of the words of the texts; True if one was built."""
        ...


@runtime_checkable
class AsyncStore(Protocol):
    """``Store`` with the same names awaited."""

    @property
    def embedder(self) -> Embedder:
        """What embeds texts and queries."""
        ...

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the collection recorded; known once the store is open."""
        ...

    async def __aenter__(self) -> AsyncStore: ...

    async def __aexit__(self, *exception: object) -> None: ...

    async def open(self) -> AsyncStore:
        """Connect, create what is missing and compare the recorded space. Happens by itself."""
        ...

    async def close(self) -> None:
        """Close what this store opened itself."""
        ...

    async def upsert(self, records: Iterable[Record] | AsyncIterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed."""
        ...

    async def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document; its others are deleted."""
        ...

    async def replace_many(
        self,
        documents: Iterable[Document] | AsyncIterable[Document],
        on_write: AsyncOnWrite | None = None,
    ) -> Report:
        """Do ``replace`` for many documents, streaming."""
        ...

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
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records, best first."""
        ...

    async def get(self, ids: Iterable[str], vectors: bool = False) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there."""
        ...

    def records(self, filter: Filter | None = None, vectors: bool = False) -> AsyncIterator[Record]:
        """Yield every record that matches, in pages, in no promised order."""
        ...

    async def delete(
        self,
        ids: Iterable[str] | None = None,
        documents: Iterable[str] | None = None,
        filter: Filter | None = None,
    ) -> int:
        """Delete records by id, whole documents, or what a filter finds; return how many went."""
        ...

    async def count(self, documents: bool = False, filter: Filter | None = None) -> int:
        """Count the records, or the documents they belong to."""
        ...

    def document_ids(self) -> AsyncIterator[str]:
        """Yield the id of every document, in pages, in no promised order."""
        ...

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Collection[str] = (),
    ) -> bool:
        """Build the search index if the host needs to be told; True if one was built."""
        ...

    async def build_text_index(
        self, language: str = "english", concurrently: bool = False, rebuild: bool = False
    ) -> bool:
        """Build an index of the words of the texts; True if one was built."""
        ...


class IngestStore(Store, Protocol):
    """What ``ingest`` and the command line ask of a store beyond what its users do."""

    def _check(self, record: Record) -> None:
        """Raise ``RecordError`` if the host cannot hold this record."""
        ...

    def _ingest(
        self,
        documents: Iterable[SourcedDocument],
        run_sources: Collection[str],
        on_write: OnWrite | None,
    ) -> Report:
        """``replace_many``, but raise instead of taking a record or a document from another's.

        ``RecordError`` for a record stored under another document, ``SourceError`` for a document
        stored from a source that is none of the run's, with another text.
        """
        ...

    def _check_sources(
        self, documents: Iterable[SourcedDocument], run_sources: Collection[str]
    ) -> None:
        """Raise the ``SourceError`` that ``_ingest`` would, and write nothing."""
        ...

    def _has_other_source(self, sources: Collection[str]) -> bool:
        """Tell whether a document is stored from a source that is none of these."""
        ...

    def _stored_sources(self, documents: Sequence[str]) -> Mapping[str, StoredSource]:
        """Return where stored documents came from; those without a source are left out."""
        ...

    def _documents_of(self, sources: Collection[str] | None) -> Iterator[str]:
        """Yield the documents that came from these sources; None: those without a source."""
        ...

    def _check_index(self, memory: str | None = None) -> None:
        """Raise ``UnsupportedError`` if ``_build_index`` could not build one here, or not so."""
        ...

    def _check_text_index(self, language: str) -> None:
        """Raise what ``build_text_index`` would raise for this language, and build nothing."""
        ...

    def _build_index(self, *, on_progress: OnProgress | None, memory: str | None) -> bool:
        """``build_index`` with so much memory, where ``_check_index`` takes that."""
        ...

    def _describe(self) -> Description:
        """Say what the host keeps, and how, for people."""
        ...

    def _prove(self) -> Proof:
        """Embed some of the texts again, and compare."""
        ...

    def _recall(self, k: int, sample: int, queries: Iterable[str] | None) -> RecallTable:
        """Compare what the index finds with exact searches; raise ``UnsupportedError`` if it cannot."""
        ...
