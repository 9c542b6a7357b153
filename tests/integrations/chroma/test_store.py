"""What is Chroma's own about the store: limits, restarts, and collections that others made."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from random import Random
from threading import Barrier, Event
from typing import Any

# ruff: noqa: E402
import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

import chromadb
from chroma_server import close_client, start_chroma
from chromadb.api.types import EmbeddingFunction
from chromadb.config import Settings
from chromadb.errors import InternalError, NotFoundError
from chromadb.utils.embedding_functions import known_embedding_functions

from toastrack import Embedder, Record, ingest
from toastrack.errors import (
    ConnectionLostError,
    RecordError,
    SpaceMismatchError,
    StoreError,
    UnprovenWarning,
)
from toastrack.stores import record_space, recorded_space
from toastrack_chroma import (
    AsyncChromaStore,
    ChromaStore,
    ToastrackEmbeddingFunction,
    backend,
    host_errors,
    open_collection,
    rows,
)
from toastrack_chroma.codec import MAX_FIELDS

# One worker of pytest-xdist runs them all, on one server.
with_own_server = pytest.mark.xdist_group("Chroma that goes and comes")

A = Record("a", "rye bread keeps fresh", {"lang": "en", "n": 1})
B = Record("b", "salt is in the dough", {"lang": "de", "n": 2})
COSINE = {"hnsw": {"space": "cosine"}}


def ready(number: int, seed: int = 0, *, text: str = "text") -> list[Record]:
    """Records with vectors of their own, so that no model is needed."""
    vectors = np.random.default_rng(seed).normal(size=(number, 32))
    return [
        Record(f"{n:05}", f"{text} {n}", {"n": n}, vector=vector)
        for n, vector in enumerate(vectors)
    ]


# -- the space ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({"query_prompt": "q: "}, "query_prompt"),
        ({"document_prompt": "d: "}, "document_prompt"),
        ({"dimensions": 16}, "dimensions"),
        ({}, "weights"),
    ],
)
def test_another_space_is_named(
    http: Any, embedder: Embedder, other_folder: Path, setting: dict[str, Any], names: str
) -> None:
    open_collection(http, "docs", embedder)
    model = embedder.model if setting else other_folder
    other = Embedder(model, device="cpu", **setting)
    calls: list[Callable[[], Any]] = [
        lambda: open_collection(http, "docs", other),
        lambda: open_collection(http, "docs", other, adopt=True),
        lambda: ChromaStore(http, "docs", embedder=other).open(),
    ]
    for open_it in calls:
        with pytest.raises(SpaceMismatchError, match="'docs'") as caught:
            open_it()
        assert set(caught.value.differences) == {names}


def test_open_collection_is_chromas_own(client: Any, embedder: Embedder) -> None:
    collection = open_collection(client, "docs", embedder)
    assert isinstance(collection, chromadb.Collection)
    collection.add(ids=["a", "b"], documents=[A.text, B.text])
    answer: Any = collection.query(query_texts=["which bread keeps fresh?"])
    documents = dict(zip("ab", embedder.embed_documents([A.text, B.text]), strict=True))
    query = embedder.embed_query("which bread keeps fresh?")
    for id, distance in zip(answer["ids"][0], answer["distances"][0], strict=True):
        assert distance == pytest.approx(1 - float(documents[id] @ query), abs=1e-5)
    # What it wrote is a store's, too; and again it is opened, not created.
    store = ChromaStore(client, "docs", embedder=embedder, create=False)
    assert store.get(["a"]) == [Record("a", A.text)]
    assert [match.id for match in store.search("which bread keeps fresh?")] == answer["ids"][0]
    assert open_collection(client, "docs", embedder, create=False).count() == 2
    with pytest.raises(StoreError, match="no collection 'other'"):
        open_collection(client, "other", embedder, create=False)


def foreign(client: Any, embedder: Embedder, **settings: Any) -> Any:
    """A collection that somebody filled with plain Chroma and the same model."""
    # Chroma writes its own entry into a configuration.
    collection = client.create_collection("docs", **deepcopy(settings))
    vectors = embedder.embed_documents([A.text, B.text])
    collection.add(
        ids=["a", "b", "empty"],
        embeddings=[*vectors, vectors[0]],
        documents=[A.text, B.text, None],
        metadatas=[{"lang": "en"}, None, None],
    )
    return collection


MADE: dict[str, dict[str, Any]] = {
    "the default function": {"configuration": COSINE},
    "no function": {"embedding_function": None, "configuration": COSINE},
    "metadata": {"embedding_function": None, "metadata": {"hnsw:space": "cosine", "mine": 1}},
    "our function": {"embedding_function": ToastrackEmbeddingFunction(), "metadata": {"mine": 1}},
}


@pytest.mark.parametrize("how", MADE)
def test_adopting_what_plain_chroma_made(client: Any, embedder: Embedder, how: str) -> None:
    foreign(client, embedder, **MADE[how])
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        ChromaStore(client, "docs", embedder=embedder).open()
    store = ChromaStore(client, "docs", embedder=embedder, adopt=True)
    with pytest.warns(UnprovenWarning, match="2 texts embedded again"):
        store.open()
    assert store.get(["a", "b", "empty"]) == [
        Record("a", A.text, {"lang": "en"}),
        Record("b", B.text),
        Record("empty", ""),
    ]
    assert [match.id for match in store.search("rye", filter={"lang": "en"})] == ["a"]
    assert store.count(documents=True) == 3
    assert store.upsert([A]).embedded == 1  # nobody knows how the old one was embedded
    assert ChromaStore(client, "docs", embedder=embedder).get(["a"]) == [A]
    assert store.audit() == []
    kept = client.get_collection("docs", embedding_function=None).metadata
    assert kept.get("mine") == MADE[how].get("metadata", {}).get("mine")
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        ChromaStore(client, "docs", embedder=Embedder(embedder.model, query_prompt="")).open()


class Spy(EmbeddingFunction[Any]):
    """A function that a server names and that nobody here asked for."""

    built: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self) -> None:
        pass

    def __call__(self, input: Any) -> Any:
        raise AssertionError

    @staticmethod
    def name() -> str:
        return "spy"

    def get_config(self) -> dict[str, Any]:
        return {"kwargs": {"trust_remote_code": True}}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> Spy:
        Spy.built.append(config)
        return Spy()


@pytest.fixture
def spy() -> Iterator[type[Spy]]:
    yield Spy
    known_embedding_functions.pop("spy", None)


def test_a_store_builds_no_function_that_a_server_names(
    client: Any, embedder: Embedder, spy: type[Spy]
) -> None:
    foreign(client, embedder, embedding_function=spy(), configuration=COSINE)
    client.get_collection("docs").add(ids=["x"], embeddings=[[1.0] * 32])
    assert spy.built, "plain Chroma builds it at each write"
    spy.built.clear()
    store = ChromaStore(client, "docs", embedder=embedder, adopt="unchecked")
    store.upsert([A, B, Record("c", "wheat")])
    store.search("rye")
    store.delete(["c"])
    assert not spy.built
    with pytest.raises(StoreError, match=r"'spy' and Chroma takes none other.*rebuild\(\)"):
        open_collection(client, "docs", embedder)
    store.rebuild()
    assert open_collection(client, "docs", embedder).count() == 4
    assert not spy.built


def test_another_distance_is_refused(client: Any, embedder: Embedder) -> None:
    for distance in ("l2", "ip"):
        name = f"docs-{distance}"
        client.create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": distance}}
        )
        for adopt in (False, True):
            with pytest.raises(StoreError, match=f"compares by '{distance}'"):
                ChromaStore(client, name, embedder=embedder, adopt=adopt).open()
            with pytest.raises(StoreError, match=f"compares by '{distance}'"):
                open_collection(client, name, embedder, adopt=adopt)
        with pytest.raises(StoreError, match=f"asks for the distance '{distance}'"):
            ChromaStore(
                client, "new", embedder=embedder, configuration={"hnsw": {"space": distance}}
            )
    client.create_collection("unsaid", embedding_function=None)  # Chroma means l2
    with pytest.raises(StoreError, match="compares by 'l2'"):
        ChromaStore(client, "unsaid", embedder=embedder, adopt=True).open()


def test_all_that_is_wrong_is_said_at_once(client: Any, embedder: Embedder) -> None:
    client.create_collection("docs", embedding_function=Spy())  # Chroma means l2
    says = r"compares by 'l2'.*; it was made with .*'spy'.*\. Use a new one"
    with pytest.raises(StoreError, match=says):
        open_collection(client, "docs", embedder)


def test_settings_of_the_index_pass_through(client: Any, embedder: Embedder) -> None:
    settings = {"hnsw": {"ef_search": 77, "max_neighbors": 9}}
    ChromaStore(client, "docs", embedder=embedder, configuration=settings).open()
    assert settings == {"hnsw": {"ef_search": 77, "max_neighbors": 9}}
    index = client.get_collection("docs").configuration_json["hnsw"]
    assert (index["ef_search"], index["max_neighbors"], index["space"]) == (77, 9, "cosine")


@pytest.mark.parametrize("name", ["x", "a b c", "a" * 513, "-abc", "ключ"])
def test_a_name_that_chroma_refuses(client: Any, embedder: Embedder, name: str) -> None:
    with pytest.raises(StoreError, match=r"cannot be created.*3-512 characters"):
        ChromaStore(client, name, embedder=embedder).open()


def test_what_is_no_client(embedder: Embedder) -> None:
    no_client: Any = "http://localhost:8000"
    with pytest.raises(TypeError, match="PersistentClient"):
        ChromaStore(no_client, embedder=embedder)
    with pytest.raises(TypeError, match="AsyncHttpClient"):
        AsyncChromaStore(no_client, embedder=embedder)


def test_many_open_a_new_collection_at_once(
    client: Any, another: Callable[[], Any], embedder: Embedder, request: pytest.FixtureRequest
) -> None:
    over_http = "http" in request.node.name
    clients = [client, *(another() if over_http else client for _ in range(5))]
    start = Barrier(len(clients))

    def use(number: int) -> None:
        start.wait(300)
        store = ChromaStore(clients[number], "docs", embedder=embedder)
        store.upsert([Record(str(number), A.text)])

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(use, range(len(clients))))
    store = ChromaStore(client, "docs", embedder=embedder, create=False)
    assert store.count() == len(clients)
    assert store.audit() == []


def test_two_spaces_cannot_both_create(http: Any, another: Any, embedder: Embedder) -> None:
    other = Embedder(embedder.model, device="cpu", query_prompt="other: ")
    start = Barrier(2)

    def use(client: Any, mine: Embedder) -> bool:
        start.wait(300)
        try:
            ChromaStore(client, "docs", embedder=mine).open()
        except SpaceMismatchError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(use, [http, another()], [embedder, other]))
    assert sorted(done) == [False, True]


def test_two_spaces_cannot_both_be_recorded(
    client: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found none in an empty collection of somebody's, and one wrote after the other."""
    client.create_collection("docs", embedding_function=None, configuration=deepcopy(COSINE))
    other = Embedder(embedder.model, device="cpu", query_prompt="other: ")
    theirs = ChromaStore(client, "theirs", embedder=other)
    theirs.upsert([A])
    server = type(client._server)
    modify = server._modify

    def both(self: Any, *args: Any, **options: Any) -> None:
        modify(self, *args, **options)
        monkeypatch.undo()
        recorded = client.get_collection("theirs", embedding_function=None).metadata
        client.get_collection("docs", embedding_function=None).modify(metadata=recorded)

    monkeypatch.setattr(server, "_modify", both)
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        ChromaStore(client, "docs", embedder=embedder).upsert([A])
    store = ChromaStore(client, "docs", embedder=other)
    assert store.upsert([A]).written == 1
    assert store.space == theirs.space


