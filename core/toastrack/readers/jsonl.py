"""JSON Lines: one row, one document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.readers.base import Bad, Columns, Input
from toastrack.readers.rows import row_input


def read_jsonl(file: BinaryIO, *, place: str, name: str, columns: Columns) -> Iterator[Input | Bad]:
    """Yield one document a line."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            here = f"{place}, line {number}"
            row = _parse(line, here)
            yield row if isinstance(row, Bad) else row_input(row, columns, here)


def _parse(line: bytes, place: str) -> dict[str, Any] | Bad:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Bad(f"{place}: byte {error.start} of the line is not UTF-8.")
    except (ValueError, RecursionError) as error:
        return Bad(f"{place}: not JSON: {error}.")
    if not isinstance(row, dict):
        return Bad(f"{place}: a row must be a JSON object, not {type(row).__name__}.")
    return row
