"""The texts among a statement's parameters, and the same parameters with vectors in their place."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toastrack import Embedder
from toastrack.stores import Runtime
from toastrack_postgres.codec import VectorArrayParameter, VectorParameter, VectorType
from toastrack_postgres.parameters import TEXT_TYPES, DocumentText, QueryText, Text
from toastrack_postgres.registry import Registration, VectorOids

if TYPE_CHECKING:
    from toastrack.stores import arrays

Parameters = Sequence[Any] | Mapping[str, Any]
Place = int | str
"""A parameter's number, from 0, or its name."""


def items_of(parameters: Parameters) -> Iterable[tuple[Place, Any]]:
    """Return the parameters with their places."""
    if isinstance(parameters, Mapping):
        return parameters.items()
    return enumerate(parameters)


def holds_text(value: Any) -> bool:
    """Tell whether a parameter is a text to be embedded, or an array of them.

    The elements of an array are of one type, so the first one tells.
    """
    if isinstance(value, TEXT_TYPES):
        return True
    if type(value) is list:
        first = next((item for item in value if item is not None), None)
        return first is not None and holds_text(first)
    return type(value) is tuple and any(map(holds_text, value))


def text_places(parameters: Parameters | None) -> list[Place]:
    """Return the places of the texts to be embedded."""
    if not parameters:
        return []
    return [place for place, value in items_of(parameters) if holds_text(value)]


def texts_in(value: Any) -> Iterator[Text]:
    """Yield the texts of one parameter."""
    if isinstance(value, TEXT_TYPES):
        yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from texts_in(item)


class Vectors:
    """The vectors of one statement's texts; each text is embedded once."""

    def __init__(self, vectors: Mapping[Text, arrays.FloatVector], oids: VectorOids) -> None:
        self._vectors = vectors
        self._oids = oids

    def in_place(self, parameters: Parameters) -> Parameters:
        """Return the parameters of a statement with vectors for texts."""
        replaced = {
            place: self.of(value) for place, value in items_of(parameters) if holds_text(value)
        }
        if not replaced:
            return parameters
        if isinstance(parameters, Mapping):
            return ChainMap(replaced, parameters)  # type: ignore[arg-type]
        return [replaced.get(place, value) for place, value in enumerate(parameters)]

    def of(self, value: Any, kind: VectorType = "vector") -> Any:
        """Return what stands for a parameter: every halfvec column takes a vector, too."""
        if isinstance(value, TEXT_TYPES):
            return VectorParameter(self._vectors[value], kind, self._oids.scalar[kind])
        if type(value) is list and all(isinstance(item, TEXT_TYPES) for item in value):
            return VectorArrayParameter(
                [self._vectors[item] for item in value],
                kind,
                oid=self._oids.scalar[kind],
                array_oid=self._oids.array[kind],
            )
        if type(value) in (list, tuple):
            return type(value)(self.of(item, kind) for item in value)
        return value


async def embed(
    runtime: Runtime, registration: Registration, rows: Iterable[Iterable[Any]]
) -> Vectors:
    """Embed all texts of some rows of parameters: the queries in one call, and the documents."""
    texts = list(dict.fromkeys(text for row in rows for value in row for text in texts_in(value)))
    if texts:
        registration.check_process()
    vectors: dict[Text, arrays.FloatVector] = {}
    for role in (QueryText, DocumentText):
        some = [text for text in texts if isinstance(text, role)]
        if some:
            vectors.update(
                zip(some, await _embed(runtime, registration.embedder, some), strict=True)
            )
    return Vectors(vectors, registration.oids)


async def _embed(runtime: Runtime, embedder: Embedder, texts: Sequence[Text]) -> Any:
    strings = [text.text for text in texts]
    queries = isinstance(texts[0], QueryText)
    if runtime.loop() is None:
        return embedder.embed_queries(strings) if queries else embedder.embed_documents(strings)
    if queries:
        return await embedder.aembed_queries(strings)
    return await embedder.aembed_documents(strings)


def values_of(parameters: Parameters) -> Iterable[Any]:
    """Return the parameters without their places."""
    return parameters.values() if isinstance(parameters, Mapping) else parameters
