"""How the indexes of a table are built: the HNSW index, and those that serve filters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import VectorType
from toastrack_postgres.filters import EQUALITY, number_order, text_order
from toastrack_postgres.session import Rows, Session
from toastrack_postgres.sql import Statements

# https://github.com/pgvector/pgvector#hnsw
_MAX_HNSW_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}


def check_index(storage: VectorType, dimensions: int, label: str) -> None:
    """Raise ``UnsupportedError`` for a table that no index can be built on."""
    limit = _MAX_HNSW_DIMENSIONS[storage]
    if dimensions > limit:
        raise UnsupportedError(
            f"pgvector's HNSW index takes {storage} of up to {limit} dimensions and table "
            f"{label!r} has {dimensions}. Use Embedder(..., dimensions=) for fewer, or search "
            "without an index (--no-index)."
        )


# What is written beside an index that serves filters; one of the user's own on all of the metadata
# does as well.
_EQUALITY = "toastrack filter"
_ORDERED = (("text", text_order), ("number", number_order))

# pgvector's own: https://github.com/pgvector/pgvector#index-options
_DEFAULTS = {"m": 16, "ef_construction": 64}


@dataclass(frozen=True)
class Wanted:
    """What is asked of the indexes of a table; None is what is there, or pgvector's default."""

    m: int | None
    ef_construction: int | None
    rebuild: bool
    filter_fields: Sequence[str]

    @property
    def options(self) -> dict[str, int]:
        """Those of the HNSW index that somebody chose."""
        chosen = {"m": self.m, "ef_construction": self.ef_construction}
        return {name: value for name, value in chosen.items() if value is not None}


async def build_index(
    session: Session,
    *,
    table: Statements,
    oid: int,
    label: str,
    storage: VectorType,
    wanted: Wanted,
    memory: str | None,
    concurrently: bool,
) -> bool | None:
    """Build what is asked for and is not there; None while another session builds one.

    A concurrent build runs outside of a transaction, and gives back what the session was given.
    """
    local = not concurrently
    if concurrently:
        await _check_backend(session)
    take = statements.TRY_BUILD_LOCK if local else statements.TRY_SESSION_BUILD_LOCK
    if not (await session.execute(take, [oid]))[0][0]:
        if session.inside:
            raise StoreError(
                "Another session builds an index of this table. It may wait for the transaction "
                "that is open on your connection, so this one cannot wait for it: end the "
                "transaction, or build later."
            )
        return None
    try:
        build = await _vector_index(session, table, oid, label, storage, wanted, concurrently)
        build += await _filter_indexes(session, table, oid, label, wanted, concurrently)
        if build:
            await _execute(session, build, memory=memory, local=local)
    except BaseException:
        if concurrently:  # else the transaction gives it back
            await session.execute(statements.SESSION_BUILD_UNLOCK, [oid])
        raise
    if concurrently:
        await session.execute(statements.SESSION_BUILD_UNLOCK, [oid])
    return bool(build)


async def _check_backend(session: Session) -> None:
    """Raise ``UnsupportedError`` where two statements may go to two backends of the server.

    What the one gives the session, the other could not give back.
    """
    ((pid,),) = await session.execute("select pg_backend_pid()")
    # A pooler makes up what a connection is told at its start.
    if pid != session.backend_pid:
        raise UnsupportedError(
            "concurrently=True needs a connection to the server itself, and this one goes through a "
            "pooler such as PgBouncer. Connect without it for the build, or build without "
            "concurrently=."
        )


