"""Vectors that were there already: proven to be an embedder's before its space is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toastrack.embedder import Embedder
from toastrack.errors import SpaceMismatchError, UnprovenWarning
from toastrack.space import COMPARED_FIELDS, MODEL_FIELDS, EmbeddingSpace
from toastrack.stores.hashes import text_hash
from toastrack.stores.plan import Row
from toastrack.stores.proof import NEEDED, Adopt, Proof
from toastrack.stores.space_check import check_same_space
from toastrack.utils.warn import warn_at_caller


def check_adopt(adopt: Adopt) -> None:
    """Raise ``ValueError`` for what is none of the three."""
    if adopt not in (True, False, "unchecked"):
        raise ValueError(f"adopt={adopt!r} is not True, False or 'unchecked'.")


def adopted(ours: EmbeddingSpace, proof: Proof | None, *, where: str) -> EmbeddingSpace:
    """Return what is written down of a collection that said nothing of its model.

    Documents say nothing of the query prompt. Without a proof all of it is believed.

    Raises:
        SpaceMismatchError: Its vectors are not this embedder's, or none could be compared.

    Warns:
        UnprovenWarning: They are, as far as that can be told from so few.
    """
    if proof is None:
        return replace(ours, unproven=COMPARED_FIELDS)
    if proof.refuted:
        raise refuted(ours, proof, where=where)
    if not proof.compared:
        raise SpaceMismatchError(
            f"{where}: nothing shows that it is {ours.model!r} that embedded it: {proof}. If you "
            "know that it was, adopt='unchecked' believes you.",
            ours=ours,
        )
    say_unproven(proof, where=where)
    return replace(ours, unproven=("query_prompt",))


def say_unproven(proof: Proof, *, where: str) -> None:
    """Warn of a comparison that is too small to prove anything."""
    if not proof.refuted and not proof.proven:
        warn_at_caller(
            f"{where}: {proof}. That is no proof, which takes {NEEDED} texts that fit.",
            UnprovenWarning,
        )


def may_be_equal(stored: EmbeddingSpace, ours: EmbeddingSpace) -> bool:
    """Tell whether two spaces differ in the model alone, which a proof may excuse."""
    names = set(stored.differences(ours))
    return bool(names) and names <= set(MODEL_FIELDS)


def with_equal(stored: EmbeddingSpace, ours: EmbeddingSpace) -> EmbeddingSpace:
    """Return the recorded space with another model that is the same."""
    return replace(stored, equals=(*stored.equals, ours.model_identity))


def refuted(
    ours: EmbeddingSpace, proof: Proof, *, where: str, stored: EmbeddingSpace | None = None
) -> SpaceMismatchError:
    """Return the error for vectors that are not those of an embedder."""
    said = f"{where} does not hold the vectors of {ours.model!r}:"
    differences = {} if stored is None else stored.differences(ours)
    if stored is not None and differences:
        try:
            check_same_space(stored, ours, where=where)
        except SpaceMismatchError as error:
            said = f"{error}\n  Its vectors are not the same, either:"
    return SpaceMismatchError(
        "\n  ".join(filter(None, (f"{said} {proof}.", proof.found))),
        stored=stored,
        ours=ours,
        differences=differences,
    )


def embedded_rows(
    embedder: Embedder, rows: Sequence[Row], stored: EmbeddingSpace | None
) -> list[Row]:
    """Return the rows whose vector was made of their text, and not given with it or cut before.

    Those that somebody else wrote are among them.
    """
    limits = {embedder._text_limit}
    if stored is not None and (stored.max_tokens or 0) > (embedder.max_tokens or 0):
        limits.add(stored.max_tokens or 0)

    def is_embedded(row: Row) -> bool:
        record = replace(row.record, vector=None)
        return any(text_hash(record, limit) == row.text_hash for limit in limits)

    return [row for row in rows if not row.text_hash or is_embedded(row)]
