"""What Qdrant has of its own: named vectors, creation, native search options, adoption, races."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from toastrack import Embedder, Record
from toastrack.errors import (
    SpaceMismatchError,
    StoreError,
    UnprovenWarning,
    UnsupportedError,
)
from toastrack_qdrant import AsyncQdrantStore, QdrantStore, point_id

if TYPE_CHECKING:
    from edge_client import EdgeClient

MakeEngine = Callable[..., "EdgeClient"]
SIZE = 32
COSINE = models.VectorParams(size=SIZE, distance=models.Distance.COSINE)
A, B = Record("a", "rye bread"), Record("b", "salt")


def axis(position: int) -> list[float]:
    return [float(number == position) for number in range(SIZE)]


def spread(count: int, seed: int = 0) -> list[Record]:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE))
    return [Record(f"{n}", "rye", {"n": n}, vector=vector) for n, vector in enumerate(vectors)]


@pytest.mark.parametrize("client", [None, ":memory:", "http://localhost:6333", object()])
def test_only_the_right_client_is_taken(client: Any, embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="QdrantClient"):
        QdrantStore(client, "docs", embedder=embedder)
    with pytest.raises(TypeError, match="AsyncQdrantClient"):
        AsyncQdrantStore(client, "docs", embedder=embedder)


def test_the_other_face_s_client_is_refused(client: QdrantClient, embedder: Embedder) -> None:
    wrong: Any = client
    with pytest.raises(TypeError, match="not QdrantClient"):
        AsyncQdrantStore(wrong, "docs", embedder=embedder)
    wrong = AsyncQdrantClient(":memory:")
    with pytest.raises(TypeError, match="not AsyncQdrantClient"):
        QdrantStore(wrong, "docs", embedder=embedder)


def test_the_client_stays_open(client: QdrantClient, embedder: Embedder) -> None:
    with QdrantStore(client, "docs", embedder=embedder) as store:
        store.upsert([A])
    assert client.count("docs").count == 1


# -- creating and opening -----------------------------------------------------------------------


def test_the_space_is_in_the_collection_s_metadata(
    client: QdrantClient, embedder: Embedder
) -> None:
    assert not client.collection_exists("docs")
    QdrantStore(client, "docs", embedder=embedder).open()
    metadata = client.get_collection("docs").config.metadata
    assert metadata is not None
    assert metadata["toastrack"]["query_prompt"] == embedder.space.query_prompt
    assert None not in metadata["toastrack"].values()
    assert (
        QdrantStore(client, "docs", embedder=embedder, create=False).open().space == embedder.space
    )


def test_options_of_creation_reach_qdrant(embedder: Embedder) -> None:
    asked: dict[str, Any] = {}

    class Client(QdrantClient):
        def create_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> bool:
            asked.update(kwargs, vectors=args[0])
            return super().create_collection(collection_name, *args, **kwargs)

    options: dict[str, Any] = {
        "on_disk_payload": True,
        "hnsw_config": models.HnswConfigDiff(m=32),
        "quantization_config": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
        "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=1),
        "sparse_vectors_config": {"words": models.SparseVectorParams()},
        "shard_number": 2,
        "replication_factor": 2,
        "write_consistency_factor": 2,
    }
    client = Client(":memory:")
    QdrantStore(client, "docs", embedder=embedder, on_disk=True, **options).open()
    client.close()
    assert asked.pop("metadata")["toastrack"]
    assert asked.pop("vectors") == COSINE.model_copy(update={"on_disk": True})
    assert asked == options


def test_a_collection_of_one_s_own_is_taken_as_it_is(
    client: QdrantClient, embedder: Embedder
) -> None:
    client.create_collection("docs", COSINE, metadata={"owner": "me"})
    store = QdrantStore(client, "docs", embedder=embedder, create=False)
    assert store.upsert([A, B]).written == 2
    metadata = client.get_collection("docs").config.metadata
    assert metadata is not None
    assert metadata.keys() == {"owner", "toastrack"}


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (models.VectorParams(size=SIZE, distance=models.Distance.DOT), "by Dot and not by Cosine"),
        (models.VectorParams(size=SIZE, distance=models.Distance.EUCLID), "by Euclid"),
        ({"dense": COSINE, "other": COSINE}, "vector_name='dense', vector_name='other'"),
        ({}, "none at all"),
        (COSINE.model_copy(update={"datatype": models.Datatype.UINT8}), "whole numbers"),
        (
            COSINE.model_copy(
                update={
                    "multivector_config": models.MultiVectorConfig(
                        comparator=models.MultiVectorComparator.MAX_SIM
                    )
                }
            ),
            "several vectors",
        ),
        (
            models.VectorParams(
                size=SIZE, distance=models.Distance.DOT, datatype=models.Datatype.UINT8
            ),
            "by Dot.*; its vectors are whole numbers. Use",
        ),
    ],
)
def test_what_cannot_hold_our_vectors_is_refused(
    client: QdrantClient, embedder: Embedder, vectors: Any, says: str
) -> None:
    client.create_collection("docs", vectors)
    with pytest.raises(StoreError, match=says) as caught:
        QdrantStore(client, "docs", embedder=embedder).open()
    assert "'docs'" in str(caught.value)


def test_another_size_is_refused(client: QdrantClient, embedder: Embedder) -> None:
    client.create_collection("docs", models.VectorParams(size=8, distance=models.Distance.COSINE))
    with pytest.raises(SpaceMismatchError, match="8-d"):
        QdrantStore(client, "docs", embedder=embedder).open()


def test_an_unknown_filling_needs_adopt(client: QdrantClient, embedder: Embedder) -> None:
    filler = QdrantStore(client, "filled", embedder=embedder)
    filler.upsert([A])
    points = client.scroll("filled", with_vectors=True)[0]
    client.create_collection("docs", COSINE)
    client.upsert(
        "docs",
        [
            models.PointStruct(id=p.id, vector=p.vector, payload=p.payload)  # type: ignore[arg-type]
            for p in points
        ],
    )
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        QdrantStore(client, "docs", embedder=embedder).open()
    with pytest.warns(UnprovenWarning, match="1 texts embedded again"):
        adopted = QdrantStore(client, "docs", embedder=embedder, adopt=True).open()
    assert adopted.upsert([A]).unchanged == 1
    assert QdrantStore(client, "docs", embedder=embedder).search("rye")[0].id == "a"


def test_points_without_our_payload_are_not_adopted(
    make_engine: MakeEngine, client: QdrantClient, embedder: Embedder
) -> None:
    hosts: list[Any] = [client, make_engine()]
    for host in hosts:
        host.create_collection("docs", COSINE)
        ours = {"id": "x", "document_id": "x", "text": ""}
        host.upsert("docs", [models.PointStruct(id=1, vector=axis(0), payload=ours)])
        QdrantStore(host, "docs", embedder=embedder, adopt="unchecked").open()
        host.create_collection("other", COSINE)
        host.upsert("other", [models.PointStruct(id=1, vector=axis(0), payload={"id": "x"})])
        with pytest.raises(StoreError, match="1 points whose payload lacks id, document_id, text"):
            QdrantStore(host, "other", embedder=embedder, adopt=True).open()
        # Nobody is told to adopt what cannot be.
        with pytest.raises(StoreError, match="1 points whose payload lacks id, document_id, text"):
            QdrantStore(host, "other", embedder=embedder).open()


def test_points_that_come_later_keep_their_own_id(client: QdrantClient, embedder: Embedder) -> None:
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("a", "rye", vector=axis(0))])
    client.upsert("docs", [models.PointStruct(id=7, vector=axis(1), payload={"metadata": "x"})])
    match = store.search(axis(1))[0]
    assert (match.id, match.text, match.metadata, match.document_id) == ("7", "", {}, "7")
    assert set(store.document_ids()) == {"a", "7"}
    assert store.search(axis(1), filter={"lang": "en"}) == []


def test_a_vector_of_zeros_is_no_nan(
    client: QdrantClient, make_engine: MakeEngine, embedder: Embedder
) -> None:
    hosts: list[Any] = [client, make_engine()]
    for host in hosts:
        store = QdrantStore(host, "docs", embedder=embedder)
        store.upsert([Record("a", "rye", {'"': 1}, vector=axis(0))])
        zeros = models.PointStruct(id=7, vector=[0.0] * SIZE, payload={"metadata": {'"': 1}})
        host.upsert("docs", [zeros])
        scores = {match.id: match.score for match in store.search(axis(0))}
        assert scores == pytest.approx({"a": 1.0, "7": 0.0})
        # And with a filter that Qdrant has no words for.
        store.upsert([Record("b", "rye", vector=axis(0))])
        assert [match.id for match in store.search(axis(0), filter={'"': 1})] == ["a", "7"]


def test_a_damaged_space_is_named(client: QdrantClient, embedder: Embedder) -> None:
    for damage in ({"weights": "x"}, "x", 7):
        client.delete_collection("docs")
        client.create_collection("docs", COSINE)
        client.update_collection("docs", metadata={"toastrack": damage})
        with pytest.raises(StoreError, match="damaged"):
            QdrantStore(client, "docs", embedder=embedder).open()


def test_somebody_creates_it_at_the_same_time(embedder: Embedder) -> None:
    class Late(QdrantClient):
        """Hears of no collection until it tries to create one."""

        tried = False

        def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
            return self.tried and super().collection_exists(collection_name)

        def create_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> bool:
            self.tried = True
            return super().create_collection(collection_name, *args, **kwargs)

    client = Late(":memory:")
    client.create_collection("docs", COSINE)
    client.tried = False
    assert QdrantStore(client, "docs", embedder=embedder).upsert([A]).written == 1
    client.close()


def test_why_it_cannot_be_created_is_the_host_s_to_tell(embedder: Embedder) -> None:
    class Full(QdrantClient):
        def create_collection(self, *args: Any, **kwargs: Any) -> bool:
            raise ValueError("no space left")

    client = Full(":memory:")
    with pytest.raises(ValueError, match="no space left"):
        QdrantStore(client, "docs", embedder=embedder).open()
    client.close()


def test_a_collection_that_went_is_looked_for_again(
    client: QdrantClient, embedder: Embedder
) -> None:
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([A])
    client.delete_collection("docs")
    for call in (lambda: store.upsert([B]), lambda: store.search("rye"), store.count):
        with pytest.raises(StoreError, match="was deleted while this store was open"):
            call()
    QdrantStore(client, "docs", embedder=embedder).upsert([B])
    assert [match.id for match in store.search("rye")] == ["b"]
    # Who made it anew may have another model.
    client.delete_collection("docs")
    with pytest.raises(StoreError, match="was deleted while this store was open"):
        store.count()
    other = Embedder(embedder.model, device="cpu", query_prompt="other: ")
    QdrantStore(client, "docs", embedder=other).open()
    with pytest.raises(SpaceMismatchError):
        store.search("rye")

    async def use() -> None:
        client = AsyncQdrantClient(":memory:")
        store = AsyncQdrantStore(client, "docs", embedder=embedder)
        await store.upsert([A])
        await client.delete_collection("docs")
        with pytest.raises(StoreError, match="was deleted while this store was open"):
            await store.count()
        await client.close()

    asyncio.run(use())


def test_many_threads_open_at_once(client: QdrantClient, embedder: Embedder) -> None:
    stores = [QdrantStore(client, "docs", embedder=embedder) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert [store.space for store in pool.map(QdrantStore.open, stores)] == [embedder.space] * 8


def test_a_server_that_keeps_no_metadata_is_refused(
    make_engine: MakeEngine, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_engine()
    create = client.create_collection
    monkeypatch.setattr(client, "create_collection", lambda *args, **kwargs: create(*args[:2]))
    monkeypatch.setattr(client, "update_collection", lambda *args, **kwargs: True)
    with pytest.raises(StoreError, match=r"1\.16"):
        QdrantStore(client, "docs", embedder=embedder).open()


def test_documents_and_sources_are_indexed_where_there_are_indexes(
    make_engine: MakeEngine, embedder: Embedder
) -> None:
    client = make_engine()
    QdrantStore(client, "docs", embedder=embedder).open()
    assert client.get_collection("docs").payload_schema.keys() == {"document_id", "source"}
    client.create_collection("mine", COSINE)
    QdrantStore(client, "mine", embedder=embedder, create=False).open()
    assert not client.get_collection("mine").payload_schema
    QdrantStore(client, "mine", embedder=embedder).open()
    assert client.get_collection("mine").payload_schema.keys() == {"document_id", "source"}


# -- named vectors ------------------------------------------------------------------------------


def test_each_named_vector_has_its_own_space(
    make_engine: MakeEngine, client: QdrantClient, embedder: Embedder
) -> None:
    short = Embedder(embedder.model, device="cpu", dimensions=16)
    small = models.VectorParams(size=16, distance=models.Distance.COSINE)
    hosts: list[Any] = [client, make_engine()]
    for host in hosts:
        host.create_collection("docs", {"full": COSINE, "short": small})
        full = QdrantStore(host, "docs", vector_name="full", embedder=embedder)
        full.open()
        brief = QdrantStore(host, "docs", vector_name="short", embedder=short).open()
        assert host.get_collection("docs").config.metadata.keys() == {
            "toastrack/full",
            "toastrack/short",
        }
        assert (full.space, brief.space) == (embedder.space, short.space)
        with pytest.raises(SpaceMismatchError):
            QdrantStore(host, "docs", vector_name="short", embedder=embedder).open()

        full.upsert([A, B])
        assert full.upsert([A, Record("b", "salt", {'"': 1})]).written == 1
        query = embedder.embed_documents(["salt"])[0]
        # The second filter has vectors compared here.
        for filter in (None, {'"': 1}):
            (match,) = full.search(query, k=1, filter=filter)
            assert match.id == "b"
            assert match.score == pytest.approx(1, abs=1e-5)


def test_a_new_collection_can_have_a_name_for_its_vectors(
    client: QdrantClient, embedder: Embedder
) -> None:
    store = QdrantStore(client, "docs", vector_name="dense", embedder=embedder)
    store.upsert([A])
    vectors = client.get_collection("docs").config.params.vectors
    assert isinstance(vectors, dict)
    assert vectors.keys() == {"dense"}
    QdrantStore(client, "unnamed", vector_name="", embedder=embedder).open()
    assert client.get_collection("unnamed").config.params.vectors == COSINE


# -- writing ------------------------------------------------------------------------------------


def test_other_metadata_leaves_the_vector_alone(client: QdrantClient, embedder: Embedder) -> None:
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([A])
    client.update_vectors("docs", [models.PointVectors(id=point_id("a"), vector=axis(3))])
    assert store.upsert([Record("a", A.text, {"v": 0.1 + 0.2})]).written == 1
    assert store.search(axis(3))[0].score == pytest.approx(1)
    assert "metadata_json" in (client.scroll("docs")[0][0].payload or {})
    assert store.upsert([Record("a", A.text, {"v": 1})]).written == 1
    assert "metadata_json" not in (client.scroll("docs")[0][0].payload or {})


def test_new_chunks_are_there_before_stale_ones_go(embedder: Embedder) -> None:
    calls: list[str] = []

    class Watched(QdrantClient):
        def upsert(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("upsert")
            assert kwargs["wait"] is True
            return super().upsert(*args, **kwargs)

        def delete(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("delete")
            assert kwargs["wait"] is True
            return super().delete(*args, **kwargs)

    client = Watched(":memory:")
    store = QdrantStore(client, "docs", embedder=embedder)
    store.replace("book", [Record("old", "rye"), Record("kept", "salt")])
    calls.clear()
    report = store.replace("book", [Record("new", "wheat"), Record("kept", "salt")])
    assert (report.written, report.deleted, report.unchanged) == (1, 1, 1)
    assert calls == ["upsert", "delete"]
    client.close()


def test_stores_of_one_local_client_take_turns(
    client: QdrantClient, embedder: Embedder, tmp_path: Path
) -> None:
    on_disk = QdrantClient(path=str(tmp_path / "q"), force_disable_check_same_thread=True)

    def write(job: tuple[QdrantClient, int]) -> int:
        host, writer = job
        store = QdrantStore(host, "docs", embedder=embedder)  # each thread has its own
        for start in range(0, 100, 10):
            store.upsert(
                Record(f"{writer} {n}", "rye", vector=axis(n % SIZE))
                for n in range(start, start + 10)
            )
            store.search(axis(0))
        return 100

    for host in (client, on_disk):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, [(host, writer) for writer in range(6)]))
        store = QdrantStore(host, "docs", embedder=embedder)
        assert store.count() == 600
        assert len(store.search(axis(0), k=1_000)) == 600
    on_disk.close()


# -- searching ----------------------------------------------------------------------------------


def test_native_filters(client: QdrantClient, make_engine: MakeEngine, embedder: Embedder) -> None:
    hosts: list[Any] = [client, make_engine()]
    for host in hosts:
        store = QdrantStore(host, "docs", embedder=embedder)
        store.upsert(spread(40))
        small = models.Filter(
            must=[models.FieldCondition(key="metadata.n", range=models.Range(gte=-1, lte=9))]
        )
        found = store.search(axis(0), k=50, where=small)
        assert {match.metadata["n"] for match in found} == set(range(10))
        assert [m.id for m in store.search(axis(0), where=small, filter={"n": 3})] == ["3"]
        assert store.search(axis(0), where=small, filter={"n": 30}) == []


def test_a_threshold(client: QdrantClient, make_engine: MakeEngine, embedder: Embedder) -> None:
    hosts: list[Any] = [client, make_engine()]
    for host in hosts:
        store = QdrantStore(host, "docs", embedder=embedder)
        store.upsert(
            [
                Record("near", "rye", {'"': 1}, vector=[1.0, 1.0] + [0.0] * 30),
                Record("far", "rye", {'"': 1}, vector=axis(5)),
            ]
        )
        assert [m.id for m in store.search(axis(0), score_threshold=0.5)] == ["near"]
        assert store.search(axis(0), score_threshold=0.9) == []
        found = store.search(axis(0), filter={'"': 1}, score_threshold=0.5)
        assert [match.id for match in found] == ["near"]


@pytest.mark.parametrize("host", ["local", "engine"])
def test_what_lets_too_much_pass_is_noticed(
    client: QdrantClient, make_engine: MakeEngine, embedder: Embedder, host: str
) -> None:
    # 2**60 and 2**60 + 1 are one float: whoever is nearer must not hide the other.
    store = QdrantStore(client if host == "local" else make_engine(), "docs", embedder=embedder)
    store.upsert(
        [
            Record("even", "rye", {"v": 2**60}, vector=axis(0)),
            Record("odd", "rye", {"v": 2**60 + 1}, vector=axis(1)),
            Record("quoted", "rye", {'a"b\\': 1}, vector=axis(2)),
        ]
    )
    assert [m.id for m in store.search(axis(0), k=1, filter={"v": 2**60 + 1})] == ["odd"]
    assert [m.id for m in store.search(axis(1), k=1, filter={"v": 2**60})] == ["even"]
    assert [m.id for m in store.search(axis(0), k=1, filter={'a"b\\': 1.0})] == ["quoted"]
    assert store.search(axis(0), filter={'a"b\\': "1"}) == []
    assert store.search(axis(0), filter={"v": 10**400}) == []


def test_filters_that_qdrant_can_express_read_no_vectors(
    client: QdrantClient,
    make_engine: MakeEngine,
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = ["en", ["en"], ["en", "de"], [["en"]], 1, 1.0, [1], True, 0.1 + 0.2, 2**70, {"v": 1}]
    hosts: list[Any] = [client, make_engine()]
    for host in hosts:
        store = QdrantStore(host, "docs", embedder=embedder)
        store.upsert(
            Record(f"{n}", "rye", {"v w": value}, vector=axis(n)) for n, value in enumerate(values)
        )
        monkeypatch.setattr(host, "scroll", None)
        cases: list[tuple[str | float, str]] = [
            ("en", "0"),
            (1, "45"),
            (0.1 + 0.2, "8"),
            (2**70, "9"),
        ]
        for wanted, found in cases:
            matches = store.search(axis(0), filter={"v w": wanted})
            assert sorted(match.id for match in matches) == list(found)


def test_reading_every_vector_in_pages(
    client: QdrantClient, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack_qdrant.points.Points.vectors_page", 7)
    store = QdrantStore(client, "docs", embedder=embedder)
    stored = spread(100)
    store.upsert(
        Record(r.id, r.text, {"n": r.metadata["n"], '"': r.metadata["n"] % 2}, vector=r.vector)
        for r in stored
    )
    odd = [match for match in store.search(axis(0), k=100) if match.metadata["n"] % 2]
    found = store.search(axis(0), k=10, filter={'"': 1})
    assert [match.id for match in found] == [match.id for match in odd[:10]]
    assert [match.score for match in found] == pytest.approx([m.score for m in odd[:10]], abs=1e-6)


def test_exact_and_parameters_reach_the_engine(make_engine: MakeEngine, embedder: Embedder) -> None:
    client = make_engine()
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert(spread(30))
    wide = models.SearchParams(hnsw_ef=77)
    for exact, parameters, expected in [
        (False, None, None),
        (True, None, models.SearchParams(exact=True)),
        (False, wide, wide),
        (True, wide, models.SearchParams(hnsw_ef=77, exact=True)),
    ]:
        client.asked.clear()
        assert len(store.search(axis(0), exact=exact, search_params=parameters)) == 10
        assert client.asked == [expected]
    assert wide.exact is None or wide.exact is False, "the caller's own was changed"


def test_fewer_than_asked_for_are_asked_for_again_exactly(
    make_engine: MakeEngine, embedder: Embedder
) -> None:
    client = make_engine()
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert(spread(5))
    store.search(axis(0), k=5)
    assert client.asked == [None]
    store.search(axis(0), k=6)
    assert client.asked[1:] == [None, models.SearchParams(exact=True)]


def test_the_engine_s_own_index(make_engine: MakeEngine, embedder: Embedder) -> None:
    import qdrant_edge as edge

    client = make_engine(
        hnsw_config=edge.HnswIndexConfig(m=4, ef_construct=8, full_scan_threshold=1),
        quantization_config=edge.BinaryQuantizationConfig(),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1),
    )
    store = QdrantStore(client, "docs", embedder=embedder)
    stored = spread(3_000)
    store.upsert(stored)
    client.optimize("docs")
    vectors = np.array([record.vector for record in stored])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = vectors @ np.array(axis(0))
    best = [str(n) for n in np.argsort(-scores)[:10]]
    exact = store.search(axis(0), exact=True)
    assert [match.id for match in exact] == best
    assert [match.score for match in exact] == pytest.approx(np.sort(-scores)[:10] * -1, abs=1e-5)
    approximate = [match.id for match in store.search(axis(0))]
    assert approximate != best, "the index is as good as exact: the test says nothing"
    assert len(store.search(axis(0), k=3_000)) == 3_000


def test_a_local_async_client_does_not_hold_up_the_loop(embedder: Embedder) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Watched(AsyncQdrantClient):
        async def query_points(self, *args: Any, **kwargs: Any) -> Any:
            loops.append(asyncio.get_running_loop())
            return await super().query_points(*args, **kwargs)

    async def use() -> None:
        client = Watched(":memory:")
        store = AsyncQdrantStore(client, "docs", embedder=embedder)
        await asyncio.gather(
            *(store.upsert([Record(f"{n}", "rye", vector=axis(n))]) for n in range(20))
        )
        assert await store.count() == 20
        assert (await store.search(axis(3), k=1))[0].id == "3"
        assert loops != [asyncio.get_running_loop()]
        await client.close()

    asyncio.run(use())
    assert len(loops) == 1


CHANGES: list[tuple[dict[str, Any], Any, Any]] = [
    ({"v": "a"}, "a", "b"),
    ({"v": {"$gt": "k"}}, "z", "a"),
    ({"v": {"$gte": 1}}, 1, 0),
    ({"v": {"$gte": 0.5}}, 0.5, 0.25),
    ({"v": {"$gte": 0.3}}, 0.1 + 0.2, 0.25),
    ({"v": {"$ne": True}}, False, True),
    ({"v": {"$exists": False}}, ..., 1),
    ({"v": {"$exists": False}}, ..., None),
    ({"v": {"$nin": ["a"]}}, None, "a"),
    ({"v": {"$gt": 2**64}}, 2**65, 1),
    ({"v": {"$lt": date(2024, 1, 1)}}, "2023-01-01", "2025-01-01"),
    ({"v": "a"}, "a", ["a"]),
]


@pytest.mark.parametrize("engine", [False, True])
def test_what_changes_before_it_is_deleted_stays(
    client: QdrantClient,
    make_engine: MakeEngine,
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    engine: bool,
) -> None:
    host: Any = make_engine() if engine else client
    other = QdrantStore(host, "docs", embedder=embedder)
    for number, (filter, before, after) in enumerate(CHANGES):
        if engine and isinstance(after, bool):
            continue  # the bindings (0.9.0) take True for 1, so the test's client asks for any value
        name = f"docs{number}"
        store = QdrantStore(host, name, embedder=embedder)
        metadata = {} if before is ... else {"v": before}
        store.upsert(Record(id, "rye", metadata, vector=axis(0)) for id in ("a", "b"))
        other.upsert([Record("b", "rye", {"v": after}, vector=axis(0))])
        (changed,) = host.retrieve("docs", [point_id("b")], with_payload=True, with_vectors=True)
        delete = host.delete

        def delete_later(
            *args: Any, changed: Any = changed, delete: Any = delete, **options: Any
        ) -> Any:
            point = models.PointStruct(**changed.model_dump(include={"id", "vector", "payload"}))
            host.upsert(args[0], [point])
            return delete(*args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(host, "delete", delete_later)
            assert store.delete(filter=filter) == 1, filter
        assert [record and record.id for record in store.get(["a", "b"])] == [None, "b"], filter


def test_fields_that_filters_ask_for_have_an_index(
    make_engine: MakeEngine, embedder: Embedder
) -> None:
    client = make_engine()
    store = QdrantStore(client, "docs", embedder=embedder)
    metadata: list[dict[str, Any]] = [
        {"lang": "en", "year": 2020, "draft": True, "it is": 1.5, "tags": ["a"]},
        {"lang": "de", "year": 7.5, "draft": False, "it is": "text", "tags": None},
        {"lang": 7, "year": 2**70, "it is": 3},
    ]
    store.upsert(
        Record(f"r{number}", "rye", values, vector=axis(number))
        for number, values in enumerate(metadata)
    )
    names = ["lang", "year", "draft", "it is"]
    assert store.build_index(filter_fields=names) is True
    assert store.build_index(filter_fields=names) is False
    schema = client.get_collection("docs").payload_schema
    assert {path: found.data_type.value for path, found in schema.items()} == {
        "document_id": "keyword",
        "source": "keyword",
        "metadata.lang": "keyword",
        "metadata.year": "float",
        "metadata.draft": "bool",
        'metadata."it is"': "float",
    }
    found = store.search(axis(0), filter={"year": {"$gte": 100}})
    assert {match.id for match in found} == {"r0", "r2"}
    for name in ("nobody", "tags"):
        with pytest.raises(StoreError, match=f"in the field '{name}'"):
            store.build_index(filter_fields=["lang", name])
    with pytest.raises(UnsupportedError, match="quote or backslash"):
        store.build_index(filter_fields=['say "hi"'])


def test_an_index_of_another_kind_is_made_anew_on_request(
    make_engine: MakeEngine, embedder: Embedder
) -> None:
    client = make_engine()
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("a", "rye", {"year": 2020}, vector=axis(0))])
    keyword = models.PayloadSchemaType.KEYWORD
    client.create_payload_index("docs", "metadata.year", keyword)
    with pytest.raises(StoreError, match=r"index for keyword, .* one for float\. .*rebuild=True"):
        store.build_index(filter_fields=["year"])
    assert store.build_index(filter_fields=["year"], rebuild=True) is True
    schema = client.get_collection("docs").payload_schema
    assert schema["metadata.year"].data_type == models.PayloadSchemaType.FLOAT


def test_other_settings_than_the_collection_has_are_refused(
    make_engine: MakeEngine, embedder: Embedder
) -> None:
    client = make_engine()

    def store(m: int | None) -> QdrantStore:
        config = None if m is None else models.HnswConfigDiff(m=m)
        return QdrantStore(client, "docs", embedder=embedder, hnsw_config=config)

    store(32).upsert([Record("a", "rye", vector=axis(0))])
    assert store(32).build_index() is False
    assert store(None).build_index(rebuild=True) is False
    with pytest.raises(StoreError) as error:
        store(16).build_index()
    assert "m=32" in str(error.value)
    assert "m=16" in str(error.value)
    assert "rebuild=True" in str(error.value)
    assert store(16).build_index(rebuild=True) is True
    assert client.get_collection("docs").config.hnsw_config.m == 16
    assert store(16).build_index() is False
