"""``toastrack embed``: texts to vectors, for SQL, a file or another program."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from toastrack.cli.extras import check_extras
from toastrack.cli.options import AllowHttp, BaseUrl, Device, build_embedder
from toastrack.cli.output import working
from toastrack.embedder import DEFAULT_MODEL

if TYPE_CHECKING:
    from toastrack.utils import arrays

Format = Literal["json", "pgvector", "numpy"]


def embed_command(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", show_default=False)],
    role: Annotated[
        Literal["query", "document"],
        typer.Option(help="What the texts are; each role has its own prompt."),
    ] = "document",
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="json: one array of vectors; pgvector: a line for each text, as SQL takes it; "
            "numpy: the bytes of an .npy file.",
        ),
    ] = "json",
    model: Annotated[str, typer.Option(help="Hub name or local folder.")] = DEFAULT_MODEL,
    device: Device = None,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
) -> None:
    """Print the vectors of texts, float32 and of length 1, in the order given."""
    if form == "numpy" and sys.stdout.isatty():
        raise typer.BadParameter(
            "numpy is bytes; send them into a file: > vectors.npy", param_hint="--format"
        )
    check_extras(None, hosted=base_url is not None)
    embedder = build_embedder(model, device=device, base_url=base_url, allow_http=allow_http)
    with working("loading the model"):
        embedder.load()
    embed = embedder.embed_queries if role == "query" else embedder.embed_documents
    _print(embed(texts), form)


def _print(vectors: arrays.FloatMatrix, form: Format) -> None:
    if form == "numpy":
        import numpy as np

        # numpy asks a file where it stands, which a pipe does not know.
        file = io.BytesIO()
        np.save(file, vectors, allow_pickle=False)
        sys.stdout.buffer.write(file.getvalue())
        return
    # Nine digits tell one float32 from every other.
    rows = [[float(f"{number:.9g}") for number in vector] for vector in vectors.tolist()]
    if form == "pgvector":
        for row in rows:
            typer.echo(json.dumps(row, separators=(",", ":")))
    else:
        typer.echo(json.dumps(rows))
