"""Calls of a store that are short enough to try them at once in all orders."""

from __future__ import annotations

import json
from typing import Any

from interleaving import Body

from toastrack import Record
from toastrack.stores.windows import IterableReader, document_windows, record_windows


def record(id: str, text: str = "rye", document: str = "d", **metadata: Any) -> Record:
    return Record(id, text, metadata, document_id=document)


def replace(*records: Record) -> Body:
    documents = [("d", list(records))]
    return lambda flow: flow.write(IterableReader(document_windows, documents), None)


def upsert(*records: Record) -> Body:
    return lambda flow: flow.write(IterableReader(record_windows, records), None)


def delete(ids: list[str], documents: list[str]) -> Body:
    return lambda flow: flow.perform(flow.backend.delete, ids, documents)


BEFORE = [record("a", n=1), record("b", n=1), record("e", document="other")]

CALLS: dict[str, Body] = {
    "replace keeps a": replace(record("a", n=1), record("c", "salt")),
    "replace keeps b": replace(record("b", n=1), record("c", "wheat", m=2)),
    "replace changes a": replace(record("a", "salt", n=2)),
    "replace describes both": replace(record("a", n=3), record("b", n=3)),
    "replace takes e": replace(record("e"), record("b", n=1)),
    "replace by nothing": replace(),
    "upsert text of a": upsert(record("a", "wheat", n=1)),
    "upsert metadata of a": upsert(record("a", m=5)),
    "upsert moves a": upsert(record("a", document="other", n=1)),
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
