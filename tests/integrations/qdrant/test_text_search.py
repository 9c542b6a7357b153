"""Searching by words in Qdrant: by a text index that ranks, of Qdrant 1.20 and newer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from toastrack import Embedder, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack_qdrant import AsyncQdrantStore, QdrantStore
from toastrack_qdrant.text_index import language_of
from toastrack_qdrant.text_search import read_web

if not hasattr(models, "TextQuery"):
    pytest.skip("qdrant-client before 1.20 has no search by words", allow_module_level=True)

MakeEngine = Callable[..., Any]

TEXTS = {
    "rye": "The rye bread keeps fresh for more than a week.",
    "salt": "Salt slows the dough down.",
    "oven": "The oven bakes rye loaves at 230 degrees.",
}
RECORDS = [Record(id, text, {"length": len(id)}) for id, text in TEXTS.items()]


def ids(found: Any) -> list[str]:
    return [match.id for match in found]


@pytest.fixture
def engine(make_engine: MakeEngine, embedder: Embedder) -> Iterator[tuple[Any, QdrantStore]]:
    client = make_engine()
    with QdrantStore(client, "docs", embedder=embedder) as store:
        store.upsert(RECORDS)
        yield client, store


def test_the_engine_knows_endings_and_stop_words(engine: tuple[Any, QdrantStore]) -> None:
    _, store = engine
    store.build_text_index()
    assert ids(store.search("the degree", mode="text")) == ["oven"]
    # Words that no text has are words.
    assert store.search("the unheard", mode="text") == []
    assert store.search("salt", mode="text", filter={"length": 3}) == []
    assert ids(store.search("keeping breads", mode="text")) == ["rye"]
    with pytest.warns(UserWarning, match="language='english'"):
        assert store.search("the", mode="text") == []
    assert len(store.search("the", mode="hybrid")) == len(TEXTS)
    assert store.build_text_index("simple", rebuild=True) is True
    assert ids(store.search("degree", mode="text")) == []
    assert sorted(ids(store.search("the", mode="text"))) == sorted(TEXTS)


def test_a_local_client_takes_words_as_they_are_and_keeps_its_index(
    tmp_path: Path, embedder: Embedder
) -> None:
    client = QdrantClient(path=str(tmp_path))
    with QdrantStore(client, "docs", embedder=embedder, text_index="english") as store:
        store.upsert(RECORDS)
        assert ids(store.search("loaves", mode="text")) == ["oven"]
        assert ids(store.search("loaf", mode="text")) == []
    client.close()
    client = QdrantClient(path=str(tmp_path))
    with QdrantStore(client, "docs", embedder=embedder) as store:
        assert ids(store.search("loaves", mode="text")) == ["oven"]
        assert store.build_text_index() is False
        with pytest.raises(StoreError, match="language='english'"):
            store.build_text_index("german")
    client.close()


async def test_the_index_is_made_with_the_collection_also_asynchronously(
    embedder: Embedder,
) -> None:
    client = AsyncQdrantClient(":memory:")
    async with AsyncQdrantStore(client, "docs", embedder=embedder, text_index="simple") as store:
        await store.upsert(RECORDS)
        assert ids(await store.search("rye loaves", mode="text")) == ["oven", "rye"]
        assert await store.build_text_index("simple") is False
    await client.close()


def test_no_language_is_taken_that_is_none(client: QdrantClient, embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="language='klingon'"):
        QdrantStore(client, "docs", embedder=embedder, text_index="klingon")
    assert not client.collection_exists("docs")


def test_an_older_server_is_told_before_a_collection_is_made(
    make_engine: MakeEngine, embedder: Embedder
) -> None:
    client = make_engine()
    client.version = "1.19.4"
    store = QdrantStore(client, "docs", embedder=embedder, text_index="english")
    with pytest.raises(
        UnsupportedError, match=r"needs Qdrant 1\.20 or newer.*the server is 1\.19\.4"
    ):
        store.upsert(RECORDS)
    assert not client.collection_exists("docs")


def test_an_older_client_is_told(
    client: QdrantClient, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with QdrantStore(client, "docs", embedder=embedder) as store:
        store.upsert(RECORDS)
        monkeypatch.delattr(models, "TextQuery")
        for ask in (store.build_text_index, partial(store.search, "rye", mode="text")):
            with pytest.raises(UnsupportedError, match="pip install -U qdrant-client"):
                ask()


def test_an_index_of_somebody_elses_is_used_or_left(engine: tuple[Any, QdrantStore]) -> None:
    client, store = engine
    word = models.TextIndexParams(type=models.TextIndexType.TEXT)
    client.create_payload_index("docs", "text", word)
    with pytest.raises(UnsupportedError, match="build_text_index"):
        store.search("rye", mode="text")
    with pytest.raises(StoreError, match="does not rank"):
        store.build_text_index()
    assert store.build_text_index(rebuild=True) is True
    client.delete_payload_index("docs", "text")
    with pytest.raises(UnsupportedError, match="build_text_index"):
        store.search("rye", mode="text")
    ranking = models.TextIndexParams(type=models.TextIndexType.TEXT, scoring=True)
    client.create_payload_index("docs", "text", ranking)
    assert ids(store.search("salt", mode="text")) == ["salt"]
    assert language_of(client.get_collection("docs"), local=False) == "simple"


def test_named_vectors_share_the_index_of_words(client: QdrantClient, embedder: Embedder) -> None:
    sizes = {"one": embedder.dimensions, "two": embedder.dimensions}
    client.create_collection(
        "docs",
        vectors_config={
            name: models.VectorParams(size=size, distance=models.Distance.COSINE)
            for name, size in sizes.items()
        },
    )
    one, two = (QdrantStore(client, "docs", embedder=embedder, vector_name=name) for name in sizes)
    one.upsert(RECORDS)
    two.upsert(RECORDS)
    assert one.build_text_index() is True
    assert two.build_text_index() is False
    for store in (one, two):
        assert ids(store.search("salt", mode="text")) == ["salt"]
        assert ids(store.search("salt", mode="hybrid", k=1)) == ["salt"]
        store.close()


def test_own_filters_go_with_both_lists_and_a_threshold_with_none(
    client: QdrantClient, embedder: Embedder
) -> None:
    with QdrantStore(client, "docs", embedder=embedder) as store:
        store.upsert(RECORDS)
        store.build_text_index()
        longer = models.Filter(
            must=[models.FieldCondition(key="metadata.length", range=models.Range(gt=3))]
        )
        found = store.search("rye", mode="text", where=longer)
        assert ids(found) == ["oven"]
        found = store.search("rye", mode="hybrid", where=longer)
        assert sorted(ids(found)) == ["oven", "salt"]
        for mode in ("text", "hybrid"):
            with pytest.raises(ValueError, match="score_threshold="):
                store.search("rye", mode=mode, score_threshold=0.5)


def test_more_than_a_page_is_found_by_words_and_a_filter_that_is_read(
    client: QdrantClient, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack_qdrant.points.Points.page", 16)
    zeros = [1.0, *[0.0] * (embedder.dimensions - 1)]
    with QdrantStore(client, "docs", embedder=embedder) as store:
        store.upsert(
            Record(
                f"r{i:02}", "rye " * (i + 1), {"odd": i % 2 == 1, "name": f"n{i:02}"}, vector=zeros
            )
            for i in range(60)
        )
        store.build_text_index()
        assert len(store.search("rye", k=1000, mode="text")) == 60
        late = store.search("rye", k=40, mode="text", filter={"name": {"$gt": "n49"}})
        assert sorted(ids(late)) == [f"r{i}" for i in range(50, 60)]
        scores = [match.score for match in late]
        assert scores == sorted(scores, reverse=True)


def test_what_is_read_of_a_query_as_in_web_search() -> None:
    text, wanted = read_web('rye the "sour starter" -oven or -"a b" & salt')
    assert text == "rye the sour starter salt"
    assert wanted == models.Filter(
        should=[
            models.Filter(
                must=[
                    models.FieldCondition(
                        key="text", match=models.MatchPhrase(phrase="sour starter")
                    ),
                    models.FieldCondition(key="text", match=models.MatchText(text="rye the")),
                ],
                must_not=[models.FieldCondition(key="text", match=models.MatchText(text="oven"))],
            ),
            models.Filter(
                must=[models.FieldCondition(key="text", match=models.MatchText(text="salt"))],
                must_not=[
                    models.FieldCondition(key="text", match=models.MatchPhrase(phrase="a b"))
                ],
            ),
        ]
    )
    assert read_web("or & ''") == ("", models.Filter())


def sent(message: Any) -> Any:
    """Return what a message of gRPC's is on the other side."""
    return type(message).FromString(message.SerializeToString())


