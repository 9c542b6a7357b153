"""The synchronous face that every store wears."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from toastrack.embedder import Embedder
from toastrack.filters import Filter
from toastrack.records import Match, Record, Report
from toastrack.space import EmbeddingSpace
from toastrack.stores.base_store import BaseStore, C
from toastrack.stores.checks import check_search, ids_to_delete, listed, unit_vector
from toastrack.stores.pipeline import Read, Start, Wait, write_all
from toastrack.stores.protocol import Document, OnProgress, OnWrite
from toastrack.stores.steps import Steps, ask, run_steps
from toastrack.stores.windows import Window, document_windows, record_windows
from toastrack.stores.write_queue import Line
from toastrack.utils import arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self


T = TypeVar("T")


class SyncStore(BaseStore[C]):
    """Reads and writes through what a host says of itself; one thread at a time opens it."""

    def __init__(self, label: str, *, embedder: Embedder) -> None:
        super().__init__(label, embedder=embedder)
        self._lock = RLock()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self) -> Self:
        """Connect, create what is missing and compare the recorded space."""
        try:
            self._known()
        except BaseException:
            self.close()  # a `with` that was never entered will not
            raise
        return self

    def close(self) -> None:
        """Close what this store opened itself; the next call opens it again."""
        self._collection = None
        self._lost = False

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the collection recorded."""
        self._opened()
        return super().space

    # -- writing --------------------------------------------------------------------------------

    def upsert(self, records: Iterable[Record]) -> Report:
        """Store records; embed only those whose text is new or changed.

        Records are taken from any iterable in windows, on this thread, while earlier ones are
        embedded and written, the latter on a thread of its own. The last of equal ids wins.
        Raises ``RecordError`` naming the record; nothing of its window is written then.
        """
        return self._write(record_windows(records, self._ready().dimensions), None)

    def replace(self, document_id: str, records: Iterable[Record]) -> Report:
        """Make these the only records of a document."""
        return self.replace_many([(document_id, list(records))])

    def replace_many(
        self, documents: Iterable[Document], on_write: OnWrite | None = None
    ) -> Report:
        """Do ``replace`` for many documents, streaming; see ``toastrack.stores.protocol.Store``."""
        return self._write(document_windows(documents, self._ready().dimensions), on_write)

    def delete(
        self, ids: Iterable[str] | None = None, documents: Iterable[str] | None = None
    ) -> int:
        """Delete records by id, or whole documents; return how many records went."""
        records, whole = ids_to_delete(ids, documents)
        return self._run(lambda collection: collection.delete(records, whole))

    def _write(self, windows: Iterator[Window], on_write: OnWrite | None) -> Report:
        with Line(self._interrupt) as line:

            def do(step: Any) -> Any:
                if isinstance(step, Read):
                    return next(windows, None)
                if isinstance(step, Start):
                    call = partial(self._run, step.operation, reads=step.reads)
                    return line.start(call, writes=not step.reads)
                return step.call.result() if isinstance(step, Wait) else step.function()

            return run_steps(write_all(self.embedder, on_write, shared=self._shared), do)

    def _interrupt(self, thread: Thread) -> None:
        """End the call of the host that this thread is making; nothing where that cannot be."""

    # -- reading --------------------------------------------------------------------------------

    def get(self, ids: Iterable[str]) -> list[Record | None]:
        """Return records in the order asked, None for an id that is not there."""
        wanted = listed("ids", ids)
        return self._run(lambda collection: collection.get(wanted), reads=True, patient=False)

    def count(self, documents: bool = False) -> int:
        """Count the records, or the documents they belong to."""
        return self._run(lambda collection: collection.count(documents), reads=True, patient=False)

    def document_ids(self) -> Iterator[str]:
        """Yield the id of every document, in pages, in no promised order."""
        after = None
        while True:
            page, after = self._page(after)
            yield from page
            if after is None:
                return

    def _page(self, after: Any) -> tuple[list[str], Any]:
        return self._run(lambda collection: collection.document_page(after), reads=True)

    def _search(
        self,
        query: str | arrays.Vector,
        k: int,
        filter: Filter | None,
        find: Callable[[C, NDArray[np.float32]], Steps[list[Match]]],
    ) -> list[Match]:
        check_search(k, filter)
        dimensions = self._ready().dimensions
        if k == 0:
            return []
        vector = self.embedder.embed_query(query) if isinstance(query, str) else query
        vector = unit_vector(vector, "The query vector", dimensions)
        return self._run(lambda collection: find(collection, vector), reads=True, patient=False)

    # -- the index ------------------------------------------------------------------------------

    def build_index(self, *, on_progress: OnProgress | None = None) -> bool:
        """Do nothing and return False: this host keeps its index by itself."""
        self._ready()
        return False

    def check_index(self) -> None:
        """Do nothing: there is an index."""

    # -- the collection -------------------------------------------------------------------------

    def _opened(self) -> C:
        with self._lock:
            if self._collection is None:
                self._collection = run_steps(self._guarded(self._open_steps()), ask)
            return self._collection

    def _ready(self) -> C:
        """The collection, known to be of the embedder's space: asked before each write and search."""
        return self._compared()

    def _compared(self) -> C:
        with self._lock:
            collection = self._opened()
            if not collection.checked:
                run_steps(self._guarded(self._check_steps(collection)), ask)
                collection.checked = True
            return collection

    def _known(self) -> C:
        """The collection, compared already unless that would take a download."""
        collection = self._opened()
        if collection.checked or self.embedder._known_space is None:
            return collection
        return self._compared()

    def _run(
        self, operation: Callable[[C], Steps[T]], *, reads: bool = False, patient: bool = True
    ) -> T:
        """Run one operation.

        Args:
            operation: What to do with the collection.
            reads: It changes nothing.
            patient: Nobody waits for the answer, so a host that went away is waited for.
        """
        collection = self._known()
        try:
            return run_steps(self._guarded(operation(collection), patient=patient), ask)
        except Exception as error:
            if not self._is_lost(error):
                raise
            self._lose(collection, error, reads=reads)
        return run_steps(self._guarded(operation(self._known()), patient=patient), ask)
