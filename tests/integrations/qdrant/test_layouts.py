"""Collections that LangChain, LlamaIndex, Haystack and others filled with MiniLM, as they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
pytest.importorskip("sentence_transformers", reason="the extra 'local' is not installed")

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
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError, UnsupportedError
from toastrack.stores import open_store
from toastrack_qdrant import AsyncQdrantStore, QdrantStore

# LlamaIndex' store asks for an index that the server-less client does without.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

Fill = Callable[[Any, Encode], None]


VECTORS = models.VectorParams(size=384, distance=models.Distance.COSINE)


def collection(client: Any, encode: Encode, points: list[tuple[Any, dict[str, Any]]]) -> None:
    client.create_collection("bread", vectors_config=VECTORS)
    client.upsert(
        "bread",
        [
            models.PointStruct(id=id, vector=vector, payload=payload)
            for (id, payload), vector in zip(points, encode(TEXTS), strict=True)
        ],
    )


def langchain(client: Any, encode: Encode) -> None:
    langchain_qdrant = pytest.importorskip(
        "langchain_qdrant", reason="langchain-qdrant is not installed"
    )
    client.create_collection("bread", vectors_config=VECTORS)
    store = langchain_qdrant.QdrantVectorStore(client, "bread", langchain_embeddings(encode))
    store.add_texts(TEXTS, metadatas=METADATA, ids=IDS)


def llama_index(client: Any, encode: Encode) -> None:
    qdrant = pytest.importorskip(
        "llama_index.vector_stores.qdrant", reason="LlamaIndex' Qdrant store is not installed"
    )
    llama_index_into(qdrant.QdrantVectorStore("bread", client=client), encode)


def haystack(client: Any, encode: Encode) -> None:
    """As qdrant-haystack's converters.py makes a point of a document, and Document.to_dict writes it.

    https://github.com/deepset-ai/haystack-core-integrations/blob/main/integrations/qdrant/src/haystack_integrations/document_stores/qdrant/converters.py
    """
    namespace = UUID("3896d314-1e95-4a3a-b45a-945f9f0b541d")
    collection(
        client,
        encode,
        [
            (
                uuid5(namespace, id).hex,
                {
                    "id": id,
                    "content": text,
                    "blob": None,
                    "meta": {**metadata, "source_id": metadata["shelf"], "split_id": place},
                    "score": None,
                    "sparse_embedding": None,
                },
            )
            for place, (id, text, metadata) in enumerate(zip(IDS, TEXTS, METADATA, strict=True))
        ],
    )


FILLERS: dict[str, Fill] = {
    "langchain": langchain,
    "llama-index": llama_index,
    "haystack": haystack,
}


@pytest.mark.parametrize("name", FILLERS)
def test_what_peers_filled_is_proven_and_read(
    client: QdrantClient, minilm: Embedder, minilm_folder: Path, name: str
) -> None:
    FILLERS[name](client, encoding(minilm_folder))
    with pytest.raises(StoreError, match=f"fields='{name}'"):
        QdrantStore(client, "bread", embedder=minilm, adopt=True).open()
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        QdrantStore(client, "bread", embedder=minilm, fields=name).open()
    QdrantStore(client, "bread", embedder=minilm, fields=name, adopt=True).open()

    store = QdrantStore(client, "bread", embedder=minilm, fields=name, verify=True).open()
    # LangChain says nothing of documents.
    check_read(store, set(IDS) if name == "langchain" else {"top", "bottom"})


@pytest.mark.parametrize(("name", "wrong"), refusals(FILLERS))
def test_what_peers_filled_otherwise_is_refused(
    client: QdrantClient, minilm: Embedder, minilm_folder: Path, name: str, wrong: str
) -> None:
    FILLERS[name](client, encoding(minilm_folder, wrong))
    with refused(wrong):
        QdrantStore(client, "bread", embedder=minilm, fields=name, adopt=True).open()


def test_langchains_layout_is_written_as_langchain_reads_it(
    client: QdrantClient, minilm: Embedder, minilm_folder: Path
) -> None:
    langchain(client, encoding(minilm_folder))
    store = QdrantStore(client, "bread", embedder=minilm, fields="langchain", adopt=True)
    mended = Record(IDS[0], "Rye bread keeps for two weeks.", {"place": 0})
    new = Record("of ours", "Toast it.", {"place": 12}, document_id="toast", chunk=3)
    assert store.upsert([mended, new]).written == 2
    assert store.upsert([mended, new]).unchanged == 2
    assert store.get([IDS[0], "of ours"]) == [mended, new]
    assert store.count() == len(TEXTS) + 1

    import langchain_qdrant

    theirs = langchain_qdrant.QdrantVectorStore(
        client, "bread", langchain_embeddings(encoding(minilm_folder))
    )
    found = theirs.similarity_search("Toast it.", k=1)[0]
    assert (found.page_content, found.metadata["place"]) == ("Toast it.", 12)
    (read,) = theirs.get_by_ids([IDS[0]])
    assert read.page_content == mended.text

    assert store.replace("toast", [Record("other", "Toast it twice.")]).deleted == 1
    assert store.delete([IDS[0], "other"]) == 2
    assert store.delete(documents=[IDS[11]]) == 1
    assert store.delete(filter={"place": {"$lt": 3}}) == 2
    assert store.count() == len(TEXTS) - 4


def test_a_new_collection_may_have_langchains_layout(
    client: QdrantClient, embedder: Embedder
) -> None:
    store = QdrantStore(client, "new", embedder=embedder, fields="langchain")
    store.upsert([Record("17", "rye"), Record("a", "oat", {"n": 1})])
    points, _ = client.scroll("new", with_payload=True)
    assert {point.payload["page_content"] for point in points if point.payload} == {"rye", "oat"}
    assert 17 in {point.id for point in points}
    assert [match.id for match in store.search("rye", filter={"n": 1})] == ["a"]


@pytest.mark.parametrize("name", ["llama-index", "haystack"])
def test_a_layout_that_cannot_hold_ours_is_only_read(
    client: QdrantClient, minilm: Embedder, minilm_folder: Path, name: str
) -> None:
    FILLERS[name](client, encoding(minilm_folder))
    store = QdrantStore(client, "bread", embedder=minilm, fields=name, adopt=True)
    check_only_read(store)
    if name == "llama-index":
        with pytest.raises(UnsupportedError, match="within JSON"):
            store.search("rye", mode="text")
        with pytest.raises(UnsupportedError, match="within JSON"):
            store.build_text_index()
    with pytest.raises(UnsupportedError, match="only read"):
        QdrantStore(client, "new", embedder=minilm, fields=name).open()
    copied = QdrantStore(client, "copy", embedder=minilm)
    assert copied.upsert(store.records(vectors=True)).embedded == 0
    assert copied.search(QUESTION, k=1)[0].id == IDS[BAGELS]


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({"text": "body", "id": "key", "metadata": "about"}, [f"key {n}" for n in range(12)]),
        ({"text": "body", "metadata": "about"}, [str(n) for n in range(12)]),
        ({"text": "body", "metadata": None, "document_id": "about.shelf"}, None),
        ({"text": "inner.body", "metadata": "about"}, None),
    ],
    ids=["own ids", "ids of the points", "all of it is metadata", "nested"],
)
def test_any_keys(
    client: QdrantClient,
    minilm: Embedder,
    minilm_folder: Path,
    fields: dict[str, str | None],
    ids: list[str] | None,
) -> None:
    points: list[tuple[Any, dict[str, Any]]] = [
        (
            place,
            {
                "body": text,
                "inner": {"body": text},
                "key": f"key {place}",
                "about": metadata,
                "n": place,
            },
        )
        for place, (text, metadata) in enumerate(zip(TEXTS, METADATA, strict=True))
    ]
    collection(client, encoding(minilm_folder), points)
    store = QdrantStore(client, "bread", embedder=minilm, fields=fields, adopt=True).open()
    wanted = ids or [str(place) for place in range(12)]
    assert store.search(QUESTION, k=1)[0].id == wanted[BAGELS]
    records = store.get(wanted)
    assert [record.text for record in records if record is not None] == TEXTS
    is_flat = fields["metadata"] is None
    chosen = {"n": 3} if is_flat else {"place": 3}
    assert store.count(filter=chosen) == 1
    assert store.count(documents=True) == (2 if is_flat else 12)
    if fields == {"text": "body", "metadata": "about"}:
        assert store.upsert([Record("3", "Salt.", {"place": 3})]).written == 1
        assert store.count() == 12
    else:
        with pytest.raises(UnsupportedError, match="only read"):
            store.upsert([Record("3", "Salt.")])


def test_keys_that_need_quotes(client: QdrantClient, minilm: Embedder, minilm_folder: Path) -> None:
    points: list[tuple[Any, dict[str, Any]]] = [
        (
            place,
            {
                "der Text": text,
                "meine ID": f"key {place}",
                "über": {"place": place, "a key": place},
                "the shelf's": {"nr. %s": f"shelf {place % 2}", "ö": f"shelf {place % 2}"},
                "Stück": place,
            },
        )
        for place, text in enumerate(TEXTS)
    ]
    collection(client, encoding(minilm_folder), points)
    fields = {
        "text": "der Text",
        "id": "meine ID",
        "metadata": "über",
        "document_id": "the shelf's.ö",
        "chunk": "Stück",
    }
    store = QdrantStore(client, "bread", embedder=minilm, fields=fields, adopt=True).open()
    wanted = [f"key {place}" for place in range(len(TEXTS))]
    assert [record.text for record in store.get(wanted) if record is not None] == TEXTS
    assert sorted(record.id for record in store.records()) == sorted(wanted)
    assert set(store.document_ids()) == {"shelf 0", "shelf 1"}
    assert store.count(documents=True) == 2
    assert store.count(filter={"place": {"$lt": 3}, "a key": 2}) == 1
    (found,) = store.search(QUESTION, k=1, filter={"place": BAGELS}, neighbours=2)
    assert (found.id, found.chunk, found.document_id) == (f"key {BAGELS}", BAGELS, "shelf 1")
    assert TEXTS[BAGELS - 2] in str(found.context)
    assert QdrantStore(client, "bread", embedder=minilm, fields=fields, verify=True).open()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("langchian", "none of 'langchain'"),
        ({"txt": "a"}, "has no part 'txt'"),
        ({"id": "a"}, "needs a key for the 'text'"),
        ({"text": 5}, "has 5 for a key"),
        ({"text": "a", "metadata": 5}, "has 5 for a key"),
        ({"text": "a", "metadata": ""}, "has '' for a key"),
        ({"text": 'a"b'}, "Qdrant has no path to it"),
        ({"text": "a", "id": "b\\"}, "Qdrant has no path to it"),
    ],
)
def test_fields_that_there_are_not(
    client: QdrantClient, embedder: Embedder, fields: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        QdrantStore(client, "bread", embedder=embedder, fields=fields)


def test_words_are_looked_for_in_the_layouts_text(
    make_engine: Callable[..., Any], embedder: Embedder
) -> None:
    client = make_engine()
    store = QdrantStore(
        client, "bread", embedder=embedder, fields="langchain", text_index="english"
    )
    store.upsert([Record("a", "rye keeps fresh"), Record("b", "water and salt", {"n": 1})])
    assert [match.id for match in store.search("rye", mode="text")] == ["a"]
    assert {match.id for match in store.search("salt", mode="hybrid")} == {"a", "b"}
    assert not store.search("rye", mode="text", filter={"n": 1})


def test_the_asynchronous_store_reads_a_layout(minilm: Embedder, minilm_folder: Path) -> None:
    async def search() -> list[str]:
        client = AsyncQdrantClient(":memory:")
        await client.create_collection("bread", vectors_config=VECTORS)
        await client.upsert(
            "bread",
            [
                models.PointStruct(id=id, vector=vector, payload={"page_content": text})
                for id, text, vector in zip(IDS, TEXTS, encoding(minilm_folder)(TEXTS), strict=True)
            ],
        )
        store = AsyncQdrantStore(client, "bread", embedder=minilm, fields="langchain", adopt=True)
        found = await store.search(QUESTION, k=1)
        assert (await store.upsert([Record("new", "Toast it.")])).written == 1
        return [match.id for match in found]

    assert asyncio.run(search()) == [IDS[BAGELS]]


def test_an_address_says_the_layout(tmp_path: Path, minilm: Embedder, minilm_folder: Path) -> None:
    client = QdrantClient(path=str(tmp_path / "q"))
    langchain(client, encoding(minilm_folder))
    client.close()
    for layout in ("langchain", "text:page_content,metadata:metadata"):
        address = f"qdrant:{tmp_path / 'q'}/bread?fields={layout}"
        with open_store(address, minilm, create=False, adopt=True) as store:
            assert store.search(QUESTION, k=1)[0].id == IDS[BAGELS]
    with (
        pytest.raises(StoreError, match="none of 'langchain'"),
        open_store(f"qdrant:{tmp_path / 'q'}/bread?fields=nobody", minilm),
    ):
        pass
