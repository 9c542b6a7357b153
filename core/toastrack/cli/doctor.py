"""``toastrack doctor``: what works here, and what to do about what does not."""

from __future__ import annotations

import json
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Annotated, Literal

import typer

from toastrack.cli.extras import engine_needed
from toastrack.cli.flags import with_flags
from toastrack.cli.options import (
    AllowHttp,
    BaseUrl,
    Device,
    Json,
    Model,
    build_embedder,
    choose_embedder,
)
from toastrack.cli.output import size_of, steps
from toastrack.embedder import Embedder
from toastrack.engines.openvino import pick_precision, undisturbed_import
from toastrack.errors import ToastrackError
from toastrack.hosted.model import HostedModel
from toastrack.models.engine_choice import is_installed
from toastrack.models.known_models import known_model
from toastrack.space import EmbeddingSpace
from toastrack.stores import IngestStore
from toastrack.stores.addresses import URL_HELP, open_store
from toastrack.stores.proving import why_no_proof
from toastrack.utils.install import install_command

State = Literal["ok", "absent", "wrong"]
# Where a package is imported by another name than its own with underscores.
_MODULES = {"beautifulsoup4": "bs4", "llama-index-core": "llama_index.core"}
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
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    as_json: Json = False,
) -> None:
    """Say what works here, by trying it: packages, the model with its prompts, a store.

    Nothing is downloaded or changed. The last line says what to do. Exit code 1 if something is
    wrong or nothing can embed; what is only not installed is no fault.
    """
    with steps() as on_step:
        findings = [*_extras(on_step), *_engines(), *_precision()]
        if url is None:
            on_step("the model")
            findings += _model(
                build_embedder(model, device=device, base_url=base_url, allow_http=allow_http)
            )
        else:
            on_step("the store")
            findings += _store(
                url, model=model, device=device, base_url=base_url, allow_http=allow_http
            )
    findings.append(_next(findings, url))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        typer.echo(f"toastrack {version('toastrack')}, Python {platform.python_version()}")
        for finding in findings:
            indented = finding.message.replace("\n", "\n      ")
            typer.echo(f"{_MARKS[finding.state]}{finding.subject}: {indented}")
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def _extras(on_step: Callable[[str], None]) -> Iterator[Finding]:
    """Import the packages of each extra that the installed package declares."""
    wanted: dict[str, list[str]] = {}
    for requirement in metadata("toastrack").get_all("Requires-Dist") or []:
        match = re.match(r"([\w.-]+).*;.*extra == ['\"]([\w.-]+)['\"]", requirement)
        if match and match[2] != "all" and match[1] != "toastrack":
            wanted.setdefault(match[2], []).append(match[1])
    for extra, packages in wanted.items():
        on_step(f"the extra {extra}")
        found = {package: _version(package) for package in packages}
        missing = [package for package, installed in found.items() if installed is None]
        broken = [said for package in packages if package not in missing for said in _try(package)]
        if broken:
            yield Finding(f"extra {extra}", "wrong", "\n".join(broken))
        elif missing:
            message = f"{', '.join(missing)} not installed. Run: {install_command(extra)}"
            yield Finding(f"extra {extra}", "absent", message)
        else:
            message = ", ".join(f"{package} {installed}" for package, installed in found.items())
            yield Finding(f"extra {extra}", "ok", message)


def _try(package: str) -> Iterator[str]:
    """Import a package; say what happened if that went wrong."""
    name = _MODULES.get(package, package.replace("-", "_"))
    try:
        with warnings.catch_warnings(), undisturbed_import(name):
            warnings.simplefilter("ignore")
            import_module(name)
    except Exception as error:
        reason = " ".join(str(error).split())
        yield f"{package} is installed and cannot be imported ({reason}). Install it again."


def _engines() -> Iterator[Finding]:
    """Say so if nothing can run a model."""
    extra, packages = engine_needed()
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        message = f"nothing can embed: {', '.join(missing)} not installed. Run: "
        yield Finding("engine", "wrong", message + install_command(extra))


