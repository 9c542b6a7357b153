"""The same text has the same vector through every adapter, each role with its own prompt."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from models import MXBAI_PROMPT
from token_ids import read, seen_by_the_model, times

from toastrack import Embedder

if TYPE_CHECKING:
    from contract_embeddings.conftest import Adapter, Build

TEXTS = [
    "the crust is sour.",
    "why",
    "how do i feed my starter with rye flour and warm water, and when?",
    "dough " * 20,
    "🍞 crème brûlée\n\twater",
    MXBAI_PROMPT + "bread",
]
# Stores refuse or skip the empty text; what it becomes is the core's own test.


def test_a_document_has_the_vector_of_the_core(
    adapter: Adapter, build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    vectors = build(model=tiny_folder, device="cpu").documents(TEXTS)
    np.testing.assert_allclose(
        vectors, embedder.embed_documents(TEXTS), rtol=0, atol=adapter.precision
    )


def test_a_query_has_the_vector_of_the_core(
    adapter: Adapter, build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    face = build(model=tiny_folder, device="cpu")
    vectors = [face.query(text) for text in TEXTS]
    np.testing.assert_allclose(
        vectors, embedder.embed_queries(TEXTS), rtol=0, atol=adapter.precision
    )


def test_a_text_has_another_vector_in_each_role(build: Build, tiny_folder: Path) -> None:
    face = build(model=tiny_folder, device="cpu")
    (document,) = face.documents(["bread"])
    assert float(np.dot(document, face.query("bread"))) < 0.95


@pytest.mark.usefixtures("asynchronous")
def test_awaited_calls_give_the_same_vectors(
    adapter: Adapter, build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    face = build(model=tiny_folder, device="cpu")

    async def both() -> tuple[list[list[float]], list[list[float]]]:
        documents = await face.adocuments(TEXTS)
        return documents, [await face.aquery(text) for text in TEXTS]

    documents, queries = asyncio.run(both())
    np.testing.assert_allclose(
        documents, embedder.embed_documents(TEXTS), rtol=0, atol=adapter.precision
    )
    np.testing.assert_allclose(
        queries, embedder.embed_queries(TEXTS), rtol=0, atol=adapter.precision
    )


def test_vectors_are_plain_floats_of_unit_length(
    adapter: Adapter, build: Build, tiny_folder: Path
) -> None:
    if adapter.name == "core":
        pytest.skip("the core gives float32 arrays")
    face = build(model=tiny_folder, device="cpu")
    for vector in [face.query("bread"), *face.documents(["rye", "water"])]:
        assert type(vector) is list
        assert {type(number) for number in vector} == {float}
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6 + adapter.precision)


def test_the_model_reads_the_prompt_once_before_a_query_and_never_before_a_document(
    build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    prompt = read(tiny_folder, MXBAI_PROMPT, specials=False)
    face = build(model=tiny_folder, device="cpu")
    with seen_by_the_model(embedder) as rows:
        face.query("bread is sour")
    assert rows == [read(tiny_folder, MXBAI_PROMPT + "bread is sour")]
    assert times(prompt, rows[0]) == 1
    with seen_by_the_model(embedder) as rows:
        face.documents(["bread is sour", "rye"])
    assert sorted(rows) == sorted(read(tiny_folder, text) for text in ["bread is sour", "rye"])


@pytest.mark.usefixtures("asynchronous")
def test_the_model_reads_the_same_when_awaited(
    build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    face = build(model=tiny_folder, device="cpu")
    with seen_by_the_model(embedder) as rows:
        asyncio.run(_await(face.aquery("bread is sour")))
        asyncio.run(_await(face.adocuments(["bread is sour"])))
    texts = [MXBAI_PROMPT + "bread is sour", "bread is sour"]
    assert rows == [read(tiny_folder, text) for text in texts]


def test_own_settings_reach_the_model(
    adapter: Adapter, build: Build, embedder: Embedder, tiny_folder: Path
) -> None:
    settings = {
        "model": tiny_folder,
        "device": "cpu",
        "query_prompt": "why: ",
        "document_prompt": "it is: ",
        "dimensions": 16,
        "max_tokens": 8,
        "on_truncate": "ignore",
    }
    text = "bread and flour and water and salt and yeast"
    face = build(**settings)
    with seen_by_the_model(embedder) as rows:
        (document,) = face.documents([text])
        query = face.query(text)
    end = read(tiny_folder, "")[-1]
    assert rows == [[*read(tiny_folder, prompt + text)[:7], end] for prompt in ("it is: ", "why: ")]
    assert len(document) == len(query) == 16


async def _await(awaitable: object) -> object:
    return await awaitable  # type: ignore[misc]
