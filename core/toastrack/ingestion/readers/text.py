"""Plain text: one file, one document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from toastrack.ingestion.readers.base import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.decoding import decode, read_all


def read_text(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield the file as one document whose id is the file's name."""
    try:
        text = decode(read_all(file), options.encoding)
    except ValueError as error:
        yield BadInput(location, str(error))
        return
    yield SourceDocument(name, text, location, {"source": name})
