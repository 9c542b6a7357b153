"""How a record compares to the point that is stored under its id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from toastrack import Record
from toastrack.stores import Row, Status
from toastrack_qdrant.codec import SOURCE
from toastrack_qdrant.collection import Collection
from toastrack_qdrant.layouts import Layout


def status_of(collection: Collection, values: Mapping[str, Any], row: Row) -> Status:
    """Say by its payload, which needs no text, how a point compares to what it should be."""
    if collection.hashes.in_payload(values) != row.text_hash.hex():
        return "changed"
    same = _same_rest(collection.points.layout, values, row.record)
    return "unchanged" if same and row.source in (None, values.get(SOURCE)) else "metadata"


def texts_differ(layout: Layout, stored: models.Record, point: models.PointStruct) -> bool:
    """Tell whether a stored point has another text than this one."""
    text = layout.text
    return bool((stored.payload or {}).get(text) != (point.payload or {})[text])


def _same_rest(layout: Layout, values: Mapping[str, Any], record: Record) -> bool:
    # As JSON, because 1 == 1.0 == True in Python.
    stored, ours = (
        json.dumps(metadata, sort_keys=True)
        for metadata in (layout.metadata_of(values), dict(record.metadata))
    )
    return (
        stored == ours
        and values.get(layout.id) == record.id
        and values.get(layout.document_id) == record.document
        and values.get(layout.chunk) == record.chunk
    )
