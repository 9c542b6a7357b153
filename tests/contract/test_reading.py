"""What every store gives back, and what it finds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from toastrack import Embedder, Match, Record
from toastrack.errors import FilterError, RecordError
from toastrack.filters import matches
from toastrack.stores.protocol import Store

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs
    from kinds import Kind
    from numpy.typing import NDArray

DIMENSIONS = 32
WORDS = ["rye", "wheat", "flour", "water", "salt", "dough", "oven", "crust", "warm", "cold", "sour"]


def texts(count: int) -> list[str]:
    random = Random(0)
    return [" ".join(random.sample(WORDS, random.randint(2, 8))) for _ in range(count)]


def records(count: int) -> list[Record]:
    return [
        Record(f"r{number:03}", text, {"third": number % 3, "number": number})
        for number, text in enumerate(texts(count))
    ]


def axis(position: int) -> list[float]:
    return [float(number == position) for number in range(DIMENSIONS)]


def check_matches(
    found: Sequence[Match],
    stored: Sequence[Record],
    vectors: NDArray[Any],
    query: NDArray[Any],
    precision: float,
) -> None:
    """Compare with a search by brute force over the given vectors."""
    scores = dict(zip((record.id for record in stored), vectors @ query, strict=True))
    best = sorted(scores.values(), reverse=True)[: len(found)]
    assert len({match.id for match in found}) == len(found)
    for match, score in zip(found, best, strict=True):
        assert match.score == pytest.approx(scores[match.id], abs=precision)
        # Another id is right only where the scores are as good as equal.
        assert scores[match.id] == pytest.approx(score, abs=1e-3)
    assert [match.score for match in found] == sorted(
        (match.score for match in found), reverse=True
    )


# -- get ----------------------------------------------------------------------------------------


def test_get_keeps_the_order_asked(store: Store) -> None:
    a, b, c = records(3)
    store.upsert([a, b, c])
    assert store.get([c.id, "nobody", a.id, c.id, "", b.id]) == [c, None, a, c, None, b]
    assert store.get(iter([b.id])) == [b]
    assert store.get([]) == []
    with pytest.raises(TypeError):
        store.get("r000")


METADATA: dict[str, dict[str, Any]] = {
    "empty": {},
    "scalars": {"none": None, "true": True, "false": False, "int": 1, "float": 1.0, "str": "1"},
    "floats": {"a": 0.1, "b": 1e23, "c": 1e-7, "d": 1e16, "e": 5e-324, "f": 1.7976931348623157e308},
    "more floats": {"a": -1e23, "b": 123456789012345680.0, "c": 1e22, "d": 100000.0, "e": 2.5e-15},
    "nested floats": {"a": [1e23, {"b": 1e300}], "c": "1e5", "1e5": 1},
    "zero": {"int": 0, "float": 0.0},
    "big ints": {"a": 2**53 + 1, "b": 2**63, "c": -(2**64), "d": 10**100, "e": 10**23},
    "nested": {"a": [1, [2, {"b": [None, True, {}]}], []], "c": {"d": {"e": {"f": "g"}}}},
    "unicode": {"ключ": "значение", "🍞": "e\u0301 \u00e9", "\u2028": "\u0085\ufeff", "א": "ב"},
    "control": {"a": "\t\n\r\x01\x1f\x7f", "\n": "\\u0041"},
    "quotes": {'"': "'", "'": '"', "\\": "\\\\", "$": "$$", "%s": "%(id)s", "{}": "{0}"},
    "keys": {"": "empty", " ": "blank", "a.b": 1, "$or": [], "id": "x", "text": "y", "__": 0},
    "long": {"a": "rye " * 5_000, "k" * 1_000: list(range(1_000))},
}


@pytest.mark.connection
def test_metadata_comes_back_to_the_letter(store: Store) -> None:
    stored = [Record(f"m {name}", "rye", metadata) for name, metadata in METADATA.items()]
    store.upsert(stored)

    found = store.get(record.id for record in stored)

    # As JSON, because 1 == 1.0 == True in Python.
    letters = {name: json.dumps(value, sort_keys=True) for name, value in METADATA.items()}
    assert {
        name: json.dumps(record and record.metadata, sort_keys=True)
        for name, record in zip(METADATA, found, strict=True)
    } == letters
    assert {
        match.id.removeprefix("m "): json.dumps(match.metadata, sort_keys=True)
        for match in store.search("rye", k=100)
    } == letters
    assert store.upsert(stored).unchanged == len(stored)


def test_what_nobody_has_is_not_found(store: Store) -> None:
    store.upsert([Record("a", "rye", {"v": "x"}, vector=axis(0))])
    for odd in ("a\0", "\0", "'", "", "x" * 10_000):
        assert store.get([odd, "a"])[0] is None
        assert store.delete([odd], [odd]) == 0
        assert store.search(axis(0), filter={"v": odd}) == []
    assert store.search(axis(0), filter={"v\0": "x"}) == []
    assert store.count() == 1


def test_minus_zero_keeps_its_sign(store: Store) -> None:
    record = Record("a", "rye", {"zero": -0.0, "text": "-0.0", "deep": [0.0, {"v": -0.0}]})
    store.upsert([record])
    (found,) = store.get(["a"])
    assert found is not None
    assert repr(found.metadata["zero"]) == "-0.0"
    assert str(found.metadata["deep"]) == "[0.0, {'v': -0.0}]"
    assert found.metadata["text"] == "-0.0"
    assert store.upsert([record]).unchanged == 1
    assert [match.id for match in store.search("rye", filter={"zero": 0})] == ["a"]


def test_metadata_may_be_nested_600_deep(store: Store) -> None:
    deep: Any = 1e23
    for level in range(600):
        deep = [deep] if level % 2 else {"v": deep}
    store.upsert([Record("a", "rye", {"deep": deep})])
    (found,) = store.get(["a"])
    assert found is not None
    assert json.dumps(found.metadata["deep"]) == json.dumps(deep)
    assert store.upsert([Record("a", "rye", {"deep": deep})]).unchanged == 1
    for _ in range(400):
        deep = [deep]
    with pytest.raises(RecordError, match=r"'b'.*deep"):
        store.upsert([Record("b", "rye", {"deep": deep})])


def test_metadata_of_a_source_that_uses_it_again_is_what_it_was(store: Store) -> None:
    def source() -> Iterator[Record]:
        metadata: dict[str, Any] = {"tags": []}
        for number in range(20):
            metadata["n"] = number
            metadata["tags"] += [number]
            yield Record(f"r{number:02}", "rye", metadata, vector=axis(number))

    store.upsert(source())
    found = store.get(f"r{number:02}" for number in range(20))
    assert [record and record.metadata for record in found] == [
        {"n": number, "tags": list(range(number + 1))} for number in range(20)
    ]


def test_scalars_of_numpy_are_pythons(store: Store) -> None:
    metadata = {"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x")}
    store.upsert([Record("a", "rye", {**metadata, "list": [np.int8(1)]}, chunk=np.int64(7))])  # type: ignore[arg-type]
    (found,) = store.get(["a"])
    assert found is not None
    assert json.dumps(found.metadata, sort_keys=True) == json.dumps(
        {"i": 3, "f": 0.5, "b": True, "s": "x", "list": [1]}, sort_keys=True
    )
    assert found.chunk == 7
    for key, value in metadata.items():
        (match,) = store.search(axis(0), np.int64(5), {key: value})  # type: ignore[arg-type]
        assert match.id == "a"
        assert store.search(axis(0), filter={key: {"$ne": value}}) == []
    assert store.search(axis(0), filter={"i": {"$in": np.arange(4)}, "f": {"$lt": np.float16(1)}})


def test_texts_come_back_to_the_letter(make_store: MakeStore, embedder: Embedder) -> None:
    store = make_store(Embedder(embedder.model, device="cpu", on_truncate="ignore"))
    odd = [
        "",
        " ",
        "\n",
        " rye ",
        "a\r\nb\tc\x01\x7f",
        "e\u0301",
        "\u00e9",
        "🍞 хлеб לחם \u202e\u2028\ufeff",
        "\\N \\. \\x00 'quotes' \"more\" %s %(id)s {} {0} $1 :b ?",
        "NULL",
        "rye " * 50_000,
    ]
    stored = [Record(f"t{number}", text) for number, text in enumerate(odd)]
    store.upsert(stored)
    assert store.get(record.id for record in stored) == stored
    assert {match.text for match in store.search("rye", k=100)} == set(odd)


IDS = [
    "a",
    "A",
    " a",
    "a ",
    " ",
    "0",
    "007",
    "7",
    "null",
    "NULL",
    "None",
    "a/b/c.md",
    "../a",
    "C:\\a",
    "a#0",
    "a,b",
    "{a}",
    '{"a"}',
    '"',
    "'",
    "o'brien",
    "'; drop table x; --",
    "%",
    "_",
    "%s",
    "$1",
    ":b",
    "a\nb",
    "\t",
    "ключ",
    "🍞",
    "e\u0301",
    "\u00e9",
    "\u00df",
    "ss",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
    "x" * 500,
    "x" * 499 + "y",
    "é" * 500,
]


def test_ids_are_any_text(store: Store) -> None:
    stored = [
        Record(id, "rye", {"n": n}, vector=axis(n % DIMENSIONS), document_id=f"doc of {id}")
        for n, id in enumerate(IDS)
    ]
    assert store.upsert(stored).written == len(IDS)
    assert store.count() == store.count(documents=True) == len(IDS)
    assert store.get(IDS) == stored
    assert store.upsert(stored).unchanged == len(IDS)
    assert {match.id for match in store.search(axis(0), k=100)} == set(IDS)
    assert set(store.document_ids()) == {f"doc of {id}" for id in IDS}
    for position, id in enumerate(IDS):
        assert store.delete([id]) == 1, id
        assert store.count() == len(IDS) - position - 1


def test_documents_and_chunks_come_back(store: Store) -> None:
    stored = [
        Record("own", "rye", vector=axis(0)),
        Record("first", "rye", document_id="book", chunk=0, vector=axis(0)),
        Record("late", "rye", document_id="book", chunk=2**31 - 1, vector=axis(0)),
        Record("whole", "rye", document_id="", vector=axis(0)),
        Record("alone", "rye", chunk=3, vector=axis(0)),
    ]
    store.upsert(stored)
    expected = {
        "own": ("own", None),
        "first": ("book", 0),
        "late": ("book", 2**31 - 1),
        "whole": ("", None),
        "alone": ("alone", 3),
    }
    assert store.get(record.id for record in stored) == stored
    found = {match.id: (match.document_id, match.chunk) for match in store.search(axis(0))}
    assert found == expected


# -- search -------------------------------------------------------------------------------------


@pytest.mark.connection
def test_search_equals_brute_force(store: Store, kind: Kind) -> None:
    stored = records(40)
    store.upsert(stored)
    vectors = store.embedder.embed_documents([record.text for record in stored])

    for query in ("why is rye sour?", "sweet wheat crust", stored[7].text, ""):
        vector = store.embedder.embed_query(query)
        for k in (1, 10, 40):
            found = store.search(query, k=k)
            assert len(found) == k
            check_matches(found, stored, vectors, vector, kind.precision)


def test_a_match_says_all_there_is(store: Store, kind: Kind) -> None:
    record = Record("a", "rye", {"lang": "en", "n": [1]}, document_id="book", chunk=4)
    store.upsert([record])
    (match,) = store.search(store.embedder.embed_documents(["rye"])[0])
    assert match == Match(
        "a", "rye", match.score, {"lang": "en", "n": [1]}, "book", 4, score_kind="cosine"
    )
    assert type(match.score) is float
    assert match.score == pytest.approx(1, abs=kind.precision)


@pytest.mark.parametrize("exact", [False, True])
def test_as_many_as_asked_for_and_no_more_than_there_are(store: Store, exact: bool) -> None:
    assert store.search("rye", exact=exact) == []
    store.upsert(records(12))
    for k, expected in [(0, 0), (1, 1), (11, 11), (12, 12), (13, 12), (5_000, 12)]:
        assert len(store.search("rye", k=k, exact=exact)) == expected
    assert len(store.search("rye")) == 10


def test_k_is_a_whole_number(store: Store) -> None:
    wrong: list[Any] = [
        -1,
        True,
        1.0,
        "3",
        None,
        2**63,
        10**5_000,
        np.float32(1),
        np.bool_(1),
    ]
    for k in wrong:
        with pytest.raises(ValueError, match="k="):
            store.search("rye", k=k)


def test_what_is_no_text_is_no_query(store: Store) -> None:
    with pytest.raises(ValueError, match="The query holds a lone surrogate"):
        store.search("rye \ud800")


def test_all_are_found_by_the_largest_k(store: Store) -> None:
    store.upsert(records(12))
    for filter in (None, {"third": 1}, {"third": {"$ne": 1}}):
        expected = len([r for r in records(12) if matches(r.metadata, filter)])
        assert len(store.search("rye", k=2**63 - 1, filter=filter)) == expected


def test_scores_are_cosines(store: Store, kind: Kind) -> None:
    store.upsert(
        [
            Record("same", "rye", vector=axis(0)),
            Record("near", "rye", vector=[1.0, 1.0] + [0.0] * 30),
            Record("across", "rye", vector=axis(1)),
            Record("opposite", "rye", vector=[-5.0] + [0.0] * 31),
        ]
    )
    found = store.search([2.0] + [0.0] * 31, k=9)
    assert [match.id for match in found] == ["same", "near", "across", "opposite"]
    assert [match.score for match in found] == pytest.approx(
        [1, math.sqrt(0.5), 0, -1], abs=kind.precision
    )


def test_a_vector_can_be_the_query(store: Store, kind: Kind, runs: Runs) -> None:
    stored = records(30)
    store.upsert(stored)
    vectors = store.embedder.embed_documents([record.text for record in stored])
    vector = np.random.default_rng(1).normal(size=DIMENSIONS)
    vector /= np.linalg.norm(vector)
    runs.clear()

    given = [
        vector,
        vector.astype(np.float32),
        vector.tolist(),
        tuple(vector * 17),
        (vector * 1e-12).tolist(),
    ]
    for query in given:
        check_matches(store.search(query, k=10), stored, vectors, vector, kind.precision)
    assert not runs


NO_QUERIES: dict[str, Any] = {
    "short": [1.0] * 31,
    "long": [1.0] * 33,
    "empty": [],
    "matrix": np.ones((1, DIMENSIONS)),
    "NaN": [math.nan] + [1.0] * 31,
    "infinity": np.array([math.inf] + [1.0] * 31),
    "zero": [0.0] * DIMENSIONS,
    "texts": ["x"] * DIMENSIONS,
    "numbers as texts": ["1.0"] * DIMENSIONS,
    "complex": [1j] * DIMENSIONS,
    "too large": [10**400] * DIMENSIONS,
    "None": None,
    "number": 7,
}


@pytest.mark.parametrize(
    ("query", "what"),
    [(["rye", "salt"], "list of texts"), (None, "NoneType"), (b"rye", "bytes"), ({}, "dict")],
)
def test_one_text_or_vector_is_a_query(store: Store, query: Any, what: str) -> None:
    with pytest.raises(ValueError, match=f"^A query is one text or one vector, not {what}\\.$"):
        store.search(query)


def test_what_has_no_direction_is_no_query(store: Store) -> None:
    store.upsert(records(2))
    for query in NO_QUERIES.values():
        for exact in (False, True):
            with pytest.raises(ValueError, match="query"):
                store.search(query, exact=exact)
    assert len(store.search("rye")) == 2


def test_a_query_is_embedded_as_a_query(store: Store, kind: Kind) -> None:
    text = "rye bread keeps fresh"
    store.upsert([Record("a", text)])
    embedder = store.embedder
    cosine = float(embedder.embed_query(text) @ embedder.embed_documents([text])[0])
    assert cosine < 0.95, "the model's prompt hardly moves the vector: the test says nothing"

    (as_text,) = store.search(text)
    (as_query,) = store.search(embedder.embed_query(text))
    (as_document,) = store.search(embedder.embed_documents([text])[0])

    assert as_text.score == pytest.approx(cosine, abs=kind.precision)
    assert as_query.score == pytest.approx(as_text.score, abs=1e-6)
    assert as_document.score == pytest.approx(1, abs=kind.precision)


def test_a_document_is_embedded_as_a_document(
    make_store: MakeStore, embedder: Embedder, kind: Kind
) -> None:
    prompted = Embedder(embedder.model, device="cpu", query_prompt="", document_prompt="what: ")
    store = make_store(prompted)
    store.upsert([Record("a", "rye bread")])
    (match,) = store.search(embedder.embed_documents(["what: rye bread"])[0])
    assert match.score == pytest.approx(1, abs=kind.precision)


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_less_similar_is_left_out(store: Store, exact: bool) -> None:
    near = [0.8, 0.6, *[0.0] * (DIMENSIONS - 2)]
    vectors = {"same": axis(0), "near": near, "far": axis(1), "behind": [-1.0, *near[2:], 0.0]}
    store.upsert(Record(id, "rye", vector=vector) for id, vector in vectors.items())
    expected: dict[Any, list[str]] = {
        None: ["same", "near", "far", "behind"],
        -1: ["same", "near", "far", "behind"],
        -0.5: ["same", "near", "far"],
        np.float32(0.7): ["same", "near"],
        0.9: ["same"],
    }
    for lowest, ids in expected.items():
        found = store.search(axis(0), exact=exact, min_score=lowest)
        assert [match.id for match in found] == ids, lowest
    assert len(store.search(axis(0), k=1, exact=exact, min_score=0.7)) == 1
    assert store.search(axis(2), exact=exact, min_score=0.7) == []


def test_a_lowest_score_is_a_cosine(store: Store) -> None:
    wrong: list[Any] = [1.01, -80, math.nan, math.inf, True, "0.5", 10**400]
    for lowest in wrong:
        with pytest.raises(ValueError, match=r"min_score=.* from -1 to 1"):
            store.search(axis(0), min_score=lowest)


def test_exact_search_finds_the_same(store: Store, kind: Kind) -> None:
    stored = records(60)
    store.upsert(stored)
    vectors = store.embedder.embed_documents([record.text for record in stored])
    plain = store.search("sour rye", k=20)

    store.build_index()
    assert store.build_index() is False

    vector = store.embedder.embed_query("sour rye")
    exact = store.search("sour rye", k=20, exact=True)
    assert [match.score for match in exact] == pytest.approx(
        [match.score for match in plain], abs=1e-6
    )
    check_matches(exact, stored, vectors, vector, kind.precision)
    check_matches(store.search("sour rye", k=60), stored, vectors, vector, kind.precision)


def test_the_index_follows_what_is_written(store: Store) -> None:
    store.upsert([Record("a", "rye", vector=axis(0)), Record("b", "rye", vector=axis(1))])
    store.build_index()
    store.upsert([Record("c", "rye", vector=axis(2)), Record("a", "rye", vector=axis(3))])
    store.delete(["b"])
    assert [match.id for match in store.search(axis(2), k=1)] == ["c"]
    assert [match.id for match in store.search(axis(3), k=1)] == ["a"]
    assert {match.id for match in store.search(axis(0), k=10)} == {"a", "c"}


@pytest.mark.connection
def test_one_store_serves_many_threads(store: Store) -> None:
    def use(thread: int) -> int:
        mine = [
            Record(f"{thread} {n}", "rye", {"thread": thread}, vector=axis(n)) for n in range(5)
        ]
        store.replace_many((record.id, [record]) for record in mine)
        store.upsert(mine)
        found = store.search(axis(0), k=50, filter={"thread": thread})
        assert sorted(match.id for match in found) == [record.id for record in mine]
        return len(store.get(record.id for record in mine))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(8))) == [5] * 8
    assert store.count() == 40


# -- filters ------------------------------------------------------------------------------------

HOSTILE = [
    "o'brien",
    "'; drop table x; --",
    "zzz' OR '1'='1",
    "007",
    " :b",
    ":b",
    "%s",
    "%",
    "_",
    '"',
    '\\"',
    "\\",
    "\\u0041",
    "{}",
    "[1]",
    '{"v":1}',
    "null",
    "true",
    "e\u0301",
    "\u00e9",
    "🍞",
    "a\nb",
    "x" * 2_000,
]
STORED: dict[str, dict[str, Any]] = {
    "int": {"v": 1, "lang": "en"},
    "float": {"v": 1.0, "lang": "de"},
    "true": {"v": True, "lang": "en"},
    "zero": {"v": 0},
    "zero float": {"v": 0.0},
    "false": {"v": False},
    "text 1": {"v": "1"},
    "text true": {"v": "True"},
    "list": {"v": [1, "en", True]},
    "list of one": {"v": ["en"]},
    "nested": {"v": {"w": 1}},
    "deeper": {"w": {"v": "en"}},
    "null": {"v": None},
    "nothing": {},
    "empty text": {"v": ""},
    "en": {"v": "en", "lang": "en"},
    "EN": {"v": "EN"},
    "en blank": {"v": "en "},
    "half": {"v": 0.5},
    "minus": {"v": -1},
    "big": {"v": 2**53 + 1},
    "huge": {"v": 1e23},
    "tiny": {"v": 1e-7},
}
STORED.update({f"hostile {text}": {"v": text} for text in HOSTILE})
HOSTILE_KEYS = [
    "it's",
    'say "hi"',
    "two words",
    "my-key",
    "ключ",
    "🍞",
    "'; drop table x; --",
    "a$b",
    "a:b",
    "%s",
    "%(id)s",
    "a\\b",
    "{a}",
    "[0]",
    "v->w",
    "id",
    "Lang",
    "k" * 300,
]
STORED.update({f"key {key}": {key: "x"} for key in HOSTILE_KEYS})
EVERYTHING = set(STORED)
CASES: list[tuple[dict[str, Any] | None, set[str]]] = [
    (None, EVERYTHING),
    ({}, EVERYTHING),
    ({"v": 1}, {"int", "float"}),
    ({"v": 1.0}, {"int", "float"}),
    ({"v": True}, {"true"}),
    ({"v": 0}, {"zero", "zero float"}),
    ({"v": -0.0}, {"zero", "zero float"}),
    ({"v": False}, {"false"}),
    ({"v": "1"}, {"text 1"}),
    ({"v": "True"}, {"text true"}),
    ({"v": "en"}, {"en"}),
    ({"v": "EN"}, {"EN"}),
    ({"v": "en "}, {"en blank"}),
    ({"v": "e"}, set()),
    ({"v": ""}, {"empty text"}),
    ({"v": "None"}, set()),
    ({"v": 0.5}, {"half"}),
    ({"v": -1}, {"minus"}),
    ({"v": 2}, set()),
    ({"v": 2**53}, set()),
    ({"v": 2**53 + 1}, {"big"}),
    ({"v": 1e23}, {"huge"}),
    ({"v": 1e-7}, {"tiny"}),
    ({"w": 1}, set()),
    ({"lang": "en"}, {"int", "true", "en"}),
    ({"lang": "en", "v": 1}, {"int"}),
    ({"v": 1.0, "lang": "de"}, {"float"}),
    ({"lang": "en", "v": 2}, set()),
    ({"lang": "en", "unknown": 1}, set()),
    ({"V": 1}, set()),
    *(({"v": text}, {f"hostile {text}"}) for text in HOSTILE),
    *(({key: "x"}, {f"key {key}"}) for key in HOSTILE_KEYS),
    *(({key: "y"}, set()) for key in HOSTILE_KEYS),
]


def test_filters(store: Store) -> None:
    store.upsert(
        Record(name, "rye", metadata, vector=axis(n % DIMENSIONS))
        for n, (name, metadata) in enumerate(STORED.items())
    )
    for exact in (False, True):
        found = [
            (filter, {match.id for match in store.search(axis(0), 1_000, filter, exact)})
            for filter, _ in CASES
        ]
        assert [case for case in found if case not in CASES] == []
    assert store.count() == len(STORED)


def test_the_best_of_those_that_match(store: Store, kind: Kind) -> None:
    stored = records(60)
    store.upsert(stored)
    chosen = [record for record in stored if record.metadata["third"] == 1]
    vectors = store.embedder.embed_documents([record.text for record in chosen])
    vector = store.embedder.embed_query("sour rye")
    for k, expected in [(1, 1), (5, 5), (20, 20), (21, 20), (1_000, 20)]:
        found = store.search("sour rye", k=k, filter={"third": 1})
        assert len(found) == expected
        check_matches(found, chosen, vectors, vector, kind.precision)
    (only,) = store.search("sour rye", filter={"third": 1, "number": 31})
    assert only.id == "r031"


WRONG_FILTERS: list[Any] = [
    {"v": None},
    {"v": [1]},
    {"v": ["en"]},
    {"v": ("en",)},
    {"v": {"w": 1}},
    {"v": {}},
    {"v": {"$eq": 1, "w": 1}},
    {"v": {"$not": 1}},
    {"v": {"$gt": True}},
    {"v": {"$in": "en"}},
    {"v": {"$exists": 1}},
    {"v": 10**5_000},
    {"v": b"en"},
    {"v": math.nan},
    {"v": math.inf},
    {"v": "\ud800"},
    {"v.w": 1},
    {"v.": 1},
    {"$or": "x"},
    {"$or": []},
    {"$and": [{"v": None}]},
    {"$v": 1},
    {1: 1},
    {"lang": "en", "v": None},
    [("v", 1)],
    "v=1",
]


def test_what_is_no_filter_is_refused(store: Store) -> None:
    store.upsert([Record("a", "rye", {"v": "en", "v.w": 1, "$or": "x"}, vector=axis(0))])
    for wrong in WRONG_FILTERS:
        for k in (10, 0):
            with pytest.raises(FilterError) as caught:
                store.search(axis(0), k=k, filter=wrong)
            assert isinstance(caught.value, ValueError)
    assert len(store.search(axis(0), filter={"v": "en"})) == 1


def test_a_filter_may_be_large(store: Store) -> None:
    many = {f"k{number}": number for number in range(3_000)}
    store.upsert(
        [
            Record(
                "all", "rye", {"many": many, **dict(list(many.items())[:2_000])}, vector=axis(0)
            ),
            Record("one", "rye", {"k7": 7, "n": 2**60 + 7}, vector=axis(1)),
        ]
    )
    some = dict(list(many.items())[:2_000])
    assert [match.id for match in store.search(axis(0), filter=some)] == ["all"]
    assert store.search(axis(0), filter=many) == []
    any_of = {"$or": [{key: value} for key, value in many.items()]}
    assert [match.id for match in store.search(axis(0), filter=any_of)] == ["all", "one"]
    store.delete(["all"])  # a host would unpack it again for every value
    ints = [2**60 + number for number in range(40_000)]
    assert [match.id for match in store.search(axis(0), filter={"n": {"$in": ints}})] == ["one"]
    texts = [f"t{number}" for number in range(40_000)]
    assert store.search(axis(0), filter={"k7": {"$in": texts}}) == []
    assert len(store.search(axis(0), filter={"k7": {"$nin": texts}})) == 1
    deep: dict[str, Any] = {"k7": 7}
    for _ in range(15):
        deep = {"$or": [{"$and": [deep, {"k7": {"$ne": 8}}]}, {"k7": 9}]}
    assert len(store.search(axis(0), filter=deep)) == 1
    for _ in range(15):
        deep = {"$or": [deep]}
    with pytest.raises(FilterError, match="deep"):
        store.search(axis(0), filter={"$and": [deep, {"$and": [deep]}]})
    with pytest.raises(FilterError, match="conditions"):
        store.search(axis(0), filter={f"k{number}": number for number in range(20_000)})
