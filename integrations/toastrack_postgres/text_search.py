"""A search by the words of texts, alone or beside one by vectors, in one statement."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from psycopg import sql

from toastrack import Match
from toastrack.stores import RRF, TextSyntax
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements
from toastrack_postgres.text_index import MAX_TEXT, TextIndex

# Texts that are parsed again to rank them, at some 20 microseconds each.
_MOST_RANKED = 2_000
# The rarest words of a query, any two of which a text must have to be among them at first.
_RAREST = 4
# Of a longer query the rarest are taken: a deeper condition could be more than the server's stack holds.
_MOST_WORDS = 20_000

# What a query's words are, and what is asked of the index with them: at first any two of the rarest,
# where that is too little the rarest one, and where that is too little, any.
#
# A question joined by "and" finds nothing, and to rank all that has any of its words means to parse
# most of the table again. How rare a word is, the server says of the index's most common ones.
_ANY = """
    toastrack_words as materialized (
        select {quoted} as word,
               row_number() over (
                   order by coalesce(known.share, 0), length(found.word) desc, found.word
               ) as place
        from unnest(tsvector_to_array(to_tsvector({language}::regconfig, {query}))) found (word)
        left join (
            select unnest(most_common_elems::text::text[]) as word,
                   unnest(most_common_elem_freqs) as share
            from pg_stats
            where schemaname = {schema} and tablename = {index} and attname = {column}
        ) known on known.word = found.word
    ), toastrack_asked as materialized (
        select (select string_agg(one.word || ' & ' || other.word, ' | ')
                from toastrack_words one join toastrack_words other on one.place < other.place
                where other.place <= {rarest})::tsquery as narrow,
               (select word from toastrack_words where place = 1)::tsquery as middle,
               (select string_agg(word, ' | ') from toastrack_words
                where place <= {most_words})::tsquery as wide,
               (select string_agg(word, ' | ') from toastrack_words
                where place <= {most_words})::tsquery as all_of_it
    )
"""

_WEB = """
    toastrack_asked as materialized (
        select asked as narrow, null::tsquery as middle, null::tsquery as wide, asked as all_of_it
        from websearch_to_tsquery({language}::regconfig, {query}) asked
    )
"""

# Two texts of equal rank stand in the order of their ids. Length is divided out (1): else long
# texts, which have more of the words, come first.
_TEXTS = """
    , toastrack_narrow as materialized (
        select id, {rank} as rank from {table}
        where {words} @@ (select narrow from toastrack_asked) and {conditions} limit {most}
    ), toastrack_middle as materialized (
        select id, {rank} as rank from {table}
        where (select count(*) from toastrack_narrow) < %(toastrack_k)s
          and {words} @@ (select middle from toastrack_asked) and {conditions} limit {most}
    ), toastrack_wide as materialized (
        select id, {rank} as rank from {table}
        where (select count(*) from (select id from toastrack_narrow
                                     union select id from toastrack_middle) found)
              < %(toastrack_k)s
          and {words} @@ (select wide from toastrack_asked) and {conditions} limit {most}
    ), toastrack_texts as materialized (
        select id, rank, row_number() over (order by rank desc, id) as place
        from (select id, max(rank)::float8 as rank
              from (select * from toastrack_narrow union all select * from toastrack_middle
                    union all select * from toastrack_wide) found
              group by id order by rank desc, id limit %(toastrack_k)s) best
    )
"""

_BY_TEXT = """
    select t.id, coalesce(t.text, ''), t.metadata::text, coalesce(t.document_id, t.id), t.chunk,
           best.rank, null::float8, best.rank, 0, 0
    from toastrack_texts best join {table} t on t.id = best.id
