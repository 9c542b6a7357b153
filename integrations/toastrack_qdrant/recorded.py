"""What a collection says of itself: the space of each of its vectors, and whose the hashes are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from toastrack import EmbeddingSpace
from toastrack.errors import StoreError
from toastrack.stores import check_usable, format_of, from_recorded, to_recorded
from toastrack_qdrant.hashes import UNNAMED, Hashes

METADATA_KEY = "toastrack"
_EARLIER = "earlier_hash"
"""In what is recorded of a named vector, if it is from before each had a hash: where its hash was.

Empty where others wrote theirs there, too.
"""


@dataclass(frozen=True)
class Recorded:
    """What is known of one vector of a collection."""

    space: EmbeddingSpace | None
    format: int
    hashes: Hashes


def recorded_in(info: models.CollectionInfo, label: str, vector_name: str) -> Recorded:
    """Read what the collection says of each of its vectors, of which points may have several."""
    where = f"Collection {label!r}"
    recorded = {
        key: value
        for key, value in (info.config.metadata or {}).items()
        if key == METADATA_KEY or key.startswith(f"{METADATA_KEY}/")
    }
    own_key = _metadata_key(vector_name)
    ours = recorded.get(own_key)
    for value in recorded.values():
        # What is damaged and not ours is not ours to mend.
        with suppress(ValueError, TypeError):
            format_of(value, where=where)
    space, format = None, 1
    if ours is not None:
        try:
            space, format = from_recorded(ours, where=where)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{where}: {own_key!r} in its metadata is damaged ({error}). "
                "Restore it, or remove it and open the collection with adopt=True."
            ) from None
    earlier = None
    if vector_name and ours is not None:
        others = [value for key, value in recorded.items() if key != own_key]
        if format > 1:
            earlier = ours.get(_EARLIER) or None
        elif not any(_shared_the_hash(other) for other in others):
            earlier = UNNAMED  # of several that wrote there nobody knows who was last
    return Recorded(space, format, Hashes.of_vector(vector_name, _vectors_in(info), earlier))


def to_metadata(
    space: EmbeddingSpace, vector_name: str, *, format: int, earlier: str | None = None
) -> dict[str, Any]:
    """Return what goes into a collection's metadata for the vector of a name."""
    recorded = {**to_recorded(space, format), _EARLIER: earlier}
    # In a collection's metadata null means: remove this.
    return {
        _metadata_key(vector_name): {
            name: value for name, value in recorded.items() if value is not None
        }
    }


def also_equal(
    info: models.CollectionInfo, vector_name: str, space: EmbeddingSpace
) -> dict[str, Any]:
    """Return what goes into the metadata of a vector that is proven to be other models', too."""
    key = _metadata_key(vector_name)
    return {key: {**(info.config.metadata or {})[key], "equals": space.to_dict()["equals"]}}


def identity(info: models.CollectionInfo, vector_name: str) -> tuple[int | None, Any]:
    """Return what a collection says of its vectors: it has no id by which to know it again."""
    ours = _vectors_in(info).get(vector_name)
    recorded = (info.config.metadata or {}).get(_metadata_key(vector_name))
    if isinstance(recorded, Mapping):
        # Another store may have brought its format up, or proven another model equal.
        kept = ("format", _EARLIER, "equals")
        recorded = {key: value for key, value in recorded.items() if key not in kept}
    return None if ours is None else ours.size, recorded


def dimensions_in(info: models.CollectionInfo, label: str, vector_name: str) -> int:
    """Return the size of the vectors, having made sure that they are compared by cosine."""
    where = f"Collection {label!r}"
    named = _vectors_in(info)
    found = named.get(vector_name)
    if found is None:
        names = ", ".join(f"vector_name={name!r}" for name in named) or "none at all"
        raise StoreError(f"{where} has no vectors of the name {vector_name!r}; there are: {names}.")
    problems = []
    if found.distance != models.Distance.COSINE:
        problems.append(
            f"it compares vectors by {found.distance.value} and not by Cosine, so that its "
            "scores would mean something else"
        )
    if found.multivector_config is not None:
        problems.append("it stores several vectors a point")
    if found.datatype == models.Datatype.UINT8:
        problems.append("its vectors are whole numbers")
    check_usable(where, problems, instead="Use another collection.")
    return found.size


def _metadata_key(vector_name: str) -> str:
    """Return where the space is recorded; each named vector has its own."""
    return f"{METADATA_KEY}/{vector_name}" if vector_name else METADATA_KEY


def _shared_the_hash(recorded: Any) -> bool:
    """Tell whether an earlier version wrote the hash of this vector to where all wrote theirs."""
    return not isinstance(recorded, Mapping) or "format" not in recorded or _EARLIER in recorded


def _vectors_in(info: models.CollectionInfo) -> dict[str, models.VectorParams]:
    """Return the dense vectors of a collection by their names."""
    vectors = info.config.params.vectors or {}
    return {"": vectors} if isinstance(vectors, models.VectorParams) else dict(vectors)
