"""``toastrack serve``: one model for every program that can send a request."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from toastrack.cli.extras import check_extras
from toastrack.cli.options import Device
from toastrack.cli.output import working
from toastrack.embedder import DEFAULT_MODEL, Embedder
from toastrack.models.files import looks_like_path
from toastrack.reranker import Reranker
from toastrack.serve.app import Limits, Served
from toastrack.serve.server import KEY_NAME, Server


def serve_command(
    model: Annotated[str, typer.Option(help="Hub name or local folder.")] = DEFAULT_MODEL,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="What requests call it; left out, the model's own name, or its folder's. Give it again "
            "for another name.",
            show_default=False,
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="Hub name or local folder of a reranker to serve, too.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on. One that other machines reach needs a key, which stands in "
            "the environment."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8080,
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The environment variable that holds the key.")
    ] = KEY_NAME,
    device: Device = None,
    truncate: Annotated[
        bool,
        typer.Option(
            help="Cut texts over the model's limit, and say so in a header; or refuse them. A request's "
            "own truncate goes before it."
        ),
    ] = True,
    scores: Annotated[
        Literal["raw", "sigmoid"],
        typer.Option(
            help="raw: the reranker's own, of any size and sign; sigmoid: the same from 0 to 1, for "
            "clients that compare them with a threshold."
        ),
    ] = "raw",
    max_inputs: Annotated[
        int, typer.Option(min=1, help="Texts that a request may hold.")
    ] = Limits.texts,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Bytes that a request may have.")
    ] = Limits.bytes,
    max_waiting: Annotated[
        int,
        typer.Option(
            min=1,
            help="Texts of one kind (queries, documents, pairs) that may wait or be in work; more are "
            "told to come back (429).",
        ),
    ] = Limits.waiting,
) -> None:
    """Serve a model to other programs as OpenAI's API does.

    Who asks for embeddings at an address of your choice can ask here, and all
    workers of a service can share one model. It answers /v1/embeddings,
    /v1/rerank, /v1/models and /health.

    A text is a document unless a request says otherwise: "input_type": "query"
    (or as Cohere, Jina and others call it), or MODEL:query as the model's name.

    With a key in TOASTRACK_API_KEY each request must have it. Ctrl-C or SIGTERM
    ends the server once it has answered what it was asked before.
    """
    check_extras(None, serve=True)
    names = tuple(name or [_name(model)])
    served = Served(
        embedder=Embedder(model, device=device, on_truncate="ignore"),
        names=names,
        reranker=None if reranker is None else Reranker(reranker, device=device),
        reranker_name="" if reranker is None else _name(reranker),
        cuts=truncate,
        raw_scores=scores == "raw",
    )
    limits = Limits(texts=max_inputs, bytes=max_bytes, waiting=max_waiting)
    with closing(Server(served, host=host, port=port, limits=limits, key_name=key_env)) as server:
        with working("loading the model"):
            server.load()
        what = " and ".join([names[0], *([served.reranker_name] if reranker is not None else [])])
        server.run(lambda: typer.echo(f"{what} at {server.address}/v1", err=True))


def _name(model: str) -> str:
    """Return what requests call a model: a folder goes by its own name."""
    return Path(model).expanduser().absolute().name if looks_like_path(model) else model
