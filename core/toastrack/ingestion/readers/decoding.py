"""Bytes to text: what a byte order mark says, UTF-8, or what was asked for."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import BinaryIO

from toastrack.ingestion.readers.base import MAX_DOCUMENT

# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = [
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_PART = 2**20
TOO_LONG = f"over {MAX_DOCUMENT // 2**20} MB, which is more than one document may have"


def is_encoding(name: str | None) -> bool:
    """Tell whether Python knows an encoding of text by this name."""
    try:
        "".encode(name or "")
    except (LookupError, ValueError):
        return False
    return True


def encoding_of(parts: Iterable[bytes], given: str | None) -> str:
    """Return the encoding of a file that consists of these parts; no more of them are taken than needed.

    A byte order mark wins, then UTF-8: one folder holds files of both kinds, and what was written in
    another encoding is hardly ever UTF-8 by accident. ASCII alone is read as ``given``, since ISO-2022
    and UTF-16 without a mark can look like it.
    """
    parts = iter(parts)
    start = next(parts, b"")
    marked = _marked(start)
    if marked or not given:
        return marked or "utf-8"
    decoder, is_ascii = codecs.getincrementaldecoder("utf-8")(), True
    try:
        for part in chain([start], parts):
            decoder.decode(part)
            is_ascii = is_ascii and part.isascii()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return given
    return given if is_ascii else "utf-8"


def _marked(start: bytes) -> str | None:
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def read_all(file: BinaryIO) -> bytes:
    """Return what is in a file that is one document; raises ``ValueError`` if that is too much."""
    content = file.read(MAX_DOCUMENT + 1)
    if len(content) > MAX_DOCUMENT:
        raise ValueError(f"the file is {TOO_LONG}.")
    return content


def decode(content: bytes, given: str | None) -> str:
    """Return a file's text; raises ``ValueError`` naming line and byte of what is none."""
    encoding = encoding_of([content], given)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: byte {error.start} of the file{_not_text(content[error.start], encoding)}"
        ) from None


class Lines:
    """The lines of a file with their ends; a byte that is no text stands there as a lone surrogate.

    Of a line that is too long the first ``MAX_DOCUMENT`` characters come.
    """

    def __init__(self, text: io.TextIOWrapper, encoding: str) -> None:
        self.text = text
        self.encoding = encoding

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.text.readline(MAX_DOCUMENT)
        if not line:
            raise StopIteration
        rest = line
        while len(rest) == MAX_DOCUMENT and rest[-1] not in "\r\n":
            rest = self.text.readline(MAX_DOCUMENT)
        return line

    def fault(self, line: str) -> str | None:
        """Say what is wrong with a line's bytes, if anything is."""
        if line.isascii():
            return None
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) & 0xFF
            return f"character {error.start + 1}{_not_text(byte, self.encoding)}"
        return None


@contextmanager
def decoded(file: BinaryIO, given: str | None, *, newline: str = "\n") -> Iterator[Lines]:
    """Open a file as text; ``newline`` as in ``io.TextIOWrapper``."""
    encoding = given
    if given and file.seekable():
        encoding = encoding_of(iter(partial(file.read, _PART), b""), given)
        file.seek(0)
    buffered = io.BufferedReader(file)  # type: ignore[type-var]
    encoding = _marked(buffered.peek(4)[:4]) or encoding or "utf-8"
    text = io.TextIOWrapper(buffered, encoding, errors="surrogateescape", newline=newline)
    try:
        yield Lines(text, encoding.removesuffix("-sig"))
    finally:
        text.detach()
        buffered.detach()


def _not_text(byte: int, encoding: str) -> str:
    return (
        f" (0x{byte:02X}) is not {encoding.removesuffix('-sig').upper()}. Name the encoding, for "
        "instance encoding='latin-1' or encoding='cp1252'."
    )
