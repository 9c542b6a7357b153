"""The embedding space and the format, as one line of the comment on the embedding column."""

from __future__ import annotations

import json

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError
from toastrack.stores import from_recorded, to_recorded

_MARK = "toastrack "


def recorded_in(comment: str | None, label: str, column: str) -> tuple[EmbeddingSpace | None, int]:
    """Return the space that a column's comment holds, and the format.

    Raises ``StoreError`` for a damaged one, and for a format that is newer than this version.
    """
    for line in (comment or "").split("\n"):
        if line.startswith(_MARK):
            try:
                recorded = json.loads(line.removeprefix(_MARK))
                return from_recorded(recorded, where=f"Table {label!r}")
            except (ValueError, TypeError) as error:
                raise StoreError(
                    f"Table {label!r}: the comment on its column {column} is damaged ({error}). "
                    "Restore it, or remove its line that starts with 'toastrack' and record it "
                    "anew with adopt=True."
                ) from None
    return None, 1


def with_recorded(comment: str | None, space: EmbeddingSpace, format: int) -> str:
    """Keep what people wrote into the comment and add our line."""
    lines = [line for line in (comment or "").split("\n") if not line.startswith(_MARK)]
    lines = lines if any(lines) else []
    lines.append(_MARK + json.dumps(to_recorded(space, format), sort_keys=True))
    return "\n".join(lines)
