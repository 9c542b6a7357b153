"""Records, rows, frames and the frameworks' documents: what a program has in place of files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol, runtime_checkable

from toastrack.errors import SourceError
from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.json_values import as_json
from toastrack.ingestion.readers.parquet import table_rows
from toastrack.ingestion.readers.rows import row_input
from toastrack.records import Record

StrPath = str | os.PathLike[str]


@runtime_checkable
class LangChainDocument(Protocol):
    """What is read of a ``langchain_core.documents.Document``."""

    id: str | None
    page_content: str
    metadata: dict[Any, Any]


@runtime_checkable
class LlamaIndexNode(Protocol):
    """What is read of a ``llama_index.core.schema.BaseNode``."""

    node_id: str
    metadata: dict[str, Any]

    def get_content(self) -> str:
        """Return its text, without its metadata."""
        ...


@runtime_checkable
class PandasFrame(Protocol):
    """What is asked of a ``pandas.DataFrame``."""

    columns: Any

    def to_dict(self, orient: Any) -> Any:
        """Return its rows, asked for "records"."""
        ...


@runtime_checkable
class PolarsFrame(Protocol):
    """What is asked of a ``polars.DataFrame``."""

    def iter_rows(self, *, named: Any) -> Iterator[Any]:
        """Yield its rows."""
        ...


@runtime_checkable
class ArrowTable(Protocol):
    """What is asked of a ``pyarrow.Table`` or ``RecordBatch``, and of others that have it."""

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return its rows."""
        ...


Row = Record | Mapping[str, Any] | LangChainDocument | LlamaIndexNode
Table = PandasFrame | PolarsFrame | ArrowTable


def is_row(item: object) -> bool:
    """Tell whether this is one document rather than many."""
    return isinstance(item, (Record, Mapping, LangChainDocument, LlamaIndexNode))


def is_table(item: object) -> bool:
    """Tell whether this is a frame or a table."""
    return not is_row(item) and isinstance(item, (PandasFrame, PolarsFrame, ArrowTable))


def rows_of(table: Table) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a frame or a table."""
    if isinstance(table, PolarsFrame):
        return table.iter_rows(named=True)
    if isinstance(table, PandasFrame):
        _check_names(list(table.columns))
        return iter(table.to_dict("records"))
    if hasattr(table, "to_batches"):
        _check_names(list(table.schema.names))  # type: ignore[attr-defined]
        return chain.from_iterable(map(table_rows, table.to_batches()))
    return iter(table.to_pylist())


def _check_names(names: list[Any]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(f"Two columns are called {twice[0]!r}. Give each a name of its own.")


def read_objects(
    items: Iterable[Any], options: ReadOptions
) -> Iterator[Record | SourceDocument | BadInput]:
    """Yield each object as a document; raises ``TypeError`` for what is none."""
    for number, item in enumerate(items, start=1):
        if isinstance(item, Record):
            yield item
        elif isinstance(item, Mapping):
            yield row_input(_plain(item, options), options, f"row {number}")
        elif isinstance(item, LangChainDocument):
            text, metadata = item.page_content, item.metadata
            yield _document(item.id, text, metadata, options, f"document {number}")
        elif isinstance(item, LlamaIndexNode):
            yield _document(
                item.node_id, item.get_content(), item.metadata, options, f"node {number}"
            )
        elif isinstance(item, (str, os.PathLike)):
            raise TypeError("ingest takes paths or records, not both in one call.")
        else:
            hint = (
                " Its fields need names: psycopg's row_factory=dict_row gives them, or SQLAlchemy's "
                "mappings()."
            )
            raise TypeError(
                f"ingest takes paths, or records, mappings with a text, LangChain's documents and "
                f"LlamaIndex' nodes, but input {number} is {type(item).__name__}."
                f"{hint if isinstance(item, tuple) else ''}"
            )


def _plain(row: Mapping[str, Any], options: ReadOptions) -> dict[str, Any]:
    """Return a row as JSON has it, a ready vector as it is."""
    return {
        str(name): value if name == options.vector else as_json(value)
        for name, value in row.items()
    }


def _document(
    id: str | None,
    text: str,
    metadata: Mapping[Any, Any],
    options: ReadOptions,
    location: str,
) -> SourceDocument | BadInput:
    if options.id_from == "content":
        id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if not id:
        return BadInput(location, "it has no id. Give it one, or use id_from='content'.")
    plain: dict[str, Any] = as_json(metadata)
    if options.metadata is not None:
        missing = [name for name in options.metadata if name not in plain]
        if missing:
            return BadInput(location, f"its metadata has no {missing[0]!r} to keep.")
        plain = {name: plain[name] for name in options.metadata}
    return SourceDocument(id, text, location, plain)
