"""The embedding space as one line of the comment on the embedding column."""

from __future__ import annotations

import json

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError

_MARK = "toastrack "


def space_in(comment: str | None, label: str) -> EmbeddingSpace | None:
    """Return the space that a comment holds; raises ``StoreError`` for a damaged one."""
    for line in (comment or "").split("\n"):
        if line.startswith(_MARK):
            try:
                return EmbeddingSpace.from_dict(json.loads(line.removeprefix(_MARK)))
            except (ValueError, TypeError) as error:
                raise StoreError(
                    f"Table {label!r}: the comment on its column embedding is damaged ({error}). "
                    "Restore it, or remove its line that starts with 'toastrack' and open the "
                    "table with adopt=True."
                ) from None
    return None


def with_space(comment: str | None, space: EmbeddingSpace) -> str:
    """Keep what people wrote into the comment and add our line."""
    lines = [line for line in (comment or "").split("\n") if not line.startswith(_MARK)]
    lines = lines if any(lines) else []
    lines.append(_MARK + json.dumps(space.to_dict(), sort_keys=True))
    return "\n".join(lines)