# -- searching ----------------------------------------------------------------------------------


def test_chromas_conditions_beside_the_filter(client: Any, embedder: Embedder) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    store.upsert(
        Record(f"{lang}{n}", f"{word} bread {n}", {"lang": lang, "n": n, "x.y": n % 2})
        for lang, word in (("en", "rye"), ("de", "wheat"))
        for n in range(6)
    )

    def found(**settings: Any) -> set[str]:
        both = [store.search("rye", k=20, exact=exact, **settings) for exact in (False, True)]
        assert [match.id for match in both[0]] == [match.id for match in both[1]]
        return {match.id for match in both[0]}

    assert found(where={"n": {"$gt": 4}}) == {"en5", "de5"}
    assert found(where={"n": {"$gt": 3}}, filter={"lang": "en"}) == {"en4", "en5"}
    assert found(where={"x.y": 1}, filter={"lang": "de", "n": 3.0}) == {"de3"}
    assert found(where_document={"$contains": "wheat"}, where={"n": {"$lt": 2}}) == {"de0", "de1"}
    assert found(
        where={"$or": [{"n": 1}, {"n": 2}]},
        where_document={"$not_contains": "rye"},
        filter={"lang": "de"},
    ) == {"de1", "de2"}
    assert found(where={}, where_document={}) == found()
    assert found(filter={"n": 2.5}, where={"n": 2}) == set()
    with pytest.raises(ValueError, match="where"):
        store.search("rye", where={"n": {"$like": 1}})


