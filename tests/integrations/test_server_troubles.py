"""A reranker on a server that misbehaves: the right scores, or one clear error, in each framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from model_server import ModelServer, random_vectors, serving
from server_troubles import KEY, OF_SCORES, Trouble, hurry, is_clear

from toastrack import Hosted, Reranker
from toastrack.errors import ModelError, NoAnswerError

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

QUERY = "rye bread"
TEXTS = ["rye bread", "salt", "rye that keeps"]
Ask = Callable[[Reranker], Sequence[float]]


def overlap(query: str, documents: Sequence[str]) -> list[float]:
    words = set(query.split())
    return [float(len(words & set(text.split()))) for text in documents]


def _core(reranker: Reranker) -> Sequence[float]:
    scores: list[float] = reranker.score(QUERY, TEXTS).tolist()
    return scores


def _core_awaited(reranker: Reranker) -> Sequence[float]:
    scores: list[float] = asyncio.run(reranker.ascore(QUERY, TEXTS)).tolist()
    return scores


def _langchain(reranker: Reranker) -> Sequence[float]:
    langchain = pytest.importorskip(
        "toastrack_langchain", reason="the extra 'langchain' is not installed"
    )
    from langchain_core.documents import Document

    given = [Document(text, id=str(number)) for number, text in enumerate(TEXTS)]
    found = langchain.ToastrackReranker(reranker=reranker).compress_documents(given, QUERY)
    return _placed({document.id: document.metadata["relevance_score"] for document in found})


def _llama_index(reranker: Reranker) -> Sequence[float]:
    llama_index = pytest.importorskip(
        "toastrack_llama_index", reason="the extra 'llama-index' is not installed"
    )
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [
        NodeWithScore(node=TextNode(id_=str(number), text=text))
        for number, text in enumerate(TEXTS)
    ]
    found = llama_index.ToastrackRerank(reranker).postprocess_nodes(nodes, query_str=QUERY)
    return _placed({scored.node.node_id: scored.score for scored in found})


def _placed(scores: dict[Any, float]) -> list[float]:
    return [scores[str(number)] for number in range(len(TEXTS))]


FACES: dict[str, Ask] = {
    "core": _core,
    "core awaited": _core_awaited,
    "langchain": _langchain,
    "llama-index": _llama_index,
}


def cases() -> Iterator[Any]:
    """Yield each trouble with each face; ``make test`` has all with the core, and what is usual."""
    for trouble in OF_SCORES:
        for face, ask in FACES.items():
            marks = () if trouble.usual or face == "core" else pytest.mark.rest
            yield pytest.param(ask, trouble, marks=marks, id=f"{face}-{trouble.name}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setenv("TOASTRACK_API_KEY", KEY)
    with serving(ModelServer(random_vectors(4), key=KEY, score=overlap)) as running:
        yield running


@pytest.mark.parametrize(("ask", "trouble"), list(cases()))
def test_right_scores_or_one_clear_error(
    ask: Ask,
    trouble: Trouble,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    reranker = Reranker(server.model, engine=Hosted(base_url=server.url, batch_size=2))
    with monkeypatch.context() as patch:
        hurry(trouble, patch)
        server.faults = list(trouble.faults)
        if trouble.says is None:
            assert ask(reranker) == overlap(QUERY, TEXTS)
            record_property("outcome", "right scores")
        else:
            with pytest.raises(ModelError, match=trouble.says) as caught:
                ask(reranker)
            assert is_clear(str(caught.value))
            assert isinstance(caught.value, NoAnswerError) == trouble.away
            record_property("outcome", caught.type.__name__)
    server.faults = []
    assert ask(reranker) == overlap(QUERY, TEXTS)
