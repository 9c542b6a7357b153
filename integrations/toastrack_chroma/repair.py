"""Finding and mending what a kill tore out of a collection's index."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from chromadb.errors import InternalError, NotFoundError

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.stores.checks import text_hash
from toastrack.stores.plan import Row
from toastrack.stores.steps import Ask, Slow, Steps
from toastrack_chroma.codec import TEXT_HASH, is_vector, row_metadata, to_record
from toastrack_chroma.collection import ChromaCollection, StoredRow, upsert
from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction
from toastrack_chroma.opening import (
    COMPLETE,
    COPY_OF,
    Settings,
    find,
    finish_rebuild,
    rebuild_name,
)

_PAGE = 1_000
# A torn index refuses the first call after a start and answers the next.
_TRIES = 3


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
    """Copy into a new collection, embedding what is damaged, and give it the old one's name.

    Each step leaves either the old collection or a complete copy, which the next opening finds.
    """
    old = collection.host
    name = rebuild_name(settings.name)
    yield from _drop_unfinished(client, name, settings.name, old)
    space = collection.stored or (yield Slow(lambda: embedder.space))
    # Metadata that names a distance is how older versions set it; now it stands elsewhere.
    metadata = {key: value for key, value in collection.metadata.items() if key[:5] != "hnsw:"}
    begun = {**metadata, COPY_OF: str(old.id)}
    yield Ask(
        lambda: client.get_or_create_collection(
            name,
            metadata=begun,
            configuration=_index_settings(old.configuration_json),
            embedding_function=ToastrackEmbeddingFunction.recorded(embedder, space),
        )
    )
    new = yield from find(client, name)
    limit: int = yield Slow(lambda: embedder.max_tokens)
    lost: list[str] = []
    offset = 0
    while True:
        page = yield from _read(old, offset, uris=True)
        rows, gone = yield from _mended(page, embedder, limit)
        lost += gone
        yield from collection.send_to(new, upsert, rows)
        if len(page["ids"]) < _PAGE:
            break
        offset += _PAGE
    there, copied = (yield Ask(lambda: old.count())), (yield Ask(lambda: new.count()))
    if there != copied:
        raise StoreError(
            f"Collection {settings.name!r} was written to while it was rebuilt ({copied} of {there} "
            "records were copied). It is as it was; rebuild it while nobody writes."
        )
    yield Ask(lambda: new.modify(metadata={**begun, COMPLETE: True}))
    yield from _drop(client, settings.name)
    collection.host = yield from finish_rebuild(client, settings.name)
    if collection.host is None:  # somebody opened it just now and finished it
        collection.host = yield from find(client, settings.name)
    return lost


def _drop_unfinished(client: Any, name: str, original: str, old: Any) -> Steps[None]:
    """Delete what an attempt left behind that was stopped, and nothing else."""
    copy = yield from find(client, name)
    if copy is None:
        return
    marks = copy.metadata or {}
    if COPY_OF not in marks:
        raise StoreError(
            f"rebuild() needs the name {name!r}, and there is a collection of that name already. "
            "Rename it first."
        )
    if marks.get(COMPLETE) and marks[COPY_OF] != str(old.id):
        raise StoreError(
            f"{name!r} is a complete copy of an earlier collection {original!r}, whose place a new "
            "one took before the copy had its name. Look at both, and rename or delete one."
        )
    yield from _drop(client, name)


def _drop(client: Any, name: str) -> Steps[None]:
    with suppress(NotFoundError):  # asked twice, as the first answer was lost
        yield Ask(lambda: client.delete_collection(name))


def _index_settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {
        index: {key: value for key, value in configuration[index].items() if value is not None}
        for index in ("hnsw", "spann")
        if configuration.get(index)
    }


def _mended(
    page: Mapping[str, Any], embedder: Embedder, limit: int
) -> Steps[tuple[list[StoredRow], list[str]]]:
    """Return a page's rows with good vectors, and the ids whose own vector is gone."""
    rows = [
        StoredRow(id, text, metadata, np.asarray(vector, dtype=np.float32), uri)
        for id, text, metadata, vector, uri in zip(
            page["ids"],
            page["documents"],
            page["metadatas"],
            page["embeddings"],
            page["uris"] or [None] * len(page["ids"]),
            strict=True,
        )
    ]
    damaged = [
        position
        for position, row in enumerate(rows)
        if row.vector is None or not is_vector(row.vector, row.metadata)
    ]
    texts = [rows[position].text or "" for position in damaged]
    vectors = (yield Slow(lambda: embedder.embed_documents(texts))) if texts else []
    lost: list[str] = []
    for position, vector in zip(damaged, vectors, strict=True):
        row = rows[position]
        record = to_record(row.id, row.text, row.metadata)
        # The hash of an embedded text: a record that comes again with its own vector is changed.
        made = Row(record, text_hash(record, limit), vector)
        stored = row.metadata or {}
        if stored.get(TEXT_HASH) != made.text_hash.hex():
            lost.append(row.id)
        rows[position] = replace(row, metadata={**stored, **row_metadata(made)}, vector=vector)
    return rows, lost


def _read(host: Any, offset: int, *, uris: bool = False) -> Steps[Mapping[str, Any]]:
    include = ["embeddings", "documents", "metadatas", *(["uris"] if uris else [])]
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
