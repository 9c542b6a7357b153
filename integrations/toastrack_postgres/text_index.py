"""The index of the words in a table's texts: which one is there, and how it is built."""

from __future__ import annotations

import re
from typing import NamedTuple

from psycopg import sql

from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import sql as statements
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements

MAX_TEXT = 200_000
"""How many characters of a text are in the index: Postgres refuses to write a row with more than
1 MB of words and their places, and a character may take some five bytes of it.
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

_TEXT = r"(?:\(?text\)?(?:::text)?|COALESCE\(\(?text\)?(?:::text)?, ''::text\))"
_EXPRESSION = re.compile(
    rf"to_tsvector\('((?:[^']|'')+)'::regconfig, (?:{_TEXT}|\"left\"\({_TEXT}, \d+\))\)"
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


async def find(session: Session, oid: int) -> TextIndex | None:
    """Return the index that serves searches of a table."""
    usable, _ = await _look(session, oid)
    return usable[0] if usable else None


def no_index(label: str) -> UnsupportedError:
    """Return the error for a search by words without an index of them."""
    return UnsupportedError(
        f"Table {label!r} has no index of the words in its texts, which mode='text' and "
        "mode='hybrid' search by. Build it once: store.build_text_index(language='english'), or on the "
        "command line toastrack ingest --text-index english."
    )


async def check(
    session: Session, oid: int, *, label: str, language: str, rebuild: bool = False
) -> tuple[str, list[TextIndex], list[tuple[str, str]]]:
    """Return the language as an index names it, the indexes that serve, and those that broke.

    Raises:
        StoreError: One of another language is there, or another session builds one.
        ValueError: The server knows no such language.
    """
    found = await session.execute(_LANGUAGE, {"language": language})
    if not found:
        known = ", ".join(name for (name,) in await session.execute(_LANGUAGES))
        raise ValueError(
            f"language={language!r} is no text search configuration of this server. It has: {known}."
        )
    ((written,),) = found
    usable, broken = await _look(session, oid)
    if usable and not rebuild and usable[0].language != written:
        raise StoreError(
            f"Table {label!r}: its index {usable[0].name!r} is for "
            f"language={usable[0].language!r}, and {language!r} was asked for. Nothing was "
            f"changed. Build it anew with build_text_index(language={language!r}, rebuild=True)."
        )
    return written, usable, broken


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
    written, usable, broken = await check(
        session, oid, label=label, language=language, rebuild=rebuild
    )
    if usable and not rebuild:
        return []
    if concurrently and await session.execute(statements.PARTITIONS, {"oid": oid}):
        raise UnsupportedError(
            f"Table {label!r} is partitioned, and Postgres cannot build an index of its texts "
            "concurrently. Build it without concurrently=."
        )
    return [
        # "create index if not exists" would take a broken index for a good one.
        *(table.drop_index(name, schema) for schema, name in broken),
        table.create_text_index(written, MAX_TEXT, concurrently=concurrently),
        *(table.drop_index(one.name, one.schema, concurrently=concurrently) for one in usable),
        # Which words are rare is known to nobody until the server has looked at them.
        table.analyze,
    ]


async def _look(session: Session, oid: int) -> tuple[list[TextIndex], list[tuple[str, str]]]:
    """Return what serves searches, and what a concurrent build left behind."""
    usable: list[TextIndex] = []
    broken: list[tuple[str, str]] = []
    for schema, name, valid, in_progress, expression, column in await session.execute(
        _INDEXES, [oid]
    ):
        read = _EXPRESSION.fullmatch(expression or "")
        if read is None:
            continue
        if valid:
            language = read[1].replace("''", "'")
            usable.append(TextIndex(schema, name, language, expression, column))
        elif in_progress:
            raise StoreError(f"Index {name!r} is being built by another session. Wait for it.")
        else:
            broken.append((schema, name))
    return usable, broken
