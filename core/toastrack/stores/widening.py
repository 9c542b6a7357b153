"""Asking an index for more than is wanted, where a host cannot say a filter exactly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Hit = TypeVar("Hit")

# Looking at more of a collection takes longer than to read the metadata of all.
_SHARE = 10


async def widened(
    ask: Callable[[int, bool], Awaitable[Sequence[Hit]]],
    passes: Callable[[Hit], bool],
    k: int,
    *,
    exact: bool,
    count: Callable[[], Awaitable[int]],
    has_exact: bool = True,
) -> list[Hit] | None:
    """Return the best ``k`` hits that pass; None if that takes more than an index can tell.

    Args:
        ask: Takes how many hits are wanted at most, and whether exactly; then it returns fewer
            only if there are no more.
        passes: Tells whether a hit is one that is wanted.
        k: How many are wanted.
        exact: Ask exactly from the beginning, and not only if an index gave fewer than asked for.
        count: Returns how many records there are.
        has_exact: The host can be asked exactly.
    """
    asked, most = k, -1
    while True:
        hits = await ask(asked, exact)
        passing = [hit for hit in hits if passes(hit)]
        if len(passing) >= k:
            return passing[:k]
        if len(hits) < asked:
            if exact:
                return passing
            if not has_exact:
                return None
            exact = True
            continue
        asked *= 2
        if most < 0:
            most = await count() // _SHARE
        if asked > most:
            return None
