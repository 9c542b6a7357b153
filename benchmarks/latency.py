"""How long a query waits: alone, among 64 others, and behind a long document job.

    python benchmarks/latency.py [--models minilm bert-large] [--repeats 5]

The first table has every engine of toastrack and its peers, in turns, each with the same 64
queries: one after another, all 64 at once in one asyncio program, and in one call. "at once / one
call" says what share of one call's speed is left when the queries come singly: toastrack gathers
those that wait and should keep 0.8 of it. Where a library has no asynchronous call, its users'
way is taken, asyncio.to_thread.

The others are about toastrack alone, with the first model. A query that comes while documents
embed waits for the batch in flight and for its own, so its wait is given in multiples of one
document batch too. Last, how long an event loop stands still while texts embed.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from inputs import Subject, models_option, prose, queries, subject
from measuring import Contestant, Table, main, percentile, progress, seconds, take_turns
from peers import Loader, Peer, has_bfloat16, peers

from toastrack import Embedder
from toastrack.batching.engine_pool import Precision
from toastrack.batching.truncation import TruncationCounter
from toastrack.models.engine_choice import EngineName

CALLERS = 64
TICK = 0.001
TICKED_TEXTS = 256
COLUMNS = {
    "": "",
    "alone, p50 ms": ",.1f",
    "p99 ms": ",.1f",
    "64 at once, p50 ms": ",.0f",
    "p99 ms ": ",.0f",
    "queries/s, one after another": ",.0f",
    "queries/s, at once": ",.0f",
    "queries/s, one call": ",.0f",
    "at once / one call": ".2f",
    "turns": "d",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    models_option(parser)
    parser.add_argument("--texts", type=int, default=500, help="documents that queries wait behind")
    parser.add_argument("--repeats", type=int, default=5, help="turns each; the median counts")
    parser.add_argument("--budget", type=float, default=40, help="seconds after which turns end")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Compare on each model, then look at toastrack alone."""
    subjects = [subject(name) for name in options.models]
    for model in subjects:
        yield compared(model, options)
    pick = random.Random(options.seed)
    documents = [
        prose(pick, min(400, max(6, round(pick.lognormvariate(4, 0.9)))))
        for _ in range(options.texts)
    ]
    yield behind_documents(subjects[0], documents, options)
    yield ticking(subjects[0], documents[:TICKED_TEXTS], options.repeats)


@dataclass
class Asked:
    """One contestant, and how long each single query of its turns waited, in milliseconds."""

    name: str
    load: Loader
    texts: Sequence[str]
    alone: list[float] = field(default_factory=list)
    among: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)

    def contestants(self, model: Subject) -> Iterator[Contestant]:
        """Give its three ways of asking, over one loaded model."""
        loaded: list[Peer] = []

        def peer() -> Peer:
            if not loaded:
                loaded.append(self.load(model, self.texts))
                loaded[0].query(self.texts[0])
            return loaded[0]

        def ask(how: Callable[[Peer], object]) -> Callable[[], Callable[[], object]]:
            return lambda: partial(how, peer())

        for way, how in (("after", self._after), ("at once", self._at_once), ("call", self._call)):
            yield Contestant(f"{self.name}: {way}", ask(how))

    def _after(self, peer: Peer) -> None:
        self.alone += [seconds(partial(peer.query, text)) * 1_000 for text in self.texts]

    def _at_once(self, peer: Peer) -> None:
        async def one(text: str, started: float) -> float:
            await peer.aquery(text)
            return (time.perf_counter() - started) * 1_000

        async def together() -> list[float]:
            started = time.perf_counter()
            return await asyncio.gather(*(one(text, started) for text in self.texts))

        waited = asyncio.run(together())
        self.among += waited
        # Without the event loop's own start and end, which a program has once.
        self.together.append(max(waited) / 1_000)

    def _call(self, peer: Peer) -> object:
        return None if peer.queries is None else peer.queries(self.texts)


def compared(model: Subject, options: argparse.Namespace) -> Table:
    """Ask everyone the same queries in three ways."""
    texts = queries(CALLERS, seed=options.seed)
    everyone = [Asked(name, load, texts) for name, load in peers(model, tuning=False).items()]
    turns = take_turns(
        [way for one in everyone for way in one.contestants(model)],
        options.repeats,
        warm_up=False,
        patience=options.budget,
    )
    table = Table(f"{model.name}: {len(texts)} queries of 3 to 12 words", COLUMNS)
    for one in everyone:
        after, once, call = (turns[f"{one.name}: {way}"] for way in ("after", "at once", "call"))
        failed = after.failed or once.failed or call.failed
        cells: list[float | str | None] = [None] * (len(COLUMNS) - 1)
        if one.alone:
            cells[0:2] = [percentile(one.alone, percent) for percent in (50, 99)]
            cells[4] = len(texts) / after.median
            cells[8] = len(after.seconds)
        if one.among:
            cells[2:4] = [percentile(one.among, percent) for percent in (50, 99)]
            cells[5] = len(texts) / statistics.median(one.together)
        # Where there is no such call, doing nothing takes no time.
        if call.seconds and call.result is not None:
            cells[6] = len(texts) / call.median
            if one.among:
                cells[7] = call.median / statistics.median(one.together)
        table.add(one.name, *cells)
        if failed:
            table.note(f"{one.name}: {failed}.")
    table.note("Of 64 at once, each waits from the moment that all are sent. No prompts are added.")
    table.keep(turns)
    return table


