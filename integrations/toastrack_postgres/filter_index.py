"""The indexes that serve filters: one for equality in any field, and two for the order of a field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import catalogue
from toastrack_postgres.filters import EQUALITY, number_order, text_order
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements

# What is written beside an index that serves filters; one of the user's own on all of the metadata
# does as well.
_EQUALITY = "toastrack filter"
_ORDERED = (("text", text_order), ("number", number_order))


async def plan(
    session: Session,
    table: Statements,
    oid: int,
    *,
    label: str,
    fields: Sequence[str],
    concurrently: bool,
) -> list[sql.Composed]:
    """Return the statements that build what is missing, as ``filters`` can use it.

    Raises:
        StoreError: No record has the field.
        UnsupportedError: A partitioned table's cannot be built concurrently.
    """
    if not fields:
        return []
    missing = [
        field
        for field in fields
        # jsonb holds no NUL, and no parameter does.
        if "\0" in field or not (await session.execute(table.has_field(), [field]))[0][0]
    ]
    if missing:
        raise StoreError(
            f"Table {label!r} has no record with the field {', '.join(map(repr, missing))} in its "
            "metadata. Build the index after the load, and see that the name is right."
        )
    if concurrently and await session.execute(catalogue.PARTITIONS, {"oid": oid}):
        raise UnsupportedError(
            f"Table {label!r} is partitioned, and Postgres cannot build indexes for filters on it "
            "concurrently. Build those of filter_fields= without concurrently=."
        )
    there = await session.execute(catalogue.FILTER_INDEXES, [oid])
    names = {name: valid for name, valid, *_ in there}
    marks = {mark for _, valid, _, mark in there if valid and mark}
    build: list[sql.Composed] = []
    kinds: list[tuple[str, sql.Composable]] = []
    if not any(valid and whole for _, valid, whole, _ in there):
        kinds.append((_EQUALITY, EQUALITY))
    for field in fields:
        kinds += [(f"{_EQUALITY} {json.dumps(field)} {kind}", of(field)) for kind, of in _ORDERED]
    for mark, what in kinds:
        if mark in marks:
            continue
        name = f"toastrack_{sha256(f'{oid} {mark}'.encode()).hexdigest()[:20]}"
        if name in names:  # broken, or nobody came to describe it
            build.append(table.drop_index(name))
        build += [
            table.create_filter_index(name, what, concurrently=concurrently),
            table.describe_index(name, mark),
        ]
    # The planner knows nothing of an expression until it has looked at its values.
    return [*build, table.analyze] if build else []
