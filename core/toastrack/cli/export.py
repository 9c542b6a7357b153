"""``toastrack export``: a model into a folder that runs without torch, and fast on a CPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from toastrack.cli.flags import with_flags
from toastrack.cli.options import Json
from toastrack.cli.output import say, steps
from toastrack.export import export
from toastrack.int8.texts import HELD_BACK, SAMPLE


def export_command(
    model: Annotated[str, typer.Argument(help="Hub name or local folder of the model.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")
    ],
    revision: Annotated[
        str | None,
        typer.Option(help="A branch, tag or commit on the hub.", show_default=False),
    ] = None,
    precision: Annotated[
        Literal["float32", "int8"],
        typer.Option(
            help="float32 runs in bfloat16, too, where the processor has it. int8 is for embedding models "
            "only: faster still, in a quarter of the memory, and not quite the same vectors."
        ),
    ] = "float32",
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Texts like those that a model in int8 will read: a file or folder as toastrack ingest "
            "takes them, or the URL of a store.",
            show_default="neutral texts that come with toastrack",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"How many of them to calibrate with; {HELD_BACK} more are held back to measure the loss.",
            show_default=str(SAMPLE),
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write into DIR although it is not empty, and int8 whatever it loses."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a model in the form that the engine openvino runs, and compare both.

    Needs the extras local and openvino; what comes out needs only openvino. It embeds into the
    same space as the model it was made of: a store that one filled can be searched with the other.

    int8 needs the extra int8, too, but only here. On two cores it takes half a minute and 1.2 GB of
    memory for a model such as all-MiniLM-L6-v2, and some 10 minutes and 8 to 10 GB for one such as
    mxbai-embed-large-v1. It says what was lost, on texts held back, and is refused if that is too much.
    """
    with steps() as on_step:
        made = export(
            model,
            folder,
            revision=revision,
            precision=precision,
            calibrate=calibrate,
            sample=sample,
            force=force,
            on_step=on_step,
            on_note=lambda note: say(f"note: {with_flags(note)}"),
        )
    if as_json:
        typer.echo(json.dumps(asdict(made) | {"folder": str(made.folder)}, ensure_ascii=False))
        return
    if made.loss is not None:
        typer.echo(f"{made.folder}\nint8: {made.loss}.")
        return
    lines = [f"largest difference to sentence-transformers: {made.in_float32:.1e} in float32"]
    if made.default != "float32":
        lines.append(f", {made.in_default:.1e} in {made.default}, the default here")
    typer.echo(f"{made.folder}\n{''.join(lines)}.")
