"""Writing where a host has no transactions: look, after the last write, whether it is as asked for.

Another writer can come between any two calls. A call that replaces or deletes a document returns
only after a look that came after its own last write and showed what was asked for; otherwise it
writes what is missing and looks again. Looking once and mending once is not enough: of all orders
of two short calls most end wrong.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from toastrack.errors import StoreError
from toastrack.stores.plan import Row, Status, WriteBatch, WriteResult
from toastrack.stores.runtime import Runtime

S_contra = TypeVar("S_contra", contravariant=True)

TRIES = 8
"""How often a call looks before it gives up."""

# Two writers that wait equally long would meet again.
_MAX_PAUSE_SECONDS = 0.05


class Look(NamedTuple):
    """What is stored of some documents."""

    statuses: Mapping[str, Status]
    """How those records compare that were asked for, by id; one that is not there is left out."""
    stale: Collection[Any]
    """All others, by what the host calls them."""


class Host(Protocol[S_contra]):
    """What a host without transactions does for a write."""

    runtime: Runtime

    async def put(
        self, session: S_contra, rows: Sequence[Row], metadata_rows: Sequence[Row]
    ) -> None:
        """Write whole rows; of ``metadata_rows`` all but text and vector, where the text is as it was."""
        ...

    async def look(
        self, session: S_contra, documents: Sequence[str], rows: Mapping[str, Row]
    ) -> Look:
        """Read what is stored of documents, and compare it with the rows that they should have."""
        ...

    async def remove(
        self, session: S_contra, stale: Collection[Any], documents: Sequence[str]
    ) -> None:
        """Delete records, where they are still of one of these documents."""
        ...

    async def compare(self, session: S_contra, rows: Sequence[Row]) -> dict[str, Status]:
        """Say how each row compares to what is stored under its id."""
        ...


async def write_batch(host: Host[S_contra], session: S_contra, batch: WriteBatch) -> WriteResult:
    """Write a batch; of documents that are replaced exactly these records remain."""
    await host.put(session, batch.rows, batch.metadata_rows)
    written = len(batch.rows) + len(batch.metadata_rows)
    if not batch.replaced:
        missed: list[str] = []
        if batch.metadata_rows:
            there = await host.compare(session, batch.metadata_rows)
            ids = (row.record.id for row in batch.metadata_rows)
            # "changed": another writer's text came after ours.
            missed = [id for id in ids if there.get(id, "metadata") == "metadata"]
        return WriteResult(written, 0, missed)
    documents = list(batch.replaced)
    rows = {
        row.record.id: row for row in (*batch.rows, *batch.metadata_rows, *batch.unchanged_rows)
    }
    gone: set[Any] = set()
    for attempt in range(TRIES):
        look = await host.look(session, documents, rows)
        wrong = [row for id, row in rows.items() if look.statuses.get(id) != "unchanged"]
        if not wrong and not look.stale:
            return WriteResult(written, len(gone))
        missed = [
            row.record.id
            for row in wrong
            if row.vector is None and look.statuses.get(row.record.id) != "metadata"
        ]
        if missed:
            return WriteResult(written, len(gone), missed)
        if attempt:
            await host.runtime.sleep(pause(attempt))
        await host.put(
            session,
            [row for row in wrong if row.vector is not None],
            [row for row in wrong if row.vector is None],
        )
        await host.remove(session, look.stale, documents)
        gone.update(look.stale)
    raise another_writer(documents[0], documents)


async def delete_documents(
    host: Host[S_contra], session: S_contra, documents: Sequence[str]
) -> set[Any]:
    """Delete whole documents; return what the host calls the records that went."""
    gone: set[Any] = set()
    for attempt in range(TRIES):
        look = await host.look(session, documents, {})
        if not look.stale:
            return gone
        if attempt:
            await host.runtime.sleep(pause(attempt))
        await host.remove(session, look.stale, documents)
        gone.update(look.stale)
    raise another_writer(documents[0], documents)


def pause(attempt: int) -> float:
    """Return the seconds to wait before a further try."""
    return random.uniform(0, _MAX_PAUSE_SECONDS * (attempt + 1))


def another_writer(id: str, documents: Sequence[str] = ()) -> StoreError:
    """Return the error for a document that another writer will not leave alone."""
    names = ", ".join(map(repr, documents[:3])) or repr(id)
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    return StoreError(
        f"another writer is changing document {names}{more}; run the call again. What was written "
        "of it is not promised to stay."
    )
