"""Parquet: one row, one document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.errors import needs_extra
from toastrack.ingestion.readers.base import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.json_values import as_json
from toastrack.ingestion.readers.rows import lacking, row_input

_ROWS = 1_024


def read_parquet(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield one document a row, a thousand rows in memory at a time."""
    with needs_extra("parquet", "pyarrow"):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    number = 0
    try:
        source = ParquetFile(file)
        names = source.schema_arrow.names
        twice = [name for name, count in Counter(names).items() if count > 1]
        fault = f"two columns are called {twice[0]!r}." if twice else lacking(names, options)
        if fault:
            yield BadInput(location, fault)
            return
        for batch in source.iter_batches(batch_size=_ROWS):
            for row in table_rows(batch):
                number += 1
                yield row_input(row, options, f"{location}, row {number}")
        if number == 0:
            yield BadInput(location, "there is no row in it.", "nothing in it")
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        fault = f"damaged after row {number}" if number else "not Parquet"
        yield BadInput(location, f"{fault}: {str(error).rstrip('.')}.")


def table_rows(table: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of an Arrow table or batch as JSON has them."""
    import pyarrow

    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    schema = pyarrow.schema(fields)
    if schema != table.schema:
        columns = [
            column.cast(field.type, safe=False) if column.type != field.type else column
            for column, field in zip(table.columns, fields, strict=True)
        ]
        table = type(table).from_arrays(columns, schema=schema)
    for row in table.to_pylist():
        yield {name: as_json(value, maps=True) for name, value in row.items()}


def _plain(kind: Any) -> Any:
    """Return a type whose values are Python's own: it has no nanoseconds."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_struct(kind):
        return pa.struct([member.with_type(_plain(member.type)) for member in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    return kind
