"""Finding and mending what a kill tore out of a collection's index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from chromadb.errors import InternalError, NotFoundError

from toastrack import Embedder
from toastrack.errors import StoreError
from toastrack.stores import RetryingSession, Row, text_hash
from toastrack_chroma.backend import ChromaBackend
from toastrack_chroma.codec import described, is_vector, others, row_metadata, to_record
from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction
from toastrack_chroma.finding import COMPLETE, COPY_OF, copy_name
from toastrack_chroma.recorded import SPACE, recorded_text
from toastrack_chroma.rows import vectors_in
from toastrack_chroma.sending import StoredRow, upsert

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE = 1_000
# A torn index refuses the first call after a start and answers the next.
_TRIES = 3


async def audit(backend: ChromaBackend, session: RetryingSession) -> list[str]:
    """Return the ids whose stored vector is not the one that was written."""
    damaged: list[str] = []
    offset = 0
    while True:
        page = await _read(session, backend.host, offset)
        damaged += [
            id
            for id, vector, metadata in zip(
                page["ids"], vectors_in(page), page["metadatas"], strict=True
            )
            if not is_vector(vector, metadata)
        ]
        if len(page["ids"]) < _PAGE:
            return damaged
        offset += _PAGE


async def rebuild(
    backend: ChromaBackend, session: RetryingSession, embedder: Embedder
) -> list[str]:
    """Copy into a new collection, embedding what is damaged, and give it the old one's name.

    Each step leaves either the old collection or a complete copy, which the next opening finds.
    """
    client, old = backend.client, backend.host
    await _drop_unfinished(backend, session)
    offload = backend.runtime.offload
    space = backend.space
    if space is None:
        space = await offload(lambda: embedder.space)
    # What is mended is written in the newest format.
    recorded = {SPACE: recorded_text(space, backend.writes_format)} if backend.space else {}
    begun = {**backend.collection.own_metadata, **recorded, COPY_OF: str(old.id)}
    await session.call(
        client.get_or_create_collection,
        copy_name(backend.label),
        metadata=begun,
        configuration=_index_settings(old.configuration_json),
        embedding_function=ToastrackEmbeddingFunction.recorded(embedder, space),
    )
    new = await backend.lookup(session, copy_name(backend.label))
    limit = await offload(lambda: embedder._text_limit)
    lost: list[str] = []
    offset = 0
    while True:
        page = await _read(session, old, offset, uris=True)
        rows, gone = await offload(_mended, page, embedder, limit)
        lost += gone
        await upsert(session, new, rows, backend.limits)
        if len(page["ids"]) < _PAGE:
            break
        offset += _PAGE
    there, copied = await session.call(old.count), await session.call(new.count)
    if there != copied:
        raise StoreError(
            f"Collection {backend.label!r} was written to while it was rebuilt ({copied} of "
            f"{there} records were copied). It is as it was; rebuild it while nobody writes."
        )
    await session.call(new.modify, metadata={**begun, COMPLETE: True})
    await _drop(session, client, backend.label)
    await backend.find(session)
    return lost


async def _drop_unfinished(backend: ChromaBackend, session: RetryingSession) -> None:
    """Delete what an attempt left behind that was stopped, and nothing else."""
    name = copy_name(backend.label)
    copy = await backend.lookup(session, name)
    if copy is None:
        return
    marks = copy.metadata or {}
    if COPY_OF not in marks:
        raise StoreError(
            f"rebuild() needs the name {name!r}, and there is a collection of that name already. "
            "Rename it first."
        )
    if marks.get(COMPLETE) and marks[COPY_OF] != str(backend.host.id):
        raise StoreError(
            f"{name!r} is a complete copy of an earlier collection {backend.label!r}, whose place "
            "a new one took before the copy had its name. Look at both, and rename or delete one."
        )
    await _drop(session, backend.client, name)


async def _drop(session: RetryingSession, client: Any, name: str) -> None:
    with suppress(NotFoundError):  # asked twice, as the first answer was lost
        await session.call(client.delete_collection, name)


def _index_settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {
        index: {
            **{key: value for key, value in configuration[index].items() if value is not None},
            "space": "cosine",
        }
        for index in ("hnsw", "spann")
        if configuration.get(index)
    }


def _mended(
    page: Mapping[str, Any], embedder: Embedder, limit: int
) -> tuple[list[StoredRow], list[str]]:
    """Return a page's rows with good vectors, and the ids whose own vector is gone."""
    rows = [
        StoredRow(id, text, metadata, np.asarray(vector, dtype=np.float32), uri)
        for id, text, metadata, vector, uri in zip(
            page["ids"],
            page["documents"],
            page["metadatas"],
            vectors_in(page),
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
    vectors: Iterable[NDArray[np.float32]] = embedder.embed_documents(texts) if texts else []
    lost: list[str] = []
    for position, vector in zip(damaged, vectors, strict=True):
        row = rows[position]
        record = to_record(row.id, row.text, row.metadata)
        # The hash of an embedded text: a record that comes again with its own vector is changed.
        made = Row(record, text_hash(record, limit), vector)
        stored = row.metadata or {}
        if described(stored).text_hash != made.text_hash:
            lost.append(row.id)
        rows[position] = replace(
            row, metadata={**others(stored), **row_metadata(made)}, vector=vector
        )
    return rows, lost


async def _read(
    session: RetryingSession, host: Any, offset: int, *, uris: bool = False
) -> Mapping[str, Any]:
    include = ["embeddings", "documents", "metadatas", *(["uris"] if uris else [])]
    read = partial(session.call, host.get, limit=_PAGE, offset=offset, include=include)
    for _ in range(_TRIES - 1):
        with suppress(InternalError):
            return dict(await read())
    return dict(await read())
