"""``toastrack doctor``: what works here, and what to do about what does not."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Annotated, Literal

import typer

from toastrack.cli.flags import with_flags
from toastrack.cli.options import Device, Json, Model, choose_embedder
from toastrack.embedder import Embedder
from toastrack.engines.openvino import pick_precision
from toastrack.errors import INSTALL_COMMAND, ToastrackError
from toastrack.models.engine_choice import is_installed
from toastrack.space import EmbeddingSpace
from toastrack.stores.addresses import URL_HELP, open_store

State = Literal["ok", "absent", "wrong"]
_MARKS: dict[State, str] = {"ok": "ok  ", "absent": "-   ", "wrong": "!!  "}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: State
    message: str


def doctor_command(
    url: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="URL",
            help=f"A store to look at: {URL_HELP}. Left out, none is.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Say what works here: packages, the model with its prompts, a store.

    Nothing is downloaded or changed. Exit code 1 if something is wrong; what is only not
    installed is no fault.
    """
    findings = [*_extras(), *_precision()]
    if url is None:
        findings += _model(
            Embedder(device=device) if model is None else Embedder(model, device=device)
        )
    else:
        findings += _store(url, model=model, device=device)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        typer.echo(f"toastrack {version('toastrack')}, Python {platform.python_version()}")
        for finding in findings:
            indented = finding.message.replace("\n", "\n      ")
            typer.echo(f"{_MARKS[finding.state]}{finding.subject}: {indented}")
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def _extras() -> Iterator[Finding]:
    """Look for the packages of each extra that the installed package declares."""
    wanted: dict[str, list[str]] = {}
    for requirement in metadata("toastrack").get_all("Requires-Dist") or []:
        match = re.match(r"([\w.-]+).*;.*extra == ['\"]([\w.-]+)['\"]", requirement)
        if match and match[2] != "all" and match[1] != "toastrack":
            wanted.setdefault(match[2], []).append(match[1])
    for extra, packages in wanted.items():
        found = {package: _version(package) for package in packages}
        missing = [package for package, installed in found.items() if installed is None]
        if missing:
            install = INSTALL_COMMAND.format(extra=extra)
            message = f"{', '.join(missing)} not installed. Run: {install}"
            yield Finding(f"extra {extra}", "absent", message)
        else:
            message = ", ".join(f"{package} {installed}" for package, installed in found.items())
            yield Finding(f"extra {extra}", "ok", message)


def _precision() -> Iterator[Finding]:
    """Say how the engine openvino would run here, if it is installed."""
    if not is_installed("openvino"):
        return
    try:
        has = "has" if pick_precision("auto") == "bfloat16" else "does not have"
    except Exception as error:
        yield Finding("openvino", "wrong", " ".join(str(error).split()))
    else:
        yield Finding("openvino", "ok", f"this processor {has} bfloat16")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _model(embedder: Embedder, *, recorded: bool = False) -> Iterator[Finding]:
    """Describe a model as far as that takes no download; ``recorded`` is one that a store names."""
    subject = f"model {embedder.model}"
    try:
        space = embedder._known_space
        prompts = embedder.prompts
        if space is None:
            message = "not on this machine yet; it is downloaded at the first text."
            yield Finding(subject, "absent", message)
        else:
            message = (
                f"{space.dimensions} dimensions, reads {embedder.max_tokens} tokens, "
                f"space {space.digest[:12]}"
            )
            yield Finding(subject, "ok", message)
        for role, prompt, source in (
            ("query", prompts.query, prompts.query_source),
            ("document", prompts.document, prompts.document_source),
        ):
            said_by = "recorded in the store" if recorded else source
            yield Finding(f"{role} prompt", "ok", f"{prompt!r} ({said_by})")
        if space is not None:
            embedder.load()
            yield Finding("engine", "ok", f"{embedder.running_on}")
    except Exception as error:
        yield Finding(subject, "wrong", with_flags(str(error)))


def _store(url: str, *, model: str | None, device: str | None) -> Iterator[Finding]:
    """Describe a store, and the model that belongs to it."""
    chosen: list[tuple[Embedder, bool]] = []

    def choose(recorded: EmbeddingSpace | None) -> Embedder:
        pick = partial(choose_embedder, model=model, device=device, create=False)
        embedder = pick(recorded)
        chosen.append((embedder, model is None))
        return embedder

    try:
        with open_store(url, choose, create=False) as store:
            message = f"{store.count():,} records of {store.count(documents=True):,} documents"
            yield Finding("store", "ok", f"{message}, space {store.space.digest[:12]}")
    except ToastrackError as error:
        yield Finding("store", "wrong", with_flags(str(error)))
    except Exception as error:
        yield Finding("store", "wrong", " ".join(str(error).split()) or type(error).__name__)
    for embedder, from_store in chosen[:1]:
        yield from _model(embedder, recorded=from_store)
