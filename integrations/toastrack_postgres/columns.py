"""Which columns of a table hold what a record has, where something else made the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

Columns = str | Mapping[str, str]
"""Whose table it is, or the column of each part of a record."""

NAMES = ("id", "document_id", "chunk", "text", "metadata", "text_hash", "embedding", "source")
_READ = ("id", "text", "embedding")
_WRITTEN = NAMES[:-1]

_TEXTS = ("text", "character varying")
_WHOLE_NUMBERS = {"smallint": 2, "integer": 4, "bigint": 8}
_TYPES = {
    "document_id": (*_TEXTS, "uuid", *_WHOLE_NUMBERS),
    "chunk": tuple(_WHOLE_NUMBERS),
    "text": _TEXTS,
    "metadata": ("jsonb", "json"),
    "text_hash": ("bytea",),
    "embedding": ("halfvec", "vector"),
    "source": ("text",),
}


@dataclass(frozen=True)
class Layout:
    """How somebody's tables are made."""

    columns: Mapping[str, str]
    document_field: str | None = None
    """The field of the metadata that names the document."""
    document_is_rest: bool = False
    """The one column that is none of the others names the document."""


# Each as its author's code creates it:
# https://github.com/langchain-ai/langchain-postgres/blob/main/langchain_postgres/v2/engine.py
# https://github.com/langchain-ai/langchain-postgres/blob/main/langchain_postgres/vectorstores.py
# https://github.com/run-llama/llama_index (llama-index-vector-stores-postgres, base.py)
# https://github.com/timescale/pgai/tree/main/projects (_vectorizer_create_target_table)
_LAYOUTS = {
    "langchain": Layout(
        {"id": "langchain_id", "text": "content", "metadata": "langchain_metadata"}
    ),
    "langchain-pgvector": Layout({"id": "id", "text": "document", "metadata": "cmetadata"}),
    "llama-index": Layout(
        {"id": "node_id", "text": "text", "metadata": "metadata_"}, document_field="ref_doc_id"
    ),
    "pgai": Layout(
        {"id": "embedding_uuid", "text": "chunk", "chunk": "chunk_seq"}, document_is_rest=True
    ),
}


class Column:
    """A column that is there, as ``catalogue.TABLE_COLUMNS`` answers."""

    def __init__(self, row: Sequence[object]) -> None:
        name, written, type_name, size, comment, number, must_be_given = row
        self.name = str(name)
        # Of another schema, if the extension's is not on the search_path.
        self.type = str(written).rpartition(".")[2]
        self.type_name = str(type_name)
        self.size = int(str(size))
        self.comment = None if comment is None else str(comment)
        self.number = int(str(number))
        self.must_be_given = bool(must_be_given)


@dataclass(frozen=True)
class Found:
    """The columns of one table, by what they hold."""

    names: Mapping[str, str]
    """Those that are there."""
    id_type: str
    metadata_type: str
    document_field: str | None
    read_only: str
    """Why it cannot hold what is written; "" where it can."""

    def ids_of_type(self, ids: Sequence[str]) -> list[str]:
        """Leave out what no id of this table can be: Postgres would refuse the whole statement."""
        if self.id_type == "uuid":
            return [id for id in ids if _is_uuid(id)]
        if self.id_type in _WHOLE_NUMBERS:
            most = 2 ** (8 * _WHOLE_NUMBERS[self.id_type] - 1)
            return [id for id in ids if _is_number(id, most)]
        return list(ids)

    @property
    def casts_id(self) -> bool:
        """Whether ids are compared by the type of their column, so that an index of it serves."""
        return self.id_type == "uuid" or self.id_type in _WHOLE_NUMBERS


def layout_of(columns: Columns) -> Layout:
    """Return the layout of that name, or of these columns.

    Raises:
        ValueError: There is none of the name, or a part of a record that there is not.
    """
    if isinstance(columns, str):
        if columns not in _LAYOUTS:
            known = ", ".join(map(repr, _LAYOUTS))
            raise ValueError(f"columns={columns!r} is none of {known}, and no mapping of columns.")
        return _LAYOUTS[columns]
    unknown = [name for name in columns if name not in NAMES]
    if unknown:
        raise ValueError(
            f"columns= has no part {unknown[0]!r}; the parts of a record are {', '.join(NAMES)}."
        )
    return Layout(dict(columns))


def find(layout: Layout, columns: Mapping[str, Column], *, unique: bool) -> tuple[Found, list[str]]:
    """Return which columns hold what, and what keeps the table from being read.

    ``unique`` says that the column of the ids is.
    """
    problems = [
        f"it lacks the column {column!r} for {name}"
        for name, column in layout.columns.items()
        if column not in columns
    ]
    names = {name: name for name in NAMES if name in columns and _fits(name, columns[name])}
    taken = set(layout.columns.values())
    names = {name: column for name, column in names.items() if column not in taken}
    names.update({name: at for name, at in layout.columns.items() if at in columns})
    problems += [
        f"it lacks a column for {name}; say with columns= which one it is"
        for name in _READ
        if name not in names and name not in layout.columns
    ]
    problems += [
        f"its column {at} for {name} is {columns[at].type} and must be {' or '.join(_TYPES[name])}"
        for name, at in names.items()
        if not _fits(name, columns[at])
    ]
    if layout.document_is_rest and "document_id" not in names:
        rest = [name for name in columns if name not in names.values()]
        if len(rest) == 1 and _fits("document_id", columns[rest[0]]):
            names["document_id"] = rest[0]
    id_type = columns[names["id"]].type if "id" in names else ""
    metadata_type = columns[names["metadata"]].type if "metadata" in names else "jsonb"
    why = _read_only(names, columns, layout, id_type, unique=unique)
    return Found(names, id_type, metadata_type, layout.document_field, why), problems


def _read_only(
    names: Mapping[str, str],
    columns: Mapping[str, Column],
    layout: Layout,
    id_type: str,
    *,
    unique: bool,
) -> str:
    missing = [name for name in _WRITTEN if name not in names]
    if missing:
        return f"it has no column for {', '.join(missing)}"
    if id_type not in _TEXTS:
        return f"its ids are {id_type}, and a record's may be any text"
    if not unique:
        return f"its column {names['id']} is not unique"
    if columns[names["document_id"]].type not in _TEXTS:
        return f"its documents are {columns[names['document_id']].type}, and ours are texts"
    others = [
        name
        for name, column in columns.items()
        if column.must_be_given and name not in names.values()
    ]
    return f"its column {others[0]} must be given, and we have nothing for it" if others else ""


def _fits(name: str, column: Column) -> bool:
    return name == "id" or column.type in _TYPES[name] or column.type_name in _TYPES[name]


def _is_uuid(id: str) -> bool:
    with suppress(ValueError):
        UUID(id)
        return True
    return False


def _is_number(id: str, most: int) -> bool:
    digits = id.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and -most <= int(id) < most
