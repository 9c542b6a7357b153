"""The options that commands share, and the embedder they ask for."""

from __future__ import annotations

from typing import Annotated

import typer

from toastrack.embedder import DEFAULT_MODEL, Embedder
from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace

Model = Annotated[
    str | None,
    typer.Option(
        help="Hub name or local folder of the embedding model. Left out, it is the one that the "
        f"store was built with; a new store is built with {DEFAULT_MODEL}.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="cuda, mps or cpu; left out, the best one there is.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def choose_embedder(
    recorded: EmbeddingSpace | None, *, model: str | None, device: str | None, create: bool
) -> Embedder:
    """Return the embedder for a store: the model named, else the recorded one, else the default."""
    if model is not None:
        return Embedder(model, device=device)
    if recorded is not None:
        return Embedder.from_space(recorded, device=device)
    if not create:
        raise StoreError(
            "No model is recorded there. What is there: toastrack list URL. If nothing is stored yet, "
            "fill it: toastrack ingest SOURCES --to URL. If rows are, say which model embedded them: "
            "toastrack ingest SOURCES --to URL --model MODEL --adopt."
        )
    return Embedder(device=device)