def engines() -> Iterator[tuple[str, EngineName, Precision]]:
    """Give the ways toastrack runs on this processor."""
    if has_bfloat16():
        yield "openvino, bfloat16", "openvino", "bfloat16"
    yield "openvino, float32", "openvino", "float32"
    yield "sentence-transformers, float32", "sentence-transformers", "auto"


def loaded(model: Subject, engine: EngineName, precision: Precision) -> Embedder:
    """Return an embedder that has embedded before."""
    embedder = Embedder(
        model.exported if engine == "openvino" else model.folder,
        engine=engine,
        precision=precision,
        device="cpu",
        on_truncate="ignore",
    ).load()
    embedder.embed_queries(queries(CALLERS))
    return embedder


def behind_documents(
    model: Subject, documents: Sequence[str], options: argparse.Namespace
) -> Table:
    """One query at a time while a document job runs."""
    table = Table(
        f"{model.name}: one query at a time while {len(documents)} documents embed",
        {
            "toastrack on": "",
            "one batch, p50 ms": ".1f",
            "query, p50 ms": ".1f",
            "p99 ms": ".1f",
            "in batches, p50": ".2f",
            "p99": ".2f",
            "queries": "d",
        },
    )
    texts = queries(300, seed=options.seed)
    for name, engine, precision in engines():
        progress(f"behind documents: {name}")
        embedder = loaded(model, engine, precision)
        batch = statistics.median(batch_times(embedder, documents))
        waits = [wait for _ in range(options.repeats) for wait in busy(embedder, texts, documents)]
        if not waits:
            table.add(name, batch, *[None] * 4, 0)
            table.note(f"{name}: the job was over before a query came; try more --texts.")
            continue
        multiples = [wait / batch for wait in waits]
        table.add(
            name,
            batch,
            *(percentile(waits, percent) for percent in (50, 99)),
            *(percentile(multiples, percent) for percent in (50, 99)),
            len(waits),
        )
    return table


def ticking(model: Subject, texts: Sequence[str], repeats: int) -> Table:
    """How long an event loop stands still while texts embed."""
    table = Table(
        f"{model.name}: an asyncio task that wakes every {TICK * 1_000:.0f} ms",
        {"meanwhile": "", "longest gap ms": ".1f", "of our making": ".1f"},
    )
    table.add("nothing else runs", *asyncio.run(longest_gap(asyncio.sleep(1))))
    for name, engine, precision in engines():
        progress(f"ticking: {name}")
        embedder = loaded(model, engine, precision)
        gaps = [asyncio.run(longest_gap(embedder.aembed_documents(texts))) for _ in range(repeats)]
        table.add(f"{len(texts)} texts embed, {name}", *map(max, zip(*gaps, strict=True)))
    table.note(
        f"The worst of {repeats} runs. What is not of our making is the wait for a processor."
    )
    return table


def batch_times(embedder: Embedder, documents: Sequence[str]) -> list[float]:
    """Milliseconds of each engine batch of a document job that nobody disturbs."""
    times = []
    parts = embedder._stream("document", TruncationCounter("ignore")).add(documents)
    last = time.perf_counter()
    for _ in parts:
        now = time.perf_counter()
        times.append((now - last) * 1_000)
        last = now
    # The texts are tokenised before the first.
    return times[1:] or times


def busy(embedder: Embedder, texts: Sequence[str], documents: Sequence[str]) -> list[float]:
    """Milliseconds of single queries, one after another, while a document job runs."""
    waits: list[float] = []
    started = threading.Event()

    def job() -> None:
        parts = embedder._stream("document", TruncationCounter("ignore")).add(documents)
        next(parts)
        started.set()
        for _ in parts:
            pass

    thread = threading.Thread(target=job)
    thread.start()
    started.wait()
    number = 0
    while thread.is_alive():
        wait = seconds(partial(embedder.embed_query, texts[number % len(texts)])) * 1_000
        if thread.is_alive():
            waits.append(wait)
        number += 1
        time.sleep(0.003)  # a user that thinks, or the job would hardly move
    thread.join()
    return waits


async def longest_gap(work: Coroutine[Any, Any, object]) -> tuple[float, float]:
    """Milliseconds between two wake-ups of a task, at worst, while other work is awaited.

    The second leaves out what the loop's thread waited for a processor: on a busy machine that
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
    return worst * 1_000, worst_of_ours * 1_000


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


if __name__ == "__main__":
    main(__doc__, arguments, tables)
