"""Several vectors a point: each store owns one, and what is not ours survives our writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from toastrack import Embedder, Record
from toastrack.errors import StoreError
from toastrack.stores import text_hash
from toastrack.stores.formats import NEWEST
from toastrack_qdrant import AsyncQdrantStore, QdrantStore, point_id

if TYPE_CHECKING:
    from edge_client import EdgeClient

MakeEngine = Callable[..., "EdgeClient"]
SIZE = 32
COSINE = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
NAMES = ("brief", "full")
WORDS = models.SparseVector(indices=[3, 5], values=[1.0, 2.0])
A, B = Record("a", "rye bread", {"n": 1}, document_id="d"), Record("b", "salt", document_id="d")


@pytest.fixture(params=["memory", "engine"])
def host(request: pytest.FixtureRequest) -> Any:
    """A client, of this library's own and of the engine that a server runs."""
    if request.param == "memory":
        return request.getfixturevalue("client")
    return request.getfixturevalue("make_engine")()


def pair(host: Any, embedder: Embedder) -> list[QdrantStore]:
    """Two stores over one collection."""
    if not host.collection_exists("docs"):
        sparse = {"words": models.SparseVectorParams()}
        host.create_collection("docs", dict.fromkeys(NAMES, COSINE), sparse_vectors_config=sparse)
    return [QdrantStore(host, "docs", vector_name=name, embedder=embedder) for name in NAMES]


def point(host: Any, id: str, collection: str = "docs") -> tuple[dict[str, Any], Any]:
    (found,) = host.retrieve(collection, [point_id(id)], with_payload=True, with_vectors=True)
    return found.payload, found.vector


def add_own(host: Any, id: str, collection: str = "docs") -> None:
    """What a user may keep in a point: a payload key and a vector of words."""
    vectors = models.PointVectors(id=point_id(id), vector={"words": WORDS})
    operation = models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=[vectors]))
    host.batch_update_points(collection, [operation], wait=True)
    host.set_payload(collection, {"mine": [7]}, points=[point_id(id)])


def has_own(host: Any, id: str, collection: str = "docs") -> bool:
    payload, vectors = point(host, id, collection)
    found: bool = payload.get("mine") == [7] and vectors.get("words") == WORDS
    return found


def fits(host: Any, store: QdrantStore, id: str, name: str) -> bool:
    """Whether text, hash and vector of a name are of one version."""
    payload, vectors = point(host, id)
    expected = text_hash(Record(id, payload["text"]), store.embedder.max_tokens).hex()
    (vector,) = store.embedder.embed_documents([payload["text"]])
    return bool(
        payload.get(f"text_hash/{name}") == expected
        and np.asarray(vectors.get(name, [0.0] * SIZE)) @ vector > 0.999
    )


