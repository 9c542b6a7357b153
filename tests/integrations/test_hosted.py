"""A hosted embedder in the frameworks: shared, copied, and built anew from what they write down."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from model_server import ModelServer, random_vectors, serving

from toastrack import Embedder, Hosted

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.delenv("TOASTRACK_API_KEY", raising=False)
    with serving(ModelServer(random_vectors(16))) as running:
        yield running


@pytest.fixture
def embedder(server: ModelServer) -> Embedder:
    return Embedder(server.model, engine=Hosted(base_url=server.url), query_prompt="query: ")


def test_langchain(server: ModelServer, embedder: Embedder) -> None:
    langchain = pytest.importorskip(
        "toastrack_langchain", reason="the extra 'langchain' is not installed"
    )
    embeddings = langchain.ToastrackEmbeddings(
        model=server.model, engine=embedder.engine, query_prompt="query: "
    )
    for one in (embeddings, pickle.loads(pickle.dumps(embeddings))):
        np.testing.assert_array_equal(one.embed_query("rye"), embedder.embed_query("rye"))


def test_llama_index(server: ModelServer, embedder: Embedder) -> None:
    llama_index = pytest.importorskip(
        "toastrack_llama_index", reason="the extra 'llama-index' is not installed"
    )
    embedding = llama_index.ToastrackEmbedding(embedder=embedder)
    written = embedding.to_dict()
    assert written["base_url"] == server.url
    for one in (embedding, llama_index.ToastrackEmbedding.from_dict(written)):
        np.testing.assert_array_equal(one.get_query_embedding("rye"), embedder.embed_query("rye"))


def test_chroma(server: ModelServer, embedder: Embedder) -> None:
    chroma = pytest.importorskip("toastrack_chroma", reason="the extra 'chroma' is not installed")
    function = chroma.ToastrackEmbeddingFunction(embedder=embedder)
    config = function.get_config()
    assert config["base_url"] == server.url
    again = chroma.ToastrackEmbeddingFunction.build_from_config(config)
    np.testing.assert_array_equal(again.embed_query(["rye"])[0], embedder.embed_query("rye"))
    function.validate_config_update(config, {**config, "base_url": "https://elsewhere/v1"})
