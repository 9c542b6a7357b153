"""Collections that Chroma's own client, LangChain and LlamaIndex filled with MiniLM, as they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
pytest.importorskip("sentence_transformers", reason="the extra 'local' is not installed")

import chromadb
from models import MXBAI_PROMPT

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack_chroma import AsyncChromaStore, ChromaStore

TEXTS = [
    "Rye bread keeps for a week, since its bran holds water.",
    "Wheat dough is stretched and folded every half hour.",
    "A sourdough starter wants flour and water once a day.",
    "Salt slows the yeast down and tightens the gluten.",
    "Steam in the first ten minutes lets the crust open.",
    "A loaf is done when its core has ninety-six degrees.",
    "Croissants need cold butter and a rest between the turns.",
    "Bagels are boiled before they are baked.",
    "Pretzels get their brown skin from lye.",
    "Freeze bread in slices, and toast them from the freezer.",
    "Poolish is half water and half flour, with a pinch of yeast.",
    "Altitude makes dough rise faster, as the air is thin.",
]

Encode = Callable[[list[str]], list[list[float]]]


@cache
def _model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def encoding(folder: Path, prompt: str = "") -> Encode:
    """Embed as those do who use sentence-transformers, without a line of ours."""
    model = _model(folder)
    return lambda texts: model.encode([prompt + text for text in texts]).tolist()


def plain(client: Any, encode: Encode) -> None:
    """Chroma's own client: the distance is l2 unless somebody says otherwise."""
    collection = client.create_collection("bread", embedding_function=None)
    collection.add(
        ids=[f"loaf-{place}" for place in range(len(TEXTS))],
        documents=TEXTS,
        embeddings=encode(TEXTS),
        metadatas=[{"place": place} for place in range(len(TEXTS))],
    )


