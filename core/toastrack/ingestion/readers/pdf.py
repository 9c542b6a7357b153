"""PDF: one file, one document, whose chunks know their page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.errors import needs_extra
from toastrack.ingestion.readers.base import (
    MAX_DOCUMENT,
    BadInput,
    Place,
    ReadOptions,
    SourceDocument,
)
from toastrack.ingestion.readers.decoding import TOO_LONG

_MAX_PAGES = 10_000


def read_pdf(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield the file as one document; a scan without a layer of text has none."""
    with needs_extra("files", "pypdf"):
        import pypdf
    metadata: dict[str, Any] = {"source": name}
    pages: list[str] = []
    places: list[Place] = []
    size = 0
    try:
        reader = pypdf.PdfReader(file)
        if len(reader.pages) > _MAX_PAGES:
            raise ValueError(f"it has over {_MAX_PAGES:,} pages")
        title = reader.metadata.title if reader.metadata else None
        if isinstance(title, str) and title.strip():
            metadata["title"] = title.strip()
        for number, page in enumerate(reader.pages, start=1):
            text = page.extract_text().strip()
            if not text:
                continue
            places.append(Place(size, {"page": number}))
            pages.append(text)
            size += len(text) + len(_BREAK)
            if size > MAX_DOCUMENT:
                raise ValueError(f"its text is {TOO_LONG}")
    except RecursionError:
        yield BadInput(location, "the PDF is nested too deeply.")
        return
    except Exception as error:  # of a damaged file pypdf raises whatever comes to it
        fault = str(error).rstrip(".") or type(error).__name__
        yield BadInput(location, f"not a PDF that can be read: {fault}.")
        return
    if not pages:
        yield BadInput(location, "no page has text; it may be a scan.", "nothing in it")
        return
    yield SourceDocument(name, _BREAK.join(pages), location, metadata, places=places)


_BREAK = "\n\n"