"""

_FUSED = """
    , toastrack_near ({near}) as materialized ({search}), toastrack_vectors as (
        select id, row_number() over (order by cosine desc, id) as place
        from toastrack_near where cosine <> 'NaN'
    ), toastrack_fused as (
        select coalesce(near.id, texts.id) as id, texts.rank,
               coalesce(%(toastrack_vector_weight)s::float8 / ({rrf} + near.place), 0)
               + coalesce(%(toastrack_text_weight)s::float8 / ({rrf} + texts.place), 0) as score
        from toastrack_vectors near full join toastrack_texts texts on near.id = texts.id
        order by score desc, id limit %(toastrack_k)s
    )
    select t.id, coalesce(t.text, ''), t.metadata::text, coalesce(t.document_id, t.id), t.chunk,
           best.score, 1 - (t.embedding {distance} %(toastrack_query)b), best.rank,
           (select count(*) from toastrack_near), {compared}
    from toastrack_fused best join {table} t on t.id = best.id
"""


def statement(
    table: Statements,
    on: TextIndex,
    conditions: Sequence[sql.Composable],
    *,
    syntax: TextSyntax,
    search: sql.Composable | None,
    compared: bool = False,
) -> sql.Composed:
    """Return the statement: (id, text, metadata, document, chunk, score, cosine, rank, near, compared).

    Args:
        table: What is searched.
        on: The index of its words.
        conditions: What a row must pass.
        syntax: How the query is read.
        search: The search by vectors, as ``Statements`` has it; None searches by words alone.
        compared: Behind its columns it says how many rows were compared again.
    """
    words = sql.SQL(on.expression.replace("%", "%%"))
    query = sql.SQL("left(%(toastrack_text)s::text, {})").format(MAX_TEXT)
    asked = sql.SQL(_ANY if syntax == "any" else _WEB).format(
        quoted=sql.SQL(
            "'''' || replace(replace(found.word, E'\\\\', E'\\\\\\\\'), '''', '''''') || ''''"
        ),
        language=sql.Literal(on.language.replace("%", "%%")),
        query=query,
        schema=sql.Literal(on.schema.replace("%", "%%")),
        index=sql.Literal(on.name.replace("%", "%%")),
        column=sql.Literal(on.column.replace("%", "%%")),
        rarest=_RAREST,
        most_words=_MOST_WORDS,
    )
    texts = sql.SQL(_TEXTS).format(
        table=table.table,
        words=words,
        rank=sql.SQL("ts_rank({}, (select all_of_it from toastrack_asked), 1)").format(words),
        conditions=sql.SQL(" and ").join([sql.SQL("true"), *conditions]),
        most=_MOST_RANKED,
    )
    if search is None:
        rest = sql.SQL(_BY_TEXT).format(table=table.table)
    else:
        columns = "id, text, metadata, document_id, chunk, cosine"
        rest = sql.SQL(_FUSED).format(
            table=table.table,
            distance=table.distance,
            search=search,
            near=sql.SQL(f"{columns}, compared" if compared else columns),
            compared=sql.SQL(
                "coalesce((select max(compared) from toastrack_near), 0)" if compared else "0"
            ),
            rrf=RRF,
        )
    return sql.SQL("with {}{}{}").format(asked, texts, rest)


def match_of(row: Sequence[Any], *, kind: str) -> Match:
    """Return what a row of the statement says."""
    id, text, metadata, document, chunk, score, cosine, rank, *_ = row
    scores = {kind: float(score)}
    # A row of zeros has no cosine.
    if cosine is not None and not math.isnan(cosine):
        scores["cosine"] = float(cosine)
    if rank is not None:
        scores["text"] = float(rank)
    return Match(
        id,
        text,
        float(score),
        json.loads(metadata or "{}"),
        document,
        chunk,
        score_kind=kind,
        scores=scores,
    )


async def has_words(session: Session, on: TextIndex, text: str, syntax: TextSyntax) -> bool:
    """Tell whether a query has any word in the language of an index."""
    query = (
        "select numnode(websearch_to_tsquery(%s::regconfig, left(%s::text, %s))) > 0"
        if syntax == "web"
        else "select length(to_tsvector(%s::regconfig, left(%s::text, %s))) > 0"
    )
    ((found,),) = await session.execute(query, [on.language, text, MAX_TEXT])
    return bool(found)
