"""The HNSW index of a table: what is there, and the statements that make it what it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import sql as statements
from toastrack_postgres.codec import VectorType
from toastrack_postgres.session import Rows, Session
from toastrack_postgres.sql import Statements

# https://github.com/pgvector/pgvector#hnsw
_MAX_HNSW_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}

# pgvector's own: https://github.com/pgvector/pgvector#index-options
_DEFAULTS = {"m": 16, "ef_construction": 64}


class Plan(NamedTuple):
    """What is executed to build an index."""

    build: list[sql.Composed]
    """In this order; empty where nothing is to be done."""
    m: int
    """The links of a row in it, by which its memory goes."""


class _Found(NamedTuple):
    usable: list[tuple[str, str, dict[str, int]]]
    """Name, method and options of each that serves our searches."""
    broken: list[str]
    """What a concurrent build left behind."""


def check_index(storage: VectorType, dimensions: int, label: str) -> None:
    """Raise ``UnsupportedError`` for a table that no index can be built on."""
    limit = _MAX_HNSW_DIMENSIONS[storage]
    if dimensions > limit:
        raise UnsupportedError(
            f"pgvector's HNSW index takes {storage} of up to {limit} dimensions and table "
            f"{label!r} has {dimensions}. Use Embedder(..., dimensions=) for fewer, or search "
            "without an index (--no-index)."
        )


async def plan(
    session: Session,
    table: Statements,
    oid: int,
    storage: VectorType,
    *,
    label: str,
    options: Mapping[str, int],
    rebuild: bool,
    concurrently: bool,
) -> Plan:
    """Return how the index becomes what it should be; ``options`` are those that somebody chose.

    Raises:
        StoreError: One with other options is there, or another session builds one.
        UnsupportedError: A partitioned table's cannot be rebuilt concurrently.
    """
    usable, broken = await _find(session, oid, storage)
    if usable and not rebuild:
        name, method, has = usable[0]
        _check_options(name, label, method, has, options)
        return Plan([], has.get("m", _DEFAULTS["m"]))
    # Postgres builds no index of a partitioned table concurrently, but one of each of its parts.
    partitions = await session.execute(statements.PARTITIONS, {"oid": oid}) if concurrently else []
    stale = [(name, has) for name, method, has in usable if method == "hnsw"]
    if partitions and stale:
        raise UnsupportedError(
            f"Table {label!r} is partitioned, and Postgres cannot rebuild its index concurrently. "
            "Rebuild it without concurrently=."
        )
    chosen = {**_DEFAULTS, **(stale[-1][1] if stale else {}), **options}
    create = partial(
        table.create_hnsw_index, storage, m=chosen["m"], ef_construction=chosen["ef_construction"]
    )
    # "create index if not exists" would take a broken index for a good one.
    build = [table.drop_index(name) for name in broken]
    for partition, schema, name in partitions:
        part = await _find(session, partition, storage)
        build += [table.drop_index(left, schema) for left in part.broken]
        if not part.usable:
            build.append(create(concurrently=True, partition=(schema, name)))
    # That of the whole table takes those of its parts for its own, and builds nothing.
    build.append(create(concurrently=concurrently and not partitions))
    build += [table.drop_index(name, concurrently=concurrently) for name, _ in stale]
    return Plan(build, chosen["m"])


async def _find(session: Session, oid: int, storage: VectorType) -> _Found:
    found = _Found([], [])
    for name, valid, in_progress, method, operators, written in await session.execute(
        statements.VECTOR_INDEXES, [oid]
    ):
        if valid and operators == f"{storage}_cosine_ops":
            has = _options(written) if method == "hnsw" else {}
            found.usable.append((name, method, has))
        elif in_progress:
            raise StoreError(f"Index {name!r} is being built by another session. Wait for it.")
        elif not valid and method == "hnsw":
            found.broken.append(name)
    return found


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