def _next(findings: Sequence[Finding], url: str | None) -> Finding:
    """Say what to do now."""
    wrong = next((finding for finding in findings if finding.state == "wrong"), None)
    if wrong is not None:
        return Finding("next", "wrong", f"see to the {wrong.subject}, above, and run this again.")
    if url is not None:
        return Finding("next", "ok", "ask it: toastrack search QUERY --in URL")
    missing = ", and downloads the model" if _is_model_absent(findings) else ""
    message = f"toastrack ingest FOLDER fills a store{missing}; toastrack search QUERY asks it."
    return Finding("next", "ok", message)


def _is_model_absent(findings: Sequence[Finding]) -> bool:
    return any(
        finding.subject.startswith("model ") and finding.state == "absent" for finding in findings
    )


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
        hosted = isinstance(embedder._model, HostedModel)
        space = embedder.space if hosted else embedder._known_space
        if space is None:
            message = "not on this machine yet; it is downloaded at the first text."
            yield Finding(subject, "absent", message)
        else:
            message = (
                f"{space.dimensions} dimensions, {_limit(embedder)}, space {space.digest[:12]}"
            )
            yield Finding(subject, "ok", message)
        for role, prompt, source in _prompts(embedder, known=recorded or space is not None):
            said_by = "recorded in the store" if recorded else source
            yield Finding(f"{role} prompt", "ok", f"{prompt!r} ({said_by})")
        if space is not None:
            embedder.embed_query("does it run?")
            yield Finding("engine", "ok", f"{embedder.running_on}")
    except Exception as error:
        yield Finding(subject, "wrong", with_flags(str(error)))


def _limit(embedder: Embedder) -> str:
    limit = embedder.max_tokens
    return "reads nobody says how many tokens" if limit is None else f"reads {limit} tokens"


def _prompts(embedder: Embedder, *, known: bool) -> Iterator[tuple[str, str, str]]:
    """Return role, prompt and who says so, as far as that takes no download."""
    if known:
        prompts = embedder.prompts
        yield "query", prompts.query, prompts.query_source
        yield "document", prompts.document, prompts.document_source
    elif found := known_model(embedder.model):
        yield "query", found.query, f"known model, {found.source}"
        yield "document", found.document, f"known model, {found.source}"


def _vectors(store: IngestStore) -> Iterator[Finding]:
    """Say how the stored vectors agree with their texts; no model is downloaded for that."""
    if store.embedder._known_space is None:
        return
    if reason := why_no_proof(store.embedder):
        yield Finding("vectors", "absent", f"not compared: {reason}")
        return
    proof = store._prove()
    if proof.refuted:
        yield Finding("vectors", "wrong", "\n".join(filter(None, (f"{proof}.", proof.found))))
    else:
        yield Finding("vectors", "ok" if proof.compared else "absent", str(proof))
    if store.space.unproven:
        fields = ", ".join(name.replace("_", " ") for name in store.space.unproven)
        yield Finding("adopted", "ok", f"by a word that nothing showed: {fields}")


def _store(
    url: str, *, model: str | None, device: str | None, base_url: str | None, allow_http: bool
) -> Iterator[Finding]:
    """Describe a store, and the model that belongs to it."""
    chosen: list[tuple[Embedder, bool]] = []

    def choose(recorded: EmbeddingSpace | None) -> Embedder:
        pick = partial(
            choose_embedder,
            model=model,
            device=device,
            base_url=base_url,
            allow_http=allow_http,
            create=False,
        )
        embedder = pick(recorded)
        chosen.append((embedder, model is None))
        return embedder

    try:
        with open_store(url, choose, create=False) as store:
            message = f"{store.count():,} records of {store.count(documents=True):,} documents"
            yield Finding("store", "ok", f"{message}, space {store.space.digest[:12]}")
            found = store._describe()
            size = size_of(found.bytes)
            kept = f"{found.host}; {found.storage}" + (f", {size} in all" if size else "")
            yield Finding("storage", "ok", kept)
            yield Finding("index", "ok", found.index)
            yield from _vectors(store)
    except ToastrackError as error:
        yield Finding("store", "wrong", with_flags(str(error)))
    except Exception as error:
        yield Finding("store", "wrong", " ".join(str(error).split()) or type(error).__name__)
    for embedder, from_store in chosen[:1]:
        yield from _model(embedder, recorded=from_store)
