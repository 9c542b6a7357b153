"""Files to documents, one reader a format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from toastrack.ingestion.readers.base import BadInput, Reader, ReadOptions, SourceDocument
from toastrack.ingestion.readers.csv import read_csv, read_tsv
from toastrack.ingestion.readers.docx import read_docx
from toastrack.ingestion.readers.html import read_html
from toastrack.ingestion.readers.jsonl import read_json, read_jsonl
from toastrack.ingestion.readers.markdown import read_markdown
from toastrack.ingestion.readers.parquet import read_parquet
from toastrack.ingestion.readers.pdf import read_pdf
from toastrack.ingestion.readers.text import read_text


@dataclass(frozen=True)
class Format:
    """What reads the files of an ending."""

    read: Reader
    extra: str | None = None
    """The extra that brings ``packages``."""
    packages: Sequence[str] = ()
    packed: bool = False
    """It packs itself, so that it is not looked for under ``PACKED``."""
    rows: bool = False
    """It holds many documents that bring their ids, and is not one whose id is its name."""

    def missing(self) -> list[str]:
        """Return those of its packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


_TEXT = Format(read_text)
_MARKDOWN = Format(read_markdown)
_JSON_LINES = Format(read_jsonl, rows=True)
_HTML = Format(read_html, "files", ["bs4", "markdownify"])

FORMATS: Mapping[str, Format] = {
    ".txt": _TEXT,
    ".text": _TEXT,
    ".rst": _TEXT,
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
    ".json": Format(read_json, rows=True),
    ".csv": Format(read_csv, rows=True),
    ".tsv": Format(read_tsv, rows=True),
    ".parquet": Format(read_parquet, "parquet", ["pyarrow"], packed=True, rows=True),
    ".html": _HTML,
    ".htm": _HTML,
    ".pdf": Format(read_pdf, "files", ["pypdf"], packed=True),
    ".docx": Format(read_docx, "files", ["mammoth", "bs4", "markdownify"], packed=True),
}
"""File name ending -> what reads it."""

PACKED = ".gz"
"""May follow the ending of any format that does not pack itself."""

__all__ = ["FORMATS", "PACKED", "BadInput", "Format", "ReadOptions", "Reader", "SourceDocument"]
