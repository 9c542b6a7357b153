"""``toastrack export``: a model into a folder that runs without torch, and fast on a CPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from toastrack.cli.options import Json
from toastrack.cli.output import steps
from toastrack.export import export


def export_command(
    model: Annotated[str, typer.Argument(help="Hub name or local folder of the model.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")
    ],
    revision: Annotated[
        str | None,
        typer.Option(help="A branch, tag or commit on the hub.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into DIR although it is not empty.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a model in the form that the engine openvino runs, and compare both.

    Needs the extras local and openvino; what comes out needs only openvino. It embeds into the
    same space as the model it was made of: a store that one filled can be searched with the other.
    """
    with steps() as on_step:
        made = export(model, folder, revision=revision, force=force, on_step=on_step)
    if as_json:
        typer.echo(json.dumps(asdict(made) | {"folder": str(made.folder)}, ensure_ascii=False))
        return
    lines = [f"largest difference to sentence-transformers: {made.in_float32:.1e} in float32"]
    if made.default != "float32":
        lines.append(f", {made.in_default:.1e} in {made.default}, the default here")
    typer.echo(f"{made.folder}\n{''.join(lines)}.")
