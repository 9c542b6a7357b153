"""The index of the words in a table's texts: which one is there, and how it is built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import catalogue
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements

MAX_TEXT = 120_000
"""How many characters of a text are in the index: Postgres refuses to write a row with more than
1 MB of words and their places, and a character takes up to eight bytes of it, as those do of four bytes
in words with a hyphen, which are there whole and in parts.
https://www.postgresql.org/docs/current/textsearch-limitations.html"""

# Of a GIN index on one expression and all rows:
# (schema, name, is valid, is being built, expression, the name of its column).
_INDEXES = """
    select n.nspname, c.relname, i.indisvalid,
           exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid),
           pg_get_expr(i.indexprs, i.indrelid), a.attname
    from pg_index i
    join pg_class c on c.oid = i.indexrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_am m on m.oid = c.relam
    join pg_attribute a on a.attrelid = i.indexrelid and a.attnum = 1
    where i.indrelid = %s and m.amname = 'gin' and i.indnatts = 1 and i.indkey[0] = 0
      and i.indpred is null
    order by c.oid
"""

# A configuration as this session writes it, which is as an index's expression names it.
_LANGUAGE = """
    select oid::regconfig::text from pg_ts_config
    where oid::regconfig::text = %(language)s
       or cfgname = %(language)s and pg_ts_config_is_visible(oid)
"""
_LANGUAGES = "select oid::regconfig::text from pg_ts_config order by 1"


@lru_cache(maxsize=16)
def _expression(column: str) -> re.Pattern[str]:
    """Return what an index of the words in a column is on, as Postgres writes it."""
    quoted = column.replace('"', '""')
    name = rf'(?:{re.escape(column)}|"{re.escape(quoted)}")'
    return re.compile(
        r"(to_tsvector\('((?:[^']|'')+)'::regconfig, (?:\"left\"\()?(?:COALESCE\()?\(?)"
        rf"{name}(\)?(?:::text)?(?:, ''::text\))?(?:, \d+\))?\))"
    )


class TextIndex(NamedTuple):
    """An index that tells which texts have a word."""

    schema: str
    name: str
    language: str
    """The configuration of the server's that makes words of texts."""
    expression: str
    """What it is on, in SQL."""
    column: str
    """What the server calls that in its statistics."""


class TextIndexes(NamedTuple):
    """The indexes of the words of a table's texts."""

    usable: Sequence[TextIndex] = ()
    """What serves searches, the oldest first."""
    in_progress: Sequence[str] = ()
    """The names of those that other sessions build concurrently."""
    broken: Sequence[tuple[str, str]] = ()
    """Schema and name of what concurrent builds left behind that were interrupted."""


def no_index(label: str, there: TextIndexes) -> UnsupportedError:
    """Return the error for a search by words without an index of them."""
    instead = ""
    if there.in_progress:
        instead = f" Index {there.in_progress[0]!r} is being built: wait for it."
    elif there.broken:
        instead = (
            f" Index {there.broken[0][1]!r} is not whole, as its concurrent build was interrupted; "
            "that call puts another in its place."
        )
    return UnsupportedError(
        f"Table {label!r} has no index of the words in its texts, which mode='text' and "
        "mode='hybrid' search by. Build it once: store.build_text_index(language='english'), or on the "
        f"command line toastrack ingest --text-index english.{instead}"
    )


async def check(
    session: Session,
    oid: int,
    *,
    label: str,
    language: str,
    rebuild: bool = False,
    text: str = "text",
) -> tuple[str, TextIndexes]:
    """Return the language as an index names it, and what is there.

    Raises:
        StoreError: One of another language is there.
        ValueError: The server knows no such language.
    """
    found = await session.execute(_LANGUAGE, {"language": language})
    if not found:
        known = ", ".join(name for (name,) in await session.execute(_LANGUAGES))
        raise ValueError(
            f"language={language!r} is no text search configuration of this server. It has: {known}."
        )
    ((written,),) = found
    there = await find(session, oid, text)
    if there.usable and not rebuild and there.usable[0].language != written:
        raise StoreError(
            f"Table {label!r}: its index {there.usable[0].name!r} is for "
            f"language={there.usable[0].language!r}, and {language!r} was asked for. Nothing was "
            f"changed. Build it anew with build_text_index(language={language!r}, rebuild=True)."
        )
    return written, there


async def plan(
    session: Session,
    table: Statements,
    oid: int,
    *,
    label: str,
    language: str,
    rebuild: bool,
    concurrently: bool,
) -> list[sql.Composed]:
    """Return the statements that build what is missing.

    Raises:
        StoreError: One of another language is there, or another session builds one.
        UnsupportedError: A partitioned table's cannot be built concurrently.
        ValueError: The server knows no such language.
    """
    written, there = await check(
        session, oid, label=label, language=language, rebuild=rebuild, text=table.text_column
    )
    if there.usable and not rebuild:
        return []
    if there.in_progress:
        raise StoreError(
            f"Index {there.in_progress[0]!r} is being built by another session. Wait for it."
        )
    if concurrently and await session.execute(catalogue.PARTITIONS, {"oid": oid}):
        raise UnsupportedError(
            f"Table {label!r} is partitioned, and Postgres cannot build an index of its texts "
            "concurrently. Build it without concurrently=."
        )
    drop = partial(table.drop_index, concurrently=concurrently)
    return [
        # "create index if not exists" would take a broken index for a good one.
        *(drop(name, schema) for schema, name in there.broken),
        table.create_text_index(written, MAX_TEXT, concurrently=concurrently),
        # Which words are rare is known to nobody until the server has looked at them.
        table.analyze,
        # Last, as in a transaction nobody can read the table from here on.
        *(drop(one.name, one.schema) for one in there.usable),
    ]


async def find(session: Session, oid: int, text: str = "text") -> TextIndexes:
    """Look for the indexes of the words of a table's texts; ``text`` is their column."""
    usable: list[TextIndex] = []
    in_progress: list[str] = []
    broken: list[tuple[str, str]] = []
    for schema, name, valid, is_built, expression, column in await session.execute(_INDEXES, [oid]):
        read = _expression(text).fullmatch(expression or "")
        if read is None:
            continue
        if valid:
            language = read[2].replace("''", "'")
            # As the statements call it, whatever the table does.
            asked = f"{read[1]}text{read[3]}"
            usable.append(TextIndex(schema, name, language, asked, column))
        elif is_built:
            in_progress.append(name)
        else:
            broken.append((schema, name))
    return TextIndexes(usable, in_progress, broken)
