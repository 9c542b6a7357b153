"""Full text and hybrid search in Postgres."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from toastrack import Embedder, Record
from toastrack.errors import StoreError, TruncationWarning, UnsupportedError
from toastrack_postgres import AsyncPostgresStore, PostgresStore

TEXTS = {
    "rye": "Rye bread keeps fresh for more than a week.",
    "salt": "Salt slows the dough down.",
    "oven": "An oven at 230 degrees bakes the rye loaves.",
    "starter": "Feed the sour starter twice a day.",
    "weizen": "Weizenbrote werden schnell alt.",
}


@pytest.fixture
def store(postgres_dsn: str, schema: str, embedder: Embedder) -> Iterator[PostgresStore]:
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert(Record(id, text, {"even": len(id) % 2 == 0}) for id, text in TEXTS.items())
        yield store


def ids(found: Any) -> list[str]:
    return [match.id for match in found]


def test_without_an_index_both_modes_name_the_call(store: PostgresStore) -> None:
    for mode in ("text", "hybrid"):
        with pytest.raises(UnsupportedError, match=r"build_text_index\(language='english'\)"):
            store.search("rye", mode=mode)


def test_any_word_matches_and_more_words_come_first(store: PostgresStore) -> None:
    assert store.build_text_index() is True
    assert store.build_text_index() is False
    found = store.search("is rye bread fresh, or an oven?", mode="text")
    assert ids(found) == ["rye", "oven"]
    assert [match.score_kind for match in found] == ["text", "text"]
    assert found[0].score > found[1].score > 0
    assert found[0].scores == {"text": found[0].score}
    assert ids(store.search("baking", mode="text")) == ["oven"]
    assert ids(store.search("loaf", mode="text")) == []
    # Two in a row give their own results.
    assert ids(store.search("salted dough", mode="text")) == ["salt"]
    assert ids(store.search("rye", mode="text", filter={"even": True})) == ["oven"]
    where = sql.SQL("id <> {}").format(sql.Literal("oven"))
    assert ids(store.search("rye", mode="text", where=where)) == ["rye"]


def test_texts_with_most_of_the_words_are_ranked_wherever_they_stand(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack_postgres.text_search._MOST_RANKED", 10)
    vector = [1.0, *[0.0] * 31]
    store.upsert(Record(f"n{i:02}", f"barley flour {i}", vector=vector) for i in range(60))
    store.upsert([Record("z", "barley flour makes a heavy crumb", vector=vector)])
    store.build_text_index()
    found = ids(store.search("barley flour crumb", mode="text"))
    assert found[0] == "z"
    assert len(found) == len(set(found)) == 10
    assert ids(store.search("does barley flour make a crumb?", k=1, mode="text")) == ["z"]


def test_web_syntax(store: PostgresStore) -> None:
    store.build_text_index()

    def search(query: str) -> list[str]:
        return ids(store.search(query, mode="text", text_syntax="web"))

    assert search("rye -oven") == ["rye"]
    assert search('"sour starter"') == ["starter"]
    assert search('"starter sour"') == []
    assert search("rye salt") == []
    assert sorted(search("rye or salt")) == ["oven", "rye", "salt"]


def test_hybrid_is_reciprocal_rank_over_both_lists(store: PostgresStore) -> None:
    store.build_text_index()
    query = "which rye bread stays fresh in the oven?"
    vectors = ids(store.search(query, k=5))
    texts = ids(store.search(query, k=5, mode="text"))
    for weights in ((1.0, 1.0), (1, 0.5), (0, 1), (2.0, 0)):
        expected: dict[str, float] = {}
        for weight, ranking in zip(weights, (vectors, texts), strict=True):
            for place, id in enumerate(ranking, start=1):
                expected[id] = expected.get(id, 0) + weight / (60 + place)
        found = store.search(query, k=5, mode="hybrid", weights=weights)
        assert {match.id: match.score for match in found} == pytest.approx(expected)
        assert ids(found) == sorted(expected, key=lambda id: (-round(expected[id], 9), id))
    cosines = {match.id: match.score for match in store.search(query, k=5)}
    for match in store.search(query, k=2, mode="hybrid"):
        assert match.score_kind == "rrf"
        assert match.scores["rrf"] == match.score
        assert match.scores["cosine"] == pytest.approx(cosines[match.id], abs=1e-6)
        assert ("text" in match.scores) == (match.id in texts)


@pytest.mark.parametrize("indexed", [None, "full", "binary"])
def test_hybrid_goes_with_every_kind_of_index_and_a_filter(
    store: PostgresStore, indexed: Any
) -> None:
    store.build_text_index()
    expected = ids(store.search("rye oven", mode="hybrid", exact=True))
    if indexed:
        store.build_index(kind=indexed)
    assert ids(store.search("rye oven", mode="hybrid")) == expected
    assert len(expected) == len(TEXTS)
    even = store.search("rye oven", mode="hybrid", filter={"even": True})
    assert sorted(ids(even)) == ["oven", "salt", "weizen"]
    assert ids(even)[0] == "oven"


HOSTILE = [
    "",
    " ",
    "the",
    "& | ! ( ) :*",
    "<->",
    "\0",
    "パンは何日もちますか",
    "🥨",
    "'",
    "\\",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_a_query_without_a_word_is_answered_by_vectors(store: PostgresStore, query: str) -> None:
    store.build_text_index()
    vectors = store.search(query, k=3)
    assert ids(store.search(query, k=3, mode="hybrid")) == ids(vectors)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for syntax in ("any", "web"):
            found = store.search(query, mode="text", text_syntax=syntax)
            assert found == []
    if query.isascii():  # in other scripts the server finds words that no text has
        (said,) = caught
        assert "language='english'" in str(said.message)


@pytest.mark.parametrize(
    "query",
    [
        "rye's",
        "o'rye rye",
        "rye & !oven",
        "rye\\ \\' 'rye",
        "http://rye.example/a&b=c rye",
        "a@rye.example rye",
        "rye\0oven",
        "rye:* <-> rye",
        "rye " * 10_000,
        " ".join(f"word{i}" for i in range(10_000)) + " rye",
    ],
)
def test_any_text_can_be_a_query(store: PostgresStore, query: str) -> None:
    store.build_text_index()
    assert "rye" in ids(store.search(query, mode="text"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        assert len(store.search(query, mode="hybrid")) == len(TEXTS)


def test_another_language_wants_a_rebuild(store: PostgresStore) -> None:
    store.build_text_index("german")
    assert ids(store.search("ein Weizenbrot", mode="text")) == ["weizen"]
    with pytest.raises(StoreError, match=r"is for language='german'.*rebuild=True"):
        store.build_text_index()
    assert store.build_text_index(rebuild=True) is True
    assert store.build_text_index("english") is False
    assert ids(store.search("loaves", mode="text")) == ["oven"]
    with pytest.raises(ValueError, match=r"language='klingon' is no text search.*english"):
        store.build_text_index("klingon")
    assert store.build_text_index("simple", concurrently=True, rebuild=True) is True
    assert sorted(ids(store.search("loaf the", mode="text"))) == ["oven", "salt", "starter"]


def test_a_text_over_what_an_index_can_hold_is_in_it_by_its_beginning(store: PostgresStore) -> None:
    store.build_text_index()
    letters = [chr(0x1D400 + number) for number in range(60)]
    long = {
        "plain": " ".join(f"word{number}" for number in range(200_000)),
        # Whole and in its parts, at four bytes a letter, no word is in the index so large.
        "hyphens": " ".join(f"{a}-{b}{c}" for a in letters for b in letters for c in letters),
    }
    vector = [1.0, *[0.0] * 31]
    for name, text in long.items():
        assert len(text) > 1_000_000
        store.upsert([Record(name, f"first{name} {text}", vector=vector)])
        assert ids(store.search(f"first{name}", mode="text")) == [name]


def test_the_servers_own_and_others_configurations_are_languages(
    store: PostgresStore, schema: str, postgres_dsn: str
) -> None:
    name = sql.Identifier(schema, "Bäcker's")
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            sql.SQL("create text search configuration {} (copy = german)").format(name)
        )
    language = f'{schema}."Bäcker\'s"'
    assert store.build_text_index(language) is True
    assert store.build_text_index(language) is False
    assert ids(store.search("ein Weizenbrot", mode="text")) == ["weizen"]
    with pytest.raises(StoreError, match="Bäcker"):
        store.build_text_index("german")


def test_an_index_of_somebody_elses_serves(
    store: PostgresStore, schema: str, postgres_dsn: str
) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            sql.SQL(
                "create index on {} using gin (to_tsvector('german', coalesce(text, '')))"
            ).format(sql.Identifier(schema, "docs"))
        )
    assert ids(store.search("Weizenbrot", mode="text")) == ["weizen"]
    assert store.build_text_index("german") is False


def test_what_goes_with_words_and_what_does_not(store: PostgresStore) -> None:
    store.build_text_index()
    with pytest.raises(ValueError, match="a vector has none"):
        store.search([1.0] * 32, mode="hybrid")
    with pytest.raises(ValueError, match="min_score="):
        store.search("rye", mode="text", min_score=0.5)
    with pytest.raises(ValueError, match="mode='words'"):
        store.search("rye", mode="words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text_syntax='sql'"):
        store.search("rye", mode="text", text_syntax="sql")  # type: ignore[arg-type]
    for weights in ((0, 0), (1,), (-1, 1), (float("nan"), 1), "11", (True, 1)):
        with pytest.raises(ValueError, match="weights="):
            store.search("rye", mode="hybrid", weights=weights)  # type: ignore[arg-type]
    grouped = store.search("rye", mode="hybrid", group_by_document=True, neighbours=1)
    assert sorted(ids(grouped)) == sorted(TEXTS)
    assert grouped[0].context == grouped[0].text


def test_the_index_is_used(store: PostgresStore, schema: str, postgres_dsn: str) -> None:
    store.build_text_index()
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            sql.SQL(
                "explain select id from {} where to_tsvector('english'::regconfig, left(text, "
                "120000)) @@ 'rye'::tsquery"
            ).format(sql.Identifier(schema, "docs"))
        ).fetchall()
    assert "Bitmap Index Scan" in str(plan)


async def test_the_asynchronous_store_does_the_same(
    store: PostgresStore, schema: str, postgres_dsn: str, embedder: Embedder
) -> None:
    async with AsyncPostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as other:
        assert await other.build_text_index() is True
        for mode in ("text", "hybrid"):
            found = await other.search("rye oven", mode=mode)
            assert found == store.search("rye oven", mode=mode)
