"""Records become points and come back, also through the engine's hurried arithmetic."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import uuid5

import numpy as np
import pytest
from qdrant_client import QdrantClient

from toastrack import Embedder, Record
from toastrack.errors import RecordError
from toastrack.stores.plan import Row
from toastrack_qdrant import QdrantStore, codec, point_id
from toastrack_qdrant.layouts import OURS, POINT_NAMESPACE

if TYPE_CHECKING:
    from edge_client import EdgeClient


def row(record: Record, size: int = 4) -> Row:
    return Row(record, b"\x01\xff", np.ones(size, dtype=np.float32))


def test_a_point_id_is_for_ever() -> None:
    # Another one, and what people stored is lost to them.
    assert point_id("a") == "838cca23-3e7a-5dd1-9660-c48a699d45cc"
    for id in ("ключ", "", "🍞\n", "a" * 5_000):
        assert point_id(id) == str(uuid5(POINT_NAMESPACE, id))


def test_the_payload_is_this_and_nothing_else(client: QdrantClient, embedder: Embedder) -> None:
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("a", "rye", {"lang": "en"}, document_id="book", chunk=2)])
    ((point,), _) = client.scroll("docs")
    assert point.id == point_id("a")
    assert point.payload is not None
    assert len(bytes.fromhex(point.payload.pop("text_hash"))) == 32
    assert point.payload == {
        "id": "a",
        "document_id": "book",
        "chunk": 2,
        "text": "rye",
        "metadata": {"lang": "en"},
    }


KEPT: list[Any] = [
    {},
    {"a": None, "b": True, "c": "1e5", "d": [1, {"e": []}]},
    {"a": 2**63 - 1, "b": -(2**63), "c": 0.1, "d": 1e22, "e": -2.5e-15, "f": 0.0},
]
NOT_KEPT: list[Any] = [
    {"a": 2**63},
    {"a": -(2**63) - 1},
    {"a": [{"b": 10**400}]},
    {"a": 0.30000000000000004},
    {"a": 1e23},
    {"a": 5e-324},
    {"a": [1.7976931348623157e308]},
    json.loads('{"a":' * 30 + "1" + "}" * 30),
]


@pytest.mark.parametrize("metadata", KEPT)
def test_metadata_that_qdrant_keeps_is_there_once(metadata: Any) -> None:
    payload = codec.payload(row(Record("a", "rye", metadata)))
    assert payload["metadata"] == metadata
    assert "metadata_json" not in payload


@pytest.mark.parametrize("metadata", NOT_KEPT)
def test_metadata_that_qdrant_changes_is_there_as_text_too(metadata: Any) -> None:
    payload = codec.payload(row(Record("a", "rye", metadata)))
    assert json.loads(payload["metadata_json"]) == metadata
    assert OURS.metadata_of(payload) == metadata
    json.dumps(payload["metadata"], allow_nan=False)
    assert codec.is_kept(_without_floats(payload["metadata"]))


def _without_floats(value: Any) -> Any:
    """Floats are only rounded; they hurt nobody."""
    if isinstance(value, dict):
        return {key: _without_floats(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_floats(part) for part in value]
    return 0 if isinstance(value, float) else value


@pytest.mark.parametrize("metadata", [*KEPT, *NOT_KEPT])
def test_grpc_carries_every_payload(metadata: Any) -> None:
    from qdrant_client.conversions.conversion import RestToGrpc, grpc_to_payload

    ((point,),) = codec.batches([row(Record("a\0", "rye", metadata))], "", OURS)
    sent = RestToGrpc.convert_point_struct(point)
    received = grpc_to_payload(type(sent).FromString(sent.SerializeToString()).payload)
    assert json.dumps(received, sort_keys=True) == json.dumps(point.payload, sort_keys=True)


@pytest.mark.rest
def test_the_engine_gives_back_what_we_say_it_keeps(
    make_engine: Callable[..., EdgeClient], embedder: Embedder
) -> None:
    random = Random(0)
    floats = [struct.unpack("<d", random.randbytes(8))[0] for _ in range(5_000)]
    floats = [value for value in floats if np.isfinite(value)]
    floats += [random.random() for _ in range(5_000)]
    floats += [round(random.uniform(-1e6, 1e6), random.randint(0, 9)) for _ in range(10_000)]
    floats += [random.randrange(2**53) * 10.0 ** random.randint(-22, 22) for _ in range(10_000)]
    kept = [value for value in floats if codec.is_kept(value)]
    others = [value for value in floats if not codec.is_kept(value)]
    assert len(kept) > 10_000
    client = make_engine()
    store = QdrantStore(client, "docs", embedder=embedder)
    stored = [
        Record("kept", "rye", {"v": kept}),
        *(Record(f"{n}", "rye", {"v": value}) for n, value in enumerate(others[:500])),
    ]
    store.upsert(stored)
    assert store.get(record.id for record in stored) == stored
    assert client.retrieve("docs", [point_id("kept")])[0].payload["metadata"]["v"] == kept
    # What the rule is for: without it these would have come back as others.
    raw = client.retrieve("docs", [point_id(record.id) for record in stored[1:]])
    assert sum(record.payload["metadata"]["v"] not in others for record in raw) > 20
    for record in stored[1:]:
        assert [match.id for match in store.search("rye", filter=record.metadata)] == [record.id]


def test_a_chunk_must_fit(client: QdrantClient, embedder: Embedder) -> None:
    store = QdrantStore(client, "docs", embedder=embedder)
    store.upsert([Record("a", "rye", chunk=-(2**63)), Record("b", "rye", chunk=2**63 - 1)])
    for chunk in (2**63, -(2**63) - 1):
        with pytest.raises(RecordError, match="'bad'"):
            store._check(Record("bad", "rye", chunk=chunk))
        with pytest.raises(RecordError, match="'bad'"):
            store.upsert([Record("bad", "rye", chunk=chunk)])


def test_requests_are_bounded_by_rows_and_bytes() -> None:
    small = [row(Record(f"{n}", "rye"), size=1_024) for n in range(300)]
    sizes = [len(batch) for batch in codec.batches(small, "", OURS)]
    assert sum(sizes) == 300
    assert max(sizes) == 128

    long = [row(Record(f"{n}", "хлеб" * 250_000)) for n in range(9)]
    batches = list(codec.batches(long, "", OURS))
    assert [point.id for batch in batches for point in batch] == [
        point_id(r.record.id) for r in long
    ]
    for batch in batches:
        request = json.dumps([point.model_dump(mode="json") for point in batch])
        assert len(request) < 32 * 2**20
    assert len(batches) > 1

    # What is too large by itself goes alone; the server's limit may be another.
    huge = [small[0], row(Record("huge", "x" * 20_000_000)), small[1]]
    assert [len(batch) for batch in codec.batches(huge, "", OURS)] == [1, 1, 1]


def test_the_estimate_of_a_vector_is_right() -> None:
    vector = np.random.default_rng(0).normal(size=1_024).astype(np.float32)
    vector /= np.linalg.norm(vector)
    (((point,),)) = codec.batches([Row(Record("a", ""), b"", vector)], "", OURS)
    written = len(json.dumps(point.vector))
    assert 0.8 * 22 * 1_024 < written < 1.1 * 22 * 1_024