@pytest.fixture
def over_grpc(tmp_path: Path) -> Iterator[Any]:
    """The engine behind what ``prefer_grpc=True`` makes of requests, and of the index it tells of."""
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    from edge_client import EdgeClient
    from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

    def filtered(wanted: models.Filter | None) -> models.Filter | None:
        return wanted and GrpcToRest.convert_filter(sent(RestToGrpc.convert_filter(wanted)))

    engine: Any = EdgeClient

    class OverGrpc(engine):  # type: ignore[misc]
        def create_payload_index(self, collection: str, field: str, *kind: Any, **how: Any) -> Any:
            (params,) = kind
            if isinstance(params, models.TextIndexParams):
                message = sent(RestToGrpc.convert_payload_schema_params(params))
                params = GrpcToRest.convert_payload_schema_params(message)
            return super().create_payload_index(collection, field, params, **how)

        def query_points(self, collection: str, query: Any = None, *args: Any, **how: Any) -> Any:
            if isinstance(query, models.TextQuery):
                query = GrpcToRest.convert_query(sent(RestToGrpc.convert_query(query)))
            how["query_filter"] = filtered(how["query_filter"])
            return super().query_points(collection, query, *args, **how)

        def count(self, collection: str, count_filter: Any = None, **how: Any) -> Any:
            return super().count(collection, filtered(count_filter), **how)

    client = OverGrpc(tmp_path)
    yield client
    client.close()


