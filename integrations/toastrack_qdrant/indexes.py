"""The indexes of a collection: what is asked for, what is there, and what is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from qdrant_client import models

from toastrack.errors import StoreError
from toastrack.stores import Description, RetryingSession
from toastrack_qdrant.codec import SOURCE
from toastrack_qdrant.layouts import Layout
from toastrack_qdrant.points import Points


async def build(
    points: Points,
    session: RetryingSession,
    info: models.CollectionInfo,
    wanted: Mapping[str, Any],
    *,
    rebuild: bool,
    fields: Sequence[str],
) -> bool:
    """Bring a server's collection to the settings wanted, and give fields an index each."""
    differing = {
        name: model
        for name, model in wanted.items()
        if isinstance(model, BaseModel) and not _has(getattr(info.config, name, None), model)
    }
    for name, model in differing.items() if not rebuild else ():
        raise StoreError(
            f"Collection {points.label!r} has {name}={getattr(info.config, name, None)!r}, and "
            f"{model!r} was asked for. Nothing was changed. build_index(rebuild=True) changes "
            "it, and Qdrant builds the index anew in the background."
        )
    kinds = {field: await _kind_of(points, session, field) for field in fields}
    layout = points.layout
    stale, missing = _payload_indexes(info, kinds, layout)
    if stale and not rebuild:
        field = stale[0]
        raise StoreError(
            f"Collection {points.label!r}: field {field!r} has an index for "
            f"{_index_of(info, field, layout)}, and its values want one for {kinds[field].value}. "
            "Nothing was changed. build_index(filter_fields=[...], rebuild=True) makes it anew."
        )
    if differing:
        await points.call(session, "update_collection", points.label, **differing)
    for field in stale:
        await points.call(session, "delete_payload_index", points.label, layout.index_path(field))
    for field in (*stale, *missing):
        args = (points.label, layout.index_path(field), kinds[field])
        await points.call(session, "create_payload_index", *args)
    return bool(differing or stale or missing)


async def build_documents(
    points: Points, session: RetryingSession, info: models.CollectionInfo
) -> None:
    """Give a server's collection the indexes by which whole documents, and sources, are found."""
    for key in (points.layout.document_path, SOURCE):
        if key not in info.payload_schema:
            keyword = models.PayloadSchemaType.KEYWORD
            await points.call(session, "create_payload_index", points.label, key, keyword)


async def describe(
    points: Points, session: RetryingSession, info: models.CollectionInfo
) -> Description:
    """Say which Qdrant this is, and how far its index is."""
    if points.host.local:
        return Description(
            points.label,
            host=f"Qdrant in Python, qdrant-client {version('qdrant-client')}",
            storage="float32",
            index="none, as a local client compares with every record",
        )
    server = await points.call(session, "info")
    hnsw, quantization = info.config.hnsw_config, info.config.quantization_config
    vectors = info.config.params.vectors
    kept = vectors.get(points.vector_name) if isinstance(vectors, Mapping) else vectors
    storage = str(getattr(getattr(kept, "datatype", None), "value", None) or "float32")
    if quantization is not None:
        storage += f", and quantized: {next(iter(quantization.model_dump(exclude_none=True)))}"
    return Description(
        points.label,
        host=f"Qdrant {server.version}",
        storage=storage,
        index=f"hnsw (m={hnsw.m}, ef_construct={hnsw.ef_construct}), "
        f"{info.indexed_vectors_count or 0:,} of {info.points_count or 0:,} vectors in it",
    )


def _payload_indexes(
    info: models.CollectionInfo, kinds: Mapping[str, models.PayloadSchemaType], layout: Layout
) -> tuple[list[str], list[str]]:
    """Return which fields have an index of another kind, and which have none."""
    found = {field: _index_of(info, field, layout) for field in kinds}
    stale = [field for field, kind in kinds.items() if found[field] not in (None, kind.value)]
    return stale, [field for field, kind in found.items() if kind is None]


async def _kind_of(
    points: Points, session: RetryingSession, field: str
) -> models.PayloadSchemaType:
    """Return what most values of a field are; an index is of one kind."""
    layout = points.layout
    path = layout.index_path(field)
    page, _ = await points.call(
        session,
        "scroll",
        points.label,
        scroll_filter=models.Filter(
            must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=path))]
        ),
        limit=points.page,
        offset=None,
        with_payload=layout.metadata_keys,
        with_vectors=False,
    )
    values = [layout.metadata_of(point.payload or {}).get(field) for point in page]
    kinds = Counter(
        models.PayloadSchemaType.BOOL
        if isinstance(value, bool)
        else models.PayloadSchemaType.KEYWORD
        if isinstance(value, str)
        else models.PayloadSchemaType.FLOAT
        for value in values
        if isinstance(value, (str, int, float))
    )
    if not kinds:
        raise StoreError(
            f"Collection {points.label!r} has no record with a text, number or bool in the field "
            f"{field!r} of its metadata. Build the index after the load, and see that the name "
            "is right."
        )
    return kinds.most_common(1)[0][0]


def _has(found: BaseModel | None, wanted: BaseModel) -> bool:
    """Tell whether a setting is all that was asked for; a server adds what was left to it."""
    there = {} if found is None else found.model_dump(exclude_none=True)
    return _holds(there, wanted.model_dump(exclude_none=True))


def _holds(there: Any, asked: Any) -> bool:
    if isinstance(asked, dict):
        return isinstance(there, dict) and all(
            _holds(there.get(name), value) for name, value in asked.items()
        )
    return bool(there == asked)


def _index_of(info: models.CollectionInfo, field: str, layout: Layout) -> str | None:
    """Return the kind of a field's index."""
    for path in layout.index_paths(field):
        if path in info.payload_schema:
            return str(info.payload_schema[path].data_type.value)
    return None
