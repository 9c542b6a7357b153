"""JSON Lines: one row, one document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.ingestion.readers.base import BadInput, Columns, SourceDocument
from toastrack.ingestion.readers.rows import row_input


def read_jsonl(
    file: BinaryIO, *, location: str, name: str, columns: Columns
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document a line."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            here = f"{location}, line {number}"
            row = _parse(line, here)
            yield row if isinstance(row, BadInput) else row_input(row, columns, here)


def _parse(line: bytes, location: str) -> dict[str, Any] | BadInput:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return BadInput(f"{location}: byte {error.start} of the line is not UTF-8.")
    except (ValueError, RecursionError) as error:
        return BadInput(f"{location}: not JSON: {error}.")
    if not isinstance(row, dict):
        return BadInput(f"{location}: a row must be a JSON object, not {type(row).__name__}.")
    return row
