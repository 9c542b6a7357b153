"""A recorded space compared with an embedder's, and the difference explained."""

from __future__ import annotations

from collections.abc import Mapping

from toastrack.errors import SpaceMismatchError
from toastrack.space import EmbeddingSpace

_MEANING = {
    "weights": "the model's weights",
    "tokenizer": "the tokenizer",
    "pooling": "the pooling",
    "query_prompt": "the query prompt",
    "document_prompt": "the document prompt",
    "dimensions": "the number of dimensions",
}


def check_same_space(stored: EmbeddingSpace, ours: EmbeddingSpace, *, where: str) -> None:
    """Raise ``SpaceMismatchError`` unless both are one space.

    ``where`` names the collection. The error lists each field with both values and what to do.
    """
    differences = stored.differences(ours)
    if not differences:
        return
    lines = [f"{where} was built in another embedding space:"]
    for name, (theirs, mine) in differences.items():
        lines.append(f"  {_MEANING[name]}: stored {_show(theirs)}, this embedder has {_show(mine)}")
    lines.extend(f"  {step}" for step in _next_steps(stored, ours, differences))
    raise SpaceMismatchError("\n".join(lines), stored=stored, ours=ours, differences=differences)


def missing_space(
    ours: EmbeddingSpace, *, where: str, adopting: str = "open it with adopt=True"
) -> SpaceMismatchError:
    """Return the error for a collection that holds rows and does not say who embedded them.

    ``adopting`` says how it is taken over.
    """
    return SpaceMismatchError(
        f"{where} holds rows but does not say which model embedded them. If it was "
        f"{ours.model!r} with the same prompts, {adopting}: that embeds some of its texts again, "
        "compares, and records this embedder's space. If not, use a new one.",
        ours=ours,
    )


def _next_steps(
    stored: EmbeddingSpace,
    ours: EmbeddingSpace,
    differences: Mapping[str, tuple[object, object]],
) -> list[str]:
    model = stored.model or "the model it was built with"
    if {"weights", "tokenizer", "pooling"} & set(differences):
        also = "" if stored.model != ours.model else " as it was then"
        revision = f", revision {stored.revision}" if stored.revision else ""
        if stored.base_url is not None:
            revision = f" on its server, engine=Hosted(base_url={stored.base_url!r})"
        return [f"Open it with {model!r}{also}{revision}, or build a new one with {ours.model!r}."]
    arguments = ", ".join(f"{name}={pair[0]!r}" for name, pair in differences.items())
    return [f"Open it with Embedder({ours.model!r}, {arguments}), or build a new one."]


def _show(value: object) -> str:
    # Twelve hex digits tell two digests apart; a prompt is shown as it is.
    is_digest = isinstance(value, str) and len(value) == 64 and " " not in value
    return f"{str(value)[:12]}..." if is_digest else repr(value)


def check_space(
    stored: EmbeddingSpace | None, dimensions: int, ours: EmbeddingSpace, *, where: str
) -> None:
    """Raise ``SpaceMismatchError`` if the recorded space or the vectors' size is not ours."""
    if stored is not None:
        check_same_space(stored, ours, where=where)
    if dimensions != ours.dimensions:
        raise SpaceMismatchError(
            f"{where} stores {dimensions}-d vectors and {ours.model!r} makes "
            f"{ours.dimensions}-d. Open it with the model it was built with, or use a new one.",
            ours=ours,
            differences={"dimensions": (dimensions, ours.dimensions)},
        )
