"""LlamaIndex end to end: into three vector stores, once, and found again; caches that notice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from models import MXBAI_PROMPT
from token_ids import read, seen_by_the_model
from urls import sqlalchemy_url

from toastrack import Embedder

pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")

from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore

from toastrack_llama_index import ToastrackEmbedding

TEXTS = {
    "rope": "Bread that smells of fruit and pulls into slimy strings has rope. Throw it away.",
    "altitude": "High in the mountains dough rises faster, so use less yeast and more water.",
    "dust": "Flour dust makes bakers wheeze and sneeze. Keep it low and wear a mask.",
}
QUESTION = "Why does the crumb of my loaf pull into slimy strings?"


@contextmanager
def _chroma(request: pytest.FixtureRequest) -> Iterator[Any]:
    package = pytest.importorskip(
        "llama_index.vector_stores.chroma",
        reason="llama-index-vector-stores-chroma is not installed",
    )
    import chromadb

    folder: Path = request.getfixturevalue("tmp_path")
    client = chromadb.PersistentClient(str(folder / "chroma"))
    yield package.ChromaVectorStore(chroma_collection=client.create_collection("handbook"))


@contextmanager
def _qdrant(request: pytest.FixtureRequest) -> Iterator[Any]:
    package = pytest.importorskip(
        "llama_index.vector_stores.qdrant",
        reason="llama-index-vector-stores-qdrant is not installed",
    )
    import qdrant_client

    client = qdrant_client.QdrantClient(":memory:")
    yield package.QdrantVectorStore("handbook", client=client)
    client.close()


@contextmanager
def _postgres(request: pytest.FixtureRequest) -> Iterator[Any]:
    package = pytest.importorskip(
        "llama_index.vector_stores.postgres",
        reason="llama-index-vector-stores-postgres is not installed",
    )
    dsn = request.getfixturevalue("postgres_dsn")
    store = package.PGVectorStore(
        connection_string=sqlalchemy_url(dsn, "psycopg2"),
        async_connection_string=sqlalchemy_url(dsn, "asyncpg"),
        table_name="handbook",
        schema_name=request.getfixturevalue("schema"),
        embed_dim=384,
    )
    yield store
    asyncio.run(store.close())


STORES = [
    pytest.param(_chroma, id="chroma"),
    pytest.param(
        _qdrant,
        id="qdrant",
        # The store asks for an index that the server-less client does without.
        marks=pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
    ),
    pytest.param(_postgres, id="postgres"),
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An empty vector store of LlamaIndex' own."""
    with request.param(request) as store:
        yield store


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> ToastrackEmbedding:
    """A model that understands, asked with mxbai's prompt."""
    embedding = ToastrackEmbedding(minilm_folder, device="cpu", query_prompt=MXBAI_PROMPT)
    embedding.embedder.load()
    return embedding


def documents() -> list[Document]:
    return [Document(id_=name, text=text) for name, text in TEXTS.items()]


def best(store: Any, embedding: ToastrackEmbedding) -> str:
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    (found, *_) = index.as_retriever(similarity_top_k=2).retrieve(QUESTION)
    return str(found.node.ref_doc_id)


def test_an_index_finds_the_best_document(store: Any, minilm: ToastrackEmbedding) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex.from_documents(
        documents(),
        storage_context=context,
        embed_model=minilm,
        transformations=[minilm.node_parser()],
    )
    assert best(store, minilm) == "rope"


