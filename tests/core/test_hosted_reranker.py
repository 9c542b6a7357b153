"""Rerankers on a server: its scores in the order of the documents, or one clear error."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from model_server import ModelServer, Shape, random_vectors, serving, status

from toastrack import Hosted, Reranker
from toastrack.errors import RefusedError

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

DOCUMENTS = ["rye bread", "salt", "rye bread that keeps", "salt", ""]
Start = Callable[..., ModelServer]


def overlap(query: str, documents: Sequence[str]) -> list[float]:
    """How many words of the query stand in each document, and something of its length."""
    words = set(query.split())
    return [len(words & set(text.split())) + len(text) / 1_000 for text in documents]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start servers that end with the test, and wait no time between two tries."""
    monkeypatch.delenv("TOASTRACK_API_KEY", raising=False)
    monkeypatch.setattr("toastrack.hosted.client.sleep", lambda seconds: None)
    with ExitStack() as stack:

        def started(**options: Any) -> ModelServer:
            server = ModelServer(random_vectors(8), score=overlap, **options)
            return stack.enter_context(serving(server))

        yield started


def hosted(server: ModelServer, **options: Any) -> Reranker:
    return Reranker(server.model, engine=Hosted(base_url=server.url, **options))


@pytest.mark.parametrize("shape", ["openai", "tei"])
def test_scores_are_the_servers_in_the_order_of_the_documents(start: Start, shape: Shape) -> None:
    reranker = hosted(start(shape=shape))
    expected = np.array(overlap("rye bread", DOCUMENTS), dtype=np.float32)
    np.testing.assert_array_equal(reranker.score("rye bread", DOCUMENTS), expected)
    np.testing.assert_array_equal(asyncio.run(reranker.ascore("rye bread", DOCUMENTS)), expected)
    assert [position for position, _ in reranker.rank("rye bread", DOCUMENTS, k=2)] == [2, 0]


def test_what_is_sent_is_text_and_each_document_once(start: Start) -> None:
    server = start()
    hosted(server).score("rye bread", DOCUMENTS)
    (body,) = server.asked
    assert sorted(body) == ["documents", "model", "query"]
    assert sorted(body["documents"]) == sorted(set(DOCUMENTS))


def test_mixedbread_is_asked_in_its_own_words(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(shape="mixedbread")
    monkeypatch.setattr(Hosted, "is_mixedbread", True)
    reranker = hosted(server)
    scores = reranker.score("rye bread", DOCUMENTS)
    np.testing.assert_array_equal(scores, np.array(overlap("rye bread", DOCUMENTS), np.float32))
    assert server.seen[-1].path == "/v1/reranking"


def test_many_documents_are_several_requests_and_queries_never_share_one(start: Start) -> None:
    server = start()
    reranker = hosted(server, batch_size=8)
    documents = [f"rye {number}" for number in range(20)]

    async def main() -> list[Any]:
        queries = [f"rye {number}" for number in range(5)]
        return await asyncio.gather(*(reranker.ascore(query, documents) for query in queries))

    for number, scores in enumerate(asyncio.run(main())):
        np.testing.assert_array_equal(
            scores, np.array(overlap(f"rye {number}", documents), np.float32)
        )
    assert max(len(body["documents"]) for body in server.asked) == 8


def test_a_server_that_refuses_says_so(start: Start) -> None:
    server = start()
    server.faults = [status(422, "no reranker")]
    with pytest.raises(RefusedError, match="no reranker"):
        hosted(server).load()


def test_settings_go_into_a_copy_and_what_is_for_local_models_is_refused(start: Start) -> None:
    reranker = hosted(start())
    again = pickle.loads(pickle.dumps(reranker))
    assert again.settings() == reranker.settings()
    assert reranker.max_tokens is None
    before = reranker.usage.requests
    reranker.score("rye", ["bread"])
    assert again.usage.requests == before + 1
    settings: list[dict[str, Any]] = [{"device": "cpu"}, {"max_tokens": 7}]
    for setting in settings:
        with pytest.raises(ValueError, match="for a model that runs here"):
            Reranker("m", engine="hosted", **setting)


def test_text_that_is_no_unicode_is_named(start: Start) -> None:
    reranker = hosted(start())
    with pytest.raises(ValueError, match="the query holds a lone surrogate"):
        reranker.score("\ud800", ["rye"])
    with pytest.raises(ValueError, match="document 1 holds a lone surrogate"):
        reranker.score("rye", ["rye", "\ud800"])
