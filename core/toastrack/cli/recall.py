"""``toastrack recall``: what the index of a store misses, and what it saves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from toastrack.cli.extras import check_extras
from toastrack.cli.options import AllowHttp, BaseUrl, Device, Json, Model, choose_embedder
from toastrack.cli.output import working
from toastrack.errors import ToastrackError
from toastrack.stores.addresses import DEFAULT_URL, URL_HELP, open_store


def recall_command(
    url: Annotated[
        str,
        typer.Option(
            "--in",
            metavar="URL",
            help=f"Where: {URL_HELP}.",
            show_default="the Postgres in your data folder",
        ),
    ] = DEFAULT_URL,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits are asked for.")] = 10,
    sample: Annotated[
        int, typer.Option(min=1, help="How many records are the queries where none are given.")
    ] = 200,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with a question on each line, as people ask them.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    device: Device = None,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    as_json: Json = False,
) -> None:
    """Measure what share of the best hits each index finds, and how long it takes.

    Each query is asked exactly, too, which takes its time in a large store. Printed as Markdown.
    """
    asked = None if queries is None else _lines(queries)
    choose = partial(
        choose_embedder,
        model=model,
        device=device,
        base_url=base_url,
        allow_http=allow_http,
        create=False,
    )
    check_extras(url, hosted=base_url is not None)
    with (
        open_store(url, choose, create=False) as store,
        working("searching with and without the index"),
    ):
        table = store._recall(k, sample, asked)
    typer.echo(json.dumps(table.to_dict()) if as_json else str(table))


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ToastrackError(f"--queries {str(file)!r} cannot be read: {error}") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ToastrackError(f"--queries {str(file)!r} has no question in it.")
    return found