def test_a_pipeline_ingests_once(store: Any, minilm: ToastrackEmbedding) -> None:
    pipeline = IngestionPipeline(
        transformations=[minilm.node_parser(), minilm],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    assert len(pipeline.run(documents=documents())) == 3
    assert len(pipeline.run(documents=documents())) == 0
    assert best(store, minilm) == "rope"
    changed = documents()
    changed[1].set_content("The crumb of a loaf pulls into slimy strings where bacteria grow.")
    assert len(pipeline.run(documents=changed)) == 1
    assert best(store, minilm) == "altitude"


def test_the_index_reads_documents_raw_and_prompts_the_question(
    minilm: ToastrackEmbedding, minilm_folder: Path
) -> None:
    with seen_by_the_model(minilm.embedder) as rows:
        index = VectorStoreIndex.from_documents(
            documents(), embed_model=minilm, transformations=[minilm.node_parser()]
        )
        index.as_retriever(similarity_top_k=1).retrieve(QUESTION)
    assert sorted(rows[:3]) == sorted(read(minilm_folder, text) for text in TEXTS.values())
    assert rows[3:] == [read(minilm_folder, MXBAI_PROMPT + QUESTION)]


# -- the pipeline's own cache ---------------------------------------------------------------


class _Counted:
    """A pipeline over one cache, and how many texts each run embedded."""

    def __init__(self) -> None:
        self.cache = IngestionCache()

    def run(self, embedding: ToastrackEmbedding) -> tuple[int, list[Any]]:
        pipeline = IngestionPipeline(transformations=[embedding], cache=self.cache)
        with seen_by_the_model(embedding.embedder) as rows:
            nodes = pipeline.run(documents=documents())
        return len(rows), [node.embedding for node in nodes]


@pytest.fixture
def counted(loaded: Embedder) -> _Counted:
    return _Counted()


def of(folder: Path, **settings: Any) -> ToastrackEmbedding:
    return ToastrackEmbedding(folder, device="cpu", **settings)


def test_the_same_space_is_read_from_the_cache(counted: _Counted, tiny_folder: Path) -> None:
    assert counted.run(of(tiny_folder))[0] == 3
    assert counted.run(of(tiny_folder, on_truncate="ignore", embed_batch_size=2))[0] == 0
    assert counted.run(ToastrackEmbedding.from_dict(of(tiny_folder).to_dict()))[0] == 0


@pytest.mark.parametrize(
    "settings",
    [{"dimensions": 16}, {"document_prompt": "it is: "}, {"max_tokens": 16}],
    ids=lambda settings: next(iter(settings)),
)
def test_another_setting_is_embedded_anew(
    counted: _Counted, tiny_folder: Path, settings: dict[str, Any]
) -> None:
    _, before = counted.run(of(tiny_folder, on_truncate="ignore"))
    texts, after = counted.run(of(tiny_folder, on_truncate="ignore", **settings))
    assert texts == 3
    assert before != after


def test_new_weights_behind_the_same_name_are_embedded_anew(
    counted: _Counted, tiny_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    _, before = counted.run(of(folder))
    shutil.copytree(other_folder, folder, dirs_exist_ok=True)
    texts, after = counted.run(of(folder))
    assert texts == 3
    assert before != after


def test_another_model_is_embedded_anew(counted: _Counted, tiny_folder: Path) -> None:
    IngestionPipeline(transformations=[MockEmbedding(embed_dim=8)], cache=counted.cache).run(
        documents=documents()
    )
    texts, vectors = counted.run(of(tiny_folder))
    assert (texts, len(vectors[0])) == (3, 32)


@pytest.mark.rest
def test_a_pipeline_in_other_processes(minilm: ToastrackEmbedding) -> None:
    pipeline = IngestionPipeline(transformations=[minilm.node_parser(), minilm])
    nodes = pipeline.run(documents=documents(), num_workers=2)
    assert {node.ref_doc_id for node in nodes} == set(TEXTS)
    assert all(len(node.embedding or []) == 384 for node in nodes)


def test_a_pipeline_awaited(minilm: ToastrackEmbedding) -> None:
    pipeline = IngestionPipeline(transformations=[minilm.node_parser(), minilm])
    nodes = asyncio.run(pipeline.arun(documents=documents()))
    assert [len(node.embedding or []) for node in nodes] == [384] * 3
