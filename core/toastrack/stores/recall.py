"""How it is measured what an index misses and saves: its searches beside the exact ones."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias

from toastrack.records import Match
from toastrack.stores.backend import S
from toastrack.stores.flow import O, StoreFlow
from toastrack.stores.recall_table import AskedWith, RecallRow, RecallTable
from toastrack.utils import arrays

Asked: TypeAlias = "tuple[str | None, arrays.FloatVector]"
"""A query, with the id of the row that it is."""


@dataclass(frozen=True)
class Trial(Generic[O]):
    """A way to search that is tried: the options of the host, and what the table says of it."""

    options: O
    index: str
    ef_search: int | None = None
    oversampling: float | None = None


async def measure_recall(
    flow: StoreFlow[S, O],
    *,
    k: int,
    sample: int,
    queries: Iterable[str] | None,
    exact: O,
    trials: Callable[[S, int], Awaitable[Sequence[Trial[O]]]],
    sampled: Callable[[S, int], Awaitable[Sequence[tuple[str, arrays.FloatVector]]]],
) -> RecallTable:
    """Search with each query in each way, and compare with the exact answers.

    Args:
        flow: The store's.
        k: How many rows are asked for.
        sample: How many rows are the queries where none are given.
        queries: Texts, embedded as queries.
        exact: The options of an exact search.
        trials: Tells the ways to search for ``k`` rows.
        sampled: Gives the ids and vectors of so many rows.

    Raises:
        TypeError: The queries are one text.
        ValueError: ``k`` or ``sample`` is less than 1, there is no query, or no row.
    """
    for name, number in (("k", k), ("sample", sample)):
        if number < 1:
            raise ValueError(f"{name}={number!r} must be 1 or more.")
    if isinstance(queries, str):
        raise TypeError("queries= takes several texts, not one.")
    await flow.ready()
    asked: Sequence[Asked]
    if queries is None:
        asked = await flow.perform(sampled, sample, reads=True)
    else:
        vectors = await flow.runtime.offload(flow.embedder.embed_queries, list(queries))
        asked = [(None, vector) for vector in vectors]
    if not asked:
        raise ValueError("There is no query to ask: queries= is empty, or no row has a vector.")
    tried = await flow.perform(trials, k, reads=True)
    asked_with: AskedWith = "rows" if queries is None else "texts"
    return await compare_with_exact(
        flow, asked, k=k, asked_with=asked_with, exact=exact, trials=tried
    )


async def compare_with_exact(
    flow: StoreFlow[S, O],
    asked: Sequence[Asked],
    *,
    k: int,
    asked_with: AskedWith,
    exact: O,
    trials: Sequence[Trial[O]],
    seconds: float = math.inf,
) -> RecallTable:
    """Ask each query in each way; none but the first if the exact searches take longer than ``seconds``."""
    rows: list[RecallRow] = []
    best: list[list[Match]] = []
    began = flow.runtime.monotonic()
    for position, way in enumerate([Trial(exact, "exact"), *trials]):
        ask = partial(_ask, flow, k=k, exact=not position, options=way.options)
        await ask(*asked[0])  # the first of a kind reads what the others find in memory
        answers = []
        for one in asked:
            answers.append(await ask(*one))
            if not position and flow.runtime.monotonic() - began > seconds:
                break
        if not position:
            best = [found for found, _ in answers]
            asked = asked[: len(best)]
        shares = [_share(found, good) for (found, _), good in zip(answers, best, strict=True)]
        times = sorted(1000 * spent for _, spent in answers)
        rows.append(
            RecallRow(
                way.index,
                way.ef_search,
                way.oversampling,
                sum(shares) / len(shares),
                _percentile(times, 0.5),
                _percentile(times, 0.95),
            )
        )
    return RecallTable(k, len(asked), asked_with, tuple(rows))


async def _ask(
    flow: StoreFlow[S, O],
    id: str | None,
    vector: arrays.FloatVector,
    *,
    k: int,
    exact: bool,
    options: O,
) -> tuple[list[Match], float]:
    """Return the matches without the query's own row, and the seconds that they took."""
    begin = flow.runtime.monotonic()
    found = await flow.perform(
        flow.backend.search,
        vector,
        k=k if id is None else k + 1,
        filter={},
        exact=exact,
        options=options,
        reads=True,
        retry="short",
    )
    seconds = flow.runtime.monotonic() - begin
    return [match for match in found if match.id != id][:k], seconds


def _share(found: Sequence[Match], best: Sequence[Match]) -> float:
    """Return the share of the best that was found; of rows that are equally good any will do."""
    if not best:
        return 1.0
    return sum(match.score >= best[-1].score for match in found) / len(best)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]
