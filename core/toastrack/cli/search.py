"""``toastrack search``: a question to a store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from toastrack.cli.extras import check_extras
from toastrack.cli.filters import HELP, JSON_HELP, described, filter_of
from toastrack.cli.options import (
    AllowHttp,
    BaseUrl,
    Device,
    Json,
    Model,
    choose_embedder,
    engine_of,
)
from toastrack.cli.output import print_matches, working
from toastrack.hosted.settings import Hosted, hosted_engine
from toastrack.models.engine_choice import EngineName
from toastrack.reranker import DEFAULT_RERANKER, Reranker
from toastrack.stores.addresses import DEFAULT_URL, URL_HELP, open_store
from toastrack.stores.protocol import Store
from toastrack.stores.text_query import SearchMode

_CANDIDATES = 50


def search_command(
    query: Annotated[str, typer.Argument(help="What you want to know.", show_default=False)],
    url: Annotated[
        str,
        typer.Option(
            "--in",
            metavar="URL",
            help=f"Where: {URL_HELP}.",
            show_default="the Postgres in your data folder",
        ),
    ] = DEFAULT_URL,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits at most.")] = 10,
    filter: Annotated[
        list[str] | None, typer.Option(metavar="CONDITION", help=HELP, show_default=False)
    ] = None,
    filter_json: Annotated[
        str | None, typer.Option(metavar="JSON", help=JSON_HELP, show_default=False)
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every record instead of the index.")
    ] = False,
    mode: Annotated[
        SearchMode,
        typer.Option(
            help="Go by the meaning, by the words of the texts, or by both; for words, ingest with "
            "--text-index."
        ),
    ] = "vector",
    min_score: Annotated[
        float | None,
        typer.Option(
            min=-1, max=1, help="Leave out hits that are less similar.", show_default=False
        ),
    ] = None,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank",
            help=f"Put what was found into the order of a reranker, {DEFAULT_RERANKER}.",
        ),
    ] = False,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Hub name or local folder of another reranker; implies --rerank.",
            show_default=False,
        ),
    ] = None,
    reranker_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Let a server run the reranker, as --base-url does for the model; implies --rerank.",
            show_default=False,
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many hits the reranker reads, at least -k.", show_default="50"
        ),
    ] = None,
    group_by_document: Annotated[
        bool, typer.Option("--group-by-document", help="One hit a document, its best chunk.")
    ] = False,
    neighbours: Annotated[
        int,
        typer.Option(min=0, help="How many chunks on each side of a hit are shown with it."),
    ] = 0,
    model: Model = None,
    device: Device = None,
    base_url: BaseUrl = None,
    allow_http: AllowHttp = False,
    as_json: Json = False,
) -> None:
    """Ask a store a question and show the best hits with their cosine similarity.

    The model is the one that the store was built with, and the question gets that model's query
    prompt. With --rerank a second model reads the question together with each of the best hits;
    the score is its own then, and --json gives both.

    toastrack search "which bread stays fresh?" --rerank

    toastrack search "which bread stays fresh?" --reranker ./my-reranker --candidates 100
    """
    wanted = filter_of(filter or [], filter_json)
    runs_on = engine_of(reranker_url, allow_http)
    reads = _reranker(rerank or reranker_url is not None, reranker, candidates, device, runs_on)
    choose = partial(
        choose_embedder,
        model=model,
        device=device,
        base_url=base_url,
        allow_http=allow_http,
        create=False,
    )
    check_extras(url, hosted=base_url is not None)
    with open_store(url, choose, create=False) as store:
        with working("loading the model"):
            store.embedder.load()
            if reads is not None:
                reads.load()
        matches = store.search(
            query,
            k=k,
            filter=wanted,
            exact=exact,
            mode=mode,
            min_score=min_score,
            rerank=reads,
            candidates=candidates or _CANDIDATES,
            group_by_document=group_by_document,
            neighbours=neighbours,
        )
        why = [] if matches else list(_why_nothing(store, query, wanted, min_score))
    if as_json:
        typer.echo(json.dumps([match.to_dict() for match in matches], ensure_ascii=False))
    else:
        print_matches(matches)
    for line in why:
        typer.echo(line, err=True)


def _reranker(
    wanted: bool,
    model: str | None,
    candidates: int | None,
    device: str | None,
    engine: EngineName | Hosted,
) -> Reranker | None:
    """Return the reranker that the options ask for, if they do."""
    if not wanted and model is None:
        if candidates is not None:
            raise typer.BadParameter(
                "it is how many a reranker reads. Add --rerank.", param_hint="--candidates"
            )
        return None
    return Reranker(
        DEFAULT_RERANKER if model is None else model,
        engine=engine,
        device=None if hosted_engine(engine) else device,
    )


def _why_nothing(
    store: Store, query: str, wanted: Mapping[str, Any], min_score: float | None
) -> Iterator[str]:
    """Say what may be the reason that nothing was found."""
    if not store.count():
        yield "Nothing is stored there yet. Fill it: toastrack ingest SOURCES --to URL."
        return
    if wanted:
        yield f"The filter was: {described(wanted)}"
        for field in dict.fromkeys(_fields(wanted)):
            if not store.count(filter={field: {"$exists": True}}):
                yield f"No record has a field {field!r}."
    if min_score is not None:
        for best in store.search(query, k=1, filter=wanted):
            yield f"The most similar record has {best.score:.3f}."


def _fields(wanted: Mapping[str, Any]) -> Iterator[str]:
    for key, value in wanted.items():
        if key in ("$and", "$or"):
            for part in value:
                yield from _fields(part)
        else:
            yield key