def test_each_store_embeds_its_own_vector(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    full.open()
    assert brief.upsert([A, B]).embedded == 2
    assert full.search("rye") == []
    report = full.upsert([A, B])
    assert (report.embedded, report.unchanged) == (2, 0)
    for store in (brief, full):
        assert store.upsert([A, B]).unchanged == 2
        assert store.count() == 2
        assert len(store.search("rye")) == 2
    assert all(fits(host, brief, id, name) for id in "ab" for name in NAMES)
    payload, _ = point(host, "a")
    assert "text_hash" not in payload


def test_a_text_that_one_changed_is_changed_for_the_other(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    for store in (brief, full):
        store.upsert([A, B])
    changed = Record("a", "wheat", A.metadata, document_id="d")
    assert brief.upsert([changed]).embedded == 1
    assert fits(host, brief, "a", "brief")
    assert not fits(host, full, "a", "full")
    assert full.get(["a"]) == [changed]
    (read,) = full.get(["a"])
    assert read is not None
    assert read.vector_from_text is None  # nobody knows of which text its vector is
    # Whatever the other one is given next, its vector is of that.
    for text in (A, changed):
        assert full.upsert([text]).embedded == 1
        assert fits(host, full, "a", "full")
    assert brief.upsert([changed]).embedded == 1
    assert full.upsert([changed]).unchanged == 1
    assert all(fits(host, brief, id, name) for id in "ab" for name in NAMES)


def test_metadata_is_shared(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    for store in (brief, full):
        store.upsert([A, B])
    described = Record("a", A.text, {"n": 0.1 + 0.2}, document_id="d")
    report = brief.upsert([described])
    assert (report.embedded, report.written) == (0, 1)
    assert full.get(["a"]) == [described]
    assert full.upsert([described]).unchanged == 1
    assert full.upsert([A]).written == 1
    assert brief.get(["a"]) == [A]
    assert "metadata_json" not in point(host, "a")[0]
    assert all(fits(host, brief, "a", name) for name in NAMES)


def test_deleting_is_for_all_of_them(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    for store in (brief, full):
        store.upsert([A, B])
    assert brief.delete(["a"]) == 1
    assert full.get(["a"]) == [None]
    assert full.replace("d", [A]).deleted == 1
    assert brief.count() == 1
    assert brief.delete(documents=["d"]) == 1
    assert full.count() == 0


def test_what_is_the_user_s_survives_every_write(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    brief.upsert([A, B])
    for id in "ab":
        add_own(host, id)
    full.upsert([A, B])
    brief.upsert([Record("a", "wheat", document_id="d")])
    brief.upsert([Record("b", B.text, {"n": 2}, document_id="d")])
    full.replace("d", [A, Record("b", "water", document_id="d")])
    brief.replace_many([("d", [Record("a", A.text, {"m": 3}), Record("b", "flour")])])
    assert has_own(host, "a")
    assert has_own(host, "b")
    assert all(fits(host, brief, id, "brief") for id in "ab")


def test_and_so_it_does_beside_an_unnamed_vector(client: QdrantClient, embedder: Embedder) -> None:
    sparse = {"words": models.SparseVectorParams()}
    store = QdrantStore(client, "docs", embedder=embedder, sparse_vectors_config=sparse)
    store.upsert([A, B])
    for id in "ab":
        add_own(client, id)
    store.upsert([Record("a", "wheat", document_id="d")])
    store.replace("d", [A, Record("b", B.text, {"n": 0.1 + 0.2})])
    store.replace("d", [A, B])
    assert has_own(client, "a")
    assert has_own(client, "b")
    assert store.get(["a", "b"]) == [A, B]
    assert store.upsert([A, B]).unchanged == 2
    (best, *_) = store.search(embedder.embed_documents([A.text])[0])
    assert (best.id, round(best.score, 3)) == ("a", 1)
    metadata = client.get_collection("docs").config.metadata
    assert metadata is not None
    assert "format" not in metadata["toastrack"]


def test_asynchronous_stores_do_the_same(embedder: Embedder) -> None:
    async def check() -> None:
        client = AsyncQdrantClient(":memory:")
        await client.create_collection("docs", dict.fromkeys(NAMES, COSINE))
        brief, full = (
            AsyncQdrantStore(client, "docs", vector_name=name, embedder=embedder) for name in NAMES
        )
        await full.open()
        assert (await brief.upsert([A, B])).embedded == 2
        await client.set_payload("docs", {"mine": 7}, points=[point_id("a")])
        assert (await full.upsert([A, B])).embedded == 2
        changed = Record("a", "wheat", {"n": 2}, document_id="d")
        assert (await full.replace("d", [changed])).deleted == 1
        assert (await brief.upsert([changed])).embedded == 1
        assert (await full.upsert([changed])).unchanged == 1
        (found,), _ = await client.scroll("docs")
        assert found.payload is not None
        assert found.payload["mine"] == 7
        await client.close()

    asyncio.run(check())


def test_a_vector_that_nobody_filled_yet_can_be_opened(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    brief.upsert([A])
    assert full.upsert([A]).embedded == 1


def test_points_that_go_meanwhile_are_written_anew(host: Any, embedder: Embedder) -> None:
    brief, _ = pair(host, embedder)
    brief.upsert([A, B])
    update = host.batch_update_points
    gone: list[bool] = []

    def delete_first(*args: Any, **options: Any) -> Any:
        if not gone:
            gone.append(True)
            host.delete("docs", models.PointIdsList(points=[point_id("a")]), wait=True)
        return update(*args, **options)

    host.batch_update_points = delete_first
    changed = [Record("a", "wheat", document_id="d"), Record("b", "water", document_id="d")]
    assert brief.upsert(changed).written == 2
    assert gone
    assert brief.get(["a", "b"]) == changed
    assert brief.upsert(changed).unchanged == 2


# -- what was stored before each vector had a hash ------------------------------------------------


def make_older(host: Any, *names: str) -> None:
    """Bring a collection back to what a version before wrote: one hash, whoever's it is."""
    points, _ = host.scroll(
        "docs", limit=100, offset=None, scroll_filter=None, with_payload=True, with_vectors=False
    )
    for one in points:
        keys = [key for key in one.payload if key.startswith("text_hash/")]
        values = {"text_hash": one.payload[keys[0]], **dict.fromkeys(keys)}
        host.set_payload("docs", values, points=[one.id])
    metadata = host.get_collection("docs").config.metadata
    for name in names:
        recorded = {
            key: value
            for key, value in metadata[f"toastrack/{name}"].items()
            if key not in ("format", "earlier_hash")
        }
        host.update_collection("docs", metadata={f"toastrack/{name}": recorded})


def recorded(host: Any, name: str) -> Any:
    return host.get_collection("docs").config.metadata[f"toastrack/{name}"]


def test_the_one_hash_of_before_counts_and_is_brought_up(host: Any, embedder: Embedder) -> None:
    brief, _ = pair(host, embedder)
    brief.upsert([A, B])
    make_older(host, "brief")
    brief, _ = pair(host, embedder)
    report = brief.upsert([A, B])
    assert (report.embedded, report.written, report.unchanged) == (0, 0, 2)
    assert "format" not in recorded(host, "brief")  # nothing needed it
    described = Record("a", A.text, {"n": 2}, document_id="d")
    report = brief.upsert([described, B])
    assert (report.embedded, report.written, report.unchanged) == (0, 1, 1)
    assert recorded(host, "brief")["format"] == 2
    payload, _ = point(host, "a")
    assert "text_hash/brief" in payload
    assert payload.get("text_hash") is None
    for store in (brief, pair(host, embedder)[0]):
        assert store.upsert([described, B]).unchanged == 2  # one of each form
    report = brief.replace("d", [described, Record("b", "water")])
    assert (report.embedded, report.written, report.unchanged) == (1, 1, 1)
    assert all(fits(host, brief, id, "brief") for id in "ab")


def test_it_is_the_first_one_s_when_a_second_vector_comes(host: Any, embedder: Embedder) -> None:
    brief, _ = pair(host, embedder)
    brief.upsert([A, B])
    make_older(host, "brief")
    brief, full = pair(host, embedder)
    assert full.upsert([A, Record("b", "water", document_id="d")]).embedded == 2
    assert brief.upsert([A]).unchanged == 1
    assert brief.upsert([B]).embedded == 1  # the other one changed its text
    assert fits(host, brief, "b", "brief")
    assert not fits(host, full, "b", "full")


def test_of_two_that_wrote_there_neither_s_counts(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    full.open()
    brief.upsert([A, B])
    make_older(host, *NAMES)
    for store in pair(host, embedder):
        assert store.upsert([A, B]).embedded == 2
        assert store.upsert([A, B]).unchanged == 2
    assert all(fits(host, brief, id, name) for id in "ab" for name in NAMES)


def test_who_may_not_alter_the_collection_goes_on(host: Any, embedder: Embedder) -> None:
    from qdrant_client.http.exceptions import UnexpectedResponse

    brief, _ = pair(host, embedder)
    brief.upsert([A, B])
    make_older(host, "brief")
    brief, _ = pair(host, embedder)

    def refuse(*args: Any, **options: Any) -> Any:
        raise UnexpectedResponse(403, "Forbidden", b"", None)  # type: ignore[arg-type]

    host.update_collection, allowed = refuse, host.update_collection
    changed = Record("a", "wheat", document_id="d")
    for store in (brief, pair(host, embedder)[0]):
        store.upsert([changed])
        assert store.upsert([changed, B]).unchanged == 2
    assert "format" not in recorded(host, "brief")
    host.update_collection = allowed
    brief.upsert([A])
    assert recorded(host, "brief")["format"] == 2
    assert brief.upsert([A, B]).unchanged == 2


def test_a_newer_format_of_another_vector_is_refused(host: Any, embedder: Embedder) -> None:
    brief, full = pair(host, embedder)
    brief.open()
    host.update_collection(
        "docs", metadata={"toastrack/brief": {**recorded(host, "brief"), "format": NEWEST + 1}}
    )
    with pytest.raises(StoreError, match=rf"format {NEWEST + 1}.*up to {NEWEST}"):
        full.open()
