"""Where stored documents came from, compared with where a run has them from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toastrack.errors import SourceError

if TYPE_CHECKING:
    from toastrack.stores.plan import Row, Status
    from toastrack.stores.protocol import StoredSource
    from toastrack.stores.windows import Window


def not_as_stored(window: Window, rows: Sequence[Row], statuses: Mapping[str, Status]) -> list[str]:
    """Return the documents with a source that are not stored to the letter, that source included."""
    as_stored = {
        row.record.document: True for row in rows if statuses.get(row.record.id) == "unchanged"
    }
    for row in rows:
        if statuses.get(row.record.id) != "unchanged":
            as_stored[row.record.document] = False
    return [document for document in window.sources if not as_stored.get(document, False)]


def check_sources(
    window: Window,
    rows: Sequence[Row],
    statuses: Mapping[str, Status],
    stored: Mapping[str, StoredSource],
    kind: str,
) -> None:
    """Raise ``SourceError`` for a document that another source has, with another text.

    Args:
        window: Says where its documents come from.
        rows: Its records.
        statuses: How they compare to what is stored.
        stored: Where the documents that are stored came from.
        kind: What the host calls a collection, for the error.
    """
    elsewhere = {
        document: found
        for document, found in stored.items()
        if document in window.sources and found.source not in window.run_sources
    }
    if not elsewhere:
        return
    same = Counter(
        row.record.document for row in rows if statuses.get(row.record.id, "changed") != "changed"
    )
    all_rows = Counter(row.record.document for row in rows)
    for document, found in elsewhere.items():
        if not same[document] == all_rows[document] == found.records:
            raise SourceError(
                f"The id {document!r} comes from {window.sources[document]!r}, and is stored "
                f"already from {found.source!r} with another text. To keep both, use "
                f"prefix='NAME' or another {kind.lower()}; to replace what is stored, say that "
                f"this is the same source: source={found.source!r}."
            )
