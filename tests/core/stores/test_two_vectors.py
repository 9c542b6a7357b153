"""Two stores over one Qdrant collection, each of a vector's name: whatever the order of their calls."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
import pytest
from interleaving import RUNTIME, Body, Orders, finish, run
from writer_calls import BEFORE, CALLS, comparable, record, upsert, without_none

from toastrack import Embedder, Record
from toastrack.stores import text_hash
from toastrack.stores.flow import StoreFlow

qdrant_client = pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

from qdrant_client import QdrantClient, models  # noqa: E402
from stepped_qdrant import OneAtATime  # noqa: E402

from toastrack_qdrant import point_id  # noqa: E402
from toastrack_qdrant.backend import QdrantBackend  # noqa: E402

SEED = 20_26
NAMES = ("brief", "full")
WORDS = models.SparseVector(indices=[3, 5], values=[1.0, 2.0])


class Pair:
    """A new collection, one flow for each name, and of the user's own a payload key and a vector."""

    filled: ClassVar[list[models.PointStruct]] = []
    """The points that a new one starts with, once they were made."""

    def __init__(self, client: QdrantClient, embedder: Embedder) -> None:
        self.client = client
        self.label = uuid4().hex
        vector = models.VectorParams(size=embedder.dimensions, distance=models.Distance.COSINE)
        client.create_collection(
            self.label,
            dict.fromkeys(NAMES, vector),
            sparse_vectors_config={"words": models.SparseVectorParams()},
        )
        self.flows = [self._flow(name, embedder) for name in NAMES]
        if not Pair.filled:
            for flow in self.flows:
                finish(upsert(*BEFORE)(flow))
            points: list[Any] = [point_id(one.id) for one in BEFORE]
            client.set_payload(self.label, {"mine": 7}, points=points)
            self.set_words(points, WORDS)
            found: list[Any] = client.scroll(self.label, with_vectors=True)[0]
            Pair.filled += [
                models.PointStruct(id=point.id, vector=point.vector, payload=point.payload)
                for point in found
            ]
        client.upsert(self.label, Pair.filled)

    def _flow(self, name: str, embedder: Embedder) -> Any:
        backend = QdrantBackend(self.client, self.label, vector_name=name, create=True)
        backend.runtime = RUNTIME
        flow = StoreFlow(backend, "store", embedder=embedder, create=True, adopt=False)
        finish(flow.ready())
        backend.points.host = OneAtATime(self.client)
        return flow

    def set_words(self, points: list[str], words: models.SparseVector) -> None:
        self.client.update_vectors(
            self.label, [models.PointVectors(id=id, vector={"words": words}) for id in points]
        )

    def points(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        found, _ = self.client.scroll(self.label, limit=100, with_vectors=True)
        for point in found:
            assert point.payload
            assert isinstance(point.vector, dict)
            yield without_none(point.payload), point.vector

    def state(self, whole: bool = True) -> dict[str, Any]:
        """What is stored, and who has a vector of it; others make theirs anew.

        Where points were deleted and come again, nobody else's is in them: then only the records.
        """
        return {
            payload["id"]: (
                payload,
                [name for name in NAMES if f"text_hash/{name}" in payload],
                vectors["words"].model_dump() if "words" in vectors else None,
            )
            if whole
            else [payload.get(key) for key in ("document_id", "chunk", "text", "metadata")]
            for payload, vectors in self.points()
        }

    def check(self, embedder: Embedder) -> None:
        """Make sure that every hash that is there is of the text and of its vector."""
        for payload, vectors in self.points():
            text = payload["text"]
            expected = text_hash(Record("", text), embedder.max_tokens).hex()
            assert any(payload.get(f"text_hash/{name}") for name in NAMES)
            for name in NAMES:
                if payload.get(f"text_hash/{name}") is not None:
                    assert payload[f"text_hash/{name}"] == expected
                    similarity = np.asarray(vectors[name]) @ embedded(embedder, text)
                    assert similarity == pytest.approx(1, abs=1e-3)


@cache
def embedded(embedder: Embedder, text: str) -> Any:
    return embedder.embed_documents([text])[0]


@pytest.fixture(scope="module")
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


SHORT = ["replace changes a", "upsert text of a", "upsert metadata of a", "delete a"]
SOME = list(itertools.combinations_with_replacement(SHORT, 2))
ALL = list(itertools.combinations_with_replacement(CALLS, 2))


@pytest.mark.parametrize(
    ("most", "one", "other"),
    [
        *(pytest.param(12, *pair, id=", ".join(pair)) for pair in SOME),
        *(
            pytest.param(60, *pair, id=f"{pair[0]}, {pair[1]}, many orders", marks=pytest.mark.rest)
            for pair in ALL
        ),
    ],
)
def test_two_stores_end_as_one_after_the_other(
    client: QdrantClient, embedder: Embedder, most: int, one: str, other: str
) -> None:
    whole = "upsert" in one and "upsert" in other
    allowed = []
    for order in ([0, 1], [1, 0]):
        pair = Pair(client, embedder)
        for which in order:
            finish(CALLS[(one, other)[which]](pair.flows[which]))
        pair.check(embedder)
        allowed.append(comparable(pair.state(whole)))

    orders = Orders(most, SEED)
    gave_up = 0
    for number, choose in enumerate(orders):
        pair = Pair(client, embedder)
        random.seed(SEED)  # of the pauses
        if run([CALLS[one](pair.flows[0]), CALLS[other](pair.flows[1])], choose):
            gave_up += orders.random > 0  # what raised promises nothing
            continue
        pair.check(embedder)
        found = comparable(pair.state(whole))
        assert found in allowed, f"order {number} of seed {SEED}: {found}"
        client.delete_collection(pair.label)
    assert gave_up <= 1 + orders.random // 20


@pytest.mark.parametrize("most", [pytest.param(20), pytest.param(400, marks=pytest.mark.rest)])
def test_what_the_user_writes_meanwhile_stays(
    client: QdrantClient, embedder: Embedder, most: int
) -> None:
    words = models.SparseVector(indices=[8], values=[4.0])
    calls: list[Body] = [
        upsert(record("a", "wheat", n=1), record("b", "salt")),
        upsert(record("a", "salt", n=2), record("b", n=4)),
    ]
    for number, choose in enumerate(Orders(most, SEED)):
        pair = Pair(client, embedder)

        async def user(pair: Pair = pair) -> None:
            a = point_id("a")
            await RUNTIME.call(client.set_payload, pair.label, {"mine": 8}, points=[a])
            await RUNTIME.call(pair.set_words, [a], words)
            await RUNTIME.call(client.set_payload, pair.label, {"more": True}, points=[a])

        bodies = [call(flow) for call, flow in zip(calls, pair.flows, strict=True)]
        assert not run([*bodies, user()], choose)
        pair.check(embedder)
        payload, names, sparse = pair.state()["a"]
        where = f"order {number} of seed {SEED}"
        assert (payload["mine"], payload["more"]) == (8, True), where
        assert sparse == words.model_dump(), where
        assert names, where
        assert pair.state()["b"][0]["mine"] == 7, where
        assert pair.state()["b"][2] == WORDS.model_dump(), where
        client.delete_collection(pair.label)
