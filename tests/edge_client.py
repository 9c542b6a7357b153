"""Qdrant's own engine behind the part of QdrantClient's face that a store calls.

A server cannot be had on every machine, and a local client is another program, in Python. Here the
engine of the server, which the package qdrant-edge-py carries, answers in its place.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qdrant_edge as edge
from httpx import Headers
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

_Client: Any = QdrantClient


class EdgeClient(_Client):  # type: ignore[misc]
    """One engine a collection, each in a folder; the metadata of collections is kept here."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self._folder = folder
        self._config = config
        self._shards: dict[str, Any] = {}
        self._vectors: dict[str, Any] = {}
        self._metadata: dict[str, dict[str, Any]] = {}
        self._indexed: dict[str, dict[str, Any]] = {}
        self._hnsw: dict[str, Any] = {}
        self.version = "1.20.0"
        self.asked: list[Any] = []
        """The search parameters of every search."""

    @property
    def init_options(self) -> dict[str, Any]:
        return {"location": None, "path": None, "url": "http://edge", "port": 6333}

    def close(self, grpc_grace: float | None = None, **kwargs: Any) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    def optimize(self, name: str) -> None:
        """Build the index, which a server does in the background."""
        self._shards[name].optimize()

    # -- collections ----------------------------------------------------------------------------

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        return collection_name in self._shards

    def create_collection(
        self, collection_name: str, vectors_config: Any = None, **kwargs: Any
    ) -> Any:
        if collection_name in self._shards:
            raise ValueError(f"Collection {collection_name} already exists")
        named = vectors_config if isinstance(vectors_config, dict) else {"": vectors_config}
        config = edge.EdgeConfig(
            vectors={
                name: edge.EdgeVectorParams(size=params.size, distance=edge.Distance.Cosine)
                for name, params in named.items()
            },
            sparse_vectors={
                name: edge.EdgeSparseVectorParams()
                for name in kwargs.get("sparse_vectors_config") or {}
            },
            **self._config,
        )
        path = str(self._folder / collection_name)
        self._shards[collection_name] = edge.EdgeShard.create(path, config)
        self._vectors[collection_name] = vectors_config
        self._metadata[collection_name] = dict(kwargs.get("metadata") or {})
        self._hnsw[collection_name] = kwargs.get("hnsw_config")
        self._indexed[collection_name] = {}
        return True

    def update_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        self._metadata[collection_name].update(kwargs.get("metadata") or {})
        if "hnsw_config" in kwargs:
            self._hnsw[collection_name] = kwargs["hnsw_config"]

    def get_collection(self, collection_name: str, **kwargs: Any) -> Any:
        return SimpleNamespace(
            payload_schema=self._indexed[collection_name],
            config=SimpleNamespace(
                metadata=self._metadata[collection_name],
                hnsw_config=self._hnsw[collection_name],
                quantization_config=None,
                params=SimpleNamespace(vectors=self._vectors[collection_name]),
            ),
        )

    def info(self) -> Any:
        return SimpleNamespace(version=self.version)

    def create_payload_index(
        self, collection_name: str, field_name: str, *args: Any, **kwargs: Any
    ) -> Any:
        (kind,) = args
        ranks = isinstance(kind, models.TextIndexParams)
        operation = edge.UpdateOperation.create_field_index(
            field_name,
            _text_index(kind)
            if ranks
            else getattr(edge.PayloadSchemaType, kind.value.capitalize()),
        )
        self._shards[collection_name].update(operation)
        self._indexed[collection_name][field_name] = (
            SimpleNamespace(data_type=models.PayloadSchemaType.TEXT, params=kind)
            if ranks
            else SimpleNamespace(data_type=kind)
        )

    def delete_payload_index(self, collection_name: str, field_name: str, **kwargs: Any) -> Any:
        operation = edge.UpdateOperation.delete_field_index(field_name)
        self._shards[collection_name].update(operation)
        self._indexed[collection_name].pop(field_name, None)

    # -- points ---------------------------------------------------------------------------------

    def upsert(
        self,
        collection_name: str,
        points: Any,
        wait: bool = True,
        update_filter: Any = None,
        **kwargs: Any,
    ) -> Any:
        self._shards[collection_name].update(
            edge.UpdateOperation.upsert_points(
                [
                    edge.Point(
                        id=point.id, vector=_vectors(point.vector), payload=_sent(point.payload)
                    )
                    for point in points
                ],
                condition=translated(update_filter),
            )
        )

    def batch_update_points(
        self, collection_name: str, update_operations: Any, wait: bool = True, **kwargs: Any
    ) -> Any:
        for operation in update_operations:
            self._shards[collection_name].update(_operation(operation))

    def set_payload(self, collection_name: str, payload: Any, points: Any, **kwargs: Any) -> Any:
        operation = edge.UpdateOperation.set_payload(points, _sent(payload))
        self._shards[collection_name].update(operation)

    def delete(
        self, collection_name: str, points_selector: Any, wait: bool = True, **kwargs: Any
    ) -> Any:
        if isinstance(points_selector, models.FilterSelector):
            wanted = translated(points_selector.filter)
            operation = edge.UpdateOperation.delete_points_by_filter(wanted)
        else:
            operation = edge.UpdateOperation.delete_points(points_selector.points)
        self._shards[collection_name].update(operation)

    def retrieve(
        self,
        collection_name: str,
        ids: Any,
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> Any:
        found = self._shards[collection_name].retrieve(ids, _selected(with_payload), with_vectors)
        return [_record(point) for point in found]

    def scroll(self, collection_name: str, **kwargs: Any) -> Any:
        page, offset = self._shards[collection_name].scroll(
            edge.ScrollRequest(
                offset=kwargs["offset"],
                limit=kwargs["limit"],
                filter=translated(kwargs["scroll_filter"]),
                with_payload=_selected(kwargs["with_payload"]),
                with_vector=kwargs["with_vectors"],
            )
        )
        return [_record(point) for point in page], offset

    def count(
        self, collection_name: str, count_filter: Any = None, exact: bool = True, **kwargs: Any
    ) -> Any:
        request = edge.CountRequest(exact=exact, filter=translated(count_filter))
        return models.CountResult(count=self._shards[collection_name].count(request))

    def query_points(
        self, collection_name: str, query: Any = None, using: Any = None, **kwargs: Any
    ) -> Any:
        if isinstance(query, models.SampleQuery):
            found = self._shards[collection_name].query(
                edge.QueryRequest(
                    limit=kwargs["limit"],
                    query=edge.Sample.Random,
                    filter=translated(kwargs["query_filter"]),
                    with_payload=True,
                    with_vector=kwargs["with_vectors"],
                )
            )
            return SimpleNamespace(points=[_record(point) for point in found])
        parameters = kwargs["search_params"]
        self.asked.append(parameters)
        try:
            found = self._shards[collection_name].query(
                edge.QueryRequest(
                    limit=kwargs["limit"],
                    query=edge.TextQuery(using, str(query.text))
                    if isinstance(query, models.TextQuery)
                    else edge.Query.Nearest(query, using=using),
                    filter=translated(kwargs["query_filter"]),
                    with_payload=True,
                    with_vector=False,
                    score_threshold=kwargs["score_threshold"],
                    params=None
                    if parameters is None
                    else edge.SearchParams(
                        hnsw_ef=parameters.hnsw_ef, exact=bool(parameters.exact)
                    ),
                )
            )
        except Exception as error:
            if "Validation failed" not in str(error):
                raise
            raise UnexpectedResponse(400, "Bad Request", str(error).encode(), Headers()) from None
        return SimpleNamespace(
            points=[
                SimpleNamespace(id=str(point.id), payload=point.payload, score=point.score)
                for point in found
            ]
        )


def _text_index(params: models.TextIndexParams) -> Any:
    """An index of words in the classes of qdrant-edge."""
    known: dict[str, Any] = {}
    if isinstance(params.stemmer, models.SnowballParams):
        language = params.stemmer.language.value.capitalize()
        known["stemmer"] = edge.SnowballParams(getattr(edge.SnowballLanguage, language))
    if isinstance(params.stopwords, models.Language):
        known["stopwords"] = getattr(edge.Language, params.stopwords.value.capitalize())
    return edge.TextIndexParams(
        tokenizer=edge.TokenizerType.Word,
        phrase_matching=params.phrase_matching,
        scoring=bool(params.scoring),
        **known,
    )


def _operation(operation: Any) -> Any:
    """An operation of a batch in the classes of qdrant-edge."""
    if isinstance(operation, models.UpdateVectorsOperation):
        change = operation.update_vectors
        return edge.UpdateOperation.update_vectors(
            [edge.PointVectors(point.id, _vectors(point.vector)) for point in change.points],
            condition=translated(change.update_filter),
        )
    change = operation.set_payload
    values = _sent(change.payload)
    if change.points is not None:
        return edge.UpdateOperation.set_payload(change.points, values)
    return edge.UpdateOperation.set_payload_by_filter(translated(change.filter), values)


def _vectors(vector: Any) -> Any:
    if not isinstance(vector, dict):
        return vector
    return {
        name: edge.SparseVector(one.indices, one.values)
        if isinstance(one, models.SparseVector)
        else one
        for name, one in vector.items()
    }


def translated(wanted: models.Filter | None) -> Any:
    """A filter of qdrant-client's in the classes of qdrant-edge."""
    if wanted is None:
        return None
    return edge.Filter(
        must=_conditions(wanted.must),
        should=_conditions(wanted.should),
        must_not=_conditions(wanted.must_not),
    )


def _conditions(conditions: Any) -> Any:
    return None if conditions is None else [_condition(condition) for condition in conditions]


def _condition(condition: Any) -> Any:
    if isinstance(condition, models.Filter):
        return translated(condition)
    if isinstance(condition, models.HasIdCondition):
        return edge.HasIdCondition(set(condition.has_id))
    if isinstance(condition, models.IsEmptyCondition):
        return edge.IsEmptyCondition(condition.is_empty.key)
    if isinstance(condition, models.IsNullCondition):
        return edge.IsNullCondition(condition.is_null.key)
    if isinstance(condition, models.HasVectorCondition):
        return edge.HasVectorCondition(condition.has_vector)
    match = condition.match
    if isinstance(match, models.MatchAny):
        test: dict[str, Any] = {"match": edge.MatchAny(match.any)}
    elif isinstance(match, models.MatchValue) and isinstance(match.value, bool):
        # These bindings (0.9.0) take True for 1. A filter may let too much pass, so: any value.
        test = {"is_empty": False}
    elif isinstance(match, models.MatchValue):
        test = {"match": edge.MatchValue(match.value)}
    elif isinstance(match, models.MatchText):
        test = {"match": edge.MatchText(match.text)}
    elif isinstance(match, models.MatchPhrase):
        test = {"match": edge.MatchPhrase(match.phrase)}
    else:
        test = {"range": edge.RangeFloat(gte=condition.range.gte, lte=condition.range.lte)}
    return edge.FieldCondition(key=condition.key, **test)


def _selected(with_payload: Any) -> Any:
    if isinstance(with_payload, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(with_payload.exclude)
    return with_payload


def _record(point: Any) -> models.Record:
    id = point.id if isinstance(point.id, int) else str(point.id)
    vector = point.vector
    if isinstance(vector, dict):
        vector = {
            name: models.SparseVector(indices=one.indices, values=one.values)
            if isinstance(one, edge.SparseVector)
            else one
            for name, one in vector.items()
        }
    return models.Record(id=id, payload=point.payload, vector=vector)


def _sent(payload: Any) -> Any:
    """What a request carries is JSON."""
    return json.loads(json.dumps(payload))
