"""The options that commands share, and the embedder they ask for."""

from __future__ import annotations

from typing import Annotated

import typer

from toastrack.embedder import DEFAULT_MODEL, Embedder
from toastrack.errors import StoreError
from toastrack.hosted.settings import Hosted
from toastrack.models.engine_choice import EngineName
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
BaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Let a server run the model, one like OpenAI's, by its address with /v1; 'mixedbread' "
        "is mixedbread's API. The key stands in MXBAI_API_KEY, OPENAI_API_KEY or, for another "
        "host, in TOASTRACK_API_KEY. A store records the address, and asks there again.",
        show_default=False,
    ),
]
AllowHttp = Annotated[
    bool,
    typer.Option(
        "--allow-http", help="Let texts and key go unencrypted to a server on another machine."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def build_embedder(
    model: str | None, *, device: str | None, base_url: str | None, allow_http: bool
) -> Embedder:
    """Return the embedder of a model, or of the default, that runs here or on a server."""
    return Embedder(
        DEFAULT_MODEL if model is None else model,
        engine=engine_of(base_url, allow_http),
        device=device,
    )


def engine_of(base_url: str | None, allow_http: bool) -> EngineName | Hosted:
    """Return what runs a model: a server if one is named."""
    if base_url is None:
        return "auto"
    if base_url == "mixedbread":
        return "hosted"
    return Hosted(base_url=base_url, allow_http=allow_http)


def choose_embedder(
    recorded: EmbeddingSpace | None,
    *,
    model: str | None,
    device: str | None,
    base_url: str | None = None,
    allow_http: bool = False,
    create: bool,
) -> Embedder:
    """Return the embedder for a store: the model named, else the recorded one, else the default."""
    if model is not None:
        return build_embedder(model, device=device, base_url=base_url, allow_http=allow_http)
    if recorded is not None and base_url is not None:
        return Embedder(
            recorded.model,
            engine=engine_of(base_url, allow_http),
            device=device,
            query_prompt=recorded.query_prompt,
            document_prompt=recorded.document_prompt,
            dimensions=recorded.dimensions,
            max_tokens=recorded.max_tokens,
        )
    if recorded is not None:
        return Embedder.from_space(recorded, device=device, allow_http=allow_http)
    if not create:
        raise StoreError(
            "No model is recorded there. What is there: toastrack list URL. If nothing is stored yet, "
            "fill it: toastrack ingest SOURCES --to URL. If rows are, say which model embedded them: "
            "toastrack ingest SOURCES --to URL --model MODEL --adopt."
        )
    return build_embedder(None, device=device, base_url=base_url, allow_http=allow_http)
