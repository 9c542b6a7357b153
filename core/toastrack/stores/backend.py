"""What an adapter for a database writes: one class with the calls of its host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from threading import Thread
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from toastrack.errors import ConnectionLostError, StoreError, UnsupportedError
from toastrack.filters import Filter
from toastrack.records import Match, Record
from toastrack.space import EmbeddingSpace
from toastrack.stores.description import Description
from toastrack.stores.plan import Row, Status, WriteBatch, WriteResult
from toastrack.stores.protocol import OnProgress, StoredSource
from toastrack.stores.runtime import Runtime
from toastrack.stores.text_query import TextHits, TextQuery
from toastrack.utils import arrays

T = TypeVar("T")
S = TypeVar("S")
O_contra = TypeVar("O_contra", contravariant=True)

Retry = Literal["long", "short"]
"""How long a host that is away is waited for: "short" where somebody waits for the answer."""

# Seconds to wait before each further try: a server that is restarted is back within a few. The
# first try comes at once, as often only the connection died.
LONG_BACKOFF = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0)
# Somebody waits for the answer to a question: only a server that is back already is asked again.
SHORT_BACKOFF = (0.0, 0.1, 0.3)


class CollectionChangedError(StoreError):
    """The collection is another one than was found: it is found, and its space compared, again.

    A backend raises it before it writes anything, or in place of what it read.
    """

    def __init__(self, kind: str, label: str) -> None:
        super().__init__(f"{kind} {label!r} became another one while it was open.")


class Span(NamedTuple):
    """Chunks of one document that follow one another."""

    document: str
    first: int
    last: int
    """It belongs to them."""


class Backend(Protocol[S, O_contra]):
    """One collection of one host. It holds no embedder and decides nothing.

    A session ``S`` is what the host lends for one operation: its retried calls, or a connection
    inside a transaction. ``O_contra`` are the options of a search that only this host has.

    A method may await ``runtime``, its session and its own methods, and nothing else.

    Behind its name there may be another collection one day: made anew, renamed over, or an alias
    that was switched. What compares, writes, deletes or searches, or brings vectors along, raises
    ``CollectionChangedError`` then.
    """

    kind: str
    """What the host calls it, for errors: "Table", "Collection"."""
    label: str
    """Its name, for errors."""
    runtime: Runtime
    """Set by the store."""
    dimensions: int | None
    """The size of its vectors, once it is found; None while it is empty and does not say."""
    space: EmbeddingSpace | None
    """The space that it recorded."""
    format: int
    """The format of what it keeps, which it recorded beside the space; 1 where it says nothing."""
    writes_format: int
    """The format that a new one is made in, and that an older one is brought up to."""
    adopting: str
    """How a filled one is taken over that says nothing of its space, for the error that says so."""
    uncommitted: bool
    """A transaction of the caller's could still undo what was found."""
    callers_connection: bool
    """The caller's own code could disturb a write, as on one connection of a database."""

    # -- the collection -------------------------------------------------------------------------

    async def find(self, session: S) -> bool:
        """Look for the collection; if it is there, learn its ``dimensions``, ``space``, ``format``.

        Raises ``StoreError`` for one that cannot be used as it is.
        """
        ...

    async def create(self, session: S, space: EmbeddingSpace) -> None:
        """Create it and record the space; losing a race against another writer is no error."""
        ...

    async def record_space(self, session: S, space: EmbeddingSpace) -> None:
        """Write the space down where none is, or an equal one; then read it back.

        Somebody may have been faster.
        """
        ...

    def needs_bring_up(self, batch: WriteBatch) -> bool:
        """Tell whether an older format is there than this batch needs; asked until it says so."""
        ...

    async def bring_up(self, session: S) -> None:
        """Make an older format ``writes_format``, in one step that is done or not.

        It comes before the first write. Somebody may have been faster. Nothing happens where the
        host does not let this user alter the collection: what is written then counts in both.
        """
        ...

    async def is_empty(self, session: S) -> bool:
        """Tell whether it holds no record."""
        ...

    async def check_adoptable(self, session: S) -> None:
        """Raise ``StoreError`` if records are there that this store could not read."""
        ...

    async def read_sample(self, session: S, size: int) -> list[Row]:
        """Return so many records, or all, with hash and vector, from all over the collection.

        Their text is what was embedded, as far as that is known, and metadata may say more.
        """
        ...

    # -- the records ----------------------------------------------------------------------------

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` for what this host cannot hold; asked of each record first."""
        ...

    async def compare(self, session: S, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id; new ones are left out.

        "changed": its ``text_hash`` differs. "metadata": only document, chunk, metadata or source
        do. Metadata is compared as JSON, so that 1 and 1.0 differ; a source that is None differs
        from none.
        """
        ...

    async def write(self, session: S, batch: WriteBatch) -> WriteResult:
        """Write one batch, or say which of its rows without a vector are not as they were.

        Rows were compared in an earlier session, and another writer may have come since. Of a row
        whose source is None the stored one stays while it is of the same document.
        """
        ...

    async def delete(self, session: S, ids: Sequence[str], documents: Sequence[str]) -> int:
        """Delete records by id and whole documents; return how many went, each counted once."""
        ...

    async def get(self, session: S, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there; ids may repeat."""
        ...

    async def read(self, session: S, ids: Sequence[str], vectors: bool) -> list[Row | None]:
        """Return records as ``get`` does, with their hash and, if asked for, their vector.

        The hash is empty where somebody else wrote the record; a vector may be missing.
        """
        ...

    async def read_page(
        self, session: S, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Return some records that match and what to ask with for more of them, None at the end.

        ``after`` is None for the first page. Records may come and go while they are read.
        """
        ...

    async def search(
        self,
        session: S,
        vector: arrays.FloatVector,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: O_contra,
    ) -> list[Match]:
        """Return the best ``min(k, matching)`` records, best first."""
        ...

    async def search_text(
        self,
        session: S,
        query: TextQuery,
        vector: arrays.FloatVector | None,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: O_contra,
    ) -> TextHits:
        """Return the best k records by the words of their texts, or with a vector by both.

        Each of the two lists has ``k``, and ``exact`` is about that by vectors. A query without a
        word finds what that one finds. Raises ``UnsupportedError`` where there is no index of words.
        """
        ...

    async def chunks(self, session: S, spans: Sequence[Span]) -> list[Record]:
        """Return the records of documents whose chunk numbers lie in one of these spans."""
        ...

    async def count(self, session: S, documents: bool) -> int:
        """Count records or documents."""
        ...

    async def count_matching(self, session: S, filter: Filter, documents: bool) -> int:
        """Count the records that match, or the documents they belong to."""
        ...

    async def delete_matching(self, session: S, filter: Filter) -> int:
        """Delete the records that match when they are deleted; return how many went.

        One that another writer changed meanwhile, so that it does not match any more, stays.
        """
        ...

    async def document_page(self, session: S, after: Any) -> tuple[list[str], Any]:
        """Return some document ids and what to ask with for more of them, None at the end.

        ``after`` is None for the first page. Documents may go while they are listed.
        """
        ...

    # -- where documents came from --------------------------------------------------------------

    async def stored_sources(self, session: S, documents: Sequence[str]) -> dict[str, StoredSource]:
        """Return where documents came from, of those that are stored with a source.

        A document has the source of any of its records that has one.
        """
        ...

    async def has_other_source(self, session: S, sources: Sequence[str]) -> bool:
        """Tell whether a record is stored from a source that is none of these."""
        ...

    async def source_page(
        self, session: S, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Return ids as ``document_page`` does, of the documents that came from these sources.

        None asks for the documents without a source. Raises ``StoreError`` where none can be kept.
        """
        ...

    # -- the index ------------------------------------------------------------------------------

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Sequence[str] = (),
    ) -> bool:
        """Build the search index, anew if that is asked for, and those of fields; True if one was.

        Raises ``StoreError`` where an index is there with other settings than are asked for.
        """
        ...

    async def build_text_index(self, *, language: str, concurrently: bool, rebuild: bool) -> bool:
        """Build an index of the words of the texts, anew if that is asked for; True if one was.

        Raises ``StoreError`` where one is there for another language.
        """
        ...

    async def check_text_index(self, session: S, language: str) -> None:
        """Raise what ``build_text_index`` would raise for this language, and build nothing."""
        ...

    def check_index(self) -> None:
        """Raise ``UnsupportedError`` if ``build_index`` could not build one."""
        ...

    async def check_index_memory(self, session: S, memory: str) -> None:
        """Raise ``UnsupportedError`` if an index cannot be given so much memory, as "1GB"."""
        ...

    async def describe(self, session: S) -> Description:
        """Say what the host keeps, and how, for people."""
        ...

    # -- the host -------------------------------------------------------------------------------

    async def in_session(
        self, operation: Callable[[S], Awaitable[T]], *, reads: bool, retry: Retry
    ) -> T:
        """Run one operation; ``reads`` says that it changes nothing."""
        ...

    def is_collection_gone(self, error: BaseException) -> bool:
        """Tell whether an error says that the collection is not there any more."""
        ...

    def interrupt(self, thread: Thread) -> None:
        """End the call of the host that a thread is making; nothing where that cannot be."""
        ...

    async def close(self) -> None:
        """Close what the backend opened itself."""
        ...

    # -- processes ------------------------------------------------------------------------------

    def given(self) -> object | None:
        """Return what the caller made and lent, such as a client; it serves one process only.

        None: the backend makes its own from an address, in each process, and a store can be pickled.
        """
        ...

    def leave_to_parent(self) -> None:
        """In a forked child: close and write nothing of the parent's; take new locks.

        What is asked next is asked over a connection of this process' own.
        """
        ...


class BackendBase:
    """What need not be written: a host that holds everything and keeps its index by itself."""

    kind = "Collection"
    label: str
    runtime: Runtime
    dimensions: int | None = None
    space: EmbeddingSpace | None = None
    format: int = 1
    writes_format: int = 1
    adopting = "open it with adopt=True"
    uncommitted = False
    callers_connection = False
    no_words = "its adapter does not know how."
    """Why there is no search by words, for the error that says so."""

    async def count(self, session: Any, documents: bool) -> int:
        """Count records or documents."""
        raise NotImplementedError

    async def get(self, session: Any, ids: Sequence[str]) -> list[Record | None]:
        """Return records in the order asked."""
        raise NotImplementedError

    async def read(self, session: Any, ids: Sequence[str], vectors: bool) -> list[Row | None]:
        """Return what ``get`` does; raise ``UnsupportedError`` for vectors."""
        if vectors:
            raise UnsupportedError(f"{self.kind} {self.label!r} does not give its vectors back.")
        found = await self.get(session, ids)
        return [None if record is None else Row(record, b"") for record in found]

    async def read_page(
        self, session: Any, after: Any, filter: Filter, vectors: bool
    ) -> tuple[list[Row], Any]:
        """Raise ``UnsupportedError``."""
        raise UnsupportedError(f"{self.kind} {self.label!r} cannot be read in pages.")

    async def search_text(
        self,
        session: Any,
        query: TextQuery,
        vector: arrays.FloatVector | None,
        *,
        k: int,
        filter: Filter,
        exact: bool,
        options: Any,
    ) -> TextHits:
        """Raise ``UnsupportedError``."""
        raise self._wordless()

    async def chunks(self, session: Any, spans: Sequence[Span]) -> list[Record]:
        """Raise ``UnsupportedError``."""
        raise UnsupportedError(f"{self.kind} {self.label!r} cannot read the chunks of a document.")

    async def count_matching(self, session: Any, filter: Filter, documents: bool) -> int:
        """Raise ``UnsupportedError``."""
        raise UnsupportedError(f"{self.kind} {self.label!r} cannot count by a filter.")

    async def delete_matching(self, session: Any, filter: Filter) -> int:
        """Raise ``UnsupportedError``."""
        raise UnsupportedError(f"{self.kind} {self.label!r} cannot delete by a filter.")

    async def stored_sources(
        self, session: Any, documents: Sequence[str]
    ) -> dict[str, StoredSource]:
        """Return nothing: no source is kept."""
        return {}

    async def has_other_source(self, session: Any, sources: Sequence[str]) -> bool:
        """Return False: no source is kept."""
        return False

    async def source_page(
        self, session: Any, after: Any, sources: Sequence[str] | None
    ) -> tuple[list[str], Any]:
        """Raise ``UnsupportedError``."""
        raise UnsupportedError(
            f"{self.kind} {self.label!r} does not keep where documents came from."
        )

    async def is_empty(self, session: Any) -> bool:
        """Ask for the number of records."""
        return not await self.count(session, False)

    def needs_bring_up(self, batch: WriteBatch) -> bool:
        """Tell whether it writes something and the recorded format is older than ours."""
        return self.format < self.writes_format and bool(batch.rows or batch.metadata_rows)

    async def bring_up(self, session: Any) -> None:
        """Do nothing: there is one format."""

    async def check_adoptable(self, session: Any) -> None:
        """Do nothing: any record can be read."""

    async def read_sample(self, session: Any, size: int) -> list[Row]:
        """Return some of the first page, at equal distances."""
        rows, _ = await self.read_page(session, None, {}, True)
        return rows[:: -(-len(rows) // size) or 1]

    def check(self, record: Record) -> None:
        """Do nothing: this host can hold any record."""

    async def build_index(
        self,
        *,
        on_progress: OnProgress | None = None,
        rebuild: bool = False,
        filter_fields: Sequence[str] = (),
    ) -> bool:
        """Do nothing and return False: this host keeps its index by itself."""
        return False

    async def build_text_index(self, *, language: str, concurrently: bool, rebuild: bool) -> bool:
        """Raise ``UnsupportedError``."""
        raise self._wordless()

    async def check_text_index(self, session: Any, language: str) -> None:
        """Raise ``UnsupportedError``."""
        raise self._wordless()

    def _wordless(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.kind} {self.label!r} cannot be searched by the words of its texts: {self.no_words}"
        )

    def check_index(self) -> None:
        """Do nothing: there is an index."""

    async def check_index_memory(self, session: Any, memory: str) -> None:
        """Raise ``UnsupportedError``: the host gives its index what it takes."""
        raise UnsupportedError(
            f"{self.kind} {self.label!r}: this host gives its index memory by itself. "
            "maintenance_work_mem= is for Postgres; leave it out."
        )

    async def describe(self, session: Any) -> Description:
        """Say that the host has an index of its own."""
        return Description(self.label)

    def interrupt(self, thread: Thread) -> None:
        """Do nothing: the call comes to its own end."""

    async def close(self) -> None:
        """Do nothing: the client is the user's own."""

    def given(self) -> object | None:
        """Return something that was made together with the store."""
        return self

    def leave_to_parent(self) -> None:
        """Do nothing: over a client of the user's, a store answers in no forked child."""


class RetryingSession:
    """Calls of a host without transactions, each made again while the host is away.

    Only a call is repeated, not the operation; so each must be harmless to do twice, as the host
    may have done it before its answer was lost.
    """

    def __init__(
        self, runtime: Runtime, is_away: Callable[[BaseException], bool], pauses: Sequence[float]
    ) -> None:
        self.runtime = runtime
        self._is_away = is_away
        self._pauses = pauses

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Call the host's client, and await its answer if that is awaitable."""
        return await self._repeat(self.runtime.call, function, *args, **options)

    async def offload(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Call a client that would hold up an event loop, off it."""
        return await self._repeat(self.runtime.offload, function, *args, **options)

    async def _repeat(self, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        for seconds in self._pauses:
            try:
                return await call(*args, **options)
            except Exception as error:
                if not self._is_away(error):
                    raise
            await self.runtime.sleep(seconds)
        return await call(*args, **options)


class RetryingBackend(BackendBase):
    """For hosts without transactions: a session repeats a call while the host is away."""

    def is_away(self, error: BaseException) -> bool:
        """Tell whether an error will pass by itself, as while a server starts."""
        raise NotImplementedError

    def is_silent(self, error: BaseException) -> bool:
        """Tell whether the host did not answer for as long as its client waits.

        It is not asked again: it may still be at work on what it was asked.
        """
        return False

    def explain(self, error: Exception) -> ConnectionLostError:
        """Return what is raised after the last try."""
        return ConnectionLostError(
            f"{self.kind} {self.label!r}: the host does not answer ({error}). What was written "
            "stays: run the same again when it is back."
        )

    async def in_session(
        self,
        operation: Callable[[RetryingSession], Awaitable[T]],
        *,
        reads: bool,
        retry: Retry,
    ) -> T:
        """Run one operation; the collection may change between two of its calls."""
        pauses = LONG_BACKOFF if retry == "long" else SHORT_BACKOFF
        try:
            return await operation(RetryingSession(self.runtime, self.is_away, pauses))
        except Exception as error:
            if not self.is_away(error) and not self.is_silent(error):
                raise
            raise self.explain(error) from error
