"""JSON Lines, and an array of JSON objects: one row, one document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.ingestion.readers.base import MAX_DOCUMENT, BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.decoding import TOO_LONG, Lines, decoded
from toastrack.ingestion.readers.rows import row_input

_CHUNK = 2**16
_SPACE = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")


def read_jsonl(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document a line."""
    with decoded(file, options.encoding) as lines:
        empty = True
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                here = f"{location}, line {number}"
                if not line.strip():
                    continue
                empty = False
                if len(line) >= MAX_DOCUMENT:
                    yield BadInput(here, f"the line is {TOO_LONG}.")
                    continue
                row = _parse(line, here, lines)
                yield row if isinstance(row, BadInput) else row_input(row, options, here)
        except UnicodeDecodeError as error:
            yield BadInput(
                f"{location}, after line {number}", f"not {lines.encoding.upper()}: {error.reason}."
            )
            return
        if empty:
            yield BadInput(location, "there is no row in it.", "nothing in it")


def _parse(line: str, location: str, lines: Lines) -> dict[str, Any] | BadInput:
    fault = lines.fault(line)
    if fault:
        return BadInput(location, fault)
    try:
        return _object(json.loads(line), location)
    except (ValueError, RecursionError) as error:
        return BadInput(location, f"not JSON: {error}.")


def _object(row: Any, location: str) -> dict[str, Any] | BadInput:
    if not isinstance(row, dict):
        return BadInput(location, f"a row must be a JSON object, not {type(row).__name__}.")
    return row


def read_json(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document an object of the array; no more than one of them is held."""
    with decoded(file, options.encoding) as lines:
        try:
            yield from _elements(_Text(lines), location, options)
        except UnicodeDecodeError as error:
            yield BadInput(location, f"not {lines.encoding.upper()}: {error.reason}.")


def _elements(
    text: _Text, location: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    text.skip(_SPACE)
    if text.ended:
        yield BadInput(location, "there is no row in it.", "nothing in it")
        return
    if not text.take("["):
        yield BadInput(
            location, "this JSON is no array of objects, so it holds no rows.", "not for us"
        )
        return
    number = 0
    while True:
        text.skip(_COMMA)
        if text.take("]"):
            break
        number += 1
        here = f"{location}, row {number}"
        try:
            row = text.value()
        except (ValueError, RecursionError) as error:
            # Nobody knows where it ends.
            yield BadInput(here, f"not JSON: {error}. The rows behind it are lost.")
            return
        found = _object(row, here)
        yield found if isinstance(found, BadInput) else row_input(found, options, here)
    if number == 0:
        yield BadInput(location, "there is no row in it.", "nothing in it")


class _Text:
    """What of a text was read and not taken yet."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._decoder = json.JSONDecoder()
        self._held = ""
        self._at = 0

    @property
    def ended(self) -> bool:
        """Tell whether nothing is left."""
        return self._at >= len(self._held) and not self._more()

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Pass over what matches."""
        while True:
            match = pattern.match(self._held, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._held) or not self._more():
                return

    def take(self, sign: str) -> bool:
        """Pass over this sign, if it comes next."""
        found = self._held.startswith(sign, self._at)
        self._at += found
        return found

    def value(self) -> Any:
        """Take the next JSON value; raises ``ValueError`` if there is none."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except ValueError as error:
                if len(self._held) - self._at >= MAX_DOCUMENT:
                    raise ValueError(f"the row is {TOO_LONG}") from None
                if not self._more():
                    raise ValueError(f"{getattr(error, 'msg', error)}") from None
                continue
            fault = self._lines.fault(self._held[self._at : end])
            if fault:
                raise ValueError(fault)
            self._at = end
            return value

    def _more(self) -> bool:
        """Read as much as there is already, so that a long row is not parsed again too often."""
        self._held = self._held[self._at :]
        self._at = 0
        chunk = self._lines.text.read(max(_CHUNK, len(self._held)))
        self._held += chunk
        return bool(chunk)
