"""The one control flow of every store: find or create, compare the space, run an operation."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.filters import Filter, checked_fields, checked_filter
from toastrack.records import Match, Record, Report
from toastrack.space import EmbeddingSpace
from toastrack.stores.adoption import (
    adopted,
    check_adopt,
    embedded_rows,
    may_be_equal,
    refuted,
    say_unproven,
    with_equal,
)
from toastrack.stores.backend import Backend, CollectionChangedError, Retry, S
from toastrack.stores.document_sources import check_sources, not_as_stored
from toastrack.stores.hashes import read_record
from toastrack.stores.pipeline import write_all
from toastrack.stores.plan import Row, Status, rows_of
from toastrack.stores.proof import NEEDED, Adopt, Proof
from toastrack.stores.protocol import ChooseEmbedder
from toastrack.stores.proving import ASKED, prove
from toastrack.stores.search_request import SearchRequest
from toastrack.stores.searching import search
from toastrack.stores.space_check import check_space, missing_space
from toastrack.stores.windows import WindowReader
from toastrack.utils.forks import after_fork, keep_for_ever, process_of

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - the options of a host's search


class StoreFlow(Generic[S, O]):
    """Runs operations on a collection that is found, and known to be of the embedder's space."""

    def __init__(
        self,
        backend: Backend[S, O],
        name: str,
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool,
        adopt: Adopt,
        verify: bool = False,
    ) -> None:
        self.backend = backend
        self.runtime = backend.runtime
        self._name = name
        self._embedder = embedder
        self._create = create
        check_adopt(adopt)
        self._adopt = adopt
        self._verify = verify
        self._verified = False
        """So that it is not done again for what the caller's transaction could still undo."""
        # Taken before the lock of a connection, always.
        self._opening = self.runtime.lock()
        self._found = 0
        """Counts the times it was found, so that two who miss it forget it once; 0: not open."""
        self._finds = 0
        self._compared = False
        self._deleted = False
        given = backend.given()
        self._process = None if given is None else process_of(given)
        """Where the caller's client was made, which is of use in no other process."""
        self._inherited = False
        """It was found by the parent of this process, over a connection of the parent's."""
        _flows.add(self)

    @property
    def embedder(self) -> Embedder:
        """What embeds; where it depends on the recorded space, known once the store is open."""
        if not isinstance(self._embedder, Embedder):
            raise StoreError(
                f"{self._name} is not open yet. Call open(), or use it in a with block."
            )
        return self._embedder

    @property
    def space(self) -> EmbeddingSpace:
        """The space that the collection recorded; known once the store is open."""
        if not self._found:
            raise StoreError(
                f"{self._name} is not open yet. Call open(), or use it in a with block."
            )
        return self.backend.space or self.embedder.space

    # -- opening --------------------------------------------------------------------------------

    async def open(self) -> int:
        """Find the collection, and compare its space unless that would take a download.

        Returns a number that changes when the collection is found anew.
        """
        self._check_process()
        if self._is_ready():
            return self._found
        async with self._opening:
            await self._find()
            if not self._compared:
                embedder = self.embedder
                if await self.runtime.offload(lambda: embedder._known_space) is not None:
                    await self._compare()
            return self._found

    async def ready(self) -> int:
        """Find the collection and compare its space; return the size of its vectors."""
        self._check_process()
        if not self._is_ready():
            async with self._opening:
                await self._find()
                if not self._compared:
                    await self._compare()
        assert self.backend.dimensions is not None
        return self.backend.dimensions

    async def close(self) -> None:
        """Forget the collection; the next call looks for it again, and may create it."""
        self._found = 0
        self._compared = False
        self._verified = False
        self._deleted = False
        self._inherited = False
        if not self._is_elsewhere():
            await self.backend.close()

    def leave_to_parent(self) -> None:
        """In a forked child: touch nothing of the parent's, and look for the collection anew."""
        keep_for_ever(self.backend.given())
        self._opening = self.runtime.lock()
        self._inherited = bool(self._found)
        self.backend.leave_to_parent()

    def _is_elsewhere(self) -> bool:
        return self._process is not None and self._process != os.getpid()

    def _check_process(self) -> None:
        """Raise ``StoreError`` where the caller's client was made by the parent of this process."""
        if self._is_elsewhere():
            raise StoreError(
                f"{self._name}: its client or connection was made in another process, and two on "
                "one connection read each other's answers. Make client and store in the worker "
                "(gunicorn: in post_fork)."
            )

    def _is_known(self) -> bool:
        return bool(self._found) and not self._inherited and not self.backend.uncommitted

    def _is_ready(self) -> bool:
        return self._is_known() and self._compared

    async def _find(self) -> None:
        if self._is_known():
            return
        backend = self.backend
        find = partial(backend.in_session, reads=False, retry="short")
        self._compared = False
        try:
            is_there = await find(backend.find)
        except Exception as error:
            if not backend.is_collection_gone(error):
                raise
            is_there = False  # it went between two calls
        if not isinstance(self._embedder, Embedder):
            self._embedder = self._embedder(backend.space if is_there else None)
        embedder = self._embedder
        if not is_there:
            if self._deleted or self._inherited:
                raise self._was_deleted()
            if not self._create:
                where = f"{backend.kind.lower()} {backend.label!r}"
                raise StoreError(f"There is no {where}. Open it with create=True, or ingest first.")
            # Outside of a session: it may take a download.
            space = await self.runtime.offload(lambda: embedder.space)
            await find(lambda session: backend.create(session, space))
        if backend.dimensions is None:  # it is empty, so that any size will do
            backend.dimensions = await self.runtime.offload(lambda: embedder.dimensions)
        self._finds += 1
        self._found = self._finds
        self._inherited = False

    async def _compare(self) -> None:
        backend, embedder = self.backend, self.embedder
        ours = await self.runtime.offload(lambda: embedder.space)
        proof = None
        if backend.space is None:
            is_recorded = await self._in_found(partial(self._record, ours=ours, to_record=None))
            if not is_recorded:  # it is filled, and may be adopted
                if self._adopt is True:
                    proof = await self._prove(of_texts=False)
                to_record = adopted(ours, proof, where=self._where)
                await self._in_found(partial(self._record, ours=ours, to_record=to_record))
        elif self._adopt is True and may_be_equal(backend.space, ours):
            proof = await self._prove_equal(backend.space, ours)
        self._check(ours)
        if self._verify and proof is None and not self._verified:
            proof = await self._prove(of_texts=True)
            if proof.refuted:
                raise refuted(ours, proof, where=self._where, stored=backend.space)
            if not await self._in_found(backend.is_empty, reads=True):
                say_unproven(proof, where=self._where)
        self._verified = True
        self._compared = True

    @property
    def _where(self) -> str:
        return f"{self.backend.kind} {self.backend.label!r}"

    async def _in_found(self, operation: Callable[[S], Awaitable[T]], *, reads: bool = False) -> T:
        """Run an operation on the collection that was found, and say so if it is gone by now."""
        try:
            return await self.backend.in_session(operation, reads=reads, retry="short")
        except Exception as error:
            if not self.backend.is_collection_gone(error):
                raise
            self._lose()
            raise self._was_deleted() from error

    async def _record(
        self, session: S, *, ours: EmbeddingSpace, to_record: EmbeddingSpace | None
    ) -> bool:
        """Write our space down where nobody's is; False where ``to_record`` must be found first."""
        backend = self.backend
        if not await backend.find(session):  # somebody may have been faster
            self._lose()
            raise self._was_deleted()
        if backend.space is not None:
            self._check(ours)
            return True
        if to_record is None and not await backend.is_empty(session):
            if self._adopt is not True:
                self._check(ours)
            # First, so that nobody is told to adopt what cannot be.
            await backend.check_adoptable(session)
            if not self._adopt:
                raise missing_space(ours, where=self._where, adopting=backend.adopting)
            return False
        self._check(ours)
        await backend.record_space(session, ours if to_record is None else to_record)
        if backend.space is None:
            raise self._not_kept()
        return True

    def _not_kept(self) -> StoreError:
        return StoreError(
            f"{self._where} does not keep the embedding space that was just recorded: somebody "
            "else writes what it says of itself. Run the same call again."
        )

    async def prove(self) -> Proof:
        """Embed some of the texts again, and compare; nothing is raised for what differs."""
        await self.ready()
        return await self._prove(of_texts=True)

    async def _prove(self, *, of_texts: bool) -> Proof:
        backend, embedder = self.backend, self.embedder
        sample = partial(backend.read_sample, size=ASKED)
        rows = await self._in_found(sample, reads=True)

        def compare() -> Proof:
            embedded = embedded_rows(embedder, rows, backend.space) if of_texts else rows
            return prove(embedder, embedded, dimensions=backend.dimensions)

        return await self.runtime.offload(compare)

    async def _prove_equal(self, stored: EmbeddingSpace, ours: EmbeddingSpace) -> Proof:
        """Prove that another model makes the recorded one's vectors, and write that down."""
        backend = self.backend
        if await self._in_found(partial(backend.count, documents=False), reads=True) < NEEDED:
            self._check(ours)  # there is nothing that could prove it
        proof = await self._prove(of_texts=True)
        if not proof.proven:
            raise refuted(ours, proof, where=self._where, stored=stored)

        async def record(session: S) -> None:
            if not await backend.find(session) or backend.space is None:
                self._lose()
                raise self._was_deleted()
            if backend.space.differences(ours):
                await backend.record_space(session, with_equal(backend.space, ours))
                if backend.space.differences(ours):
                    raise self._not_kept()

        await self._in_found(record)
        return proof

    def _check(self, ours: EmbeddingSpace) -> None:
        backend = self.backend
        dimensions = ours.dimensions if backend.dimensions is None else backend.dimensions
        check_space(backend.space, dimensions, ours, where=self._where)

    # -- operations -----------------------------------------------------------------------------

    async def perform(
        self,
        method: Callable[..., Awaitable[T]],
        *args: Any,
        reads: bool = False,
        retry: Retry = "long",
        **options: Any,
    ) -> T:
        """Run a method of the backend in a session of its own.

        Args:
            method: Takes a session, then ``args`` and ``options``.
            args: Go to the method.
            reads: It changes nothing.
            retry: How long a host that is away is waited for.
            options: Go to the method.
        """

        def operation(session: S) -> Awaitable[T]:
            return method(session, *args, **options)

        return await self.run(
            partial(self.backend.in_session, operation, reads=reads, retry=retry), reads=reads
        )

    async def run(self, body: Callable[[], Awaitable[T]], *, reads: bool = False) -> T:
        """Run a body on the open collection; what reads looks again, once, if it is another."""
        for looked_again in (False, True):
            found = await self.open()
            try:
                return await body()
            except Exception as error:
                changed = isinstance(error, CollectionChangedError)
                if not changed and not self.backend.is_collection_gone(error):
                    raise
                if self._found == found:
                    self._lose()
                if not reads or (changed and looked_again):
                    raise self._gone() from error
                if looked_again:  # it is found, and answers nothing: half of it is deleted
                    raise self._was_deleted() from error
        raise AssertionError("unreachable")

    def _lose(self) -> None:
        """Forget a collection that is gone: it is looked for again, and never created again."""
        self._deleted = True
        self._verified = False
        self._found = 0

    def _was_deleted(self) -> StoreError:
        """Return the error for a collection that was there before."""
        return StoreError(
            f"{self.backend.kind.lower()} {self.backend.label!r} was deleted while this store was "
            "open, and is not created again unasked. Call close() first: then the next call "
            "creates it."
        )

    def _gone(self) -> StoreError:
        """Return the error for a write: what it was compared with is gone."""
        return StoreError(
            f"{self._name}: the {self.backend.kind.lower()} was deleted, or replaced by another, "
            "while it was written to. If it is there again, run the same call again; if not, call "
            "close() first, and then it is created."
        )

    async def write(self, source: WindowReader, on_write: Callable[..., Any] | None) -> Report:
        """Write every window of a source."""
        dimensions = await self.ready()
        return await write_all(self, partial(source.read, self.runtime, dimensions), on_write)

    async def check_sources(self, source: WindowReader) -> None:
        """Raise ``SourceError`` for a document that another source has, with another text."""
        dimensions = await self.ready()
        limit = await self.runtime.offload(lambda: self.embedder._text_limit)
        backend = self.backend
        while (window := await source.read(self.runtime, dimensions)) is not None:
            space = backend.space.digest if backend.space else ""
            rows = await self.runtime.offload(rows_of, window, limit, space)
            statuses: dict[str, Status] = {}
            if rows:
                statuses = await self.perform(backend.compare, rows, reads=True)
            documents = not_as_stored(window, rows, statuses)
            if documents:
                stored = await self.perform(backend.stored_sources, documents, reads=True)
                check_sources(window, rows, statuses, stored, backend.kind)

    async def search(self, request: SearchRequest, options: O) -> list[Match]:
        """Find what is asked for, in the order of ``toastrack.stores.searching``."""
        return await search(self, request, options)

    async def get(self, ids: Sequence[str], vectors: bool) -> list[Record | None]:
        """Read records, and say of each where its vector comes from."""
        rows = await self.perform(self.backend.read, ids, vectors, reads=True, retry="short")
        return await self.runtime.offload(self._records, rows)

    async def read_page(
        self, after: Any, filter: Filter | None, vectors: bool
    ) -> tuple[list[Record], Any]:
        """Read some of all records that match; what to ask with for more is None at the end."""
        checked = checked_filter(filter)
        rows, following = await self.perform(
            self.backend.read_page, after, checked, vectors, reads=True
        )
        records = await self.runtime.offload(self._records, rows)
        return [record for record in records if record is not None], following

    def _records(self, rows: Sequence[Row | None]) -> list[Record | None]:
        space = self.backend.space
        limits: set[int] = set()
        if space is not None:
            if self.embedder._known_space is not None:  # else a download would tell
                limits.add(self.embedder._text_limit)
            if space.max_tokens is not None:
                limits.add(space.max_tokens)
        digest = space.digest if space else ""
        return [
            row and read_record(row.record, row.text_hash, row.vector, space=digest, limits=limits)
            for row in rows
        ]

    async def count(self, documents: bool, filter: Filter | None) -> int:
        """Count what is there, or what of it matches."""
        checked = checked_filter(filter)
        count = (
            partial(self.backend.count_matching, filter=checked) if checked else self.backend.count
        )
        return await self.perform(count, documents=documents, reads=True, retry="short")

    async def build_index(
        self, build: Callable[..., Awaitable[bool]], filter_fields: Collection[str]
    ) -> bool:
        """Build an index of the collection, and of fields, once its space is compared."""
        fields = checked_fields(filter_fields)
        await self.ready()
        return await self.run(partial(build, filter_fields=fields))

    async def build_text_index(self, build: Callable[[], Awaitable[bool]]) -> bool:
        """Build an index of words, once the space is compared."""
        await self.ready()
        return await self.run(build)


_flows: WeakSet[StoreFlow[Any, Any]] = WeakSet()


def _leave_to_parent() -> None:
    for flow in list(_flows):
        flow.leave_to_parent()


after_fork(_leave_to_parent)
