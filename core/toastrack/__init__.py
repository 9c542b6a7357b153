"""The right embedding in every slot of a search stack."""

from toastrack.batching.engine_pool import Precision
from toastrack.batching.truncation import OnTruncate
from toastrack.embedder import DEFAULT_MODEL, Embedder, EmbedderSettings
from toastrack.hosted.settings import Hosted, Usage
from toastrack.ingestion.ingest import Progress, ingest
from toastrack.models.engine_choice import EngineName, RerankerPrecision
from toastrack.records import Match, Record, Report, Skip
from toastrack.reranker import DEFAULT_RERANKER, Reranker, RerankerSettings
from toastrack.space import EmbeddingSpace

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_RERANKER",
    "Embedder",
    "EmbedderSettings",
    "EmbeddingSpace",
    "EngineName",
    "Hosted",
    "Match",
    "OnTruncate",
    "Precision",
    "Progress",
    "Record",
    "Report",
    "Reranker",
    "RerankerPrecision",
    "RerankerSettings",
    "Skip",
    "Usage",
    "ingest",
]
