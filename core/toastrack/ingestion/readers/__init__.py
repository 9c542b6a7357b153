"""Files to documents, one reader a format."""

from __future__ import annotations

from collections.abc import Mapping

from toastrack.ingestion.readers.base import BadInput, Columns, Reader, SourceDocument
from toastrack.ingestion.readers.csv import read_csv
from toastrack.ingestion.readers.jsonl import read_jsonl
from toastrack.ingestion.readers.parquet import read_parquet
from toastrack.ingestion.readers.text import read_markdown, read_text

READERS: Mapping[str, Reader] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
"""File name ending -> reader."""

PACKED = ".gz"
"""May follow the ending of any format but Parquet, which packs itself."""

__all__ = ["PACKED", "READERS", "BadInput", "Columns", "Reader", "SourceDocument"]
