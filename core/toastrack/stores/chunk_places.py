"""Where a chunk stands in its document, so that neighbours are joined as they were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from toastrack.records import Match, Record

PLACE = "toastrack_place"
"""The key of a chunk's metadata under which ``ingest`` keeps its place; no match shows it."""

_START = "start"
_GAP = "gap"
# White space that nobody needs to the letter.
_MAX_GAP = 200
_BLANK_LINE = "\n\n"


class Part(NamedTuple):
    """A chunk beside others of its document."""

    chunk: int
    text: str
    start: int | None
    """Where it begins in the document, in characters; None where nobody wrote it down."""
    gap: str
    """The white space before it that is in no chunk."""


def place(start: int, gap: str) -> dict[str, Any]:
    """Return what is kept of a chunk that begins here, behind white space that was left out."""
    return {PLACE: {_START: start, _GAP: gap if len(gap) <= _MAX_GAP else ""}}


def without_place(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the user's own metadata."""
    return {key: value for key, value in metadata.items() if key != PLACE}


def part_of(found: Record | Match, chunk: int) -> Part:
    """Read the place of a chunk; somebody may have changed what is written there."""
    kept = found.metadata.get(PLACE)
    start = kept.get(_START) if isinstance(kept, Mapping) else None
    gap = kept.get(_GAP) if isinstance(kept, Mapping) else None
    known = type(start) is int and start >= 0 and isinstance(gap, str)
    return Part(chunk, found.text, start if known else None, str(gap) if known else "")


def joined(parts: Sequence[Part]) -> str:
    """Join chunks in their order, with what they share only once.

    Those whose places are not known, or that are no neighbours, are kept apart by a blank line.
    """
    pieces = [parts[0].text]
    for before, part in pairwise(parts):
        between = _between(before, part)
        if between is not None and between < 0 and _share(before, part, -between):
            pieces.append(part.text[-between:])
        elif between == len(part.gap) and part.chunk == before.chunk + 1:
            pieces.append(part.gap + part.text)
        else:
            pieces.append(_BLANK_LINE + part.text)
    return "".join(pieces)


def _between(before: Part, part: Part) -> int | None:
    """Return how many characters lie between two chunks, fewer than none of those that overlap."""
    if before.start is None or part.start is None:
        return None
    return part.start - before.start - len(before.text)


def _share(before: Part, part: Part, length: int) -> bool:
    """Tell whether one ends as the other begins: a chunk may have got another text since."""
    return before.text.endswith(part.text[:length])
