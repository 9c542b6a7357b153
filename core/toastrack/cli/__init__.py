"""The command line: ``toastrack ingest``, ``search``, ``list``, ``recall`` and so on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from toastrack.cli.doctor import doctor_command
from toastrack.cli.embed import embed_command
from toastrack.cli.export import export_command
from toastrack.cli.flags import with_flags
from toastrack.cli.ingest import ingest_command
from toastrack.cli.list import list_command
from toastrack.cli.recall import recall_command
from toastrack.cli.search import search_command
from toastrack.cli.serve import serve_command
from toastrack.errors import ConnectionLostError, NoAnswerError, ToastrackError

app = typer.Typer(
    name="toastrack",
    help="The right embedding in every slot of a search stack.",
    epilog="Example: toastrack ingest docs/ && toastrack search 'how do I start?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _command(name: str, run: Callable[..., None], *examples: str, help_alone: bool = True) -> None:
    """Add a command, whose help ends with examples."""
    # An empty line between two keeps each on a line of its own.
    shown = "\n\n".join(["Examples:", *(f"  toastrack {name} {words}" for words in examples)])
    app.command(name, no_args_is_help=help_alone, epilog=shown)(run)


_command(
    "ingest",
    ingest_command,
    "notes/",
    "rows.csv --text-column body --id-column key",
    "notes/ --to 'postgresql://me@localhost/db?table=notes' --prune",
)
_command(
    "search",
    search_command,
    "'can I freeze bread?'",
    "'rye' -k 3 --filter lang=en --filter 'year>=2020'",
    "'rye' --in qdrant:data/notes --min-score 0.5 --json",
)
_command(
    "list",
    list_command,
    "",
    "postgresql://me@localhost/db",
    "qdrant+http://localhost:6333",
    help_alone=False,
)
_command(
    "embed",
    embed_command,
    "'Rye keeps for a week.'",
    "'which bread keeps?' --role query --format pgvector",
    "'one' 'two' --format numpy > vectors.npy",
)
_command(
    "recall",
    recall_command,
    "",
    "--in postgresql://me@localhost/db?table=notes --queries questions.txt",
    help_alone=False,
)
_command(
    "serve",
    serve_command,
    "",
    "--model BAAI/bge-base-en-v1.5 --reranker mixedbread-ai/mxbai-rerank-base-v1",
    "--host 0.0.0.0   # with a key in TOASTRACK_API_KEY",
    help_alone=False,
)
_command("export", export_command, "mixedbread-ai/mxbai-embed-large-v1 models/mxbai")
_command(
    "doctor",
    doctor_command,
    "",
    "--in postgresql://me@localhost/db?table=notes",
    help_alone=False,
)


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
    except (ConnectionLostError, NoAnswerError) as error:
        # The arguments are right: to try again later is all that can be done.
        _fail(error, 1)
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
