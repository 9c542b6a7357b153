"""``models.Document`` asks our embedder: queries with the prompt, points without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from toastrack import Embedder
from toastrack.errors import UnsupportedError
from toastrack_qdrant import fastembed, register_fastembed

pytest.importorskip("fastembed", reason="the extra 'fastembed' is not installed")

NAME = "toastrack/Tiny"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """The list of models belongs to the process; a test's names go with it."""
    yield
    fastembed._embedders.clear()


def said(text: str, model: str = NAME) -> models.Document:
    return models.Document(text=text, model=model)


def test_queries_have_the_prompt_and_points_have_not(
    client: QdrantClient, embedder: Embedder
) -> None:
    assert register_fastembed(embedder, NAME, client=client) == NAME
    size = client.get_embedding_size(NAME)
    assert size == embedder.dimensions
    client.create_collection(
        "docs", models.VectorParams(size=size, distance=models.Distance.COSINE)
    )
    text = "rye bread keeps fresh"
    client.upsert("docs", [models.PointStruct(id=1, vector=said(text))])
    client.upload_points("docs", [models.PointStruct(id=2, vector=said(text))])
    client.upsert("docs", [models.PointStruct(id=3, vector=[1.0] * size)])
    client.update_vectors("docs", [models.PointVectors(id=3, vector=said(text))])

    document = embedder.embed_documents([text])[0]
    for point in client.scroll("docs", with_vectors=True)[0]:
        assert np.array(point.vector) == pytest.approx(document, abs=1e-6)
    cosine = float(embedder.embed_query(text) @ document)
    assert cosine < 0.95, "the model's prompt hardly moves the vector: the test says nothing"
    prefetch = models.Prefetch(query=said(text), limit=3)
    found = [
        client.query_points("docs", query=said(text)),
        client.query_points("docs", query=said(text), prefetch=prefetch),
        *client.query_batch_points("docs", [models.QueryRequest(query=said(text))]),
    ]
    for answer in found:
        assert [p.score for p in answer.points] == pytest.approx([cosine] * 3, abs=1e-5)


def test_the_same_again_changes_nothing(embedder: Embedder, other_folder: str) -> None:
    from fastembed import TextEmbedding

    def names() -> list[str]:
        return [model["model"] for model in TextEmbedding.list_supported_models()]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: register_fastembed(embedder, NAME), range(8))) == {NAME}
    assert names().count(NAME) == 1
    before = list(TextEmbedding.EMBEDDINGS_REGISTRY)
    register_fastembed(
        Embedder(embedder.model, device="cpu"), NAME.upper().replace("TOASTRACK", "toastrack")
    )
    assert before == TextEmbedding.EMBEDDINGS_REGISTRY
    with pytest.raises(ValueError, match="another embedding space"):
        register_fastembed(Embedder(other_folder, device="cpu"), NAME)
    register_fastembed(Embedder(other_folder, device="cpu"), "toastrack/other")


def test_a_name_is_made_of_the_model_s(embedder: Embedder) -> None:
    assert register_fastembed(embedder) == "toastrack/tiny"


@pytest.mark.parametrize(
    "name", ["", "mixedbread-ai/mxbai-embed-large-v1", "tiny", "toastrack/", "Toastrack/x"]
)
def test_a_name_that_may_be_another_s_is_refused(embedder: Embedder, name: str) -> None:
    with pytest.raises(ValueError, match="must start with 'toastrack/'"):
        register_fastembed(embedder, name)


def test_a_client_that_would_not_ask_is_refused(embedder: Embedder) -> None:
    clients: list[QdrantClient | AsyncQdrantClient] = [
        QdrantClient("http://127.0.0.1:9", cloud_inference=True, check_compatibility=False),
        AsyncQdrantClient("http://127.0.0.1:9", cloud_inference=True, check_compatibility=False),
    ]
    for client in clients:
        with pytest.raises(UnsupportedError, match="cloud_inference"):
            register_fastembed(embedder, NAME, client=client)


def test_only_an_embedder_is_registered() -> None:
    with pytest.raises(TypeError, match="Embedder, not str"):
        register_fastembed("mixedbread-ai/mxbai-embed-large-v1")  # type: ignore[arg-type]


def test_without_fastembed_the_error_names_the_extra(embedder: Embedder) -> None:
    code = (
        "import sys; sys.modules['fastembed'] = None\n"
        "from toastrack import Embedder\n"
        "from toastrack_qdrant import register_fastembed\n"
        f"try: register_fastembed(Embedder({str(embedder.model)!r}), 'toastrack/x')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("MissingExtraError 'fastembed' is not installed. Run: pip ")
    assert "[fastembed]" in result.stdout
