"""``toastrack ingest``: documents into a store."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from toastrack.cli.extras import check_extras
from toastrack.cli.flags import with_flags
from toastrack.cli.options import AllowHttp, BaseUrl, Device, Json, Model, choose_embedder
from toastrack.cli.output import name_first, progress_bar, say, share_bar, summary, working
from toastrack.ingestion.ingest import ingest
from toastrack.ingestion.sources import STANDARD_INPUT, find_files
from toastrack.stores.addresses import DEFAULT_URL, URL_HELP, open_store
from toastrack.stores.proof import Adopt


def ingest_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders and files: text, Markdown, JSON Lines, JSON, CSV, TSV, Parquet, HTML, PDF, "
            "Word; - is JSON Lines on standard input.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help=f"Where to: {URL_HELP}.",
            show_default="a Postgres in your data folder",
        ),
    ] = DEFAULT_URL,
    model: Model = None,
    device: Device = None,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt",
            help="Take over a filled store that does not say which model embedded it: --model did, "
            "which some of its texts must show.",
        ),
    ] = False,
    adopt_unchecked: Annotated[
        bool,
        typer.Option("--adopt-unchecked", help="The same, and nothing must show it."),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Names where all of it comes from. Left out, files know the folder they lie in.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Stands before each id: NAME/...", show_default=False),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete what is stored of these sources, under the prefix, and not there any more.",
        ),
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Leave out what cannot be read or stored, and say so; do not stop at it.",
        ),
    ] = False,
    index: Annotated[
        bool, typer.Option(help="Build the search index after the load, if it is not there.")
    ] = True,
    index_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory that Postgres builds the index with, such as 1GB.",
            show_default="what the rows need on a Postgres in a folder, else the server's own",
        ),
    ] = None,
    text_index: Annotated[
        str | None,
        typer.Option(
            metavar="LANGUAGE",
            help="Build an index of words after the load, for toastrack search --mode: english, german ...",
            show_default=False,
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(help="Tokens that neighbouring chunks of a document share.")
    ] = 0,
    text_column: Annotated[str, typer.Option(help="The field of a row to embed.")] = "text",
    text: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="Make that text of several fields: '{title}: {body}'.",
            show_default=False,
        ),
    ] = None,
    id_column: Annotated[str, typer.Option(help="The field of a row that names it.")] = "id",
    id_from: Annotated[
        Literal["column", "content"],
        typer.Option(help="Name rows by that field, or by the sha256 of their text."),
    ] = "column",
    vector_column: Annotated[
        str | None,
        typer.Option(help="The field of a row with a ready vector.", show_default=False),
    ] = None,
    metadata_column: Annotated[
        list[str] | None,
        typer.Option(help="A field of a row to keep; may be repeated. Left out, all are kept."),
    ] = None,
    column_type: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TYPE",
            help="What a field of a CSV is: int, float, bool, str, date or datetime; may be repeated.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="What stands between the fields of a CSV; \\t is a tab.",
            show_default="found in the header",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of text that is not UTF-8 and has no byte order mark.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put documents into a store: read, split, embed, write.

    Run it again and only what is new or changed is embedded. A text that the model cannot read
    at once is split into chunks. Stopped half-way, the same command goes on from there.
    """
    if index_memory is not None and not index:
        raise typer.BadParameter("there is no index with --no-index", param_hint="--index-memory")
    choose = partial(
        choose_embedder,
        model=model,
        device=device,
        base_url=base_url,
        allow_http=allow_http,
        create=True,
    )
    types = dict(_column_type(text) for text in column_type or [])
    # What is wrong with the arguments is said before anything is to be installed.
    given = [source for source in sources if source != STANDARD_INPUT]
    find_files(source for source in given if not Path(source).expanduser().exists())
    check_extras(
        to,
        hosted=base_url is not None,
        files=() if skip_bad else (f for s in sources for f in find_files([s])),
    )
    try:
        how: Adopt = "unchecked" if adopt_unchecked else adopt
        with open_store(to, choose, create=True, adopt=how) as store:
            if index:
                store._check_index(index_memory)  # hours of embedding would go before
            if text_index is not None:
                store._check_text_index(text_index)
            with progress_bar("embedding") as on_progress:
                report = ingest(
                    sources,
                    store,
                    source=source,
                    prefix=prefix,
                    prune=prune,
                    overlap=overlap,
                    text_column=text_column,
                    text=text,
                    id_column=id_column,
                    id_from=id_from,
                    skip_bad=skip_bad,
                    vector_column=vector_column,
                    metadata_columns=metadata_column or None,
                    column_types=types,
                    delimiter="\t" if delimiter == r"\t" else delimiter,
                    encoding=encoding,
                    on_progress=on_progress,
                    on_skip=None if as_json else name_first(20),
                    on_note=lambda message: say(f"note: {with_flags(message)}"),
                )
            built = False
            if index:
                with share_bar("building the index") as on_share:
                    built = store._build_index(on_progress=on_share, memory=index_memory)
            if text_index is not None:
                with working("building the index of words"):
                    store.build_text_index(text_index)
    except KeyboardInterrupt:
        typer.echo(
            "Stopped. What was written stays; run the same command again to go on from there.",
            err=True,
        )
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps({**asdict(report), "index_built": built}))
    else:
        typer.echo(summary(report, index_built=built))


_TYPES = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "date": date,
    "datetime": datetime,
}


def _column_type(text: str) -> tuple[str, type]:
    name, _, kind = text.rpartition("=")
    if not name or kind not in _TYPES:
        raise typer.BadParameter(
            f"{text!r} is not NAME=TYPE with {', '.join(_TYPES)}.", param_hint="--column-type"
        )
    return name, _TYPES[kind]
