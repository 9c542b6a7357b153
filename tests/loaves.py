"""A few records in a store of Qdrant's, for the retrievers of the frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qdrant_client import QdrantClient

from toastrack import Embedder, Record
from toastrack_qdrant import QdrantStore

RECORDS = [
    Record(f"r{i}", f"loaf {i}", {"even": i % 2 == 0}, document_id=f"d{i // 2}", chunk=i % 2)
    for i in range(6)
]
QUERY = "which loaf"


@contextmanager
def loaves(embedder: Embedder) -> Iterator[QdrantStore]:
    """A store that holds ``RECORDS``, open."""
    with QdrantStore(QdrantClient(":memory:"), "loaves", embedder=embedder) as store:
        store.upsert(RECORDS)
        yield store
