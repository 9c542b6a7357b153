"""Parquet: one row, one document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from toastrack.errors import needs_extra
from toastrack.ingestion.readers.base import BadInput, Columns, SourceDocument
from toastrack.ingestion.readers.rows import row_input

_ROWS = 1_024


def read_parquet(
    file: BinaryIO, *, location: str, name: str, columns: Columns
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document a row, a thousand rows in memory at a time."""
    with needs_extra("parquet", "pyarrow"):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    number = 0
    try:
        for batch in ParquetFile(file).iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield row_input(row, columns, f"{location}, row {number}")
    except pyarrow.ArrowException as error:
        yield BadInput(f"{location}: not Parquet: {error}.")