def langchain(client: Any, encode: Encode) -> None:
    langchain_chroma = pytest.importorskip(
        "langchain_chroma", reason="langchain-chroma is not installed"
    )
    from langchain_core.embeddings import Embeddings

    class Encoded(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return encode(texts)

        def embed_query(self, text: str) -> list[float]:
            return encode([text])[0]

    store = langchain_chroma.Chroma("bread", embedding_function=Encoded(), client=client)
    store.add_texts(
        TEXTS,
        metadatas=[{"place": place} for place in range(len(TEXTS))],
        ids=[f"loaf-{place}" for place in range(len(TEXTS))],
    )


def llama_index(client: Any, encode: Encode) -> None:
    chroma = pytest.importorskip(
        "llama_index.vector_stores.chroma", reason="LlamaIndex' Chroma store is not installed"
    )
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import TextNode

    class Encoded(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return encode([text])[0]

        def _get_query_embedding(self, query: str) -> list[float]:
            return encode([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return encode([query])[0]

    store = chroma.ChromaVectorStore(chroma_collection=client.create_collection("bread"))
    nodes = [
        TextNode(id_=f"loaf-{place}", text=text, metadata={"place": place, "shelf": "top"})
        for place, text in enumerate(TEXTS)
    ]
    VectorStoreIndex(
        nodes,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=Encoded(),
    )


FILLERS = {"chroma": plain, "langchain": langchain, "llama-index": llama_index}


@pytest.fixture(params=FILLERS)
def fill(request: pytest.FixtureRequest) -> Callable[[Any, Encode], None]:
    return FILLERS[request.param]


@pytest.fixture
def client(persistent: Any) -> Any:
    return persistent


@pytest.fixture
def minilm(minilm_folder: Path) -> Embedder:
    return Embedder(minilm_folder, device="cpu")


def test_what_peers_filled_is_proven_and_read(
    client: Any, minilm: Embedder, minilm_folder: Path, fill: Callable[[Any, Encode], None]
) -> None:
    fill(client, encoding(minilm_folder))
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        ChromaStore(client, "bread", embedder=minilm).open()
    ChromaStore(client, "bread", embedder=minilm, adopt=True).open()

    store = ChromaStore(client, "bread", embedder=minilm, verify=True).open()
    assert store.count() == len(TEXTS) == len(list(store.records()))
    (record,) = store.get(["loaf-7"])
    assert record is not None
    assert (record.text, record.metadata["place"]) == (TEXTS[7], 7)
    match, *others = store.search("how are bagels made?", k=3)
    assert (match.id, match.score_kind, len(others)) == ("loaf-7", "cosine", 2)
    # The score is a cosine, whatever the collection compares by.
    query = minilm.embed_query("how are bagels made?")
    (stored,) = store.get(["loaf-7"], vectors=True)
    assert stored is not None
    assert match.score == pytest.approx(float(np.asarray(stored.vector) @ query), abs=1e-4)
    exact = store.search("how are bagels made?", k=3, exact=True)
    assert [found.id for found in exact] == [match.id, *(other.id for other in others)]
    chosen = store.search("how are bagels made?", filter={"place": {"$lt": 3}})
    assert {found.metadata["place"] for found in chosen} == {0, 1, 2}


@pytest.mark.parametrize("name", ["another model", "document prompt"])
def test_what_peers_filled_otherwise_is_refused(
    client: Any,
    minilm: Embedder,
    minilm_folder: Path,
    fill: Callable[[Any, Encode], None],
    name: str,
) -> None:
    prompt = MXBAI_PROMPT if name == "document prompt" else ""
    encode = encoding(minilm_folder, prompt)
    if name == "another model":
        turned = np.random.default_rng(0).permutation(384)

        def encode(texts: list[str], right: Encode = encode) -> list[list[float]]:
            return [np.asarray(vector)[turned].tolist() for vector in right(texts)]

    fill(client, encode)
    with pytest.raises(SpaceMismatchError) as caught:
        ChromaStore(client, "bread", embedder=minilm, adopt=True).open()
    expected = "in front of its documents" if prompt else "none of them fits"
    assert expected in str(caught.value)


def test_a_collection_of_another_distance_is_only_read(
    client: Any, minilm: Embedder, minilm_folder: Path
) -> None:
    plain(client, encoding(minilm_folder))
    store = ChromaStore(client, "bread", embedder=minilm, adopt=True).open()
    for write in (
        lambda: store.upsert([Record("new", "Toast it.")]),
        lambda: store.replace("new", [Record("new", "Toast it.")]),
        lambda: store.delete(["loaf-1"]),
        lambda: store.delete(filter={"place": 1}),
    ):
        with pytest.raises(StoreError, match=r"compares by 'l2'.*only read"):
            write()
    copied = ChromaStore(client, "copy", embedder=minilm)
    assert copied.upsert(store.records(vectors=True)).embedded == 0
    (theirs,), (ours,) = store.search("bagels", k=1), copied.search("bagels", k=1)
    assert theirs.id == ours.id
    assert theirs.score == pytest.approx(ours.score, abs=1e-5)

    assert store.rebuild() == []
    assert store.upsert([Record("new", "Toast it.")]).written == 1
    assert store.count() == len(TEXTS) + 1


@pytest.mark.parametrize("distance", ["l2", "ip"])
def test_vectors_of_other_lengths_are_compared_by_cosine(
    client: Any, embedder: Embedder, distance: str
) -> None:
    collection = client.create_collection(
        "bread", embedding_function=None, configuration={"hnsw": {"space": distance}}
    )
    texts = [f"rye {word} bread" for word in ("warm", "cold", "sour", "sweet", "fresh", "the", "a")]
    texts += ["salt", "water", "yeast"]
    vectors = embedder.embed_documents(texts)
    lengths = np.linspace(0.1, 9, len(texts), dtype=np.float32)[:, None]
    collection.add(ids=texts, documents=texts, embeddings=list(vectors * lengths))
    store = ChromaStore(client, "bread", embedder=embedder, adopt=True).open()
    query = embedder.embed_query("rye")
    expected = sorted(zip(texts, vectors @ query, strict=True), key=lambda pair: -pair[1])[:4]
    found = store.search("rye", k=4)
    assert [match.id for match in found] == [id for id, _ in expected]
    assert [match.score for match in found] == pytest.approx([score for _, score in expected])


def test_the_asynchronous_store_adopts_and_reads_another_distance(
    chroma_database: tuple[str, int, str], minilm: Embedder, minilm_folder: Path
) -> None:
    host, port, database = chroma_database
    plain(chromadb.HttpClient(host=host, port=port, database=database), encoding(minilm_folder))

    async def search() -> list[str]:
        client = await chromadb.AsyncHttpClient(host=host, port=port, database=database)
        async with AsyncChromaStore(client, "bread", embedder=minilm, adopt=True) as store:
            found = await store.search("how are bagels made?", k=1)
            with pytest.raises(StoreError, match="only read"):
                await store.upsert([Record("new", "Toast it.")])
        await client._server._cleanup()  # type: ignore[attr-defined]
        return [match.id for match in found]

    assert asyncio.run(search()) == ["loaf-7"]
