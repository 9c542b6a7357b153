"""What a model in int8 gains and what it loses, against the same one in other precisions.

    python benchmarks/int8.py [--models minilm bert-large] [--passages 200] [--repeats 3]

The models are those of embedding.py. Each is exported in int8 once, with the neutral texts that come
with toastrack or those of --calibrate, and kept in the user's cache; BERT-large with fewer of them
(--large-sample), as its weights are random and only its speed means anything. All contestants embed
the same texts in turns.

The second table says what is found for the questions of --dataset (corpus.jsonl.gz, queries.jsonl.gz
and qrels.tsv), by MiniLM: in each precision, and with queries in one and documents in another, as when
a collection was filled before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import (
    CORPUS,
    Subject,
    cache,
    corpus_option,
    models_option,
    passages,
    queries,
    subject,
    where_from,
)
from measuring import Contestant, Table, main, needs, progress, take_turns
from peers import (
    EXACT,
    PLAIN,
    Loader,
    Peer,
    has_bfloat16,
    plain,
    spread,
    toastrack,
    worst_cosine,
)
from retrieval import mean_ndcg, read_qrels, read_rows

from toastrack import Embedder
from toastrack.models.openvino_files import parts, run_file

DATASET = CORPUS.parents[1] / "squad-dev"
INT8, BFLOAT16 = "toastrack, openvino, int8", "toastrack, openvino, bfloat16"
FLOAT32 = "toastrack, openvino, float32"
COLUMNS = {
    "": "",
    "tokens/s": ",.0f",
    "times bfloat16": ".2f",
    "times sentence-transformers in float32": ".2f",
    "times sentence-transformers": ".2f",
    "ms a query": ".1f",
    "MB of weights": ",.0f",
    "cosine": ".4f",
    "passages": ",d",
    "turns": "d",
    "slowest/quickest turn": ".2f",
    "remark": "",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    models_option(parser)
    corpus_option(parser)
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--large-passages", type=int, default=12, help="for bert-large")
    parser.add_argument("--slow-passages", type=int, default=4, help="for it in float16")
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")
    parser.add_argument("--calibrate", metavar="SOURCE", help="texts; neutral ones if left out")
    parser.add_argument("--sample", type=int, help="how many of them; toastrack's own if left out")
    parser.add_argument("--large-sample", type=int, default=8, help="for bert-large")
    parser.add_argument("--dataset", type=Path, default=DATASET, help="questions and what answers")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Measure speed for each model, and what MiniLM finds."""
    needs("nncf", "nncf")
    for name in options.models:
        is_large = name == "bert-large"
        model = subject(name)
        sample = options.large_sample if is_large else options.sample
        small = in_int8(model, options.calibrate, sample)
        count = options.large_passages if is_large else options.passages
        texts = passages(count, corpus=options.corpus, seed=options.seed)
        yield speed(model, small, texts, options)
        if name == "minilm" and options.dataset.is_dir():
            yield found(model, small, options.dataset)


def in_int8(model: Subject, calibrate: str | None, sample: int | None) -> Subject:
    """Return the model with its export in int8 in place of the other one, made once."""
    folder = model.exported.with_name(f"{model.exported.name}-int8")
    if folder.parent != cache():
        folder = model.folder.with_name(f"{model.folder.name}-int8")
    if run_file(folder) is None:
        from toastrack.export import export

        progress(f"exporting {model.name} in int8, once")
        started = time.monotonic()
        # Random weights lose more than trained ones; what was lost stands in the table.
        made = export(
            str(model.folder),
            folder,
            precision="int8",
            calibrate=calibrate,
            sample=sample,
            force=True,
            on_note=progress,
        )
        progress(f"that took {time.monotonic() - started:.0f} s: {made.loss}")
    return replace(model, exported=folder)


