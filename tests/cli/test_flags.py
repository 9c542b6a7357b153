"""Errors of the library in the words of the command line."""

from __future__ import annotations

import re

import pytest
import typer.main

from toastrack.cli import app
from toastrack.cli.flags import _FLAGS, with_flags


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("Open it with adopt=True: that", "Open it with toastrack ingest --adopt: that"),
        ("Name it with id_column=, or not.", "Name it with --id-column, or not."),
        ("Use id_from='content'.", "Use --id-from content."),
        ("overlap=-1 must be", "--overlap -1 must be"),
        ("device='banana' cannot", "--device banana cannot"),
        ("prune=True and skip_bad=True cannot", "--prune and --skip-bad cannot"),
        ("Embedder('x', query_prompt='')", "Embedder('x', query_prompt='')"),
        ("or with text='{title}: {body}'.", "or with --text '{title}: {body}'."),
        ("delimiter=';' is", "--delimiter ';' is"),
        ("an overlap of 3", "an overlap of 3"),
        ("adopt='unchecked' believes you", "toastrack ingest --adopt-unchecked believes you"),
        ("use prefix='NAME' or", "use --prefix NAME or"),
        ("source: source='/srv/my bread'.", "source: --source '/srv/my bread'."),
    ],
)
def test_arguments_become_flags(python: str, shell: str) -> None:
    assert with_flags(python) == shell


def test_every_flag_is_one_of_a_command() -> None:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    parameters = [parameter for command in commands for parameter in command.params]
    known = {option for parameter in parameters for option in parameter.opts}
    assert {re.sub(r".* ", "", flag) for flag in _FLAGS.values()} <= known
