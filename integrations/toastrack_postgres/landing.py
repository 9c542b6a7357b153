"""Where a parameter lands: Postgres would store a vector's digits in a column of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import adapt, sql
from psycopg.pq import TransactionStatus
from psycopg.raw_cursor import RawCursorMixin

from toastrack.stores import Runtime
from toastrack_postgres.embedding import (
    Parameters,
    Place,
    items_of,
    text_places,
)
from toastrack_postgres.parameters import ParameterError
from toastrack_postgres.registry import Registration
from toastrack_postgres.session import Session

_WRITES = re.compile(r"\b(insert|update|merge)\b", re.IGNORECASE)
# https://www.psycopg.org/psycopg3/docs/basic/params.html
_PLACEHOLDER = re.compile(r"%(?:(%)|\(([^)]+)\)[sbt]|[sbt])")
_NAME = "toastrack_landing"
_UNKNOWN = "unknown"

_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_COPY_FROM = re.compile(
    rf"\s*copy\s+(?P<table>{_IDENTIFIER}(?:\s*\.\s*{_IDENTIFIER})*)\s*"
    rf"(?:\((?P<columns>\s*{_IDENTIFIER}\s*(?:,\s*{_IDENTIFIER}\s*)*)\))?\s*from\s+stdin\b",
    re.IGNORECASE,
)
_FROM_STDIN = re.compile(r"\bfrom\s+stdin\b", re.IGNORECASE)

# A domain takes what its base type does.
_PARAMETER_TYPES = """
    select u.position - 1, coalesce(nullif(t.typbasetype, 0), t.oid)::int8, format_type(t.oid, null)
    from pg_prepared_statements p
    cross join unnest(p.parameter_types::oid[]) with ordinality u (oid, position)
    join pg_type t on t.oid = u.oid
    where p.name = %s
"""
_TYPE_NAMES = """
    select format_type(t.oid, null) from unnest(%s::oid[]) with ordinality t (oid, position)
    order by position
"""
_COPY_COLUMNS = """
    select a.attname, coalesce(nullif(t.typbasetype, 0), t.oid)::int8, format_type(a.atttypid, null)
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
      and a.attgenerated = ''
    order by a.attnum
"""

Landing = dict[Place, tuple[int, str]]
"""The type that the server gives a parameter: its oid and name."""


def text_of(cursor: Any, statement: Any) -> str | None:
    """Return a statement as it is written; None for one that is no text."""
    if isinstance(statement, sql.Composable):
        return statement.as_string(cursor.connection)
    if isinstance(statement, bytes):
        return statement.decode()
    return statement if isinstance(statement, str) else None


async def check_landing(
    runtime: Runtime,
    registration: Registration,
    cursor: Any,
    statement: Any,
    rows: Sequence[Parameters],
) -> Landing | None:
    """Raise ``ParameterError`` if a text of these rows lands where no vector can.

    Of a statement that writes, the server is asked once what types it gives the parameters; None
    for one that does not, or where that could not be found out.
    """
    written = text_of(cursor, statement)
    if written is None or not _WRITES.search(written):
        return None
    places = {place: row for row in rows for place in text_places(row)}
    if not places:
        return None
    registration.check_process()
    landing: Landing = registration.landings.get(written) or {}
    unknown = [place for place in places if place not in landing]
    if unknown:
        if cursor.connection.info.transaction_status == TransactionStatus.INERROR:
            return None  # the statement itself says so
        question = _Question(runtime, registration, cursor, written)
        found = await question.landing(places[unknown[0]], list(places))
        if not found:
            return None
        landing = {**landing, **found}
        registration.landings.keep(written, landing)
    for place in places:
        check_place(registration, landing, place)
    return landing


def check_place(registration: Registration, landing: Landing, place: Place) -> None:
    """Raise ``ParameterError`` if a place is of another type than a vector's."""
    found = landing.get(place)
    if found is not None and not registration.oids.is_vector(found[0]):
        raise ParameterError(
            f"{_name(place)} is a text to be embedded, and lands in the type {found[1]}, which "
            "would store its vector's digits. Give it a column of type vector or halfvec, or pass "
            "its .text here."
        )


