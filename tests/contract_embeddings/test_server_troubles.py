"""A model on a server that misbehaves: through every adapter the right vectors, or one clear error."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from model_server import ModelServer, changed, hang_up, random_vectors, raw, serving, status
from server_troubles import ALWAYS, KEY, OF_VECTORS, Trouble, hurry, is_clear, with_locals

from toastrack import Embedder, Hosted
from toastrack.errors import ModelError, NoAnswerError

if TYPE_CHECKING:
    from contract_embeddings.conftest import Adapter, Build

pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

SIZE = 4
TEXTS = ["Rye bread keeps for a week.", "Salt the dough.", "why is the crust brown?"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.setenv("TOASTRACK_API_KEY", KEY)
    with serving(ModelServer(random_vectors(SIZE), key=KEY)) as running:
        yield running


@pytest.fixture
def embedder(server: ModelServer) -> Embedder:
    """Asks for two texts at once, so that three are two requests."""
    return Embedder(server.model, engine=Hosted(base_url=server.url, batch_size=2)).load()


@pytest.mark.parametrize("trouble", OF_VECTORS, ids=lambda trouble: trouble.name)
def test_right_vectors_or_one_clear_error(
    trouble: Trouble,
    adapter: Adapter,
    build: Build,
    server: ModelServer,
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    face = build(embedder)
    expected = random_vectors(SIZE)(TEXTS, "")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    calls: list[tuple[Callable[[], Any], Any]] = [
        (partial(face.documents, TEXTS), expected),
        (partial(face.query, TEXTS[0]), expected[0]),
    ]
    if adapter.asynchronous:
        calls += [
            (lambda: asyncio.run(_awaited(face.adocuments(TEXTS))), expected),
            (lambda: asyncio.run(_awaited(face.aquery(TEXTS[0]))), expected[0]),
        ]
    with monkeypatch.context() as patch:
        hurry(trouble, patch)
        for call, right in calls:
            # A request of the call before may still be under way, and take one of them.
            server.faults = list(trouble.faults) * (1 if trouble.says is None else ALWAYS)
            if trouble.says is None:
                np.testing.assert_allclose(call(), right, rtol=0, atol=adapter.precision)
                record_property("outcome", "right vectors")
                continue
            with pytest.raises(ModelError, match=trouble.says) as caught:
                call()
            assert is_clear(str(caught.value))
            assert isinstance(caught.value, NoAnswerError) == trouble.away
            record_property("outcome", caught.type.__name__)
    server.faults = []
    np.testing.assert_allclose(face.documents(TEXTS), expected, rtol=0, atol=adapter.precision)


async def _awaited(call: Any) -> Any:
    return await call


def test_a_later_batch_of_another_size_leaves_no_wrong_vector(
    adapter: Adapter, build: Build, server: ModelServer, embedder: Embedder
) -> None:
    def longer(answer: dict[str, Any]) -> None:
        for item in answer["data"]:
            item["embedding"] *= 2

    face = build(embedder)
    server.faults = [changed(lambda answer: None), changed(longer)]
    with pytest.raises(ModelError, match="8 numbers, and did with 4: another model"):
        face.documents(TEXTS)


def test_the_key_is_nowhere_but_in_the_requests(
    adapter: Adapter,
    build: Build,
    server: ModelServer,
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("toastrack.hosted.client.sleep", lambda seconds: None)
    caplog.set_level(logging.DEBUG)
    face = build(embedder)
    face.documents(TEXTS)
    face.query(TEXTS[0])
    assert {seen.headers.get("authorization") for seen in server.seen} == {f"Bearer {KEY}"}
    written = [repr(face.held), repr(vars(face.held)), repr(embedder.space.to_dict())]
    if adapter.copies:
        written.append(repr(pickle.dumps(face.held)))
    for fault in (status(401, f"bad {KEY}"), status(500, KEY), raw(KEY.encode()), hang_up):
        for call in (partial(face.documents, TEXTS), partial(face.query, TEXTS[0])):
            server.faults = [fault] * ALWAYS
            with pytest.raises(ModelError) as caught:
                call()
            written += [with_locals(caught.value), repr(pickle.dumps(caught.value))]
    assert not [text for text in [*written, caplog.text] if KEY in text]
