"""Files to documents, one reader a format."""

from __future__ import annotations

from collections.abc import Mapping

from toastrack.readers.base import Bad, Columns, Input, Reader
from toastrack.readers.csv import read_csv
from toastrack.readers.jsonl import read_jsonl
from toastrack.readers.parquet import read_parquet
from toastrack.readers.text import read_markdown, read_text

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

__all__ = ["PACKED", "READERS", "Bad", "Columns", "Input", "Reader"]
