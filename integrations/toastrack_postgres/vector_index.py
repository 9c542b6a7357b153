"""The HNSW indexes of a table: what is there, and the statements that make one what it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import catalogue
from toastrack_postgres.codec import VectorType
from toastrack_postgres.index_kinds import (
    DEFAULT_PREFIX,
    KINDS,
    Indexed,
    Kind,
    VectorIndex,
    read_indexes,
)
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements

# https://github.com/pgvector/pgvector#hnsw
_MAX_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}
_MAX_SIGNS = 64_000

# pgvector's own: https://github.com/pgvector/pgvector#index-options
_DEFAULTS = {"m": 16, "ef_construction": 64}


class Plan(NamedTuple):
    """What is executed to build an index."""

    build: list[sql.Composed]
    """In this order; empty where nothing is to be done."""
    on: Indexed
    m: int
    """The links of a row in it, by which its memory goes."""


class _Usable(NamedTuple):
    """An index that serves our searches."""

    name: str
    method: str
    on: Indexed
    has: dict[str, int]
    """Its options; none of another method than HNSW."""


def check_index(storage: VectorType, dimensions: int, label: str) -> None:
    """Raise ``UnsupportedError`` for a table that no index of whole vectors can be built on."""
    limit = _MAX_DIMENSIONS[storage]
    if dimensions > limit:
        roomier = ", or storage='halfvec' in a new table" if dimensions <= 4_000 else ""
        raise UnsupportedError(
            f"pgvector's HNSW index takes {storage} of up to {limit:,} dimensions and table "
            f"{label!r} has {dimensions:,}. build_index(kind='binary') indexes up to {_MAX_SIGNS:,} "
            "by their signs and kind='prefix' the first of them, and each search compares what they "
            "find by whole vectors; Embedder(..., dimensions=) stores fewer"
            f"{roomier}; --no-index searches without an index."
        )


def check_wanted(
    kind: Kind, prefix: int | None, storage: VectorType, dimensions: int, label: str
) -> None:
    """Raise for an index that cannot be built.

    Raises:
        UnsupportedError: The vectors are too large for the kind.
        ValueError: There is no such kind, or the prefix is none of these vectors.
    """
    if kind not in KINDS:
        raise ValueError(
            f"kind={kind!r} is not {', '.join(map(repr, KINDS[:-1]))} or {KINDS[-1]!r}."
        )
    if prefix is not None and kind != "prefix":
        raise ValueError(f"prefix= goes with kind='prefix', not with kind={kind!r}.")
    if kind == "full":
        check_index(storage, dimensions, label)
    elif kind == "binary" and dimensions > _MAX_SIGNS:
        raise UnsupportedError(
            f"pgvector's HNSW index takes up to {_MAX_SIGNS:,} signs and table {label!r} has "
            f"{dimensions:,} dimensions."
        )
    elif prefix is not None:
        _check_prefix(prefix, storage, dimensions, label)


def _check_prefix(size: int, storage: VectorType, dimensions: int, label: str) -> None:
    most = min(dimensions - 1, _MAX_DIMENSIONS[storage])
    if not 1 <= size <= most:
        raise ValueError(
            f"A prefix of {size:,} was asked for, and of the {dimensions:,} dimensions of table "
            f"{label!r} it can be the first 1 to {most:,}. Say it with prefix=."
        )


async def plan(
    session: Session,
    table: Statements,
    oid: int,
    storage: VectorType,
    dimensions: int,
    kind: Kind,
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
        ValueError: The vectors are no longer than the prefix.
    """
    find = partial(_find, session, table, storage=storage, dimensions=dimensions, kind=kind)
    usable, broken = await find(oid)
    if usable and not rebuild:
        fitting = [one for one in usable if not _differing(one.has, options)]
        if not fitting:
            raise _other_options(usable[0], label, kind, options)
        return Plan([], fitting[0].on, fitting[0].has.get("m", _DEFAULTS["m"]))
    # Postgres builds no index of a partitioned table concurrently, but one of each of its parts.
    partitions = await session.execute(catalogue.PARTITIONS, {"oid": oid}) if concurrently else []
    stale = [one for one in usable if one.method == "hnsw"]
    if partitions and stale:
        raise UnsupportedError(
            f"Table {label!r} is partitioned, and Postgres cannot rebuild its index concurrently. "
            "Rebuild it without concurrently=."
        )
    chosen = {
        **_DEFAULTS,
        "prefix": DEFAULT_PREFIX,
        **(stale[-1].has if stale else {}),
        **options,
    }
    on = Indexed(kind, chosen["prefix"] if kind == "prefix" else dimensions)
    if kind == "prefix":
        _check_prefix(on.size, storage, dimensions, label)
    create = partial(
        table.create_hnsw_index,
        on,
        storage,
        m=chosen["m"],
        ef_construction=chosen["ef_construction"],
    )
    # "create index if not exists" would take a broken index for a good one.
    build = [
        table.drop_index(name, concurrently=concurrently and not partitions) for name in broken
    ]
    for partition, schema, name in partitions:
        part_usable, part_broken = await find(partition)
        build += [table.drop_index(left, schema, concurrently=True) for left in part_broken]
        if not any(one.on == on for one in part_usable):
            build.append(create(concurrently=True, partition=(schema, name)))
    # That of the whole table takes those of its parts for its own, and builds nothing.
    build.append(create(concurrently=concurrently and not partitions))
    build += [table.drop_index(one.name, concurrently=concurrently) for one in stale]
    return Plan(build, on, chosen["m"])


