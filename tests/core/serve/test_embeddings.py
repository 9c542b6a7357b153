"""Requests for embeddings, in every shape that clients send, and the same vectors as without a server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_PROMPT

from toastrack import Embedder, Hosted

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("orjson", reason="the extra 'serve' is not installed")

from serving import Reply, ask, serving

from toastrack.serve.app import Served

TEXTS = ["Rye bread keeps for a week.", "Salt the dough.", "", "why is the crust brown?"]


@pytest.fixture(scope="module")
def local(tiny_folder: Path) -> Embedder:
    return Embedder(tiny_folder)


@pytest.fixture(scope="module")
def address(tiny_folder: Path) -> Iterator[str]:
    served = Served(Embedder(tiny_folder, on_truncate="ignore"), ("tiny", "text-embedding-3-small"))
    with serving(served) as where:
        yield where


def embed(address: str, **body: Any) -> Reply:
    return ask(address, body={"model": "tiny", "input": TEXTS, **body})


def vectors(reply: Reply) -> Any:
    assert reply.status == 200, reply
    return np.array([item["embedding"] for item in reply.content["data"]], dtype=np.float32)


# -- what comes back ------------------------------------------------------------------------------


def test_vectors_equal_those_of_a_local_embedder(address: str, local: Embedder) -> None:
    reply = embed(address)
    np.testing.assert_allclose(vectors(reply), local.embed_documents(TEXTS), atol=1e-6)
    assert [item["index"] for item in reply.content["data"]] == [0, 1, 2, 3]
    assert reply.content["model"] == "tiny"
    tokens = sum(map(local.count_tokens, TEXTS))
    assert reply.content["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_one_text_need_not_be_a_list(address: str, local: Embedder) -> None:
    want = local.embed_documents(["Salt the dough."])
    for given in ("Salt the dough.", {"text": "Salt the dough."}, [{"text": "Salt the dough."}]):
        np.testing.assert_allclose(vectors(embed(address, input=given)), want, atol=1e-6)


def test_base64_holds_the_bytes_of_float32(address: str) -> None:
    want = vectors(embed(address))
    for encoding in ("base64", ["base64"]):
        reply = embed(address, encoding_format=encoding)
        rows = [base64.b64decode(item["embedding"]) for item in reply.content["data"]]
        np.testing.assert_array_equal([np.frombuffer(row, "<f4") for row in rows], want)


@pytest.mark.parametrize("name", ["dimensions", "output_dimension"])
def test_fewer_dimensions_are_those_of_an_embedder_with_fewer(
    address: str, tiny_folder: Path, name: str
) -> None:
    want = Embedder(tiny_folder, dimensions=8).embed_documents(TEXTS)
    np.testing.assert_allclose(vectors(embed(address, **{name: 8})), want, atol=1e-6)


def test_null_is_as_left_out(address: str) -> None:
    names = ("model", "dimensions", "encoding_format", "input_type", "prompt", "truncate", "user")
    reply = embed(address, **dict.fromkeys(names))
    np.testing.assert_array_equal(vectors(reply), vectors(embed(address)))


def test_a_hosted_embedder_is_one_with_the_local_one(
    address: str, local: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOASTRACK_API_KEY", raising=False)
    pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")
    hosted = Embedder("tiny", engine=Hosted(base_url=f"{address}/v1"))
    assert hosted.space == local.space
    assert (hosted.max_tokens, hosted.dimensions) == (local.max_tokens, local.dimensions)
    np.testing.assert_allclose(
        hosted.embed_documents(TEXTS), local.embed_documents(TEXTS), atol=1e-6
    )
    np.testing.assert_allclose(hosted.embed_queries(TEXTS), local.embed_queries(TEXTS), atol=1e-6)


# -- roles ----------------------------------------------------------------------------------------


QUERIES: list[dict[str, Any]] = [
    {"input_type": "query"},
    {"input_type": "search_query"},
    {"input_type": "QUERY"},
    {"prompt_name": "query"},
    {"task": "retrieval.query"},
    {"task": "nl2code.query"},
    {"task_type": "RETRIEVAL_QUERY"},
    {"prompt": MXBAI_PROMPT},
    {"prompt": MXBAI_PROMPT.strip().rstrip(":")},
    {"model": "tiny:query"},
    {"model": "text-embedding-3-small:query"},
    {"model": "tiny:query", "input_type": "query"},
]
DOCUMENTS: list[dict[str, Any]] = [
    {},
    {"input_type": "document"},
    {"input_type": "passage"},
    {"input_type": "search_document"},
    {"prompt_name": "passage"},
    {"task": "retrieval.passage"},
    {"task_type": "RETRIEVAL_DOCUMENT"},
    {"prompt": ""},
    {"model": "tiny:document"},
    {"model": "text-embedding-3-small"},
]


@pytest.mark.parametrize(
    ("role", "body"),
    [
        *(("query", body) for body in QUERIES),
        *(("document", body) for body in DOCUMENTS),
    ],
    ids=str,
)
def test_a_role_is_known_by_many_words_and_a_document_by_none(
    address: str, local: Embedder, role: str, body: dict[str, Any]
) -> None:
    reply = embed(address, **body)
    want = local.embed_queries(TEXTS) if role == "query" else local.embed_documents(TEXTS)
    np.testing.assert_allclose(vectors(reply), want, atol=1e-6)
    assert reply.headers["x-toastrack-role"] == role


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input_type": "clustering"}, "input_type is 'clustering'"),
        ({"task": "text-matching"}, "task is 'text-matching'"),
        ({"prompt_name": ["query"]}, "prompt_name is ['query']"),
        ({"prompt": "Find me: "}, "this model's own prompts"),
        ({"input_type": "query", "prompt_name": "document"}, "Leave one of them out"),
        ({"model": "tiny:query", "input_type": "document"}, "Leave one of them out"),
    ],
    ids=str,
)
def test_a_word_that_is_no_role_is_refused(address: str, body: dict[str, Any], said: str) -> None:
    reply = embed(address, **body)
    assert reply.status == 400
    assert said in reply.error


def test_token_ids_are_refused_with_the_switch_to_turn(address: str) -> None:
    for ids in ([1, 2, 3], [[1, 2], [3]]):
        reply = embed(address, input=ids)
        assert (reply.status, reply.content["error"]["param"]) == (400, "input")
        assert "check_embedding_ctx_length=False" in reply.error


# -- texts over the limit -------------------------------------------------------------------------

LONG = "rye " * 100


def test_a_cut_is_said_in_a_header(address: str, local: Embedder) -> None:
    reply = embed(address, input=[LONG, "rye"])
    assert reply.headers["x-toastrack-truncated"] == "1"
    assert reply.content["usage"]["total_tokens"] == 64 + local.count_tokens("rye")
    assert "x-toastrack-truncated" not in embed(address).headers


@pytest.mark.parametrize("body", [{"truncate": False}, {"truncation": False}, {"truncate": "NONE"}])
def test_a_cut_can_be_refused(address: str, body: dict[str, Any]) -> None:
    reply = embed(address, input=["rye", LONG], **body)
    assert (reply.status, reply.content["error"]["code"]) == (400, "context_length_exceeded")
    assert "tokens, over the limit of 64" in reply.error


# -- other questions ------------------------------------------------------------------------------


def test_models_are_listed_with_their_space(address: str, local: Embedder) -> None:
    models = ask(address, "/v1/models").content["data"]
    names = ["tiny", "text-embedding-3-small"]
    assert [model["id"] for model in models] == [
        shown for name in names for shown in (name, f"{name}:query", f"{name}:document")
    ]
    assert models[0]["space"]["weights"] == local.space.weights
    assert "space" not in models[1]
    assert ask(address, "/v1/models/tiny:query").content == models[1]
    assert ask(address, "/v1/models/other").status == 404


def test_health_says_that_it_is_there(address: str) -> None:
    waiting = {"queries": 0, "documents": 0, "pairs": 0}
    assert ask(address, "/health")[:2] == (200, {"status": "ok", "waiting": waiting})
    assert ask(address, "/health", method="HEAD").status == 200


def test_no_reranker_is_said(address: str) -> None:
    reply = ask(address, "/v1/rerank", {"query": "rye", "documents": ["a"]})
    assert reply.status == 404
    assert "--reranker" in reply.error
