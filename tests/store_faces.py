"""The vectors that a store makes of texts, read through its public face alone.

A search for a unit vector along one axis gives every record's number on that axis as its score,
and a search for a text over records that are such unit vectors gives the text's own numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any
from uuid import uuid4

from toastrack import Embedder, Match, Record
from toastrack.stores.protocol import Store

Vectors = list[list[float]]
OpenStore = Callable[[Embedder, str], AbstractContextManager[Store]]
OpenAsyncStore = Callable[[Embedder, str], AbstractAsyncContextManager[Any]]


class StoreFace:
    """A store as an embedding adapter."""

    def __init__(
        self, embedder: Embedder, held: Any, open_store: OpenStore, open_async: OpenAsyncStore
    ) -> None:
        self.held = held
        self._embedder = embedder
        self._open = open_store
        self._open_async = open_async

    def documents(self, texts: list[str]) -> Vectors:
        """Store texts, and read their vectors axis by axis."""
        if not texts:
            return []
        with self._open(self._embedder, _name()) as store:
            store.upsert(_records(texts))
            size = store.space.dimensions
            return _by_record(
                [store.search(axis, len(texts), exact=True) for axis in _axes(size)], len(texts)
            )

    def query(self, text: str) -> list[float]:
        """Search for a text among the axes."""
        with self._open(self._embedder, _name()) as store:
            size = store.space.dimensions
            store.upsert(_axis_records(size))
            return _by_axis(store.search(text, size, exact=True))

    async def adocuments(self, texts: list[str]) -> Vectors:
        """``documents``, awaited."""
        if not texts:
            return []
        async with self._open_async(self._embedder, _name()) as store:
            await store.upsert(_records(texts))
            size = store.space.dimensions
            found = [await store.search(axis, len(texts), exact=True) for axis in _axes(size)]
            return _by_record(found, len(texts))

    async def aquery(self, text: str) -> list[float]:
        """``query``, awaited."""
        async with self._open_async(self._embedder, _name()) as store:
            size = store.space.dimensions
            await store.upsert(_axis_records(size))
            return _by_axis(await store.search(text, size, exact=True))


def axis_of(number: int, size: int) -> list[float]:
    """Return the unit vector along one axis."""
    return [float(position == number) for position in range(size)]


def _name() -> str:
    return f"texts_{uuid4().hex[:12]}"


def _axes(size: int) -> list[list[float]]:
    return [axis_of(number, size) for number in range(size)]


def _records(texts: Sequence[str]) -> list[Record]:
    return [Record(str(number), text) for number, text in enumerate(texts)]


def _axis_records(size: int) -> list[Record]:
    return [Record(str(number), "axis", vector=axis_of(number, size)) for number in range(size)]


def _by_record(found: Sequence[Sequence[Match]], count: int) -> Vectors:
    scores = [{match.id: match.score for match in matches} for matches in found]
    return [[axis[str(number)] for axis in scores] for number in range(count)]


def _by_axis(found: Sequence[Match]) -> list[float]:
    scores = {match.id: match.score for match in found}
    return [scores[str(number)] for number in range(len(found))]
