"""What the sync and the async store have in common beside what every store has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import httpx
from grpc import RpcError, StatusCode
from qdrant_client import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from toastrack.filters import Filter, checked_filter
from toastrack.records import Match, Record
from toastrack.stores.base_store import BaseStore
from toastrack.stores.retrying import retried
from toastrack.stores.steps import Steps
from toastrack_qdrant.collection import QdrantCollection
from toastrack_qdrant.host import Host
from toastrack_qdrant.opening import Settings, check_collection, open_collection
from toastrack_qdrant.points import check_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

# What a proxy or a server that is starting or too busy says.
_AWAY = (429, 502, 503, 504)


class QdrantBase(BaseStore[QdrantCollection]):
    """Holds the client and what the user said of the collection."""

    _host: Host
    _settings: Settings

    def check(self, record: Record) -> None:
        """Raise ``RecordError`` if Qdrant cannot store this record."""
        check_record(record)

    def _open_steps(self) -> Steps[QdrantCollection]:
        return open_collection(self._host, self._settings, self.embedder, lost=self._lost)

    def _check_steps(self, collection: QdrantCollection) -> Steps[None]:
        return check_collection(collection, self._settings, self.embedder)

    def _guarded(self, steps: Steps[T], *, patient: bool = False) -> Steps[T]:
        return retried(steps, is_away, patient=patient)

    def _is_lost(self, error: BaseException) -> bool:
        return is_missing(error)


def is_away(error: BaseException) -> bool:
    """Tell whether a server could not be reached, or is starting or too busy."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, (httpx.NetworkError, httpx.RemoteProtocolError))
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _AWAY
    return isinstance(error, RpcError) and error.code() == StatusCode.UNAVAILABLE


def is_missing(error: BaseException) -> bool:
    """Tell whether a host says, each client in its own way, that there is no such collection."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    if isinstance(error, RpcError):
        return bool(error.code() == StatusCode.NOT_FOUND)
    return isinstance(error, ValueError) and "not found" in str(error)


def find(
    k: int,
    filter: Filter | None,
    exact: bool,
    where: models.Filter | None,
    score_threshold: float | None,
    search_params: models.SearchParams | None,
) -> Callable[[QdrantCollection, NDArray[np.float32]], Steps[list[Match]]]:
    """Return what a search does with the collection and the query's vector."""
    return partial(
        QdrantCollection.search,
        k=k,
        filter=checked_filter(filter),
        where=where,
        score_threshold=score_threshold,
        search_params=search_params,
        exact=exact,
    )
