"""Whatever the order of their host's calls, writers end as if one had come after the other."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import pytest
from awaited import running_loop
from interleaving import RUNTIME, Orders, Writer, finish, run, run_waiting
from writer_calls import BEFORE, CALLS, comparable, upsert, without_none

from toastrack import Embedder
from toastrack.stores.flow import StoreFlow

SEED = 20_26


class Host(Protocol):
    """A collection that holds ``BEFORE`` at each beginning, and what calls leave of it."""

    def one_after_another(self, names: Sequence[str]) -> str: ...

    def at_once(
        self, names: Sequence[str], choose: Callable[[int], int]
    ) -> tuple[list[Any], str]: ...


class Stepped:
    """A host without locks, in this process: a call goes on whenever it is its turn."""

    def __init__(self, make: Callable[[], Any], state: Callable[[Any], Any]) -> None:
        self._make = make
        self._state = state

    def _filled(self) -> Any:
        flow = self._make()
        finish(upsert(*BEFORE)(flow))
        return flow

    def one_after_another(self, names: Sequence[str]) -> str:
        flow = self._filled()
        for name in names:
            finish(CALLS[name](flow))
        return comparable(self._state(flow))

    def at_once(self, names: Sequence[str], choose: Callable[[int], int]) -> tuple[list[Any], str]:
        flow = self._filled()
        gave_up = run([CALLS[name](flow) for name in names], choose)
        return gave_up, comparable(self._state(flow))


@contextmanager
def qdrant(request: pytest.FixtureRequest, embedder: Embedder) -> Iterator[Host]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from stepped_qdrant import OneAtATime

    from toastrack_qdrant.backend import QdrantBackend

    client = qdrant_client.QdrantClient(":memory:")

    def make() -> Any:
        backend = QdrantBackend(client, uuid4().hex, create=True)
        backend.runtime = RUNTIME
        flow = StoreFlow(backend, "store", embedder=embedder, create=True, adopt=False)
        finish(flow.ready())
        backend.points.host = OneAtATime(client)
        return flow

    def state(flow: Any) -> Any:
        points, _ = client.scroll(flow.backend.label, limit=100, with_vectors=True)
        return {
            point.payload["id"]: (without_none(point.payload), rounded(point.vector))
            for point in points
        }

    yield Stepped(make, state)
    client.close()


@contextmanager
def chroma(request: pytest.FixtureRequest, embedder: Embedder) -> Iterator[Host]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from chroma_server import close_client

    from toastrack_chroma.backend import ChromaBackend
    from toastrack_chroma.codec import CHUNK, DOCUMENT_ID, RESERVED, described

    client = chromadb.EphemeralClient()

    def make() -> Any:
        backend = ChromaBackend(client, f"t{uuid4().hex}", function=lambda space: None)
        backend.runtime = RUNTIME
        flow = StoreFlow(backend, "store", embedder=embedder, create=True, adopt=False)
        finish(flow.ready())
        return flow

    def state(flow: Any) -> Any:
        include = ["documents", "metadatas", "embeddings"]
        found = client.get_collection(flow.backend.label).get(include=include)
        # Fields are merged with another writer's until somebody writes again: those of the user's
        # own, where what counts is the JSON beside them, and what an own document has no use for.
        ours = [
            {
                key: value
                for key, value in metadata.items()
                if key.startswith(RESERVED)
                and not (described(metadata).is_own and key in (DOCUMENT_ID, CHUNK))
            }
            for metadata in found["metadatas"]
        ]
        rows = zip(found["ids"], found["documents"], ours, found["embeddings"], strict=True)
        return {id: ({**own, "text": text}, rounded(vector)) for id, text, own, vector in rows}

    yield Stepped(make, state)
    close_client(client)


class Locking:
    """A table, a connection for each writer, and one that looks on."""

    RESET = "delete from documents; insert into documents select * from before"
    STATE = """
        select id, document_id, chunk, text, metadata::text, encode(text_hash, 'hex'),
               embedding::text
        from documents order by id collate "C"
    """
    WAITS = "select pid, pg_blocking_pids(pid) from unnest(%s::int[]) pid"

    def __init__(self, loop: Any, observer: Any, flows: Sequence[Any]) -> None:
        self._loop = loop
        self._observer = observer
        self._flows = flows

    def one_after_another(self, names: Sequence[str]) -> str:
        async def call() -> str:
            await self._observer.execute(self.RESET)
            for flow, name in zip(self._flows, names, strict=False):
                await CALLS[name](flow)
            return await self._state()

        state: str = self._loop.run(call())
        return state

    def at_once(self, names: Sequence[str], choose: Callable[[int], int]) -> tuple[list[Any], str]:
        async def call() -> tuple[list[Any], str]:
            await self._observer.execute(self.RESET)
            calls = {
                flow.runtime: CALLS[name](flow)
                for flow, name in zip(self._flows, names, strict=False)
            }
            gave_up: list[Any] = await run_waiting(calls, choose, self._waits)
            return gave_up, await self._state()

        result: tuple[list[Any], str] = self._loop.run(call())
        return result

    async def _waits(self, processes: Sequence[int]) -> dict[int, Sequence[int]]:
        cursor = await self._observer.execute(self.WAITS, [list(processes)])
        return dict(await cursor.fetchall())

    async def _state(self) -> str:
        cursor = await self._observer.execute(self.STATE)
        rows = await cursor.fetchall()
        return comparable([[*row, rounded(json.loads(vector))] for *row, vector in rows])


@contextmanager
def postgres(request: pytest.FixtureRequest, embedder: Embedder) -> Iterator[Host]:
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    from toastrack_postgres.backend import PostgresBackend

    dsn = request.getfixturevalue("postgres_dsn")
    schema = f"test_{uuid4().hex[:12]}"

    async def connect() -> Any:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        await connection.execute("set synchronous_commit = off")
        await connection.execute(f"set search_path to {schema}, public")
        return connection

    async def open_flow() -> Any:
        connection = await connect()
        backend = PostgresBackend(connection, "documents", schema=schema, create=True)
        backend.runtime = Writer(connection.info.backend_pid)
        flow = StoreFlow(backend, "store", embedder=embedder, create=True, adopt=False)
        await flow.ready()
        return flow

    async def begin() -> tuple[Any, list[Any]]:
        observer = await connect()
        await observer.execute("create extension if not exists vector")
        await observer.execute(f"create schema {schema}")
        flows = [await open_flow() for _ in range(3)]
        await upsert(*BEFORE)(flows[0])
        await observer.execute("create table before as table documents")
        return observer, flows

    async def end(observer: Any, flows: list[Any]) -> None:
        for flow in flows:
            await flow.backend.given().close()
        await observer.execute(f"drop schema {schema} cascade")
        await observer.close()

    with running_loop() as loop:
        observer, flows = loop.run(begin())
        yield Locking(loop, observer, flows)
        loop.run(end(observer, flows))


def rounded(vector: Any) -> list[float]:
    return [round(number, 3) + 0.0 for number in np.asarray(vector).tolist()]


HOSTS = [qdrant, chroma, postgres]
# How many orders of two calls, and of three, are tried: a call of Chroma's takes some ten times as
# long as one of Qdrant's in memory.
SOME = {qdrant: (8, 4), chroma: (2, 2), postgres: (4, 2)}
MANY = {qdrant: (120, 150), chroma: (10, 12), postgres: (40, 50)}
TRIPLES = 16


@pytest.fixture(scope="module", params=HOSTS, ids=[host.__name__ for host in HOSTS])
def host(request: pytest.FixtureRequest, loaded: Embedder) -> Iterator[Host]:
    with request.param(request, loaded) as host:
        host.one_after_another = cache(host.one_after_another)
        yield host


AS_MANY = pytest.mark.parametrize(
    "most",
    [
        pytest.param(SOME, id="some orders"),
        pytest.param(MANY, id="many orders", marks=pytest.mark.rest),
    ],
)


def pairs() -> Iterator[Any]:
    for names in itertools.combinations_with_replacement(CALLS, 2):
        yield pytest.param(names, id=", ".join(names))


def triples() -> Iterator[Any]:
    chosen = random.Random(SEED)
    for number in range(TRIPLES):
        names = tuple(chosen.choices(list(CALLS), k=3))
        yield pytest.param(names, SEED + number, id=f"{', '.join(names)}, seed {SEED + number}")


def try_orders(host: Host, names: tuple[str, ...], orders: Orders) -> None:
    """Run calls at once in many orders, and compare with what they leave one after another."""
    allowed = {host.one_after_another(order) for order in itertools.permutations(names)}
    gave_up = 0
    for number, choose in enumerate(orders):
        random.seed(SEED)  # of the pauses
        raised, found = host.at_once(names, choose)
        if raised:
            gave_up += orders.random > 0  # what raised promises nothing
            continue
        assert found in allowed, f"order {number} of seed {orders.seed}: {found}"
    assert gave_up <= 1 + orders.random // 20  # of all orders, some let neither come to an end


@AS_MANY
@pytest.mark.parametrize("names", list(pairs()))
def test_two_calls_at_once_end_as_one_after_the_other(
    host: Host, names: tuple[str, ...], most: dict[Any, Any], request: pytest.FixtureRequest
) -> None:
    number, _ = most[request.node.callspec.params["host"]]
    try_orders(host, names, Orders(number, SEED))


@AS_MANY
@pytest.mark.parametrize(("names", "seed"), list(triples()))
def test_three_calls_at_once_end_as_one_after_the_other(
    host: Host,
    names: tuple[str, ...],
    seed: int,
    most: dict[Any, Any],
    request: pytest.FixtureRequest,
) -> None:
    _, number = most[request.node.callspec.params["host"]]
    try_orders(host, names, Orders(number, seed, all_of_them=False))