def test_what_is_asked_over_grpc_is_the_same(over_grpc: Any, embedder: Embedder) -> None:
    def search(query: str, **how: Any) -> list[str]:
        return ids(store.search(query, mode="text", **how))

    with QdrantStore(over_grpc, "asked-over-grpc", embedder=embedder) as store:
        store.upsert(RECORDS)
        assert store.build_text_index() is True
        assert store.build_text_index() is False
        assert search("keeping breads") == ["rye"]
        assert search("rye", filter={"length": 4}) == ["oven"]
        assert search('rye -"rye bread"', text_syntax="web") == ["oven"]
        assert sorted(search("salt OR degree", text_syntax="web")) == ["oven", "salt"]
        assert len(store.search("the", mode="hybrid")) == len(TEXTS)
        with pytest.warns(UserWarning, match="language='english'"):
            assert search("the") == []
        with pytest.raises(StoreError, match="is for language='english'"):
            store.build_text_index("simple")


def test_every_language_is_read_from_an_index_made_over_grpc(
    over_grpc: Any, embedder: Embedder
) -> None:
    with QdrantStore(over_grpc, "docs", embedder=embedder) as store:
        store.upsert(RECORDS)
        for language in ["simple", *(one.value for one in models.SnowballLanguage)]:
            assert store.build_text_index(language, rebuild=True) is True
            assert store.build_text_index(language) is False
            assert language_of(over_grpc.get_collection("docs"), local=False) == language
