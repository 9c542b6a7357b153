"""Whether stored vectors are those of an embedder: a sample of the texts is embedded again."""

from __future__ import annotations

from collections.abc import Sequence

from toastrack.embedder import Embedder
from toastrack.errors import UnsupportedError
from toastrack.stores.embedded_text import embedded_text
from toastrack.stores.plan import Row
from toastrack.stores.proof import Proof
from toastrack.stores.sampled import AGREES, Sampled, cosines, fits
from toastrack.stores.suspects import suspect

SAMPLE = 64
"""Texts that are embedded again."""
ASKED = 2 * SAMPLE
"""Rows that are asked for, as some of them have no text that can be compared."""


def prove(embedder: Embedder, rows: Sequence[Row], *, dimensions: int | None) -> Proof:
    """Embed the texts of rows again and compare; where that fails, say what fits.

    Only texts count that fit uncut: of longer ones nobody knows where they were cut. Runs the model.

    Args:
        embedder: What the vectors are said to be made by.
        rows: A sample with its vectors; those without text or vector are passed over.
        dimensions: How many numbers the stored vectors have; None: as many as the embedder makes.

    Raises ``UnsupportedError`` for an embedder whose vectors are not exact enough to prove anything.
    """
    import numpy as np

    if reason := why_no_proof(embedder):
        raise UnsupportedError(reason)
    fitting, too_long, doubt = _fitting(embedder, rows)
    if dimensions not in (None, embedder.dimensions):
        return Proof(0, too_long=too_long, found=suspect(embedder, fitting, doubt))
    if not fitting:
        return Proof(0, too_long=too_long)
    lengths = [float(np.linalg.norm(one.vector)) for one in fitting]
    measured = cosines(embedder, fitting, [one.text for one in fitting])
    agreeing = int((measured >= AGREES).sum())
    found = ""
    if agreeing < len(fitting):
        # The worst tell most, and those that agree must do so by what is found, too.
        order = sorted(range(len(fitting)), key=lambda place: float(measured[place]))
        found = suspect(embedder, [fitting[place] for place in order], doubt)
    return Proof(
        len(fitting),
        agreeing,
        float(measured.min()),
        float(measured.mean()),
        (min(lengths), max(lengths)),
        too_long,
        found,
    )


def why_no_proof(embedder: Embedder) -> str:
    """Say why an embedder's vectors prove nothing; "" for one whose do."""
    if embedder.hosted is not None or embedder.precision != "int8":
        return ""
    return (
        f"{embedder.model!r} runs in int8, whose vectors agree with those of float32 to .99 or so, and that "
        f"proves nothing: one without its prompt is as near. Compare with the model that it was made of, "
        "or leave verify= out and adopt by adopt='unchecked'."
    )


def _fitting(embedder: Embedder, rows: Sequence[Row]) -> tuple[list[Sampled], int, str]:
    """Return texts with their vectors, how many are too long, and what makes a text doubtful."""
    fitting: dict[str, Sampled] = {}
    too_long, doubt = 0, ""
    for row in rows:
        text = embedded_text(row.record.text, row.record.metadata)
        if row.vector is None or not row.vector.any() or not text.text.strip():
            continue
        doubt = doubt or text.doubt
        if not fits(embedder, text.text):
            too_long += 1
        elif len(fitting) < SAMPLE:
            fitting.setdefault(text.text, Sampled(text.text, row.vector, row.record))
    return list(fitting.values()), too_long, doubt
