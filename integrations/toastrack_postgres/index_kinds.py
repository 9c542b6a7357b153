"""The kinds of index: what each is on, and which of them an index that is there is of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from toastrack_postgres.codec import VectorType
from toastrack_postgres.session import Rows

Kind = Literal["full", "binary", "prefix"]
"""Of whole vectors; of the signs of their numbers; of their first numbers."""

IndexChoice = Literal["auto", "full", "binary", "prefix"]
"""Which index a search asks; "auto" takes the first of these that is there."""

KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT_PREFIX = 256

_BYTES = {"vector": 4, "halfvec": 2}

# As Postgres writes them, with the extension's schema where the search_path does not have it.
_SIGNS = re.compile(r"\((?:.+\.)?binary_quantize\(embedding\)\)::bit\((\d+)\)")
_FIRST = re.compile(
    r"\((?:.+\.)?subvector\(embedding, 1, (\d+)\)\)::(?:.+\.)?(?:vector|halfvec)\(\1\)"
)


@dataclass(frozen=True)
class Indexed:
    """What an index is on."""

    kind: Kind
    size: int
    """How many numbers, or signs, of each vector."""

    def operators(self, storage: VectorType) -> str:
        """Return the name of its operator class."""
        return "bit_hamming_ops" if self.kind == "binary" else f"{storage}_cosine_ops"

    def bytes_of_one(self, storage: VectorType) -> int:
        """Return what the graph keeps of each vector."""
        return -(-self.size // 8) if self.kind == "binary" else self.size * _BYTES[storage]

    def __str__(self) -> str:
        return f"prefix of {self.size}" if self.kind == "prefix" else self.kind


class VectorIndex(NamedTuple):
    """An index that is there; the columns of ``catalogue.VECTOR_INDEXES``."""

    name: str
    valid: bool
    in_progress: bool
    method: str
    operators: str
    options: Sequence[str]
    on: str | None
    """The column or expression; None for an index of some rows only."""

    def indexed(self, storage: VectorType, dimensions: int) -> Indexed | None:
        """Return what it is on, if one of our searches can ask it."""
        found: Indexed | None = None
        if self.on == "embedding":
            found = Indexed("full", dimensions)
        elif signs := _SIGNS.fullmatch(self.on or ""):
            found = Indexed("binary", int(signs[1]))
        elif first := _FIRST.fullmatch(self.on or ""):
            found = Indexed("prefix", int(first[1]))
        return found if found and self.operators == found.operators(storage) else None


def read_indexes(rows: Rows) -> list[VectorIndex]:
    """Return what ``catalogue.VECTOR_INDEXES`` answered."""
    return [VectorIndex(*row) for row in rows]


def best(found: Iterable[Indexed], choice: IndexChoice) -> Indexed | None:
    """Return what a search asks of what is there; of two prefixes the longer one."""
    wanted = KINDS if choice == "auto" else (choice,)
    usable = [one for one in found if one.kind in wanted]
    return min(usable, key=lambda one: (wanted.index(one.kind), -one.size), default=None)
