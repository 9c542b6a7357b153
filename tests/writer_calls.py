"""Calls of a store that are short enough to try them at once in all orders."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from interleaving import Body, on_a_thread

from toastrack import Record, ingest
from toastrack.stores.windows import (
    IterableReader,
    document_windows,
    ingest_windows,
    record_windows,
)


def record(id: str, text: str = "rye", document: str = "d", **metadata: Any) -> Record:
    return Record(id, text, metadata, document_id=document)


def replace(*records: Record) -> Body:
    return replace_many({"d": records})


def replace_many(documents: dict[str, Sequence[Record]]) -> Body:
    pairs = [(document, list(records)) for document, records in documents.items()]
    return lambda flow: flow.write(IterableReader(document_windows, pairs), None)


def upsert(*records: Record) -> Body:
    return lambda flow: flow.write(IterableReader(record_windows, records), None)


def delete(ids: list[str], documents: list[str]) -> Body:
    return lambda flow: flow.perform(flow.backend.delete, ids, documents)


def ingested(*records: Record, source: str | None = None) -> Body:
    """Call the real ``ingest``, over a store that is no more than the flow."""

    def call(flow: Any) -> Coroutine[Any, Any, Any]:
        def work(wait_for: Callable[[Any], Any]) -> Any:
            def write(documents: Any, run_sources: Any, on_write: Any) -> Any:
                read = IterableReader(partial(ingest_windows, run_sources=run_sources), documents)
                return wait_for(flow.write(read, on_write))

            store: Any = SimpleNamespace(
                embedder=flow.embedder, _ingest=write, _check=flow.backend.check
            )
            return ingest(records, store, source=source)

        body: Coroutine[Any, Any, Any] = on_a_thread(work)
        return body

    return call


BEFORE = [record("a", n=1), record("b", n=1), record("e", document="other")]

CALLS: dict[str, Body] = {
    "replace keeps a": replace(record("a", n=1), record("c", "salt")),
    "replace keeps b": replace(record("b", n=1), record("c", "wheat", m=2)),
    "replace changes a": replace(record("a", "salt", n=2)),
    "replace describes both": replace(record("a", n=3), record("b", n=3)),
    "replace takes e": replace(record("e"), record("b", n=1)),
    "replace by nothing": replace(),
    "replace two documents": replace_many(
        {"d": [record("a", n=1), record("g")], "other": [record("e", "salt", "other")]}
    ),
    "ingest": ingested(Record("d", "wheat"), Record("other", "rye", {"n": 7})),
    "ingest from a source": ingested(Record("d", "wheat"), Record("h", "salt"), source="one"),
    "upsert text of a": upsert(record("a", "wheat", n=1)),
    "upsert metadata of a": upsert(record("a", m=5)),
    "upsert moves a": upsert(record("a", document="other", n=1)),
    "upsert parts a": upsert(record("a", document="a", n=1)),
    "upsert new": upsert(record("f", "wheat")),
    "delete a": delete(["a"], []),
    "delete the document": delete([], ["d"]),
    "delete both documents": delete([], ["d", "other"]),
}


def without_none(payload: dict[str, Any]) -> dict[str, Any]:
    """A key that is null and one that is not there are the same."""
    return {key: value for key, value in payload.items() if value is not None}


def comparable(state: Any) -> str:
    return json.dumps(state, sort_keys=True)
