"""What a filter may be: the same flat mapping of scalars on every store."""

from __future__ import annotations

import math
from collections.abc import Mapping

from toastrack.errors import FilterError
from toastrack.utils.text import check_unicode

Scalar = str | int | float | bool
Filter = Mapping[str, Scalar]


def checked_filter(filter: Filter | None) -> dict[str, Scalar]:
    """Return the filter as a dict, empty for None.

    Every field must equal its value: ``1 == 1.0``, ``True != 1``, and a list never matches.

    Raises:
        FilterError: It is no flat mapping of names to scalars; names the field.
    """
    if filter is None:
        return {}
    if not isinstance(filter, Mapping):
        raise FilterError(f"A filter is a mapping such as {{'lang': 'en'}}, not {filter!r:.60}.")
    for key, value in filter.items():
        if not isinstance(key, str) or not key:
            raise FilterError(f"Filter field {key!r} is not a name.")
        if "." in key or key.startswith("$"):
            raise FilterError(
                f"Filter field {key!r}: names with '.' or a leading '$' mean different things in "
                "different hosts. Use the store's own filter for them."
            )
        if not isinstance(value, (str, int, float)):
            raise FilterError(
                f"Filter field {key!r} is {type(value).__name__} {value!r:.40}; only str, int, "
                "float and bool can be compared. Use the store's own filter for more."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise FilterError(f"Filter field {key!r} is {value}, which equals nothing.")
        for text in (key, value):
            if isinstance(text, str):
                _check(text, key)
    return dict(filter)


def _check(text: str, key: str) -> None:
    try:
        check_unicode(text, f"Filter field {key!r}")
    except ValueError as error:
        raise FilterError(str(error)) from None


def matches(metadata: Mapping[str, object], filter: Mapping[str, Scalar]) -> bool:
    """Tell whether a record's metadata passes a checked filter, for what a host cannot compare."""
    return all(key in metadata and _equal(metadata[key], value) for key, value in filter.items())


def _equal(stored: object, wanted: Scalar) -> bool:
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    return isinstance(stored, (str, int, float)) and stored == wanted