async def _find(
    session: Session,
    table: Statements,
    oid: int,
    *,
    storage: VectorType,
    dimensions: int,
    kind: Kind,
) -> tuple[list[_Usable], list[str]]:
    """Return what serves searches, and what a concurrent build left behind, of one kind."""
    usable: list[_Usable] = []
    broken: list[str] = []
    for index in read_indexes(
        await session.execute(catalogue.VECTOR_INDEXES, [oid, table.embedding_column])
    ):
        on = index.indexed(storage, dimensions)
        if on is None or on.kind != kind:
            continue
        if index.valid:
            has = _options(index, on) if index.method == "hnsw" else {}
            usable.append(_Usable(index.name, index.method, on, has))
        elif index.in_progress:
            raise StoreError(
                f"Index {index.name!r} is being built by another session. Wait for it."
            )
        elif index.method == "hnsw":
            broken.append(index.name)
    return usable, broken


def described(indexes: Sequence[VectorIndex], storage: VectorType, dimensions: int) -> str:
    """Say which indexes of the vectors are there, for people."""
    said = []
    for index in indexes:
        on = index.indexed(storage, dimensions)
        options = ", ".join(f"{key}={value}" for key, value in _options(index, on).items())
        state = ", being built" if index.in_progress else "" if index.valid else ", broken"
        what = "" if on is None or on.kind == "full" else f" {on.kind}"
        said.append(
            f"hnsw{what} ({options}){state}"
            if index.method == "hnsw"
            else f"{index.method} {index.name}{state}"
        )
    return "; ".join(said) or "none, so that each search compares with every row"


def _options(index: VectorIndex, on: Indexed | None) -> dict[str, int]:
    """Return what an index was built with; what it does not say is pgvector's default."""
    said = dict(option.split("=", 1) for option in index.options)
    has = {name: int(said.get(name, default)) for name, default in _DEFAULTS.items()}
    return {"prefix": on.size, **has} if on is not None and on.kind == "prefix" else has


def _differing(has: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    return {key: value for key, value in wanted.items() if has.get(key) != value}


def _other_options(there: _Usable, label: str, kind: Kind, wanted: Mapping[str, int]) -> StoreError:
    differing = _differing(there.has, wanted)
    has = ", ".join(f"{key}={there.has[key]}" for key in differing) if there.has else ""
    asked = ", ".join(f"{key}={value}" for key, value in differing.items())
    again = asked if kind == "full" else f"kind={kind!r}, {asked}"
    return StoreError(
        f"Table {label!r}: its index {there.name!r} has {has or f'the method {there.method}'}, and "
        f"{asked} was asked for. Nothing was changed. Build it anew with build_index({again}, "
        "rebuild=True), or leave them out."
    )