async def _vector_index(
    session: Session,
    table: Statements,
    oid: int,
    label: str,
    storage: VectorType,
    wanted: Wanted,
    concurrently: bool,
) -> list[sql.Composed]:
    """Return the statements that make the HNSW index what it is wanted to be."""
    indexes = await session.execute(statements.VECTOR_INDEXES, [oid])
    operators = f"{storage}_cosine_ops"
    stale: list[str] = []
    options = dict(_DEFAULTS)
    for name, valid, _, method, found, written in indexes:
        if not valid or found != operators:
            continue
        has = _options(written) if method == "hnsw" else {}
        if not wanted.rebuild:
            _check_options(name, label, method, has, wanted.options)
            return []
        if method == "hnsw":
            options, stale = has, [*stale, name]
    broken: list[str] = []
    for name, valid, in_progress, method, *_ in indexes:
        if in_progress:
            raise StoreError(f"Index {name!r} is being built by another session. Wait for it.")
        if not valid and method == "hnsw":
            # "create index if not exists" would take a broken index for a good one.
            broken.append(name)
    return [
        *map(table.drop_index, broken),
        table.create_hnsw_index(storage, concurrently=concurrently, **(options | wanted.options)),
        *(table.drop_index(name, concurrently=concurrently) for name in stale),
    ]


def described(indexes: Rows) -> str:
    """Say which indexes of the vectors are there, for people."""
    said = []
    for name, valid, in_progress, method, _, written in indexes:
        options = ", ".join(f"{key}={value}" for key, value in _options(written).items())
        state = ", being built" if in_progress else "" if valid else ", broken"
        said.append(
            f"{method} ({options}){state}" if method == "hnsw" else f"{method} {name}{state}"
        )
    return "; ".join(said) or "none, so that each search compares with every row"


def _options(written: Sequence[str]) -> dict[str, int]:
    """Return what an index was built with; what it does not say is pgvector's default."""
    said = dict(option.split("=", 1) for option in written)
    return {name: int(said.get(name, default)) for name, default in _DEFAULTS.items()}


def _check_options(
    name: str, label: str, method: str, has: Mapping[str, int], wanted: Mapping[str, int]
) -> None:
    differing = {key: value for key, value in wanted.items() if has.get(key) != value}
    if not differing:
        return
    there = ", ".join(f"{key}={has[key]}" for key in differing) if has else f"the method {method}"
    asked = ", ".join(f"{key}={value}" for key, value in differing.items())
    raise StoreError(
        f"Table {label!r}: its index {name!r} has {there}, and {asked} was asked for. Nothing was "
        f"changed. Build it anew with build_index({asked}, rebuild=True), or leave them out."
    )


async def _filter_indexes(
    session: Session,
    table: Statements,
    oid: int,
    label: str,
    wanted: Wanted,
    concurrently: bool,
) -> list[sql.Composed]:
    """Return the statements that make the indexes for filters, as ``filters`` can use them."""
    if not wanted.filter_fields:
        return []
    missing = [
        field
        for field in wanted.filter_fields
        # jsonb holds no NUL, and no parameter does.
        if "\0" in field or not (await session.execute(table.has_field(), [field]))[0][0]
    ]
    if missing:
        raise StoreError(
            f"Table {label!r} has no record with the field {', '.join(map(repr, missing))} in its "
            "metadata. Build the index after the load, and see that the name is right."
        )
    there = await session.execute(statements.FILTER_INDEXES, [oid])
    names = {name: valid for name, valid, *_ in there}
    marks = {mark for _, valid, _, mark in there if valid and mark}
    build: list[sql.Composed] = []
    kinds: list[tuple[str, sql.Composable]] = []
    if not any(valid and whole for _, valid, whole, _ in there):
        kinds.append((_EQUALITY, EQUALITY))
    for field in wanted.filter_fields:
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


async def _execute(
    session: Session, build: Sequence[sql.Composed], *, memory: str | None, local: bool
) -> None:
    """Execute statements that take long, with the settings that they need."""
    settings = {"local": local, "memory": memory}
    ((timeout, memory_before, *_),) = await session.execute(
        statements.INDEX_BUILD_SETTINGS, settings
    )
    before = [timeout, local, memory_before, local]
    try:
        for statement in build:
            await session.execute(statement)
    except BaseException:
        if not local:  # else the transaction takes the settings back itself
            await session.execute(statements.RESTORE_SETTINGS, before)
        raise
    await session.execute(statements.RESTORE_SETTINGS, before)
