"""What the sync and the async face of every store have in common; it talks to no host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.records import Record
from toastrack.space import EmbeddingSpace
from toastrack.stores.plan import Row, Status, WriteBatch
from toastrack.stores.steps import Steps


class Collection(Protocol):
    """A host's collection once it is open; each method is work for a face to run."""

    dimensions: int
    stored: EmbeddingSpace | None
    """The space it recorded; None if nobody did."""
    checked: bool
    """Its space is known to be the embedder's; False when opened, set by the face."""

    def states(self, rows: Sequence[Row]) -> Steps[dict[str, Status]]:
        """Say how each row compares to what is stored under its id; new ones are left out.

        "changed": its ``text_hash`` differs. "metadata": only document, chunk or metadata do,
        compared as JSON, so that 1 and 1.0 differ. Call ``check`` of each record first.
        """
        ...

    def write(self, portion: WriteBatch) -> Steps[tuple[int, int]]:
        """Write one portion; return how many rows were written and how many went."""
        ...

    def delete(self, ids: Sequence[str], documents: Sequence[str]) -> Steps[int]:
        """Delete records by id and whole documents; return how many went, each counted once."""
        ...

    def get(self, ids: Sequence[str]) -> Steps[list[Record | None]]:
        """Return records in the order asked, None for an id that is not there; ids may repeat."""
        ...

    def count(self, documents: bool) -> Steps[int]:
        """Count records or documents."""
        ...

    def document_page(self, after: Any) -> Steps[tuple[list[str], Any]]:
        """Return some document ids and what to ask with for more of them, None at the end.

        ``after`` is None for the first page. Documents may go while they are listed.
        """
        ...


C = TypeVar("C", bound=Collection)
T = TypeVar("T")


class BaseStore(Generic[C]):
    """Holds the embedder and what is known of the collection."""

    def __init__(self, label: str, *, embedder: Embedder) -> None:
        if not isinstance(embedder, Embedder):
            raise TypeError(f"embedder= takes an Embedder, not {type(embedder).__name__}.")
        self.embedder = embedder
        self._label = label
        self._collection: C | None = None
        self._lost = False
        self._shared = False
        """The caller's own code could disturb a write, as on one connection of a database."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._label!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            f"A {type(self).__name__} holds a connection and cannot be pickled or copied. Make one "
            "where it is needed; the embedder can be pickled."
        )

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if the host cannot store this record.

        ``ingest`` asks for each one alone; ``Collection.states`` must ask, too.
        """

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space that the collection recorded; known once the store is open."""
        if self._collection is None:
            raise StoreError(f"{self!r} is not open yet. Call open(), or use it in a with block.")
        return self._collection.stored or self.embedder.space

    # -- what a host says -----------------------------------------------------------------------

    def _open_steps(self) -> Steps[C]:
        """Find the collection and read its size and space; create it if ``create`` says so.

        One that was there before (``self._lost``) is not created. The model may be asked for
        (``Slow(lambda: embedder.space)``) only to create, or where an empty collection does not
        tell its size: opening must not download.
        """
        raise NotImplementedError

    def _check_steps(self, collection: C) -> Steps[None]:
        """Compare the recorded space with the embedder's, recording it where there is none.

        Read it again first if there was none: somebody may have been faster. ``check_space``
        compares. If there is still none, raise ``missing_space`` for a filled collection unless
        ``adopt``, else record ours and set ``collection.stored``. The face sets ``checked``.
        """
        raise NotImplementedError

    def _guarded(self, steps: Steps[T], *, patient: bool = False) -> Steps[T]:
        """Surround work with what the host needs, such as asking again; nothing by default."""
        return steps

    def _is_lost(self, error: BaseException) -> bool:
        """Tell whether an error says that the open collection is not there any more."""
        return False

    def _lose(self, collection: C, error: BaseException, *, reads: bool) -> None:
        """Forget a collection that is gone, so that it is looked for again; never created again.

        Raises ``StoreError`` for work that writes: what is to be written was compared with the
        collection that is gone.
        """
        self._lost = True
        if self._collection is collection:
            self._collection = None
        if not reads:
            raise StoreError(
                f"{self!r}: the collection was deleted, or replaced by another, while it was "
                "written to. If it is there again, run the same call again; if not, call close() first, "
                "and then it is created."
            ) from error


def missing(where: str, *, lost: bool) -> StoreError:
    """Return the error for a collection that is not there; ``lost``: it was there before."""
    if lost:
        return StoreError(
            f"{where} was deleted while this store was open, and is not created again unasked. "
            "Call close() first: then the next call creates it."
        )
    return StoreError(f"There is no {where}. Open it with create=True, or ingest first.")
