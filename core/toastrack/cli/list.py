"""``toastrack list``: what is stored at a host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

import typer

from toastrack.cli.extras import check_extras
from toastrack.cli.flags import with_flags
from toastrack.cli.options import Json, choose_embedder
from toastrack.cli.output import print_rows, size_of
from toastrack.errors import ToastrackError
from toastrack.stores.addresses import DEFAULT_URL, URL_HELP, collections_at, open_store


def list_command(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help=f"Where: {URL_HELP}. Without its table or collection, all are listed.",
            show_default="the Postgres in your data folder",
        ),
    ] = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List the tables or collections that toastrack filled: how much, by which model, how it is kept.

    No model is loaded, and nothing is changed.
    """
    check_extras(url, engine=False)
    with collections_at(url) as addresses:
        found = [_look(address) for address in addresses]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    elif found:
        _print([row for row in found if "error" not in row])
        for row in found:
            if "error" in row:
                typer.echo(f"{row['name']} cannot be opened: {row['error']}")
    else:
        typer.echo("Nothing is stored there by toastrack.")


def _print(rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    heads = ["name", "records ", "documents ", "model", "index", "size "]
    print_rows(
        heads,
        [
            [
                row["name"],
                f"{row['records']:,}",
                f"{row['documents']:,}",
                row["model"],
                row["index"].partition(" ")[0].rstrip(","),
                size_of(row["bytes"]),
            ]
            for row in rows
        ],
    )


def _look(address: str) -> dict[str, Any]:
    # Nobody is asked anything, so it does not matter how the recorded server would be.
    choose = partial(choose_embedder, model=None, device=None, allow_http=True, create=False)
    try:
        with open_store(address, choose, create=False) as store:
            description = store._describe()
            return {
                "name": description.name,
                "records": store.count(),
                "documents": store.count(documents=True),
                "model": store.space.model,
                "dimensions": store.space.dimensions,
                "space": store.space.digest,
                "index": description.index,
                "storage": description.storage,
                "bytes": description.bytes,
                "host": description.host,
            }
    except ToastrackError as error:
        return {"name": _name_in(address), "error": with_flags(str(error))}


def _name_in(address: str) -> str:
    """Return a collection's name alone, as a URL may hold a password."""
    table = parse_qs(urlsplit(address).query).get("table")
    return table[0] if table else unquote(address.rpartition("/")[2])
