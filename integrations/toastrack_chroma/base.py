"""What the sync and the async store have in common beside what every store has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from toastrack.filters import Filter, checked_filter
from toastrack.records import Match, Record
from toastrack.stores.base_store import BaseStore
from toastrack.stores.steps import Steps
from toastrack_chroma.codec import check_record
from toastrack_chroma.collection import ChromaCollection, Where
from toastrack_chroma.opening import Settings, check_collection, open_collection_steps
from toastrack_chroma.server import guarded, is_gone

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_COLLECTION = "toastrack_documents"
T = TypeVar("T")


class ChromaBase(BaseStore[ChromaCollection]):
    """Holds the client and what the user said of the collection."""

    _client: Any
    _settings: Settings

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if Chroma cannot store this record."""
        check_record(record)

    def _open_steps(self) -> Steps[ChromaCollection]:
        return open_collection_steps(self._client, self._settings, self.embedder, lost=self._lost)

    def _check_steps(self, collection: ChromaCollection) -> Steps[None]:
        return check_collection(collection, self._settings, self.embedder)

    def _guarded(self, steps: Steps[T], *, patient: bool = False) -> Steps[T]:
        return guarded(self._client, steps, patient=patient)

    def _is_lost(self, error: BaseException) -> bool:
        return is_gone(error)


def find(
    k: int,
    filter: Filter | None,
    exact: bool,
    where: Where | None,
    where_document: Where | None,
) -> Callable[[ChromaCollection, NDArray[np.float32]], Steps[list[Match]]]:
    """Return what a search does with the collection and the query's vector."""
    return partial(
        ChromaCollection.search,
        k=k,
        filter=checked_filter(filter),
        where=where,
        where_document=where_document,
        exact=exact,
    )
