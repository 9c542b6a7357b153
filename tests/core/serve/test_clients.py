"""The clients that people have: openai's, mixedbread's and our own hosted engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toastrack import Embedder, Hosted, Record, Reranker

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("orjson", reason="the extra 'serve' is not installed")

from serving import serving

from toastrack.serve.app import Served

TEXTS = ["Rye bread keeps for a week.", "Salt the dough.", "why is the crust brown?"]


@pytest.fixture(scope="module")
def served(tiny_folder: Path, cross_encoder_folder: Path) -> Served:
    reranker = Reranker(cross_encoder_folder)
    return Served(Embedder(tiny_folder, on_truncate="ignore"), ("tiny",), reranker, "judge")


@pytest.fixture(scope="module")
def address(served: Served) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVE_KEY", "sk-right")
        with serving(served, key_name="SERVE_KEY") as where:
            yield where


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOASTRACK_API_KEY", "sk-right")


def vectors(reply: Any) -> Any:
    return np.array([item.embedding for item in reply.data], dtype=np.float32)


def test_openai(address: str, served: Served) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed")
    local = served.embedder
    with openai.OpenAI(base_url=f"{address}/v1", api_key="sk-right", max_retries=0) as client:
        create = client.embeddings.create
        reply = create(model="tiny", input=TEXTS)  # it asks for base64 and decodes that
        np.testing.assert_allclose(vectors(reply), local.embed_documents(TEXTS), atol=1e-6)
        assert reply.usage.total_tokens == sum(map(local.count_tokens, TEXTS))
        reply = create(model="tiny:query", input=TEXTS, encoding_format="float")
        np.testing.assert_allclose(vectors(reply), local.embed_queries(TEXTS), atol=1e-6)
        reply = create(model="tiny", input=TEXTS, extra_body={"input_type": "query"}, dimensions=8)
        assert vectors(reply).shape == (3, 8)
        assert next(model.id for model in client.models.list()) == "tiny"
        assert client.models.retrieve("tiny:query").id == "tiny:query"
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            create(model="tiny", input=[[1, 2]])
        with pytest.raises(openai.NotFoundError, match="'other' is not served"):
            create(model="other", input=TEXTS)
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.embeddings.create(model="tiny", input=TEXTS)


def test_mixedbread(address: str, served: Served) -> None:
    mixedbread = pytest.importorskip("mixedbread", reason="mixedbread is not installed")
    local = served.embedder
    assert served.reranker is not None
    with mixedbread.Mixedbread(base_url=address, api_key="sk-right", max_retries=0) as client:
        reply = client.embed(model="tiny", input=TEXTS)
        np.testing.assert_allclose(vectors(reply), local.embed_documents(TEXTS), atol=1e-6)
        reply = client.embed(model="tiny", input=TEXTS, prompt=local.query_prompt, normalized=True)
        np.testing.assert_allclose(vectors(reply), local.embed_queries(TEXTS), atol=1e-6)
        found = client.rerank(model="judge", query="rye", input=TEXTS, top_k=2, return_input=True)
        best = served.reranker.rank("rye", TEXTS, k=2)
        assert [(item.index, item.input) for item in found.data] == [
            (position, TEXTS[position]) for position, _ in best
        ]
        np.testing.assert_allclose(
            [item.score for item in found.data], [score for _, score in best], atol=1e-6
        )
        with pytest.raises(mixedbread.BadRequestError, match="own prompts"):
            client.embed(model="tiny", input=TEXTS, prompt="Find: ")


def test_a_hosted_reranker_scores_as_the_local_one(address: str, served: Served) -> None:
    pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")
    hosted = Reranker("judge", engine=Hosted(base_url=f"{address}/v1"))
    assert served.reranker is not None
    want = served.reranker.score("which bread", TEXTS)
    np.testing.assert_allclose(hosted.score("which bread", TEXTS), want, atol=1e-6)


@pytest.mark.parametrize("filled", ["here", "through the server"])
def test_a_collection_belongs_to_both(
    address: str, served: Served, tmp_path: Path, filled: str
) -> None:
    pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant_client is not installed")
    from toastrack_qdrant import QdrantStore

    hosted = Embedder("tiny", engine=Hosted(base_url=f"{address}/v1"))
    one, other = (served.embedder, hosted) if filled == "here" else (hosted, served.embedder)
    client = qdrant.QdrantClient(":memory:")
    records = [Record(str(number), text) for number, text in enumerate(TEXTS)]
    with QdrantStore(client, "bread", embedder=one) as store:
        assert store.upsert(records).embedded == 3
        want = [(match.id, match.score) for match in store.search("which bread keeps?", 3)]
    with QdrantStore(client, "bread", embedder=other, create=False) as store:
        assert store.upsert(records).embedded == 0
        found = [(match.id, match.score) for match in store.search("which bread keeps?", 3)]
    assert [row for row, _ in found] == [row for row, _ in want]
    np.testing.assert_allclose(
        [score for _, score in found], [score for _, score in want], atol=1e-5
    )
    client.close()


def test_loops_and_threads_ask_at_once(address: str, served: Served) -> None:
    pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")
    hosted = Embedder("tiny", engine=Hosted(base_url=f"{address}/v1"))
    texts = [f"rye {number}" for number in range(40)]

    async def all_of_them() -> Any:
        return await asyncio.gather(*map(hosted.aembed_query, texts))

    want = served.embedder.embed_queries(texts)
    for _ in range(2):
        np.testing.assert_allclose(asyncio.run(all_of_them()), want, atol=1e-6)
