"""Bytes to text: UTF-8, what a byte order mark says, or what was asked for."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
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
TOO_LONG = f"over {MAX_DOCUMENT // 2**20} MB, which is more than one document may have"


def is_encoding(name: str | None) -> bool:
    """Tell whether Python knows an encoding of text by this name."""
    try:
        "".encode(name or "")
    except (LookupError, ValueError):
        return False
    return True


def encoding_of(start: bytes, given: str | None) -> str:
    """Return the encoding of a file that begins so; a byte order mark wins."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), given or "utf-8")


def read_all(file: BinaryIO) -> bytes:
    """Return what is in a file that is one document; raises ``ValueError`` if that is too much."""
    content = file.read(MAX_DOCUMENT + 1)
    if len(content) > MAX_DOCUMENT:
        raise ValueError(f"the file is {TOO_LONG}.")
    return content


def decode(content: bytes, given: str | None) -> str:
    """Return a file's text; raises ``ValueError`` naming line and byte of what is none."""
    encoding = encoding_of(content, given)
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
    buffered = io.BufferedReader(file)  # type: ignore[type-var]
    encoding = encoding_of(buffered.peek(4)[:4], given)
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
