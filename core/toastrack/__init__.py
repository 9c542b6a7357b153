"""The right embedding in every slot of a search stack."""

from toastrack.embedder import Embedder
from toastrack.ingestion.ingest import ingest
from toastrack.records import Match, Record, Report
from toastrack.space import EmbeddingSpace

__version__ = "0.1.0"

__all__ = ["Embedder", "EmbeddingSpace", "Match", "Record", "Report", "ingest"]
