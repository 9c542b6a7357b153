"""What is changed in points that are there, so that nobody else's vector or payload key is touched.

Qdrant changes a point's vectors and its payload in two operations, and another writer's may come
between. So whoever writes a text first leaves a mark of its own in place of the hash; each further
operation is only for points that still bear it. Of several writers the last one to leave its mark
writes all three, vector, text and hash, and the others' operations do nothing. A mark that a kill
leaves behind is no text's hash: the record counts as changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from qdrant_client import models

from toastrack_qdrant.codec import SOURCE
from toastrack_qdrant.hashes import Hashes
from toastrack_qdrant.layouts import EXACT, Layout


@dataclass(frozen=True)
class Change:
    """What is set in the payload of one point, if it is still as it is described here."""

    point: Any
    values: Mapping[str, Any]
    """None removes a key; keys that are not named stay."""
    holds: Mapping[str, str | None]
    """What its payload must hold; None for nothing."""
    unlike: Mapping[str, str] = field(default_factory=dict)
    """What its payload must not hold."""

    def operation(self) -> models.SetPayloadOperation:
        """Return it in the words of a server."""
        must: list[models.Condition] = [models.HasIdCondition(has_id=[self.point])]
        must += [_condition(key, value) for key, value in self.holds.items()]
        must_not = [_condition(key, value) for key, value in self.unlike.items()]
        where = models.Filter(must=must, must_not=list(must_not) or None)
        return models.SetPayloadOperation(
            set_payload=models.SetPayload(payload=dict(self.values), filter=where)
        )

    def fits(self, payload: Mapping[str, Any]) -> bool:
        """Tell whether a point is as it is described."""
        return all(payload.get(key) == value for key, value in self.holds.items()) and not any(
            payload.get(key) == value for key, value in self.unlike.items()
        )


def new_texts(
    points: Sequence[models.PointStruct], hashes: Hashes, layout: Layout
) -> tuple[list[models.UpdateOperation], list[Change]]:
    """Return what gives points that are there the vectors and payloads of these, in this order."""
    mark = uuid4().hex
    bears_it = models.Filter(must=[_condition(hashes.own, mark)])
    vectors = [
        # Validating would look at each number again, as the client does itself.
        models.PointVectors.model_construct(id=point.id, vector=point.vector)
        for point in points
    ]
    operations: list[models.UpdateOperation] = [
        models.SetPayloadOperation(
            set_payload=models.SetPayload(
                payload={hashes.own: mark}, points=[point.id for point in points]
            )
        ),
        models.UpdateVectorsOperation(
            update_vectors=models.UpdateVectors(points=vectors, update_filter=bears_it)
        ),
    ]
    changes: list[Change] = []
    for point in points:
        values = _values(point, hashes)
        if hashes.others:
            # The other vectors are of another text then.
            forgotten = {**dict.fromkeys(hashes.others), **values}
            text = {layout.text: values[layout.text]}
            changes.append(Change(point.id, forgotten, {hashes.own: mark}, unlike=text))
        changes += _described(point, values, {hashes.own: mark}, layout)
    return operations, changes


def new_metadata(point: models.PointStruct, hashes: Hashes, layout: Layout) -> list[Change]:
    """Return what gives a point the payload of this one, while its text is the same."""
    values = _values(point, hashes)
    expected = values[hashes.own]
    changes = _described(point, values, {hashes.own: expected}, layout)
    if hashes.earlier is not None:
        changes += _described(point, values, {hashes.own: None, hashes.earlier: expected}, layout)
    return changes


def _described(
    point: models.PointStruct,
    values: Mapping[str, Any],
    holds: Mapping[str, str | None],
    layout: Layout,
) -> list[Change]:
    """Return what sets a payload; a source that it does not name stays with its document."""
    change = Change(point.id, values, holds)
    if SOURCE in values:
        return [change]
    document = {layout.document_id: values[layout.document_id]}
    return [Change(point.id, {SOURCE: None}, holds, unlike=document), change]


def _values(point: models.PointStruct, hashes: Hashes) -> dict[str, Any]:
    values: dict[str, Any] = {EXACT: None, **(point.payload or {})}
    if hashes.earlier is not None:
        values[hashes.earlier] = None
    return values


def _condition(key: str, value: str | None) -> models.Condition:
    path = f'"{key}"'
    if value is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
    return models.FieldCondition(key=path, match=models.MatchValue(value=value))
