"""The asynchronous face that every store wears."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match, Record, Report
from toastrack.stores.base_store import BaseStore, C
from toastrack.stores.checks import check_search, ids_to_delete, listed, unit_vector
from toastrack.stores.pipeline import Read, Start, Wait, write_all
from toastrack.stores.protocol import Document, OnProgress
from toastrack.stores.steps import Steps, aask, arun_steps
from toastrack.stores.windows import WINDOW, Window, document_windows, record_windows
from toastrack.stores.write_queue import AsyncLine
from toastrack.utils import arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self


AsyncOnWrite = Callable[[Report, Sequence[str]], Awaitable[None] | None]
"""``toastrack.stores.protocol.OnWrite``, which may also be a coroutine function."""
T = TypeVar("T")
Item = TypeVar("Item")


class AsyncStore(BaseStore[C]):
    """Awaits what a host does; the model and the reading of sources run on other threads.

    ``space`` is known once the store is open; the synchronous face opens by itself for it.
    """

    _do: Callable[[Any], Awaitable[Any]] = staticmethod(aask)
    """How a call of the host's client is made; ``ask_on_a_thread`` for one that blocks."""

    def __init__(self, label: str, *, embedder: Embedder) -> None:
        super().__init__(label, embedder=embedder)
        self._opening: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def open(self) -> Self:
        """Connect, create what is missing and compare the recorded space."""
        try:
            await self._known()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close what this store opened itself; the next call opens it again."""
        self._collection = None
        self._lost = False

    # -- writing --------------------------------------------------------------------------------

    async def upsert(self, records: Iterable[Record] | AsyncIterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed."""
        return await self._write(record_windows, records, None)

    async def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document."""
        return await self.replace_many([(document_id, list(records))])

    async def replace_many(
        self,
        documents: Iterable[Document] | AsyncIterable[Document],
        on_write: AsyncOnWrite | None = None,
    ) -> Report:
        """Do ``replace`` for many documents, streaming; see ``toastrack.stores.protocol.Store``."""
        return await self._write(document_windows, documents, on_write)

    async def delete(
        self, ids: Iterable[str] | None = None, documents: Iterable[str] | None = None
    ) -> int:
        """Delete records by id, or whole documents; return how many records went."""
        records, whole = ids_to_delete(ids, documents)
        return await self._run(lambda collection: collection.delete(records, whole))

    async def _write(
        self,
        cut: Callable[[Iterable[Item], int], Iterator[Window]],
        items: Iterable[Item] | AsyncIterable[Item],
        on_write: AsyncOnWrite | None,
    ) -> Report:
        dimensions = (await self._ready()).dimensions
        source = _windows(lambda batch: cut(batch, dimensions), items)
        async with aclosing(source) as windows, AsyncLine() as line:

            async def do(step: Any) -> Any:
                if isinstance(step, Read):
                    return await anext(windows, None)
                if isinstance(step, Start):
                    call = partial(self._run, step.operation, reads=step.reads)
                    return line.start(call, writes=not step.reads)
                return await (step.call if isinstance(step, Wait) else aask(step))

            return await arun_steps(write_all(self.embedder, on_write, shared=self._shared), do)

    # -- reading --------------------------------------------------------------------------------

    async def get(self, ids: Iterable[str]) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there."""
        wanted = listed("ids", ids)
        return await self._run(lambda collection: collection.get(wanted), reads=True, patient=False)

    async def count(self, documents: bool = False) -> int:
        """Count the records, or the documents they belong to."""
        return await self._run(
            lambda collection: collection.count(documents), reads=True, patient=False
        )

    async def document_ids(self) -> AsyncIterator[str]:
        """Yield the id of every document, in pages, in no promised order."""
        after = None
        while True:
            page, after = await self._page(after)
            for document in page:
                yield document
            if after is None:
                return

    async def _page(self, after: Any) -> tuple[list[str], Any]:
        return await self._run(lambda collection: collection.document_page(after), reads=True)

    async def _search(
        self,
        query: str | arrays.Vector,
        k: int,
        filter: Filter | None,
        find: Callable[[C, NDArray[np.float32]], Steps[list[Match]]],
    ) -> list[Match]:
        check_search(k, filter)
        dimensions = (await self._ready()).dimensions
        if k == 0:
            return []
        vector = await self.embedder.aembed_query(query) if isinstance(query, str) else query
        vector = unit_vector(vector, "The query vector", dimensions)
        return await self._run(
            lambda collection: find(collection, vector), reads=True, patient=False
        )

    # -- the index ------------------------------------------------------------------------------

    async def build_index(self, *, on_progress: OnProgress | None = None) -> bool:
        """Do nothing and return False: this host keeps its index by itself."""
        await self._ready()
        return False

    async def check_index(self) -> None:
        """Do nothing: there is an index."""

    # -- the collection -------------------------------------------------------------------------

    async def _opened(self) -> C:
        async with self._opening_lock():
            if self._collection is None:
                self._collection = await arun_steps(self._guarded(self._open_steps()), self._do)
            return self._collection

    async def _ready(self) -> C:
        """The collection, known to be of the embedder's space: asked before each write and search."""
        return await self._compared()

    async def _compared(self) -> C:
        collection = await self._opened()
        async with self._opening_lock():
            if not collection.checked:
                await arun_steps(self._guarded(self._check_steps(collection)), self._do)
                collection.checked = True
        return collection

    async def _known(self) -> C:
        """The collection, compared already unless that would take a download."""
        collection = await self._opened()
        if (
            collection.checked
            or (await asyncio.to_thread(lambda: self.embedder._known_space)) is None
        ):
            return collection
        return await self._compared()

    async def _run(
        self, operation: Callable[[C], Steps[T]], *, reads: bool = False, patient: bool = True
    ) -> T:
        """Run one operation.

        Args:
            operation: What to do with the collection.
            reads: It changes nothing.
            patient: Nobody waits for the answer, so a host that went away is waited for.
        """
        collection = await self._known()
        try:
            return await arun_steps(self._guarded(operation(collection), patient=patient), self._do)
        except Exception as error:
            if not self._is_lost(error):
                raise
            self._lose(collection, error, reads=reads)
        steps = operation(await self._known())
        return await arun_steps(self._guarded(steps, patient=patient), self._do)

    def _opening_lock(self) -> asyncio.Lock:
        """The lock of the running event loop; those of closed ones are forgotten."""
        loop = asyncio.get_running_loop()
        for old in [old for old in self._opening if old.is_closed()]:
            del self._opening[old]
        return self._opening.setdefault(loop, asyncio.Lock())


async def _windows(
    cut: Callable[[Iterable[Item]], Iterator[Window]], items: Iterable[Item] | AsyncIterable[Item]
) -> AsyncGenerator[Window, None]:
    """Take each window off the event loop, since that may read files."""
    async for batch in _portions(items):
        windows = cut(batch)
        while (window := await asyncio.to_thread(next, windows, None)) is not None:
            yield window


async def _portions(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Iterable[Item]]:
    """Turn an asynchronous stream into lists of a window's size; any other is passed on whole."""
    if not isinstance(items, AsyncIterable):
        yield items
        return
    portion: list[Item] = []
    async for item in items:
        portion.append(item)
        if len(portion) >= WINDOW:
            yield portion
            portion = []
    yield portion
