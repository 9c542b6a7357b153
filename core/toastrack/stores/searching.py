"""How a search goes on every host: candidates, another order, one a document, what is around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from toastrack.embedder import Embedder
from toastrack.records import Match, Record
from toastrack.stores.arguments import MAX_K
from toastrack.stores.backend import Backend, Retry, Span
from toastrack.stores.chunk_places import PLACE, joined, part_of, without_place
from toastrack.stores.runtime import Runtime
from toastrack.stores.search_request import SearchRequest, checked_request
from toastrack.stores.text_query import TextHits, TextQuery
from toastrack.stores.vectors import unit_vector
from toastrack.utils import arrays
from toastrack.utils.warn import warn_once

T = TypeVar("T")

Fetch = Callable[[int], Awaitable[list[Match]]]
"""Takes how many records are wanted; returns fewer only if there are no more."""

# How many records are fetched at first for each document that is wanted, and how many times as
# many when those were of too few documents.
_RECORDS_PER_DOCUMENT = 4
_GROWTH = 4


class Flow(Protocol):
    """What is needed of ``StoreFlow`` here."""

    backend: Backend[Any, Any]
    runtime: Runtime

    @property
    def embedder(self) -> Embedder:
        """What embeds."""
        ...

    async def ready(self) -> int:
        """Return the size of the vectors, once the space is compared."""
        ...

    async def perform(
        self,
        method: Callable[..., Awaitable[T]],
        *args: Any,
        reads: bool = False,
        retry: Retry = "long",
        **options: Any,
    ) -> T:
        """Run a method of the backend in a session of its own."""
        ...


async def search(flow: Flow, request: SearchRequest, options: Any) -> list[Match]:
    """Return the best ``min(k, matching)`` records, or documents, best first."""
    asked = checked_request(request)
    dimensions = await flow.ready()
    if asked.k == 0:
        return []
    vector = None if asked.mode == "text" else await _vector(flow, asked, dimensions)
    fetch = partial(_fetch, flow, asked, options, vector)
    found = await (_documents if asked.group_by_document else _records)(flow, asked, fetch)
    if asked.neighbours:
        found = await _with_context(flow, found, asked.neighbours)
    return [
        replace(match, metadata=without_place(match.metadata)) if PLACE in match.metadata else match
        for match in found
    ]


async def _vector(flow: Flow, asked: SearchRequest, dimensions: int) -> arrays.FloatVector:
    vector: arrays.Vector
    if isinstance(asked.query, str):
        vector = await flow.runtime.embed_query(flow.embedder, asked.query)
    else:
        vector = asked.query
    return unit_vector(vector, "The query vector", dimensions)


async def _fetch(
    flow: Flow, asked: SearchRequest, options: Any, vector: arrays.FloatVector | None, number: int
) -> list[Match]:
    ask = partial(
        flow.perform,
        k=number,
        filter=asked.filter,
        exact=asked.exact,
        options=options,
        reads=True,
        retry="short",
    )
    if asked.mode == "vector":
        found: list[Match] = await ask(flow.backend.search, vector)
        return found
    query = TextQuery(str(asked.query), asked.text_syntax, *asked.weights)
    hits: TextHits = await ask(flow.backend.search_text, query, vector)
    if hits.wordless is not None and vector is None:
        warn_once(
            flow.backend.label,
            "A query has no word that the text index knows, in "
            f"language={hits.wordless!r}: it is empty, or stop words, signs or another language. "
            "mode='text' finds nothing then; mode='hybrid' goes by the meaning. An index for another "
            "language: build_text_index(language=..., rebuild=True).",
            UserWarning,
        )
    return hits.matches


async def _records(flow: Flow, asked: SearchRequest, fetch: Fetch) -> list[Match]:
    found = await fetch(asked.candidates_wanted)
    # What is too far away need not be read by a reranker.
    near = [match for match in found if _is_near(match, asked)]
    return (await _ranked(flow, asked, near, {}))[: asked.k]


async def _documents(flow: Flow, asked: SearchRequest, fetch: Fetch) -> list[Match]:
    """Fetch until there are enough documents, or no more records."""
    number = asked.candidates_wanted
    if asked.rerank is None and asked.mode == "vector":
        number = min(_RECORDS_PER_DOCUMENT * number, MAX_K)
    scores: dict[str, float] = {}
    while True:
        found = await fetch(number)
        ranked = await _ranked(flow, asked, found, scores)
        best: dict[str, Match] = {}
        for match in ranked:
            best.setdefault(match.document_id, match)
        # Without another order those that follow are further away than the last one.
        is_all = len(found) < number or (asked.rerank is None and not _is_near(found[-1], asked))
        if len(best) >= asked.k or is_all or number == MAX_K:
            return [match for match in best.values() if _is_near(match, asked)][: asked.k]
        number = min(_GROWTH * number, MAX_K)


def _is_near(match: Match, asked: SearchRequest) -> bool:
    return asked.min_score is None or match.scores["cosine"] >= asked.lowest


async def _ranked(
    flow: Flow, asked: SearchRequest, found: Sequence[Match], scores: dict[str, float]
) -> list[Match]:
    """Put matches into the order of the reranker, ties as the search had them.

    ``scores`` keeps those of texts that it has read.
    """
    if asked.rerank is None or not isinstance(asked.query, str):
        return list(found)
    texts = [text for text in dict.fromkeys(match.text for match in found) if text not in scores]
    read = await flow.runtime.score(asked.rerank, asked.query, texts)
    scores.update(zip(texts, read.tolist(), strict=True))
    scored = [
        replace(
            match,
            score=scores[match.text],
            score_kind="rerank",
            scores={**match.scores, "rerank": scores[match.text]},
        )
        for match in found
    ]
    return sorted(scored, key=lambda match: -match.score)


async def _with_context(flow: Flow, found: Sequence[Match], neighbours: int) -> list[Match]:
    """Read the chunks around those that were found, and join their texts."""
    spans = [
        Span(
            match.document_id,
            max(match.chunk - neighbours, -MAX_K),
            min(match.chunk + neighbours, MAX_K),
        )
        for match in found
        if match.chunk is not None
    ]
    around: dict[str, dict[int, Record]] = {}
    if spans:
        read = await flow.perform(flow.backend.chunks, spans, reads=True, retry="short")
        for record in sorted(read, key=lambda record: record.id, reverse=True):
            if record.chunk is not None:
                around.setdefault(record.document, {})[record.chunk] = record
    return [
        replace(match, context=_context(match, around.get(match.document_id, {}), neighbours))
        for match in found
    ]


def _context(match: Match, chunks: dict[int, Record], neighbours: int) -> str:
    if match.chunk is None:
        return match.text
    # As it was found: somebody may have changed it since.
    there: dict[int, Record | Match] = {**chunks, match.chunk: match}
    numbers = (number for number in sorted(there) if abs(number - match.chunk) <= neighbours)
    return joined([part_of(there[number], number) for number in numbers])
