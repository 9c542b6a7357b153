"""LangChain's cache keeps spaces apart by our namespace, and roles by a second store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toastrack import Embedder

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")
pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore

from toastrack_langchain import ToastrackEmbeddings


@pytest.fixture
def folder(loaded: Embedder, tiny_folder: Path) -> Path:
    return tiny_folder


def of(folder: Path, **settings: object) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(embedder=Embedder(folder, device="cpu", **settings))  # type: ignore[arg-type]


def cached(embeddings: ToastrackEmbeddings, root: Path) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        LocalFileStore(root / "documents"),
        namespace=embeddings.cache_namespace,
        query_embedding_cache=LocalFileStore(root / "queries"),
        key_encoder="blake2b",
    )


def test_a_cached_document_is_not_the_answer_to_a_query(folder: Path, tmp_path: Path) -> None:
    embeddings = of(folder)
    for _ in range(2):  # filled, then read
        cache = cached(embeddings, tmp_path)
        (document,) = cache.embed_documents(["bread"])
        query = cache.embed_query("bread")
        np.testing.assert_allclose(document, embeddings.embed_documents(["bread"])[0], atol=1e-5)
        np.testing.assert_allclose(query, embeddings.embed_query("bread"), atol=1e-5)
    assert len(list((tmp_path / "documents").iterdir())) == 1
    assert len(list((tmp_path / "queries").iterdir())) == 1


def test_what_is_cached_is_not_embedded_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cached(of(folder), tmp_path)
    documents, query = cache.embed_documents(["bread", "rye"]), cache.embed_query("why")
    monkeypatch.setattr(Embedder, "_worker", None)  # whatever embeds now fails
    again = cached(of(folder), tmp_path)
    assert again.embed_documents(["rye", "bread"]) == documents[::-1]
    assert again.embed_query("why") == query


def test_another_space_has_another_namespace(folder: Path, other_folder: Path) -> None:
    spaces = [
        of(folder),
        of(other_folder),
        of(folder, dimensions=16),
        of(folder, query_prompt="why: "),
        of(folder, document_prompt="it is: "),
        of(folder, max_tokens=32),
    ]
    assert len({embeddings.cache_namespace for embeddings in spaces}) == len(spaces)


def test_what_makes_no_other_vector_keeps_the_namespace(folder: Path) -> None:
    namespace = of(folder).cache_namespace
    assert of(folder, on_truncate="ignore").cache_namespace == namespace
    assert of(folder, max_tokens=64).cache_namespace == namespace
    assert ToastrackEmbeddings(embedder=Embedder(folder)).cache_namespace == namespace
