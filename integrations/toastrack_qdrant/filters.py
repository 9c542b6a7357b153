"""The shared filter in Qdrant's words, as far as it has them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from qdrant_client import models

from toastrack.stores import Comparison, Condition, Group, Instant, Span
from toastrack_qdrant.codec import SOURCE, as_float, is_kept
from toastrack_qdrant.layouts import EXACT, OURS, Layout

# How far a number may have drifted that Qdrant does not keep to the letter.
_SLACK = 1e-9
# Of more numbers one range is asked that holds them all.
_MAX_RANGES = 20
# What is larger could be refused: a request may be nested 100 deep, and have 32 MiB.
_MAX_DEPTH = 8
_MAX_CONDITIONS = 1_000
_MAX_LETTERS = 2**20


def broad(condition: Condition, layout: Layout) -> models.Filter | None:
    """Return a filter that every matching point passes, and hardly another one; None for none."""
    if _count(condition) > _MAX_CONDITIONS or _letters(condition) > _MAX_LETTERS:
        return None
    return _broad(condition, layout, 0)


def both(one: models.Filter | None, other: models.Filter | None) -> models.Filter | None:
    """Return a filter that asks for both."""
    if one is None or other is None:
        return one or other
    return models.Filter(must=[one, other])


def of_documents(
    documents: Sequence[str], layout: Layout, *, among: Sequence[Any] | None = None
) -> models.Filter:
    """Return a filter for the points of documents, or for those of them with some ids."""
    any_of_them = models.MatchAny(any=list(documents))
    of_them: models.Condition = models.FieldCondition(key=layout.document_path, match=any_of_them)
    if layout is not OURS:  # what others wrote is a document of its own
        alone: list[Any] = [point for document in documents for point in layout.points_of(document)]
        unsaid = models.IsEmptyCondition(is_empty=models.PayloadField(key=layout.document_path))
        itself = models.Filter(must=[unsaid, models.HasIdCondition(has_id=alone)])
        of_them = models.Filter(should=[of_them, itself])
    must = [of_them]
    if among is not None:
        must.append(models.HasIdCondition(has_id=list(among)))
    return models.Filter(must=must)


def of_spans(spans: Sequence[Span], layout: Layout) -> models.Filter:
    """Return a filter for the points of documents between two chunk numbers."""
    return models.Filter(
        should=[
            models.Filter(
                must=[
                    models.FieldCondition(
                        key=layout.document_path, match=models.MatchValue(value=span.document)
                    ),
                    models.FieldCondition(
                        key=layout.chunk_path, range=models.Range(gte=span.first, lte=span.last)
                    ),
                ]
            )
            for span in spans
        ]
    )


def with_source(*, but: Sequence[str] = ()) -> models.Filter:
    """Return a filter for the points that have a source, and none of these."""
    without: list[models.Condition] = [
        models.IsEmptyCondition(is_empty=models.PayloadField(key=SOURCE))
    ]
    if but:
        without.append(models.FieldCondition(key=SOURCE, match=models.MatchAny(any=list(but))))
    return models.Filter(must_not=without)


def of_sources(sources: Sequence[str]) -> models.Filter:
    """Return a filter for the points that have one of these sources."""
    any_of_them = models.MatchAny(any=list(sources))
    return models.Filter(must=[models.FieldCondition(key=SOURCE, match=any_of_them)])


def fields_of(condition: Condition) -> set[str]:
    """Return the names that a filter looks at."""
    if isinstance(condition, Comparison):
        return {condition.key}
    return {key for part in condition.parts for key in fields_of(part)}


def unchanged(
    points: Sequence[models.Record], fields: Collection[str], layout: Layout
) -> models.Filter:
    """Return a filter for points whose fields hold what was read of them, as far as can be said."""
    groups: dict[str, tuple[models.Filter, list[Any]]] = {}
    for point in points:
        holds = _holds(point.payload or {}, fields, layout)
        groups.setdefault(holds.model_dump_json(), (holds, []))[1].append(point.id)
    return models.Filter(
        should=[
            models.Filter(must=[models.HasIdCondition(has_id=ids), holds])
            for holds, ids in groups.values()
        ]
    )


def _holds(payload: Mapping[str, Any], fields: Collection[str], layout: Layout) -> models.Filter:
    exact = payload.get(EXACT)
    if isinstance(exact, str):  # all of the metadata, to the letter
        return models.Filter(must=[_match(EXACT, [exact])])
    metadata = layout.metadata_of(payload)
    must: list[models.Condition] = [_is_empty(EXACT)]
    must_not: list[models.Condition] = []
    for key in sorted(fields):
        if '"' in key or "\\" in key:
            continue
        path = layout.field(key)
        value = metadata.get(key)
        if key not in metadata:
            must.append(_is_empty(path))
            must_not.append(_is_null(path))
        elif value is None:
            must.append(_is_null(path))
        elif isinstance(value, (str, bool)) or type(value) is int:
            match = models.MatchValue(value=value)
            must.append(models.FieldCondition(key=path, match=match))
            must_not.append(models.FieldCondition(key=f"{path}[]", match=match))
        elif isinstance(value, float):
            must.append(_range(path, value, value))
    return models.Filter(must=must, must_not=must_not or None)


def _is_null(path: str) -> models.IsNullCondition:
    return models.IsNullCondition(is_null=models.PayloadField(key=path))


def _count(condition: Condition) -> int:
    return 1 if isinstance(condition, Comparison) else sum(map(_count, condition.parts))


def _letters(condition: Condition) -> int:
    if isinstance(condition, Group):
        return sum(map(_letters, condition.parts))
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    texts = sum(len(value) for value in values if isinstance(value, str))
    return len(condition.key) + texts + len(values)


def _broad(condition: Condition, layout: Layout, depth: int) -> models.Filter | None:
    if isinstance(condition, Comparison):
        return _comparison(condition, layout)
    if depth == _MAX_DEPTH:
        return None
    parts = [_broad(part, layout, depth + 1) for part in condition.parts]
    said = [part for part in parts if part is not None]
    if condition.word == "$and":
        return _all_of(said) if said else None
    return models.Filter(should=list(said)) if said and len(said) == len(parts) else None


def _all_of(filters: Sequence[models.Filter]) -> models.Filter:
    """Return one filter, as flat as it goes: so the server sees which index serves."""
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for one in filters:
        if one.should:
            must.append(one)
        else:
            must += one.must or []  # type: ignore[arg-type]
            must_not += one.must_not or []  # type: ignore[arg-type]
    return models.Filter(must=must or None, must_not=must_not or None)


def _comparison(asked: Comparison, layout: Layout) -> models.Filter | None:
    key, word, value = asked.key, asked.operator, asked.value
    if '"' in key or "\\" in key:
        return None  # a JSON path of Qdrant's has no word for it
    path = layout.field(key)
    if word == "$exists":
        # What is null or an empty list is empty as well: it exists, and Qdrant cannot tell.
        return None if value else models.Filter(must=[_is_empty(path)])
    values = value if isinstance(value, tuple) else (value,)
    if word in ("$ne", "$nin"):
        texts = [one for one in values if isinstance(one, str)]
        if not texts:
            return None
        return models.Filter(must_not=[_scalar(path, [_match(path, texts)])])
    tests = _equal(path, values) if word in ("$eq", "$in") else _ordered(path, word, values[0])
    return None if tests is None else _scalar(path, tests)


def _scalar(path: str, tests: Sequence[models.Condition]) -> models.Filter:
    """Return a filter for one of these, and no list that has such an element.

    A condition on ``v`` also holds for a list with such an element; one on ``v[]`` holds only
    for the list.
    """
    of_lists: list[models.Condition] = [
        test.model_copy(update={"key": f"{path}[]"})
        for test in tests
        if isinstance(test, models.FieldCondition)
    ]
    must = tests if len(tests) == 1 else [models.Filter(should=list(tests))]
    return models.Filter(must=list(must), must_not=of_lists or None)


def _equal(path: str, values: Sequence[object]) -> list[models.Condition] | None:
    if any(isinstance(value, Instant) for value in values):
        return None
    tests: list[models.Condition] = []
    texts = [value for value in values if isinstance(value, str)]
    if texts:
        tests.append(_match(path, texts))
    tests += [
        models.FieldCondition(key=path, match=models.MatchValue(value=value))
        for value in values
        if isinstance(value, bool)
    ]
    ranges = []
    for value in values:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = as_float(value)
            if number is None:
                tests.append(_too_large(path))
            else:
                slack = 0.0 if is_kept(number) and abs(number) <= 2**53 else _slack(number)
                ranges.append((_within(number - slack), _within(number + slack)))
    if len(ranges) > _MAX_RANGES:
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))]
    tests += [_range(path, low, high) for low, high in ranges]
    return tests


def _ordered(path: str, word: str, value: object) -> list[models.Condition] | None:
    if not isinstance(value, (int, float)):
        return None  # it compares no texts, and reads dates otherwise
    number = as_float(value)
    is_more = word in ("$gt", "$gte")
    if number is None:
        largest = sys.float_info.max
        number = largest if value > 0 else -largest
    slack = _slack(number)
    low = _within(number - slack) if is_more else None
    high = None if is_more else _within(number + slack)
    return [_range(path, low, high), _too_large(path)]


def _slack(number: float) -> float:
    # Over 2**53 several ints are one float.
    return abs(number) * _SLACK + sys.float_info.min


def _within(number: float) -> float:
    return max(min(number, sys.float_info.max), -sys.float_info.max)


def _match(path: str, texts: Sequence[str]) -> models.FieldCondition:
    match = (
        models.MatchValue(value=texts[0])
        if len(texts) == 1
        else models.MatchAny(any=list(dict.fromkeys(texts)))
    )
    return models.FieldCondition(key=path, match=match)


def _range(path: str, low: float | None, high: float | None) -> models.FieldCondition:
    # A range, because a match knows no floats and 1 == 1.0.
    return models.FieldCondition(key=path, range=models.Range(gte=low, lte=high))


def _too_large(path: str) -> models.Filter:
    """Numbers that no float can hold: null in their place, and the whole metadata as text."""
    return models.Filter(must=[_is_empty(path)], must_not=[_is_empty(EXACT)])


def _is_empty(path: str) -> models.IsEmptyCondition:
    return models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
