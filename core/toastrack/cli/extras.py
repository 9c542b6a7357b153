"""What a command needs that is not installed, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable

from toastrack.errors import MissingExtraError
from toastrack.ingestion.sources import SourceFile, lacking_for
from toastrack.models.engine_choice import best_extra, is_installed
from toastrack.records import Skip
from toastrack.stores.addresses import needed_for

# What runs a model, with what both engines need beside it.
_BESIDE = ("huggingface_hub", "tokenizers", "semantic_text_splitter")
_HOSTED = ("hosted", ("httpx", "semantic_text_splitter"))
_SERVE = ("serve", ("uvicorn", "orjson"))
_ENGINES = {"openvino": "openvino", "local": "sentence_transformers"}


def check_extras(
    url: str | None,
    *,
    engine: bool = True,
    hosted: bool = False,
    serve: bool = False,
    files: Iterable[SourceFile | Skip] = (),
) -> None:
    """Raise ``MissingExtraError`` for all that a command on a store lacks, with one command for it.

    Args:
        url: The store's address; None for a command that needs none.
        engine: The command runs a model.
        hosted: A server runs it.
        serve: The command is a server itself.
        files: What the command reads; not looked at where all of it could be read.
    """
    missing: list[str] = []
    extras: list[str] = []
    wanted = [] if url is None else [needed_for(url)]
    if engine:
        wanted.append(_HOSTED if hosted else engine_needed())
    if serve:
        wanted.append(_SERVE)
    for extra, packages in wanted:
        lacking = [package for package in packages if not is_installed(package)]
        if lacking:
            missing += lacking
            extras.append(extra)
    needed = lacking_for(files)
    missing += needed.packages
    extras += needed.extras
    if missing:
        raise MissingExtraError(", ".join(missing), ",".join(extras), needed.hint)


def engine_needed() -> tuple[str, tuple[str, ...]]:
    """Return the extra of the engine that is there, else of the one without torch."""
    if not any(map(is_installed, _ENGINES.values())) and all(map(is_installed, _HOSTED[1])):
        return _HOSTED  # a server may run what is asked for
    extra = next((extra for extra, package in _ENGINES.items() if is_installed(package)), None)
    extra = extra or best_extra()
    return extra, (_ENGINES[extra], *_BESIDE)