class _Question:
    """One statement that the server is asked about, by preparing it under types that we choose."""

    def __init__(
        self, runtime: Runtime, registration: Registration, cursor: Any, written: str
    ) -> None:
        self._runtime = runtime
        self._oids = registration.oids
        self._cursor = cursor
        self._session = Session(runtime, cursor.connection)
        if isinstance(cursor, RawCursorMixin):
            self._statement, self._order = written, None
        else:
            self._statement, self._order = _numbered(written)

    async def landing(self, row: Parameters, places: Sequence[Place]) -> Landing:
        """Return the types of all parameters, or of these alone."""
        everything = [place for place, _ in items_of(row)] if self._order is None else self._order
        places = [place for place in places if place in everything]
        found = await self._types(dict.fromkeys(everything, _UNKNOWN), everything)
        if found is not None and all(self._oids.is_vector(found[place][0]) for place in places):
            return found
        # The other parameters' types may decide which function is meant, and so ours.
        others = await self._own_types(row, everything, places)
        found = await self._types({**others, **dict.fromkeys(places, _UNKNOWN)}, everything)
        if found is not None:
            return {place: found[place] for place in places}
        return await self._by_trying(row, places, others, everything)

    async def _by_trying(
        self,
        row: Parameters,
        places: Sequence[Place],
        others: dict[Place, str],
        everything: Sequence[Place],
    ) -> Landing:
        """Find out for a function of many types, such as ``binary_quantize``, what it is used as.

        What could be a text as well lands in one; the other way round there is no cast.
        """
        values = dict(items_of(row))
        vectors = dict.fromkeys(places, self._oids.scalar["vector"])
        arrays = {
            place: self._oids.array["vector"] for place in places if type(values[place]) is list
        }
        names = await self._names([*{**vectors, **arrays}.values()])
        as_vectors = {**others, **dict(zip(vectors, names, strict=True))}
        if await self._types(as_vectors, everything) is None:
            return {}  # the statement is wrong, and says so itself
        result: Landing = {}
        for place in places:
            name = "text[]" if place in arrays else "text"
            is_text = await self._types({**as_vectors, place: name}, everything) is not None
            result[place] = (0, name) if is_text else (vectors[place], "vector")
        return result

    async def _own_types(
        self, row: Parameters, everything: Sequence[Place], places: Sequence[Place]
    ) -> dict[Place, str]:
        transformer = adapt.Transformer(self._cursor)
        values = dict(items_of(row))
        oids: dict[Place, int] = {}
        for place in everything:
            value = values.get(place)
            if value is not None and place not in places:
                dumper = transformer.get_dumper(value, adapt.PyFormat.AUTO)
                oids[place] = dumper.oid
        known = {place: oid for place, oid in oids.items() if oid}
        names = await self._names([*known.values()])
        return {
            **dict.fromkeys(everything, _UNKNOWN),
            **dict(zip(known, names, strict=True)),
        }

    async def _names(self, oids: Sequence[int]) -> list[str]:
        if not oids:
            return []
        return [name for (name,) in await self._session.fetch(_TYPE_NAMES, [list(oids)])]

    async def _types(
        self, declared: dict[Place, str], everything: Sequence[Place]
    ) -> Landing | None:
        """Return what the server makes of the declared types; None if it refuses them."""
        names = ", ".join(declared[place] for place in everything)
        prepare = f"prepare {_NAME} ({names}) as {self._statement}"
        session = self._session
        try:
            async with session.savepoint():
                await session.run(prepare)
                rows = await session.fetch(_PARAMETER_TYPES, [_NAME])
                await session.run(f"deallocate {_NAME}")
        except psycopg.Error:
            if self._cursor.connection.closed:
                raise
            return None
        return {everything[position]: (oid, name) for position, oid, name in rows}


def _numbered(written: str) -> tuple[str, list[Place] | None]:
    """Return a statement with ``$1`` for placeholders, and the names in their order, if named."""
    names: list[Place] = []
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        if match[1]:
            return "%"
        if match[2] is None:
            count += 1
            return f"${count}"
        if match[2] not in names:
            names.append(match[2])
        return f"${names.index(match[2]) + 1}"

    numbered = _PLACEHOLDER.sub(number, written)
    return numbered, names or None


def _name(place: Place) -> str:
    return f"Parameter {place + 1}" if isinstance(place, int) else f"Parameter {place!r}"


# -- COPY ---------------------------------------------------------------------------------------


class CopyColumns:
    """The columns of a COPY into a table; None where its statement could not be read."""

    def __init__(self, columns: list[tuple[str, int, str]] | None) -> None:
        self._columns = columns

    def oids(self, registration: Registration, row: Sequence[Any]) -> list[int]:
        """Return each column's type; raises ``ParameterError`` for a text that lands elsewhere."""
        if self._columns is None:
            raise ParameterError(
                "This COPY has texts to be embedded, and which columns it fills could not be read "
                "from it. Write COPY table (column, ...) FROM STDIN, with a table that is there."
            )
        for place in text_places(row):
            assert isinstance(place, int)
            if place >= len(self._columns):
                break  # the server says that there are too many
            name, oid, kind = self._columns[place]
            if not registration.oids.is_vector(oid):
                raise ParameterError(
                    f"Value {place + 1} of a row is a text to be embedded, and column {name!r} is "
                    f"{kind}, which would store its vector's digits. Give it a column of type "
                    "vector or halfvec, or pass its .text here."
                )
        return [oid for _, oid, _ in self._columns]


async def copy_columns(
    runtime: Runtime, registration: Registration, cursor: Any, statement: Any
) -> CopyColumns | None:
    """Return the columns that a COPY fills; None for one that reads."""
    written = text_of(cursor, statement)
    if written is None or not _FROM_STDIN.search(written):
        return None
    known: CopyColumns | None = registration.landings.get(written)
    if known is not None:
        return known
    match = _COPY_FROM.match(written)
    if match is None or cursor.connection.info.transaction_status == TransactionStatus.INERROR:
        return CopyColumns(None)
    session = Session(runtime, cursor.connection)
    found = await session.fetch(_COPY_COLUMNS, [match["table"]])
    columns: list[tuple[str, int, str]] | None = [(row[0], row[1], row[2]) for row in found]
    if match["columns"]:
        by_name = {row[0]: (row[0], row[1], row[2]) for row in found}
        names = [_unquoted(name) for name in re.findall(_IDENTIFIER, match["columns"])]
        columns = [by_name[name] for name in names] if by_name.keys() >= {*names} else None
    known = CopyColumns(columns or None)
    if columns:
        registration.landings.keep(written, known)
    return known


def _unquoted(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier.lower()
