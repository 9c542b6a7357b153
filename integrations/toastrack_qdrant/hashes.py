"""Where a point's payload holds the hash of each of its vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

UNNAMED = "text_hash"
# A hash is a sha256 in hex; what a writer leaves there while it writes is shorter.
_LETTERS = 64


def hash_key(vector_name: str) -> str:
    """Return the payload key of a vector's hash."""
    return f"{UNNAMED}/{vector_name}" if vector_name else UNNAMED


@dataclass(frozen=True)
class Hashes:
    """The keys of one vector's hash and of the others', in every point of a collection.

    Text and metadata of a point are shared by its vectors. A hash that is there is always that of
    its vector and of the point's text: who changes the text removes the others' hashes.
    """

    own: str
    """Where this vector's is written."""
    earlier: str | None = None
    """Where an earlier version wrote it; None if it did not, or if others wrote theirs there."""
    others: tuple[str, ...] = ()
    """Where the other vectors' are."""

    @classmethod
    def of_vector(cls, name: str, names: Iterable[str], earlier: str | None) -> Hashes:
        """Return the keys for the vector of a name, among all names of a collection."""
        own = hash_key(name)
        others = [hash_key(other) for other in names if other != name]
        if others:
            others.append(UNNAMED)
        return cls(
            own,
            earlier,
            tuple(key for key in dict.fromkeys(others) if key not in (own, earlier)),
        )

    def in_payload(self, payload: Mapping[str, Any]) -> str | None:
        """Return the hash that a point holds of this vector, in hex; None if it has none."""
        found = payload.get(self.own)
        if found is None and self.earlier is not None:
            found = payload.get(self.earlier)
        return found if isinstance(found, str) and len(found) == _LETTERS else None
