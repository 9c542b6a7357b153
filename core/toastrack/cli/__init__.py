"""The command line: ``toastrack ingest``, ``search``, ``export`` and ``doctor``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from toastrack.cli.doctor import doctor_command
from toastrack.cli.export import export_command
from toastrack.cli.flags import with_flags
from toastrack.cli.ingest import ingest_command
from toastrack.cli.search import search_command
from toastrack.errors import ToastrackError

app = typer.Typer(
    name="toastrack",
    help="The right embedding in every slot of a search stack.",
    epilog="Example: toastrack ingest docs/ && toastrack search 'how do I start?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("ingest", no_args_is_help=True)(ingest_command)
app.command("search", no_args_is_help=True)(search_command)
app.command("export", no_args_is_help=True)(export_command)
app.command("doctor")(doctor_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toastrack {version_of('toastrack')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error is one clear line and exit code 2, or 1 from a host."""
    try:
        app()
    except (ToastrackError, ValueError, ImportError) as error:
        _fail(error, 2)
    except Exception as error:
        # A host's own story, such as a wrong password; its traceback helps nobody here.
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("TOASTRACK_DEBUG"):
        raise error
    message = str(error).strip() if code == 2 else " ".join(str(error).split())
    typer.secho(f"error: {with_flags(message) or type(error).__name__}", fg="red", err=True)
    sys.exit(code)
