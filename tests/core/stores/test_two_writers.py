"""Whatever the order of their host calls, two writers end as if one had come after the other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from interleaving import RUNTIME, Orders, finish, run
from writer_calls import BEFORE, CALLS, comparable, upsert, without_none

from toastrack import Embedder
from toastrack.stores.flow import StoreFlow

SEED = 20_26
MakeFlow = Callable[[Embedder], Any]


@contextmanager
def qdrant() -> Iterator[tuple[MakeFlow, Callable[[Any], Any]]]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from stepped_qdrant import OneAtATime

    from toastrack_qdrant.backend import QdrantBackend

    client = qdrant_client.QdrantClient(":memory:")

    def make(embedder: Embedder) -> Any:
        backend = QdrantBackend(client, uuid4().hex, create=True)
        backend.runtime = RUNTIME
        flow = StoreFlow(backend, "store", embedder=embedder, create=True, adopt=False)
        finish(flow.ready())
        backend.host = OneAtATime(client)
        return flow

    def state(flow: Any) -> Any:
        points, _ = client.scroll(flow.backend.label, limit=100, with_vectors=True)
        return {
            point.payload["id"]: (without_none(point.payload), rounded(point.vector))
            for point in points
        }

    yield make, state
    client.close()


@contextmanager
def chroma() -> Iterator[tuple[MakeFlow, Callable[[Any], Any]]]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from chroma_server import close_client

    from toastrack_chroma.backend import ChromaBackend
    from toastrack_chroma.codec import RESERVED

    client = chromadb.EphemeralClient()

    def make(embedder: Embedder) -> Any:
        backend = ChromaBackend(client, f"t{uuid4().hex}", function=lambda space: None)
        backend.runtime = RUNTIME
        flow = StoreFlow(backend, "store", embedder=embedder, create=True, adopt=False)
        finish(flow.ready())
        return flow

    def state(flow: Any) -> Any:
        include = ["documents", "metadatas", "embeddings"]
        found = client.get_collection(flow.backend.label).get(include=include)
        # Fields of the user's own are merged with another writer's until somebody writes again;
        # what counts is the JSON beside them.
        ours = [
            {key: value for key, value in metadata.items() if key.startswith(RESERVED)}
            for metadata in found["metadatas"]
        ]
        rows = zip(found["ids"], found["documents"], ours, found["embeddings"], strict=True)
        return {id: ({**own, "text": text}, rounded(vector)) for id, text, own, vector in rows}

    yield make, state
    close_client(client)


def rounded(vector: Any) -> list[float]:
    return [round(number, 3) + 0.0 for number in np.asarray(vector).tolist()]


@pytest.fixture(scope="module", params=[qdrant, chroma], ids=["qdrant", "chroma"])
def host(request: pytest.FixtureRequest) -> Iterator[tuple[MakeFlow, Callable[[Any], Any]]]:
    with request.param() as host:
        yield host


# How many orders of two calls are tried; Chroma takes some ten times as long for a call.
SOME = {qdrant: 24, chroma: 4}
MANY = {qdrant: 150, chroma: 16}


def pairs() -> Iterator[Any]:
    for one, other in itertools.combinations_with_replacement(CALLS, 2):
        yield pytest.param(one, other, id=f"{one}, {other}")


@pytest.mark.parametrize(
    "most",
    [
        pytest.param(SOME, id="some orders"),
        pytest.param(MANY, id="many orders", marks=pytest.mark.rest),
    ],
)
@pytest.mark.parametrize(("one", "other"), list(pairs()))
def test_two_calls_at_once_end_as_one_after_the_other(
    host: tuple[MakeFlow, Callable[[Any], Any]],
    embedder: Embedder,
    one: str,
    other: str,
    most: dict[Any, int],
    request: pytest.FixtureRequest,
) -> None:
    make, state = host

    def filled() -> Any:
        flow = make(embedder)
        finish(upsert(*BEFORE)(flow))
        return flow

    allowed = []
    for order in ([one, other], [other, one]):
        flow = filled()
        for name in order:
            finish(CALLS[name](flow))
        allowed.append(comparable(state(flow)))

    orders = Orders(most[request.node.callspec.params["host"]], SEED)
    gave_up = 0
    for number, choose in enumerate(orders):
        flow = filled()
        random.seed(SEED)  # of the pauses
        if run([CALLS[one](flow), CALLS[other](flow)], choose):
            gave_up += orders.random > 0  # what raised promises nothing
            continue
        found = comparable(state(flow))
        assert found in allowed, f"order {number} of seed {SEED}: {found}"
    assert gave_up <= 1 + orders.random // 20  # of all orders, some let neither come to an end