def speed(
    model: Subject, small: Subject, texts: Sequence[str], options: argparse.Namespace
) -> Table:
    """Time every contestant on the same texts, in turns."""
    sizes = model.tokens_of(texts)
    loaders: dict[str, Loader] = {
        INT8: lambda _, some: toastrack("openvino", "int8", small, some),
        FLOAT32: partial(toastrack, "openvino", "float32"),
    }
    if has_bfloat16():
        loaders[BFLOAT16] = partial(toastrack, "openvino", "bfloat16")
    loaders[PLAIN] = partial(plain, None)
    if model.dtype != "float32":
        loaders[EXACT] = partial(plain, "float32")
    # float16 on a CPU takes minutes for what the others do in seconds.
    fewer = {PLAIN: spread(texts, options.slow_passages)} if model.dtype == "float16" else {}
    asked = queries(20, seed=options.seed)
    peers: dict[str, Peer] = {}

    def ready(name: str) -> Callable[[], object]:
        peer = peers[name] = loaders[name](model, texts)
        peer.documents(texts[:1])
        return partial(peer.documents, fewer.get(name, texts))

    turns = take_turns(
        [Contestant(name, partial(ready, name)) for name in loaders], options.repeats, warm_up=False
    )
    rates = {
        name: sum(sizes[text] for text in fewer.get(name, texts)) / turn.median
        for name, turn in turns.items()
        if turn.seconds
    }
    exact = turns[FLOAT32].result
    table = Table(
        f"{model.name}: {len(texts)} {where_from(options.corpus)}, "
        f"{sum(sizes.values()) / len(texts):.0f} tokens on average",
        COLUMNS,
    )
    for name, turn in turns.items():
        if name not in rates:
            table.add(name, *[None] * (len(COLUMNS) - 2), turn.failed)
            continue
        table.add(
            name,
            rates[name],
            *(_times(rates[name], rates.get(other)) for other in (BFLOAT16, _exact(model), PLAIN)),
            None if name in fewer else 1_000 * _seconds_a_query(peers[name], asked),
            _megabytes(small if name == INT8 else model) if "openvino" in name else None,
            None if name in fewer or exact is None else worst_cosine(turn.result, exact),
            len(fewer.get(name, texts)),
            len(turn.seconds),
            turn.spread,
            peers[name].said,
        )
    table.note("Cosine: the worst with float32 of the same engine. A query: the middle of 20.")
    table.keep(turns)
    return table


def found(model: Subject, small: Subject, dataset: Path) -> Table:
    """Search a set of questions exactly, in each precision and across them."""
    corpus, asked = (read_rows(dataset / f"{name}.jsonl.gz") for name in ("corpus", "queries"))
    qrels = read_qrels(dataset / "qrels.tsv")
    settings: Any = {"engine": "openvino", "device": "cpu", "on_truncate": "ignore"}
    embedders = {"float32": Embedder(model.exported, precision="float32", **settings)}
    if has_bfloat16():
        embedders["bfloat16"] = Embedder(model.exported, precision="bfloat16", **settings)
    embedders["int8"] = Embedder(small.exported, **settings)
    documents, questions = {}, {}
    for name, embedder in embedders.items():
        progress(f"{dataset.name} in {name}")
        documents[name] = embedder.embed_documents(corpus.values())
        questions[name] = embedder.embed_queries(asked.values())
    table = Table(
        f"{model.name}: {len(asked):,} questions to the {len(corpus):,} passages of {dataset.name}",
        {"queries": "", "documents": "", "nDCG@10": ".4f", "less than float32": ".4f"},
    )
    best = None
    pairs = [(name, name) for name in embedders]
    for ours, theirs in [*pairs, ("int8", "float32"), ("float32", "int8")]:
        value = mean_ndcg(
            qrels, _ranking(list(asked), list(corpus), questions[ours], documents[theirs])
        )
        best = value if best is None else best
        table.add(ours, theirs, value, best - value)
    return table


def _ranking(
    asked: Sequence[str], ids: Sequence[str], questions: Any, documents: Any
) -> Callable[[str], list[str]]:
    rows: Mapping[str, int] = {id: row for row, id in enumerate(asked)}

    def first(id: str) -> list[str]:
        scores = documents @ questions[rows[id]]
        return [ids[column] for column in np.argsort(-scores, kind="stable")[:10]]

    return first


def _exact(model: Subject) -> str:
    """Name the contestant that is sentence-transformers in float32."""
    return PLAIN if model.dtype == "float32" else EXACT


def _times(rate: float, other: float | None) -> float | None:
    return None if other is None else rate / other


def _seconds_a_query(peer: Peer, asked: Sequence[str]) -> float:
    took = []
    for text in asked:
        started = time.perf_counter()
        peer.query(text)
        took.append(time.perf_counter() - started)
    return sorted(took)[len(took) // 2]


def _megabytes(model: Subject) -> float | None:
    path = run_file(model.exported)
    return None if path is None else path.with_name(parts(path.name)[1]).stat().st_size / 1e6


if __name__ == "__main__":
    main(__doc__, arguments, tables)
