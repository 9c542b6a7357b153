"""Files to documents, one reader a format."""

from __future__ import annotations

from collections.abc import Mapping

from toastrack.readers.base import Columns, Input, Reader
from toastrack.readers.jsonl import read_jsonl
from toastrack.readers.text import read_text

READERS: Mapping[str, Reader] = {".txt": read_text, ".md": read_text, ".jsonl": read_jsonl}
"""File name ending -> reader."""

__all__ = ["READERS", "Columns", "Input", "Reader"]
