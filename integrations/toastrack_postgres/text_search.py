"""A search by the words of texts, alone or beside one by vectors, in one statement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from psycopg import sql

from toastrack import Match
from toastrack.stores import RRF, TextSyntax
from toastrack_postgres.codec import metadata_of
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements
from toastrack_postgres.text_index import MAX_TEXT, TextIndex

# Texts that are parsed again to rank them, at some 100 microseconds each of 120 words; of a search for
# more, so many as it wants.
_MOST_RANKED = 400
# The rarest words of a query, of which a text should have several to be among them.
_RAREST = 6
# Of a longer query the rarest are taken: a deeper condition could be more than the server's stack holds.
_MOST_WORDS = 20_000

# What a query's words are, and what is asked of the index with them, one step after the other until
# there are enough texts to rank: any four of the rarest words, any three, and any two; and where that is
# too little the rarest word, and any word at all.
#
# A question joined by "and" finds nothing, and to rank all that has any of its words means to parse
# most of the table again. How rare a word is, the server says of the index's most common ones. Of two
# words that are not rare there are more texts than are ranked: without the steps before they would come
# in the place of those that have most of the words.
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
    ), toastrack_rarest as materialized (
        select * from toastrack_words where place <= {rarest}
    ), toastrack_asked as materialized (
        select {four}::tsquery as four, {three}::tsquery as three, {two}::tsquery as two,
               (select word from toastrack_words where place = 1)::tsquery as rarest,
               (select string_agg(word, ' | ') from toastrack_words
                where place <= {most_words})::tsquery as words
    )
"""

_WEB = """
    toastrack_asked as materialized (
        select asked as words from websearch_to_tsquery({language}::regconfig, {query}) asked
    )
"""

# The steps, and whether one is taken although as many were found as are wanted.
_STEPS = {
    "any": (("four", True), ("three", True), ("two", True), ("rarest", False), ("words", False)),
    "web": (("words", True),),
}

# What was found is not parsed again.
_STEP = """
    , {name} as materialized (
        select id, {rank} as rank from {rows}
        where {needed} and {words} @@ (select {asked} from toastrack_asked) and {conditions}
          and id not in (select id from {before})
        limit (select greatest({most}, %(toastrack_k)s) - count(*) from {before})
    ), {found} as (select * from {before} union all select * from {name})
"""

# Two texts of equal rank stand in the order of their ids. Length is divided out (1): else long
# texts, which have more of the words, come first.
_TEXTS = """
    , toastrack_texts as materialized (
        select id, rank::float8 as rank, row_number() over (order by rank desc, id) as place
        from (select id, rank from {found} order by rank desc, id limit %(toastrack_k)s) best
    )
"""

_BY_TEXT = """
    select t.id, coalesce(t.text, ''), t.metadata::text, coalesce(t.document_id, t.id), t.chunk,
           best.rank, null::float8, best.rank, 0, 0
    from toastrack_texts best join {rows_t} on t.id = best.id
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
    from toastrack_fused best join {rows_t} on t.id = best.id
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
        four=_any_of(4),
        three=_any_of(3),
        two=_any_of(2),
        most_words=_MOST_WORDS,
    )
    texts = _ranked(table, words, conditions, syntax)
    if search is None:
        rest = sql.SQL(_BY_TEXT).format(rows_t=table.rows_t)
    else:
        columns = "id, text, metadata, document_id, chunk, cosine"
        rest = sql.SQL(_FUSED).format(
            rows_t=table.rows_t,
            distance=table.distance,
            search=search,
            near=sql.SQL(f"{columns}, compared" if compared else columns),
            compared=sql.SQL(
                "coalesce((select max(compared) from toastrack_near), 0)" if compared else "0"
            ),
            rrf=RRF,
        )
    return sql.SQL("with {}{}{}").format(asked, texts, rest)


def _any_of(number: int) -> sql.Composable:
    """Return what a text matches that has any so many of the rarest words, as text."""
    names = [f"word_{place}" for place in range(number)]
    joins = [
        f"join toastrack_rarest {name} on {before}.place < {name}.place"
        for before, name in pairwise(names)
    ]
    words = " || ' & ' || ".join(f"{name}.word" for name in names)
    return sql.SQL(
        f"(select string_agg({words}, ' | ') from toastrack_rarest {names[0]} {' '.join(joins)})"
    )


def _ranked(
    table: Statements,
    words: sql.Composable,
    conditions: Sequence[sql.Composable],
    syntax: TextSyntax,
) -> sql.Composed:
    """Return the steps that find and rank texts, and the best of them."""
    steps: list[sql.Composable] = [
        sql.SQL(", toastrack_found as (select null::text as id, 0::real as rank where false)")
    ]
    before = "toastrack_found"
    for asked, always in _STEPS[syntax]:
        found = f"toastrack_found_{asked}"
        steps.append(
            sql.SQL(_STEP).format(
                name=sql.Identifier(f"toastrack_by_{asked}"),
                asked=sql.Identifier(asked),
                before=sql.Identifier(before),
                found=sql.Identifier(found),
                rows=table.rows,
                words=words,
                rank=sql.SQL("ts_rank({}, (select words from toastrack_asked), 1)").format(words),
                needed=sql.SQL(
                    "true" if always else f"(select count(*) from {before}) < %(toastrack_k)s"
                ),
                conditions=sql.SQL(" and ").join([sql.SQL("true"), *conditions]),
                most=_MOST_RANKED,
            )
        )
        before = found
    return sql.SQL("{}{}").format(
        sql.SQL("").join(steps), sql.SQL(_TEXTS).format(found=sql.Identifier(before))
    )


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
        metadata_of(metadata),
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
