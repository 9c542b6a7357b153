"""Finding and mending what a kill tore out of a collection's index."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from chromadb.errors import InternalError

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.records import text_hash
from toastrack.steps import Ask, Slow, Steps
from toastrack.writing import Row
from toastrack_chroma.codec import TEXT_HASH, is_vector, row_metadata, to_record
from toastrack_chroma.collection import ChromaCollection, FullRow, upsert
from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction
from toastrack_chroma.opening import REBUILT, Settings, find, finish_rebuild, rebuild_name

_PAGE = 1_000
# A torn index refuses the first call after a start and answers the next.
_TRIES = 3
_HNSW_SETTINGS = ("space", "ef_construction", "ef_search", "max_neighbors")


def audit_steps(collection: ChromaCollection) -> Steps[list[str]]:
    """Return the ids whose stored vector is not the one that was written."""
    damaged: list[str] = []
    offset = 0
    while True:
        page = yield from _read(collection.host, offset)
        damaged += [
            id
            for id, vector, metadata in zip(
                page["ids"], page["embeddings"], page["metadatas"], strict=True
            )
            if not is_vector(vector, metadata)
        ]
        if len(page["ids"]) < _PAGE:
            return damaged
        offset += _PAGE


def rebuild_steps(
    collection: ChromaCollection, client: Any, settings: Settings, embedder: Embedder
) -> Steps[list[str]]:
    """Copy into a new collection, embedding what is damaged, and give it the old one's name."""
    old = collection.host
    name = rebuild_name(settings.name)
    if (yield from find(client, name)) is not None:  # an attempt that was not finished
        yield Ask(lambda: client.delete_collection(name))
    space = collection.stored or (yield Slow(lambda: embedder.space))
    configuration = old.configuration_json.get("hnsw") or {}
    yield Ask(
        lambda: client.create_collection(
            name,
            metadata=collection.metadata,
            configuration={
                "hnsw": {key: configuration[key] for key in _HNSW_SETTINGS if key in configuration}
            },
            embedding_function=ToastrackEmbeddingFunction.recorded(embedder, space),
        )
    )
    new = yield from find(client, name)
    limit: int = yield Slow(lambda: embedder.max_tokens)
    lost: list[str] = []
    offset = 0
    while True:
        page = yield from _read(old, offset)
        rows, embedded = yield from _mended(page, embedder, limit)
        lost += embedded
        for part in collection.pages(rows):
            yield Ask(partial(upsert, new, part))
        if len(page["ids"]) < _PAGE:
            break
        offset += _PAGE
    there, copied = (yield Ask(lambda: old.count())), (yield Ask(lambda: new.count()))
    if there != copied:
        raise StoreError(
            f"Collection {settings.name!r} was written to while it was rebuilt ({copied} of {there} "
            "records were copied). It is as it was; rebuild it while nobody writes."
        )
    yield Ask(lambda: new.modify(metadata={**collection.metadata, REBUILT: settings.name}))
    yield Ask(lambda: client.delete_collection(settings.name))
    collection.host = yield from finish_rebuild(client, settings.name)
    return lost


def _mended(
    page: Mapping[str, Any], embedder: Embedder, limit: int
) -> Steps[tuple[list[FullRow], list[str]]]:
    """Return a page's rows with good vectors, and the ids whose own vector is gone."""
    records = [
        to_record(*row)
        for row in zip(page["ids"], page["documents"], page["metadatas"], strict=True)
    ]
    vectors: list[Any] = [
        np.asarray(vector, dtype=np.float32) if is_vector(vector, metadata) else None
        for vector, metadata in zip(page["embeddings"], page["metadatas"], strict=True)
    ]
    damaged = [position for position, vector in enumerate(vectors) if vector is None]
    if damaged:
        texts = [records[position].text for position in damaged]
        new = yield Slow(lambda: embedder.embed_documents(texts))
        for position, vector in zip(damaged, new, strict=True):
            vectors[position] = vector
    rows: list[FullRow] = []
    lost: list[str] = []
    for position, record in enumerate(records):
        stored = page["metadatas"][position] or {}
        if position not in damaged:
            rows.append((Row(record, b"", vectors[position]), dict(stored)))
            continue
        # The hash of an embedded text: a record that comes again with its own vector is changed.
        row = Row(record, text_hash(record, limit), vectors[position])
        if stored.get(TEXT_HASH) != row.text_hash.hex():
            lost.append(record.id)
        rows.append((row, {key: v for key, v in row_metadata(row).items() if v is not None}))
    return rows, lost


def _read(host: Any, offset: int) -> Steps[Mapping[str, Any]]:
    include = ["embeddings", "documents", "metadatas"]
    for attempt in range(_TRIES):
        try:
            page: Mapping[str, Any] = yield Ask(
                lambda: host.get(limit=_PAGE, offset=offset, include=include)
            )
            return page
        except InternalError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")