@pytest.mark.rest
def test_more_rows_than_chroma_takes_and_more_hits_than_it_pages(
    client: Any, embedder: Embedder
) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    number = client.get_max_batch_size() + 600
    records = ready(number)
    assert store.replace("book", records).written == number
    assert (store.count(), store.count(documents=True)) == (number, 1)
    vector = records[7].vector
    assert vector is not None
    for k in (5_500, number + 1, 2**31, 2**62):
        found = store.search(vector, k=k)
        assert len(found) == min(k, number)
        assert found[0].id == "00007"
        assert found == sorted(found, key=lambda match: -match.score)
    ids = [f"{n:05}" for n in range(10_000)]
    got = store.get(ids)
    assert [record.id for record in got if record is not None] == ids[:number]
    assert store.delete(ids[1:]) == number - 1
    assert store.count() == 1


# -- what a server takes ------------------------------------------------------------------------


@pytest.fixture(
    params=[
        pytest.param(40, id="a fortieth"),
        pytest.param(1, id="in full", marks=pytest.mark.rest),
    ]
)
def part(request: pytest.FixtureRequest) -> int:
    """How much smaller all sizes are than those of a server that nobody has set up."""
    number: int = request.param
    return number


@pytest.fixture
def limited(
    part: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A client of a server that takes requests of 40 MiB, or of a part of that."""
    if part == 1:
        yield request.getfixturevalue("http")
        return
    monkeypatch.setattr("toastrack_chroma.rows.MAX_BYTES", rows.MAX_BYTES // part)
    process, port = start_chroma(tmp_path / "chroma", max_request=40 * 2**20 // part)
    client = chromadb.HttpClient(host="127.0.0.1", port=port)
    yield client
    close_client(client)
    process.terminate()
    process.wait()


def test_requests_stay_under_the_servers_limit(limited: Any, part: int, embedder: Embedder) -> None:
    """In full 60 MB in one document, where a request may have 40 MiB."""
    store = ChromaStore(limited, "docs", embedder=embedder)
    large = {"note": ["ü" * (100_000 // part)]}  # a list, which Chroma does not index
    records = [Record(r.id, r.text, large, r.vector) for r in ready(300)]
    assert store.replace("book", records).written == 300
    other = {"note": ["ö" * (100_000 // part)]}
    assert store.replace("book", [Record(r.id, r.text, other, r.vector) for r in records])
    assert store.get(["00299"]) == [Record("00299", "text 299", other, document_id="book")]


def test_a_record_over_the_servers_limit_is_named(
    limited: Any, part: int, embedder: Embedder
) -> None:
    store = ChromaStore(limited, "docs", embedder=embedder)
    large = Record("large", "ü" * (22_000_000 // part), vector=[1.0] * 32)
    with pytest.raises(RecordError, match=r"'large'.*max_payload_size_bytes"):
        store.upsert([A, large, B])
    assert store.upsert([A, B]).read == 2


def test_a_server_with_a_smaller_limit(tmp_path: Path, embedder: Embedder) -> None:
    process, port = start_chroma(tmp_path / "chroma", max_request=50_000)
    try:
        client = chromadb.HttpClient(host="127.0.0.1", port=port)
        store = ChromaStore(client, "docs", embedder=embedder)
        assert store.upsert(ready(500, text="x" * 300)).written == 500
        assert store.count() == 500
        assert store.audit() == []
        with pytest.raises(RecordError, match="'00000'"):
            store.upsert(ready(1, text="x" * 60_000))
        close_client(client)
    finally:
        process.terminate()
        process.wait()


# -- metadata -----------------------------------------------------------------------------------

KEYS = [
    *("a", "A", "lang", " ", "a b", "a.b", "$a", "$and", "#document", "#", "chroma:document"),
    *("chroma:", "toastrack_metadata", "toastrack_chunk", "toastrack_x", "\u2028", "ключ", "🍞"),
    *("'; drop table embeddings; --", '"', "\\", "%s", "{}", "a" * 3_000, "\x01", "None", "id"),
]
VALUES: list[Any] = [
    *("", "x", "None", "true", "1", "\x00", "🍞", "'", "x" * 20_000, None, True, False),
    *(0, 1, -1, 2**63 - 1, -(2**63) + 1, 2**63, -(2**63), 2**64, 10**40),
    *(0.5, 1.0, -1.5, 1e308, 5e-324, 2.0**63, 1e-300, 0.1),
    *([], {}, [1, "a", None], {"a": {"b": [1.0]}}, ["x", "y"], [[]], {"": None}),
]
IDS = ["a", "ID", " ", "a b", "a/b", "ü", "🍞", "'", '"', "\\", "%s", "x" * 5_000, "\n", "id#0"]


@pytest.mark.parametrize("seed", range(3))
def test_any_metadata_comes_back_and_what_was_removed_is_gone(
    client: Any, embedder: Embedder, seed: int
) -> None:
    random = Random(seed)
    store = ChromaStore(client, "docs", embedder=embedder)
    expected: dict[str, Record] = {}
    for _ in range(8):
        batch = [
            Record(
                id,
                A.text,
                {key: random.choice(VALUES) for key in random.sample(KEYS, random.randrange(9))},
            )
            for id in random.sample(IDS, 8)
        ]
        store.upsert(batch)
        expected.update({record.id: record for record in batch})
        got = store.get(list(expected))
        assert got == list(expected.values())
        # Equal in Python is not enough: 1 == 1.0 == True.
        assert [repr(record.metadata) for record in got if record] == [
            repr(record.metadata) for record in expected.values()
        ]
    for key in KEYS:
        if "." in key or key.startswith("$"):
            continue
        for value in ("x", 1, 1.0, True, 0.5, 2**63, 10**40):
            wanted = {
                record.id
                for record in expected.values()
                if key in record.metadata
                and record.metadata[key] == value
                and isinstance(record.metadata[key], bool) == isinstance(value, bool)
            }
            found = store.search("rye", k=50, filter={key: value})
            assert {match.id for match in found} == wanted, (key, value)
    assert store.audit() == []


def test_so_many_fields_as_chroma_can_hold(client: Any, embedder: Embedder) -> None:
    """One more than it can, and Chroma 1.5 does not answer for the collection ever again."""
    store = ChromaStore(client, "docs", embedder=embedder)
    full = {f"a{n}": n for n in range(MAX_FIELDS)}
    store.upsert([Record("a", A.text, full), B])
    # All of them go, as many others come.
    other = {f"b{n}": n for n in range(MAX_FIELDS)}
    store.upsert([Record("a", A.text, other)])
    assert store.get(["a"]) == [Record("a", A.text, other)]
    over = {**full, "one": "more"}
    with pytest.raises(RecordError, match="'a': its metadata has 2,501 fields"):
        store.upsert([B, Record("a", A.text, over)])
    nested = Record("a", A.text, {"all": {f"c{n}": n for n in range(20_000)}})
    store.upsert([nested])
    assert store.get(["a", "b"]) == [nested, B]


# -- collections that go and come ---------------------------------------------------------------


def test_a_collection_that_somebody_made_anew_is_found_again(
    client: Any, embedder: Embedder
) -> None:
    calls: list[Callable[[ChromaStore], Any]] = [
        lambda store: store.count(),
        lambda store: store.search("rye"),
        lambda store: store.get(["a"]),
        lambda store: store.upsert([A]).written,
        lambda store: store.audit(),
        lambda store: list(store.document_ids()),
    ]
    for call in calls:
        store = ChromaStore(client, "docs", embedder=embedder)
        store.upsert([A, B])
        client.delete_collection("docs")
        ChromaStore(client, "docs", embedder=embedder).upsert([B])
        call(store)
        assert store.get(["b"]) == [B]
        client.delete_collection("docs")


def test_a_collection_that_somebody_deleted_is_not_made_again_unasked(
    client: Any, embedder: Embedder
) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    store.upsert([A])
    client.delete_collection("docs")
    for call in (store.count, lambda: store.search("rye"), lambda: store.upsert([B])):
        with pytest.raises(StoreError, match=r"collection 'docs' was deleted.*close\(\) first"):
            call()
    with pytest.raises(StoreError, match="deleted"):
        store.delete(["a"])
    store.close()
    assert store.upsert([B]).written == 1  # opened anew, it is created as at first


def test_what_was_made_anew_with_another_model_is_refused(client: Any, embedder: Embedder) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    store.upsert([A])
    client.delete_collection("docs")
    other = Embedder(embedder.model, device="cpu", query_prompt="other: ")
    ChromaStore(client, "docs", embedder=other).upsert([B])
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        store.search("rye")
    with pytest.raises(SpaceMismatchError, match="the query prompt"):
        store.upsert([A])


def test_deleted_in_the_middle_of_an_ingest(client: Any, embedder: Embedder) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    store.open()

    def records() -> Iterator[Record]:
        yield from ready(600)
        client.delete_collection("docs")
        yield Record("last", A.text)

    with pytest.raises(StoreError, match="deleted"):
        ingest(records(), store)


@with_own_server
@pytest.mark.parametrize("segment", ["METADATA", "VECTOR"])
@pytest.mark.parametrize("kind", ["persistent", "own_client"])
def test_deleted_in_the_middle_of_a_call(
    request: pytest.FixtureRequest,
    embedder: Embedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    segment: str,
) -> None:
    """Chroma finds the collection still there, and its segments gone."""
    client = request.getfixturevalue(kind)
    own = kind == "own_client"
    folder = request.getfixturevalue("own_server").folder if own else tmp_path / "chroma"
    said: list[str] = []

    def between(name: str) -> None:
        call = getattr(chromadb.Collection, name)

        def torn(self: Any, *args: Any, **options: Any) -> Any:
            with closing(sqlite3.connect(folder / "chroma.sqlite3")) as base, base:
                words = "delete from segments where collection = ? and scope = ?"
                assert base.execute(words, (str(self.id), segment)).rowcount == 1
            try:
                return call(self, *args, **options)
            except Exception as error:
                said.append(str(error))
                client.delete_collection(self.name)
                raise

        monkeypatch.setattr(chromadb.Collection, name, torn)

    calls: dict[str, Callable[[ChromaStore], Any]] = {
        "count": lambda store: store.count(),
        "query": lambda store: store.search("rye"),
        "get": lambda store: store.get(["a"]),
        "upsert": lambda store: store.upsert([B]),
    }
    for name, call in calls.items():
        store = ChromaStore(client, f"docs_{name}", embedder=embedder)
        store.upsert([A])
        with monkeypatch.context() as monkeypatch:
            between(name)
            with pytest.raises(StoreError, match="deleted"):
                call(store)
    assert [f"Missing {segment.lower()} segment" in message for message in said] == [True] * 4


def test_other_errors_do_not_count_as_deleted() -> None:
    is_gone = backend.ChromaBackend.is_collection_gone
    none: Any = None
    assert is_gone(none, NotFoundError("Collection [docs] does not exist."))
    for error in (InternalError("Error in compaction"), ValueError("[Missing metadata segment]")):
        assert not is_gone(none, error)


# -- a server that goes and comes ---------------------------------------------------------------


class Server:
    """A server that tests stop and start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process, self.port = start_chroma(folder)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def start(self) -> None:
        self.process, _ = start_chroma(self.folder, self.port)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for nobody but these tests."""
    server = Server(tmp_path_factory.mktemp("away") / "chroma")
    yield server
    server.stop()


@pytest.fixture
def server(own_server: Server) -> Server:
    """The server, running and without a collection."""
    if own_server.process.poll() is not None:
        own_server.start()
    client = chromadb.HttpClient(host="127.0.0.1", port=own_server.port)
    for collection in client.list_collections():
        client.delete_collection(collection.name)
    close_client(client)
    return own_server


@pytest.fixture
def own_client(server: Server) -> Iterator[Any]:
    client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
    yield client
    close_client(client)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is to happen in the pauses between tries, which take no time."""
    happens: list[Callable[[], None]] = []

    def pause(seconds: float) -> None:
        if happens:
            happens.pop(0)()

    monkeypatch.setattr("time.sleep", pause)
    return happens


def nothing() -> None:
    """A pause in which nothing happens."""


@with_own_server
def test_a_server_restarted_between_two_calls(
    server: Server, own_client: Any, embedder: Embedder
) -> None:
    store = ChromaStore(own_client, "docs", embedder=embedder)
    calls: list[Callable[[], Any]] = [
        lambda: store.upsert([A, B]),
        lambda: store.search("rye", k=1)[0].id,
        lambda: store.replace("book", [Record("c", "wheat")]),
        store.audit,
        store.rebuild,
    ]
    for call in calls:
        server.stop()
        server.start()
        call()
    assert store.get(["a", "b", "c"]) == [A, B, Record("c", "wheat", document_id="book")]


@with_own_server
def test_a_server_restarted_in_the_middle_of_an_ingest(
    server: Server, own_client: Any, embedder: Embedder, pauses: list[Callable[[], None]]
) -> None:
    store = ChromaStore(own_client, "docs", embedder=embedder)
    stopped = Event()

    def start() -> None:
        assert stopped.wait(300)
        server.start()

    def records() -> Iterator[Record]:
        for record in ready(1_500):
            if record.id == "00800":
                # The rows before may be on their way at this moment, on another thread.
                pauses[:] = [nothing, nothing, start]
                server.stop()
                stopped.set()
            yield record

    report = ingest(records(), store)
    assert not pauses, "the server was never missed"
    assert (report.written, store.count()) == (1_500, 1_500)
    assert store.audit() == []


@with_own_server
def test_a_server_that_stays_away_is_named(
    server: Server, own_client: Any, embedder: Embedder, pauses: list[Callable[[], None]]
) -> None:
    store = ChromaStore(own_client, "docs", embedder=embedder)
    store.upsert([A])
    new = ChromaStore(own_client, "docs", embedder=embedder)
    server.stop()
    says = f"Chroma server at 127.0.0.1:{server.port} does not answer"
    for call in (
        lambda: store.upsert([B]),
        lambda: store.search("rye"),
        lambda: store.get(["a"]),
        new.open,
        lambda: open_collection(own_client, "docs", embedder),
    ):
        pauses[:] = [nothing] * 99
        with pytest.raises(ConnectionLostError, match=says):
            call()
        assert 80 < len(pauses) < 99, "tried without end, or only once"
    server.start()
    assert store.get(["a"]) == [A]
    assert store.upsert([A, B]).unchanged == 1


def test_the_error_repeats_no_password() -> None:
    class Client:
        def get_settings(self) -> Any:
            return Settings(
                chroma_server_host="https://me:hunter2@example.org:8443/x",
                chroma_server_http_port=8000,
            )

    assert host_errors.address(Client()) == "example.org:8443"


# -- asyncio ------------------------------------------------------------------------------------


async def opened(port: int, database: str = "default_database") -> Any:
    return await chromadb.AsyncHttpClient(host="127.0.0.1", port=port, database=database)


@with_own_server
def test_a_restart_under_an_async_store(server: Server, embedder: Embedder) -> None:
    async def use() -> list[Record | None]:
        client = await opened(server.port)
        async with AsyncChromaStore(client, "docs", embedder=embedder) as store:
            await store.upsert([A])
            server.stop()
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await store.upsert([B])  # the loop is free while it waits, or nobody starts it
            await starting
            found = await store.get(["a", "b"])
        await client._server._cleanup()
        return found

    assert asyncio.run(use()) == [A, B]


def test_the_event_loop_runs_while_the_model_does(
    chroma_database: tuple[str, int, str], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine

    _, port, database = chroma_database
    ticked = Event()
    run = SentenceTransformersEngine.run

    def waiting(self: Any, batch: Any, *, prompt: str) -> Any:
        assert ticked.wait(300), "the event loop stood still"
        ticked.clear()
        return run(self, batch, prompt=prompt)

    monkeypatch.setattr(SentenceTransformersEngine, "run", waiting)

    async def tick() -> None:
        while True:
            ticked.set()
            await asyncio.sleep(0)

    async def use() -> int:
        client = await opened(port, database)
        ticking = asyncio.create_task(tick())
        store = AsyncChromaStore(client, "docs", embedder=embedder)
        await store.upsert([A, B])
        found = await store.search("rye", exact=True)
        ticking.cancel()
        await client._server._cleanup()
        return len(found)

    assert asyncio.run(use()) == 2


def test_three_event_loops_in_a_row(
    chroma_database: tuple[str, int, str], embedder: Embedder
) -> None:
    _, port, database = chroma_database
    kept: dict[str, Any] = {}

    async def use(number: int) -> list[Record | None]:
        if not kept:
            kept["client"] = await opened(port, database)
            kept["store"] = AsyncChromaStore(kept["client"], "docs", embedder=embedder)
        store = kept["store"]
        await store.upsert([Record(str(number), A.text)])
        assert len(await store.search("rye")) == number + 1
        found: list[Record | None] = await store.get(["0"])
        await kept["client"]._server._cleanup()  # this loop's connections
        return found

    for number in range(3):
        assert asyncio.run(use(number)) == [Record("0", A.text)]


def test_what_changes_before_it_is_deleted_stays(
    client: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    other = ChromaStore(client, "docs", embedder=embedder)
    delete = chromadb.Collection.delete

    def delete_later(self: Any, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(chromadb.Collection, "delete", delete)
        other.upsert([Record("b", "rye", {"v": "a"}), Record("c", "rye", {"v": "y", "w": 1})])
        return delete(self, *args, **options)

    store.upsert(Record(id, "rye", {"v": "z", "w": [1]}) for id in "abc")
    # Somebody else's row, without the metadata as we write it.
    store.upsert([Record("d", "rye")])
    row = client.get_collection("docs").get(ids=["d"], include=["embeddings"])
    client.get_collection("docs").add(
        ids=["e"], embeddings=row["embeddings"], documents=["rye"], metadatas=[{"v": "z"}]
    )
    monkeypatch.setattr(chromadb.Collection, "delete", delete_later)
    assert store.delete(filter={"v": {"$gt": "x"}}) == 3
    assert [record and record.id for record in store.get(list("abcde"))] == [
        None,
        "b",
        None,
        "d",
        None,
    ]


def test_open_collection_takes_what_our_own_function_made(client: Any, embedder: Embedder) -> None:
    function: Any = ToastrackEmbeddingFunction(embedder=embedder)
    made = client.create_collection(
        "docs", embedding_function=function, configuration={"hnsw": {"space": "cosine"}}
    )
    made.upsert(ids=["rye"], documents=["Rye keeps."])
    with pytest.raises(SpaceMismatchError):
        open_collection(client, "docs", Embedder(embedder.model, query_prompt="other: "))
    assert open_collection(client, "docs", embedder).count() == 1
    with ChromaStore(client, "docs", embedder=embedder) as store:
        assert store.space == embedder.space


def test_open_collection_takes_no_asynchronous_client(embedder: Embedder) -> None:
    wrong: Any = object()
    with pytest.raises(TypeError, match="synchronous Chroma client"):
        open_collection(wrong, "docs", embedder)


def test_rows_whose_vectors_are_not_there_yet(
    ephemeral: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma answers so while the first rows of a collection are written by another thread."""
    with ChromaStore(ephemeral, "docs", embedder=embedder) as store:
        store.upsert([Record("a", "rye bread", {"n": 1})])
    get = chromadb.Collection.get

    def without_vectors(self: Any, *args: Any, **options: Any) -> Any:
        answer = get(self, *args, **options)
        if answer["embeddings"] is not None:
            answer["embeddings"] = np.empty((0,))
        return answer

    monkeypatch.setattr(chromadb.Collection, "get", without_vectors)
    with ChromaStore(ephemeral, "docs", embedder=embedder) as store:
        assert store.search("rye", k=1, exact=True) == []
        assert store.audit() == ["a"]
        assert [record.id for record in store.records()] == ["a"]
        assert store.upsert([Record("a", "rye bread", {"n": 2})]).written == 1
    plain = ephemeral.create_collection("plain", embedding_function=None)
    plain.add(ids=["a"], embeddings=[[1.0] * 32], documents=["rye bread"])
    record_space(plain, embedder.space)
    assert recorded_space(plain) == embedder.space
