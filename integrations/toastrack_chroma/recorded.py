"""What a collection says of itself: the embedding space of its vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError
from toastrack.stores import from_recorded, to_recorded

SPACE = "toastrack"
"""Where the collection's metadata holds the embedding space, as JSON."""


def recorded_text(space: EmbeddingSpace, format: int) -> str:
    """Return what is kept of a space and the format, as JSON."""
    return json.dumps(to_recorded(space, format), sort_keys=True, ensure_ascii=False)


def recorded_in(metadata: Mapping[str, Any], label: str) -> tuple[EmbeddingSpace | None, int]:
    """Read the space and the format in a collection's metadata.

    Raises:
        StoreError: What is there is damaged.
    """
    written = metadata.get(SPACE)
    if written is None:
        return None, 1
    try:
        return from_recorded(json.loads(written), where=f"Collection {label!r}")
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"Collection {label!r}: its metadata {SPACE!r} is damaged ({error}). Restore "
            "it, or remove it and open the collection with adopt=True."
        ) from None
