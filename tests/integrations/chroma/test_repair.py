"""What a kill tears out of an index is found and put back, and nothing else changes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

# ruff: noqa: E402
import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

import chromadb

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack_chroma import AsyncChromaStore, ChromaStore
from toastrack_chroma.codec import ROW, described
from toastrack_chroma.finding import COMPLETE, COPY_OF

WORDS = ["rye", "wheat", "salt", "yeast", "oven", "crust", "dough", "water"]
RECORDS = [
    Record(f"{word}", f"{word} in the dough", {"n": n, "nested": {"a": [n, None]}, "half": 0.5})
    for n, word in enumerate(WORDS)
]
READY = Record("ready", "with its own vector", {"n": 99}, vector=[1.0, 2.0] * 16)
Tear = Callable[[Any], None]


def filled(client: Any, embedder: Embedder) -> ChromaStore:
    """A store with records, chunks of a document, and one that brought its own vector."""
    store = ChromaStore(client, "docs", embedder=embedder, configuration={"hnsw": INDEX})
    store.upsert([*RECORDS, READY])
    store.replace("book", [Record(f"book#{n}", f"bread {n}", chunk=n) for n in range(3)])
    raw = client.get_collection("docs")
    raw.modify(metadata={**raw.metadata, "mine": "kept", "number": 7})
    return ChromaStore(client, "docs", embedder=embedder)


INDEX = {
    "ef_construction": 50,
    "ef_search": 33,
    "max_neighbors": 8,
    "resize_factor": 1.5,
    "sync_threshold": 500,
}
INCLUDE = ["embeddings", "documents", "metadatas", "uris"]


def everything(client: Any, name: str = "docs") -> dict[str, Any]:
    """All that Chroma says of a collection."""
    collection = client.get_collection(name, embedding_function=None)
    rows = collection.get(include=INCLUDE)
    for metadata in rows["metadatas"]:
        # Its head follows the vector, whose last bits depend on the batch it was embedded in.
        if metadata and ROW in metadata:
            metadata[ROW] = described(metadata)._replace(vector_head="")
    others = zip(rows["documents"], rows["metadatas"], rows["uris"], strict=True)
    return {
        "rows": dict(zip(rows["ids"], others, strict=True)),
        "vectors": dict(zip(rows["ids"], rows["embeddings"], strict=True)),
        "metadata": collection.metadata,
        "index": collection.configuration_json["hnsw"],
        "names": sorted(each.name for each in client.list_collections()),
    }


def check_same(found: dict[str, Any], before: dict[str, Any]) -> None:
    """Compare all to the letter, and vectors as far as batches of a model may differ."""
    vectors = found.pop("vectors")
    expected = dict(before)
    for id, vector in expected.pop("vectors").items():
        np.testing.assert_allclose(vectors.pop(id), vector, atol=1e-5)
    assert not vectors
    assert found == expected


def zero(raw: Any) -> None:
    """As a torn flush leaves it."""
    raw.update(ids=["rye", "book#1"], embeddings=[[0.0] * 32] * 2)


def swap(raw: Any) -> None:
    """As an overwritten slot leaves it: a good vector, of another row."""
    vectors = raw.get(ids=["salt", "rye"], include=["embeddings"])
    of = dict(zip(vectors["ids"], vectors["embeddings"], strict=True))
    raw.update(ids=["rye", "salt"], embeddings=[of["salt"], of["rye"]])


TORN: dict[str, tuple[Tear, set[str]]] = {
    "zero": (zero, {"rye", "book#1"}),
    "swapped": (swap, {"rye", "salt"}),
    "nothing": (lambda raw: None, set()),
}


@pytest.mark.parametrize("how", TORN)
def test_damage_is_found_and_mended_and_the_rest_is_kept(
    client: Any, embedder: Embedder, how: str
) -> None:
    tear, damaged = TORN[how]
    store = filled(client, embedder)
    before = everything(client)
    assert before["index"].items() >= INDEX.items()
    assert store.audit() == []
    tear(client.get_collection("docs"))
    assert set(store.audit()) == damaged
    assert store.rebuild() == []
    assert store.audit() == []
    check_same(everything(client), before)
    # The same store goes on, and so does one that is opened now.
    for again in (store, ChromaStore(client, "docs", embedder=embedder)):
        assert again.upsert([*RECORDS, READY]).unchanged == len(RECORDS) + 1
        rye = embedder.embed_documents([RECORDS[0].text])[0]
        assert again.search(rye, k=1)[0].score == pytest.approx(1, abs=1e-5)
        assert again.space == embedder.space
    assert store.rebuild() == []
    check_same(everything(client), before)


def test_a_healthy_collection_is_healthy(client: Any, embedder: Embedder) -> None:
    store = ChromaStore(client, "docs", embedder=embedder)
    assert store.audit() == []
    store.upsert([*RECORDS, READY])
    store.upsert([Record("rye", RECORDS[0].text, {"only": "metadata"})])
    store.upsert([Record("salt", "another text", {"n": 1})])
    store.upsert([Record("ready", READY.text, vector=[3.0, -1.0] * 16)])
    store.upsert([Record("oven", "embedded", vector=[1e-9, 1.0] * 16)])
    store.upsert([Record("oven", "embedded")])
    assert store.audit() == []
    assert store.rebuild() == []
    assert store.audit() == []


def test_rows_of_others_are_kept_to_the_letter(persistent: Any, embedder: Embedder) -> None:
    """Also those without text, without metadata, with lists, and of any length.

    In a folder of its own: lists of a deleted collection come up in the next one's rows
    (https://github.com/chroma-core/chroma/issues/7594).
    """
    collection = persistent.create_collection(
        "docs", embedding_function=None, metadata={"hnsw:space": "cosine", "mine": 1}
    )
    vectors = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    collection.add(
        ids=["bare", "text", "list", "uri"],
        embeddings=list(vectors),
        documents=[None, "rye", "wheat", None],
        metadatas=[None, None, {"tags": ["a", "b"], "n": 1}, {"n": 2}],
        uris=[None, None, None, "file:///rye.png"],
    )
    store = ChromaStore(persistent, "docs", embedder=embedder, adopt="unchecked")
    store.upsert([Record("ours", "salt")])
    assert store.audit() == []
    before = everything(persistent)
    assert store.rebuild() == []
    check_same(everything(persistent), before)
    assert persistent.get_collection("docs").configuration_json["embedding_function"]["name"] == (
        "toastrack"
    )
    # A damaged one is embedded anew, and named: its vector may have been another.
    persistent.get_collection("docs").update(ids=["list"], embeddings=[[0.0] * 32])
    assert store.audit() == ["list"]
    assert store.rebuild() == ["list"]
    row = persistent.get_collection("docs").get(ids=["list"], include=["embeddings", "metadatas"])
    np.testing.assert_allclose(
        row["embeddings"][0], embedder.embed_documents(["wheat"])[0], atol=1e-5
    )
    assert row["metadatas"][0]["tags"] == ["a", "b"]
    assert store.get(["list"]) == [Record("list", "wheat", {"tags": ["a", "b"], "n": 1})]


def test_a_lost_vector_of_ones_own_is_reported(client: Any, embedder: Embedder) -> None:
    store = filled(client, embedder)
    client.get_collection("docs").update(ids=["ready", "rye"], embeddings=[[0.0] * 32, [0.0] * 32])
    assert set(store.audit()) == {"ready", "rye"}
    assert store.rebuild() == ["ready"]
    assert store.audit() == []
    # It is found by its text meanwhile, and comes back when it is stored again.
    assert store.get(["ready"]) == [READY]
    assert store.upsert([READY]).written == 1
    assert store.search([1.0, 2.0] * 16, k=1)[0].score == pytest.approx(1, abs=1e-5)


def test_many_pages(ephemeral: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toastrack_chroma.repair._PAGE", 3)
    for number in (0, 2, 3, 7):
        store = ChromaStore(ephemeral, f"docs{number}", embedder=embedder)
        store.upsert(RECORDS[:number])
        before = everything(ephemeral, f"docs{number}")
        raw = ephemeral.get_collection(f"docs{number}")
        ids = [record.id for record in RECORDS[:number]]
        if ids:
            raw.update(ids=ids, embeddings=[[0.0] * 32] * number)
        assert sorted(store.audit()) == sorted(ids)
        assert store.rebuild() == []
        check_same(everything(ephemeral, f"docs{number}"), before)


class Killed(BaseException):
    """Ends the program."""


@pytest.mark.parametrize("late", [False, True], ids=["before the call", "after the call"])
def test_killed_at_any_step_nothing_is_lost(
    ephemeral: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Whatever the client was doing last, the next opening finds all of it."""
    monkeypatch.setattr("toastrack_chroma.repair._PAGE", 5)
    server = type(ephemeral._server)
    real = {
        name: getattr(server, name)
        for name in (
            *("create_collection", "delete_collection", "get_collection", "_modify"),
            *("_upsert", "_get", "_count"),
        )
    }
    left = 0

    def counted(call: Any) -> Any:
        def wrapper(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            last = left == 0
            if last and not late:
                raise Killed
            try:
                return call(self, *args, **options)
            finally:
                if last:
                    raise Killed

        return wrapper

    store = filled(ephemeral, embedder)
    before = everything(ephemeral)
    seen: set[tuple[str, ...]] = set()
    for step in itertools.count(1):
        zero(ephemeral.get_collection("docs"))
        store = ChromaStore(ephemeral, "docs", embedder=embedder).open()
        store.count()
        with pytest.MonkeyPatch.context() as patch:
            for name, call in real.items():
                patch.setattr(server, name, counted(call))
            left = step
            try:
                store.rebuild()
            except Killed:
                pass
            else:
                break
        seen.add(tuple(sorted(each.name for each in ephemeral.list_collections())))
        again = ChromaStore(ephemeral, "docs", embedder=embedder, create=False)
        assert again.open().space == embedder.space
        assert again.count() == 12
        assert again.rebuild() == []
        check_same(everything(ephemeral), before)
    assert step > 10
    # All that a kill can leave was seen: the old one, both, and the copy alone.
    assert seen >= {("docs",), ("docs", "docs__rebuild"), ("docs__rebuild",)}
    check_same(everything(ephemeral), before)


def test_a_collection_in_the_way_is_left_alone(client: Any, embedder: Embedder) -> None:
    store = filled(client, embedder)
    mine = client.create_collection("docs__rebuild", embedding_function=None)
    mine.add(ids=["1"], embeddings=[[1.0]])
    with pytest.raises(StoreError, match=r"needs the name 'docs__rebuild'.*Rename"):
        store.rebuild()
    assert (mine.count(), store.count()) == (1, 12)


def test_a_complete_copy_of_an_earlier_collection_is_left_alone(
    client: Any, embedder: Embedder
) -> None:
    """Somebody made a new one between the end of the old one and the copy's new name."""
    store = filled(client, embedder)
    copy = client.get_collection("docs")
    marks = {COPY_OF: "the old one's id", COMPLETE: True}
    copy.modify(name="docs__rebuild", metadata={**copy.metadata, **marks})
    client.create_collection(
        "docs", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    store = ChromaStore(client, "docs", embedder=embedder)
    assert store.count() == 0
    with pytest.raises(StoreError, match="complete copy of an earlier collection 'docs'"):
        store.rebuild()
    assert client.get_collection("docs__rebuild").count() == 12
    client.delete_collection("docs")
    assert ChromaStore(client, "docs", embedder=embedder, create=False).count() == 12


def test_a_collection_that_is_written_to_meanwhile_stays(
    client: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toastrack_chroma import sending

    store = filled(client, embedder)
    copying = sending._upsert

    def meanwhile(host: Any, rows: Any) -> Any:
        client.get_collection("docs").add(ids=["new"], embeddings=[[1.0] * 32])
        return copying(host, rows)

    monkeypatch.setattr("toastrack_chroma.sending._upsert", meanwhile)
    with pytest.raises(StoreError, match="written to while it was rebuilt"):
        store.rebuild()
    assert store.count() == 13
    monkeypatch.undo()
    store.rebuild()
    assert store.count() == 13


def test_another_store_finds_the_rebuilt_one(client: Any, embedder: Embedder) -> None:
    store = filled(client, embedder)
    other = ChromaStore(client, "docs", embedder=embedder).open()
    store.rebuild()
    assert other.search(embedder.embed_documents([RECORDS[0].text])[0], k=1)[0].id == "rye"
    assert other.upsert(RECORDS).unchanged == len(RECORDS)


def test_no_other_model_mends(client: Any, embedder: Embedder) -> None:
    filled(client, embedder)
    other = ChromaStore(client, "docs", embedder=Embedder(embedder.model, query_prompt=""))
    with pytest.raises(SpaceMismatchError):
        other.rebuild()
    assert len(client.list_collections()) == 1


def test_awaited(chroma_database: tuple[str, int, str], http: Any, embedder: Embedder) -> None:
    filled(http, embedder)
    before = everything(http)
    swap(http.get_collection("docs"))

    async def use() -> tuple[list[str], list[str], list[str]]:
        host, port, database = chroma_database
        client: Any = await chromadb.AsyncHttpClient(host=host, port=port, database=database)
        store = AsyncChromaStore(client, "docs", embedder=embedder)
        found = (await store.audit(), await store.rebuild(), await store.audit())
        rye = embedder.embed_documents([RECORDS[0].text])[0]
        assert (await store.search(rye, k=1))[0].id == "rye"
        await client._server._cleanup()
        return found

    assert asyncio.run(use()) == (["rye", "salt"], [], [])
    check_same(everything(http), before)
