"""The shared filter in Qdrant's words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from qdrant_client import models

from toastrack.stores import Scalar
from toastrack_qdrant.codec import as_float, is_kept

# How far a number may have drifted that Qdrant does not keep to the letter.
_SLACK = 1e-9


def conditions(filter: Mapping[str, Scalar]) -> models.Filter | None:
    """Return a filter that every matching point passes, and hardly another one; None for none.

    A condition on ``v`` also holds for a list with such an element; one on ``v[]`` holds only
    for the list.
    """
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for key, value in filter.items():
        if '"' in key or "\\" in key:
            continue  # a JSON path of Qdrant's has no word for it
        test = _test(value)
        if test is not None:
            path = f'metadata."{key}"'
            match, range = test
            must.append(models.FieldCondition(key=path, match=match, range=range))
            must_not.append(models.FieldCondition(key=f"{path}[]", match=match, range=range))
    return models.Filter(must=must, must_not=must_not) if must else None


def both(one: models.Filter | None, other: models.Filter | None) -> models.Filter | None:
    """Return a filter that asks for both."""
    if one is None or other is None:
        return one or other
    return models.Filter(must=[one, other])


def of_documents(documents: Sequence[str], *, among: Sequence[str] | None = None) -> models.Filter:
    """Return a filter for the points of documents, or for those of them with some ids."""
    any_of_them = models.MatchAny(any=list(documents))
    must: list[models.Condition] = [models.FieldCondition(key="document_id", match=any_of_them)]
    if among is not None:
        must.append(models.HasIdCondition(has_id=list(among)))
    return models.Filter(must=must)


def _test(value: Scalar) -> tuple[models.Match | None, models.Range | None] | None:
    """Return what a field must be, None if Qdrant cannot compare it."""
    if isinstance(value, (bool, str)):
        return models.MatchValue(value=value), None
    number = as_float(value)
    if number is None:
        return None
    # A range, because a match knows no floats and 1 == 1.0. Over 2**53 several ints are one float.
    is_exact = is_kept(number) and abs(number) <= 2**53
    slack = 0.0 if is_exact else abs(number) * _SLACK + sys.float_info.min
    largest = sys.float_info.max
    low, high = max(number - slack, -largest), min(number + slack, largest)
    return None, models.Range(gte=low, lte=high)
