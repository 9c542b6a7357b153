"""By meaning, by words, or by both, in every store; what a host cannot, it refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from at_once import at_once
from kinds import Kind
from known_order import Given, number_of

from toastrack import Match, Record, ingest
from toastrack.errors import StoreError, UnsupportedError

if TYPE_CHECKING:
    from toastrack.stores.protocol import IngestStore

TEXTS = {
    "rye": "rye bread keeps fresh all week 1",
    "salt": "salt slows dough 2",
    "oven": "hot oven bakes rye 3",
    "starter": "feed sour starter daily 4",
    "wheat": "wheat flour makes light crumb 5",
}
MODES: list[Any] = ["text", "hybrid"]


@pytest.fixture
def filled(store: IngestStore) -> IngestStore:
    store.upsert(Record(id, text, {"n": len(id), "word": id.upper()}) for id, text in TEXTS.items())
    return store


def ids(found: Sequence[Match]) -> list[str]:
    return [match.id for match in found]


def said(search: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what a search found, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = search()
    return found, [str(warning.message) for warning in caught]


@pytest.mark.connection
def test_a_host_that_cannot_says_so_before_anything_is_built(
    filled: IngestStore, kind: Kind
) -> None:
    why = set()
    for mode in MODES:
        with pytest.raises(UnsupportedError, match="words") as caught:
            filled.search("rye", mode=mode)
        why.add(str(caught.value))
    if kind.words:
        filled._check_text_index("english")
        with pytest.raises(ValueError, match="language='klingon'"):
            filled._check_text_index("klingon")
        with pytest.raises(ValueError, match="language='klingon'"):
            filled.build_text_index("klingon")
        return
    for build in (lambda: filled._check_text_index("english"), filled.build_text_index):
        with pytest.raises(UnsupportedError, match="words") as caught:
            build()
        why.add(str(caught.value))
    # Nobody is told to build an index first, and only then that there can be none.
    assert len(why) == 1


def test_what_no_mode_takes_is_refused_on_every_host(filled: IngestStore) -> None:
    wrong: Any
    for mode in MODES:
        with pytest.raises(ValueError, match="a vector has none"):
            filled.search([1.0] * 32, mode=mode)
        with pytest.raises(ValueError, match="min_score="):
            filled.search("rye", mode=mode, min_score=0.5)
    for wrong in ("words", None):
        with pytest.raises(ValueError, match="mode="):
            filled.search("rye", mode=wrong)
    wrong = "sql"
    with pytest.raises(ValueError, match="text_syntax='sql'"):
        filled.search("rye", text_syntax=wrong)
    for wrong in ((0, 0), (1,), (-1, 1), (float("nan"), 1), "11", (True, 1)):
        with pytest.raises(ValueError, match="weights="):
            filled.search("rye", weights=wrong)


@pytest.mark.by_words
@pytest.mark.connection
def test_any_word_matches_and_the_filter_holds(filled: IngestStore) -> None:
    assert filled.build_text_index() is True
    assert filled.build_text_index() is False
    found = filled.search("rye bread, fresh, or an oven?", mode="text")
    assert ids(found) == ["rye", "oven"]
    assert found[0].score > found[1].score > 0
    assert found[0].scores == {"text": found[0].score}
    assert {match.score_kind for match in found} == {"text"}
    assert ids(filled.search("rye bread", k=1, mode="text")) == ["rye"]
    assert ids(filled.search("salt", mode="text")) == ["salt"]
    assert filled.search("salt", k=0, mode="text") == []
    for mode in MODES:
        some = filled.search("rye salt", mode=mode, filter={"n": {"$in": [3, 5]}})
        assert ids(some)[0] == "rye"
        assert {match.metadata["n"] for match in some} <= {3, 5}
        # What no host says exactly.
        some = filled.search("rye salt", mode=mode, filter={"word": {"$gt": "P"}})
        assert "oven" not in ids(some)
        assert {"rye", "salt"} <= set(ids(some))


@pytest.mark.by_words
def test_hybrid_is_reciprocal_rank_over_both_lists(filled: IngestStore) -> None:
    filled.build_text_index()
    query = "rye bread fresh oven"
    vectors, texts = ids(filled.search(query)), ids(filled.search(query, mode="text"))
    assert (len(vectors), texts) == (len(TEXTS), ["rye", "oven"])
    for weights in ((1.0, 1.0), (1, 0.5), (0, 1), (2.0, 0)):
        expected: dict[str, float] = {}
        for weight, ranking in zip(weights, (vectors, texts), strict=True):
            for place, id in enumerate(ranking, start=1):
                expected[id] = expected.get(id, 0) + weight / (60 + place)
        found = filled.search(query, mode="hybrid", weights=weights)
        assert {match.id: match.score for match in found} == pytest.approx(expected)
        assert ids(found) == sorted(expected, key=lambda id: (-round(expected[id], 9), id))
        assert ids(filled.search(query, k=2, mode="hybrid", weights=weights)) == ids(found)[:2]
    cosines = {match.id: match.score for match in filled.search(query)}
    for match in filled.search(query, mode="hybrid"):
        assert match.score_kind == "rrf"
        assert match.scores["rrf"] == match.score
        assert match.scores["cosine"] == pytest.approx(cosines[match.id], abs=1e-6)
        assert ("text" in match.scores) == (match.id in texts)


@pytest.mark.by_words
@pytest.mark.parametrize("query", ["", " \n", "?! -- () :*", "\0", "🥨"])
def test_a_query_without_a_word_is_answered_by_vectors(filled: IngestStore, query: str) -> None:
    filled.build_text_index()
    vectors = filled.search(query, k=3)
    found, warned = said(lambda: filled.search(query, k=3, mode="hybrid"))
    assert (ids(found), warned) == (ids(vectors), [])
    for syntax in ("any", "web"):
        ask = partial(filled.search, query, mode="text", text_syntax=syntax)
        found, warned = said(ask)
        assert found == []
        assert all("language='english'" in message for message in warned)
        assert said(ask) == ([], [])


@pytest.mark.by_words
def test_words_as_in_web_search(filled: IngestStore) -> None:
    filled.build_text_index()

    def search(query: str, **how: Any) -> list[str]:
        return ids(filled.search(query, mode="text", text_syntax="web", **how))

    assert search("rye -oven") == ["rye"]
    assert search('"sour starter"') == ["starter"]
    assert search('"starter sour"') == []
    assert search("rye salt") == []
    assert search('rye -"hot oven"') == ["rye"]
    assert sorted(search("rye or salt")) == ["oven", "rye", "salt"]
    assert search("rye OR salt", filter={"n": 4}, k=1) in (["oven"], ["salt"])


@pytest.mark.by_words
def test_the_index_follows_what_is_written_changed_and_deleted(
    filled: IngestStore, make_store: Callable[..., IngestStore]
) -> None:
    filled.build_text_index()
    other = make_store()
    assert ids(other.search("sour", mode="text")) == ["starter"]
    filled.upsert([Record("spelt", "spelt tastes nutty"), Record("rye", "barley instead")])
    for store in (filled, other):
        assert ids(store.search("nutty", mode="text")) == ["spelt"]
        assert ids(store.search("rye", mode="text")) == ["oven"]
    filled.delete(["spelt"])
    assert ids(other.search("nutty", mode="text")) == []
    with pytest.raises(StoreError, match="language='english'"):
        filled._check_text_index("german")
    with pytest.raises(StoreError, match="rebuild=True"):
        filled.build_text_index("german")
    assert filled.build_text_index("german", rebuild=True) is True
    assert filled.build_text_index("german") is False
    assert ids(other.search("barley", mode="text")) == ["rye"]


@pytest.mark.by_words
@pytest.mark.parametrize("mode", MODES)
def test_what_is_found_is_reranked_and_grouped_and_has_its_context(
    store: IngestStore, mode: Any
) -> None:
    for document in ("a", "b"):
        chunks = [
            Record(f"{document}#{n}", f"rye loaf {n}", {"n": n}, document_id=document, chunk=n)
            for n in range(6)
        ]
        store.replace(document, chunks)
    store.upsert([Record("c", "wheat flour 9", {"n": 9})])
    store.build_text_index()
    found = store.search("rye", k=3, mode=mode, rerank=Given(number_of), candidates=20)
    assert ids(found) == (["a#5", "b#5", "a#4"] if mode == "text" else ["c", "a#5", "b#5"])
    first = "text" if mode == "text" else "rrf"
    for match in found:
        assert match.score_kind == "rerank"
        assert match.scores["rerank"] == match.score == float(match.text[-1])
        assert first in match.scores
    even = {"n": {"$in": [0, 2, 4]}}
    found = store.search(
        "rye",
        k=5,
        mode=mode,
        filter=even,
        rerank=Given(number_of),
        candidates=2,
        group_by_document=True,
        neighbours=1,
    )
    assert sorted(match.document_id for match in found) == ["a", "b"]
    for match in found:
        number = match.chunk
        assert number == 4
        assert match.context == "rye loaf 3\n\nrye loaf 4\n\nrye loaf 5"
    grouped = store.search("rye", k=5, mode=mode, group_by_document=True)
    expected = {"a", "b"} if mode == "text" else {"a", "b", "c"}
    assert {match.document_id for match in grouped} == expected
    assert len(grouped) == len(expected)


@pytest.mark.by_words
def test_an_index_of_nothing_is_there_for_what_is_written_later(
    make_store: Callable[..., IngestStore],
) -> None:
    store, other = make_store(), make_store()
    with pytest.raises(UnsupportedError, match="build_text_index"):
        store.search("rye", mode="text")
    assert store.build_text_index() is True
    for mode in MODES:
        found, warned = said(partial(store.search, "rye", mode=mode))
        assert (found, warned) == ([], [])
    assert other.build_text_index() is False
    other.upsert(Record(id, text) for id, text in TEXTS.items())
    assert ids(store.search("salt", mode="text")) == ["salt"]
    store.delete(TEXTS)
    assert store.search("salt", mode="text") == []
    assert store.build_text_index("simple", rebuild=True) is True
    assert store.search("salt", mode="hybrid") == []


@pytest.mark.by_words
@pytest.mark.parametrize("rebuild", [False, True])
def test_two_who_build_at_once_leave_one_index_to_all(
    filled: IngestStore, make_store: Callable[..., IngestStore], rebuild: bool
) -> None:
    other = make_store()
    if rebuild:
        filled.build_text_index()

    def build(store: IngestStore) -> bool:
        return store.build_text_index(rebuild=rebuild)

    built = at_once(partial(build, filled), partial(build, other))
    assert built == [True, True] if rebuild else any(built)
    for store in (filled, other, make_store()):
        assert ids(store.search("salt", mode="text")) == ["salt"]
        assert store.search("salt", k=1, mode="hybrid", weights=(0, 1))[0].id == "salt"
        assert store.build_text_index() is False


@pytest.mark.by_words
def test_every_document_that_has_a_word_is_found_behind_one_of_many_chunks(
    store: IngestStore,
) -> None:
    vector = [1.0, *[0.0] * 31]
    long = [
        Record(f"long#{n}", "rye loaf", {"n": n % 2}, vector=vector, document_id="long", chunk=n)
        for n in range(450)
    ]
    short = [Record(f"s{n}", "rye, and much besides", {"n": n}, vector=vector) for n in range(3)]
    store.replace("long", long)
    store.upsert(short)
    store.build_text_index()
    queries: list[tuple[Any, str]] = [("any", "rye loaf"), ("web", "rye")]
    for syntax, query in queries:
        search = partial(store.search, query, text_syntax=syntax)
        assert len(search(k=1000, mode="text")) == 453
        assert len(search(k=420, mode="text")) == 420
        for mode in MODES:
            grouped = partial(search, mode=mode, group_by_document=True)
            found = grouped(k=4)
            assert {match.document_id for match in found} == {"long", "s0", "s1", "s2"}
            assert len(found) == 4
            assert len(grouped(k=3)) == 3
            odd = grouped(k=4, filter={"n": 1})
            assert sorted(match.document_id for match in odd) == ["long", "s1"]


@pytest.mark.by_words
def test_what_ingest_wrote_is_found_by_words_without_its_places(store: IngestStore) -> None:
    text = " ".join(f"word{i}" for i in range(200))
    ingest([Record("doc", text, {"lang": "en"})], store)
    store.build_text_index()
    for mode in MODES:
        best = store.search("word150", k=1, mode=mode, neighbours=1000)[0]
        assert "word150" in (best.text if mode == "text" else text)
        assert best.context == text
        assert best.metadata == {"lang": "en"}
