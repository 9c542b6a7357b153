"""Collections that Chroma's own client, LangChain and LlamaIndex filled with MiniLM, as they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
pytest.importorskip("sentence_transformers", reason="the extra 'local' is not installed")

import chromadb
from filled_by_others import (
    BAGELS,
    IDS,
    METADATA,
    QUESTION,
    TEXTS,
    Encode,
    check_only_read,
    check_read,
    encoding,
    langchain_embeddings,
    llama_index_into,
    refusals,
    refused,
)

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack_chroma import AsyncChromaStore, ChromaStore


def plain(client: Any, encode: Encode) -> None:
    """Chroma's own client: the distance is l2 unless somebody says otherwise."""
    collection = client.create_collection("bread", embedding_function=None)
    collection.add(ids=IDS, documents=TEXTS, embeddings=encode(TEXTS), metadatas=METADATA)


def langchain(client: Any, encode: Encode) -> None:
    langchain_chroma = pytest.importorskip(
        "langchain_chroma", reason="langchain-chroma is not installed"
    )
    store = langchain_chroma.Chroma(
        "bread", embedding_function=langchain_embeddings(encode), client=client
    )
    store.add_texts(TEXTS, metadatas=METADATA, ids=IDS)


def llama_index(client: Any, encode: Encode) -> None:
    chroma = pytest.importorskip(
        "llama_index.vector_stores.chroma", reason="LlamaIndex' Chroma store is not installed"
    )
    collection = client.create_collection("bread")
    llama_index_into(chroma.ChromaVectorStore(chroma_collection=collection), encode)


FILLERS = {"chroma": plain, "langchain": langchain, "llama-index": llama_index}


@pytest.fixture(params=FILLERS)
def fill(request: pytest.FixtureRequest) -> Callable[[Any, Encode], None]:
    return FILLERS[request.param]


@pytest.fixture
def client(persistent: Any) -> Any:
    return persistent


def test_what_peers_filled_is_proven_and_read(
    client: Any, minilm: Embedder, minilm_folder: Path, fill: Callable[[Any, Encode], None]
) -> None:
    fill(client, encoding(minilm_folder))
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        ChromaStore(client, "bread", embedder=minilm).open()
    ChromaStore(client, "bread", embedder=minilm, adopt=True).open()

    store = ChromaStore(client, "bread", embedder=minilm, verify=True).open()
    check_read(store, set(IDS))
    match, *others = store.search(QUESTION, k=3)
    assert (match.id, match.score_kind, len(others)) == (IDS[BAGELS], "cosine", 2)
    # The score is a cosine, whatever the collection compares by.
    query = minilm.embed_query(QUESTION)
    (stored,) = store.get([IDS[BAGELS]], vectors=True)
    assert stored is not None
    assert match.score == pytest.approx(float(np.asarray(stored.vector) @ query), abs=1e-4)
    exact = store.search(QUESTION, k=3, exact=True)
    assert [found.id for found in exact] == [match.id, *(other.id for other in others)]


@pytest.mark.parametrize(("name", "wrong"), refusals(FILLERS))
def test_what_peers_filled_otherwise_is_refused(
    client: Any, minilm: Embedder, minilm_folder: Path, name: str, wrong: str
) -> None:
    FILLERS[name](client, encoding(minilm_folder, wrong))
    with refused(wrong):
        ChromaStore(client, "bread", embedder=minilm, adopt=True).open()


def test_a_collection_of_another_distance_is_only_read(
    client: Any, minilm: Embedder, minilm_folder: Path
) -> None:
    plain(client, encoding(minilm_folder))
    store = ChromaStore(client, "bread", embedder=minilm, adopt=True).open()
    check_only_read(store, StoreError, r"compares by 'l2'.*only read")
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
            found = await store.search(QUESTION, k=1)
            with pytest.raises(StoreError, match="only read"):
                await store.upsert([Record("new", "Toast it.")])
        await client._server._cleanup()  # type: ignore[attr-defined]
        return [match.id for match in found]

    assert asyncio.run(search()) == [IDS[BAGELS]]
