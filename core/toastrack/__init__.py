"""The right embedding in every slot of a search stack."""

from toastrack.batching.truncation import OnTruncate
from toastrack.embedder import DEFAULT_MODEL, Embedder
from toastrack.ingestion.ingest import ingest
from toastrack.records import Match, Record, Report
from toastrack.space import EmbeddingSpace

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL",
    "Embedder",
    "EmbeddingSpace",
    "Match",
    "OnTruncate",
    "Record",
    "Report",
    "ingest",
]
