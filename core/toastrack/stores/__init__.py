"""What an adapter for a database imports; beside ``toastrack`` and ``toastrack.errors``, all of it."""

from toastrack.filters import Comparison, Condition, Filter, Group, Instant, Scalar, matches, parsed
from toastrack.stores.addresses import open_store, without_collection
from toastrack.stores.backend import (
    LONG_BACKOFF,
    SHORT_BACKOFF,
    Backend,
    BackendBase,
    CollectionChangedError,
    Retry,
    RetryingBackend,
    RetryingSession,
    Span,
)
from toastrack.stores.base import AsyncBaseStore, BaseStore
from toastrack.stores.description import Description
from toastrack.stores.embedded_text import node_text
from toastrack.stores.flow import StoreFlow
from toastrack.stores.foreign import record_space, recorded_space
from toastrack.stores.foreign_collection import ForeignCollection
from toastrack.stores.formats import format_of, from_recorded, to_recorded
from toastrack.stores.fusing import fused
from toastrack.stores.guarding import guard_space
from toastrack.stores.hashes import text_hash
from toastrack.stores.id_set import IdSet
from toastrack.stores.own_client import OwnClient
from toastrack.stores.plan import Row, Status, WriteBatch, WriteResult
from toastrack.stores.proof import Adopt, Proof
from toastrack.stores.protocol import (
    AsyncOnWrite,
    AsyncStore,
    ChooseEmbedder,
    Document,
    IngestStore,
    OnProgress,
    OnWrite,
    SourcedDocument,
    Store,
    StoredSource,
)
from toastrack.stores.recall import Trial, compare_with_exact, measure_recall
from toastrack.stores.recall_table import RecallRow, RecallTable
from toastrack.stores.runtime import AsyncRuntime, Ended, Runtime, SyncRuntime, run_sync
from toastrack.stores.search_request import SearchRequest
from toastrack.stores.settling import Look, another_writer, delete_documents, write_batch
from toastrack.stores.space_check import check_space
from toastrack.stores.text_query import RRF, SearchMode, TextHits, TextQuery, TextSyntax
from toastrack.stores.top_k import TopK
from toastrack.stores.usable import check_usable
from toastrack.stores.widening import widened
from toastrack.utils import arrays
from toastrack.utils.forks import after_fork, keep_for_ever, renewing_property_locks
from toastrack.utils.warn import warn_at_caller

__all__ = [
    "LONG_BACKOFF",
    "RRF",
    "SHORT_BACKOFF",
    "Adopt",
    "AsyncBaseStore",
    "AsyncOnWrite",
    "AsyncRuntime",
    "AsyncStore",
    "Backend",
    "BackendBase",
    "BaseStore",
    "ChooseEmbedder",
    "CollectionChangedError",
    "Comparison",
    "Condition",
    "Description",
    "Document",
    "Ended",
    "Filter",
    "ForeignCollection",
    "Group",
    "IdSet",
    "IngestStore",
    "Instant",
    "Look",
    "OnProgress",
    "OnWrite",
    "OwnClient",
    "Proof",
    "RecallRow",
    "RecallTable",
    "Retry",
    "RetryingBackend",
    "RetryingSession",
    "Row",
    "Runtime",
    "Scalar",
    "SearchMode",
    "SearchRequest",
    "SourcedDocument",
    "Span",
    "Status",
    "Store",
    "StoreFlow",
    "StoredSource",
    "SyncRuntime",
    "TextHits",
    "TextQuery",
    "TextSyntax",
    "TopK",
    "Trial",
    "WriteBatch",
    "WriteResult",
    "after_fork",
    "another_writer",
    "arrays",
    "check_space",
    "check_usable",
    "compare_with_exact",
    "delete_documents",
    "format_of",
    "from_recorded",
    "fused",
    "guard_space",
    "keep_for_ever",
    "matches",
    "measure_recall",
    "node_text",
    "open_store",
    "parsed",
    "record_space",
    "recorded_space",
    "renewing_property_locks",
    "run_sync",
    "text_hash",
    "to_recorded",
    "warn_at_caller",
    "widened",
    "without_collection",
    "write_batch",
]
