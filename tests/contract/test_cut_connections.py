"""A host that goes, or was never there: the call is made again, or says so by one name."""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import numpy as np
import pytest
import services
from awaited import Awaited, entered, running_loop
from chroma_server import close_client
from proxies import Direction, Proxy, postgres, tcp
from qdrant_server import Server

from toastrack import Embedder, Record, ingest
from toastrack.errors import ConnectionLostError
from toastrack.stores import open_store
from toastrack.stores.addresses import collections_at

SEED = 20_26
# How many cuts for each direction; those of one host's tests are 200 and more, all different.
FEW, MANY = 3, 25
AXES = np.eye(32, dtype=np.float32)
RECORDS = [Record(f"{n}", f"text {n}", {"n": n}, vector=AXES[n]) for n in range(6)]
CHAPTERS = [Record(f"doc#{n}", f"chapter {n}", vector=AXES[10 + n]) for n in range(3)]

Connect = Callable[[], socket.socket]
Open = Callable[[str], AbstractContextManager[Any]]
"""Opens a store over a connection of its own; the argument is a collection."""


@dataclass(frozen=True)
class Host:
    """A server, and a way to have a store of it through a port on loopback."""

    connect: Callable[[pytest.FixtureRequest], Connect]
    open: Callable[[pytest.FixtureRequest, int], Open]
    again: bool = True
    """A store that has lost its connection makes another."""
    few: bool = True
    """``make test`` cuts it at some bytes."""
    words: bool = False
    """It has an index of words."""


def _postgres_server(request: pytest.FixtureRequest) -> Connect:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    return postgres(request.getfixturevalue("postgres_dsn"))


def _postgres(
    request: pytest.FixtureRequest, port: int, *, own: bool = True, asynchronous: bool = False
) -> Open:
    import psycopg
    from psycopg.conninfo import make_conninfo

    from toastrack_postgres import AsyncPostgresStore, PostgresStore

    dsn = make_conninfo(request.getfixturevalue("postgres_dsn"), host="127.0.0.1", port=port)
    options = {
        "schema": request.getfixturevalue("schema"),
        "embedder": request.getfixturevalue("embedder"),
    }

    @contextmanager
    def opened(table: str) -> Iterator[Any]:
        with ExitStack() as stack:
            if asynchronous:
                loop = stack.enter_context(running_loop())
                given: Any = dsn
                if not own:
                    connection = loop.run(psycopg.AsyncConnection.connect(dsn))
                    given = stack.enter_context(entered(loop, connection))
                store: Any = Awaited(AsyncPostgresStore(given, table, **options), loop)
            else:
                given = dsn if own else stack.enter_context(psycopg.connect(dsn))
                store = PostgresStore(given, table, **options)
            stack.callback(store.__exit__)
            yield store

    return opened


def _pool(request: pytest.FixtureRequest, port: int, *, asynchronous: bool = False) -> Open:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    from psycopg.conninfo import make_conninfo

    from toastrack_postgres import AsyncPostgresStore, PostgresStore

    # Else it pauses for longer after each try that failed.
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    patch.setattr("psycopg_pool.base.AttemptWithBackoff.INITIAL_DELAY", 0.01)
    patch.setattr("psycopg_pool.base.AttemptWithBackoff.DELAY_BACKOFF", 1.0)
    dsn = make_conninfo(request.getfixturevalue("postgres_dsn"), host="127.0.0.1", port=port)
    options = {
        "schema": request.getfixturevalue("schema"),
        "embedder": request.getfixturevalue("embedder"),
    }
    how: dict[str, Any] = {"min_size": 1, "max_size": 2, "timeout": 10, "open": False}

    @contextmanager
    def opened(table: str) -> Iterator[Any]:
        if not asynchronous:
            with psycopg_pool.ConnectionPool(dsn, **how) as pool:
                yield PostgresStore(pool, table, **options)
            return
        with (
            running_loop() as loop,
            entered(loop, psycopg_pool.AsyncConnectionPool(dsn, **how)) as pool,
        ):
            yield Awaited(AsyncPostgresStore(pool, table, **options), loop)

    return opened


def _chroma_server(request: pytest.FixtureRequest) -> Connect:
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    return tcp(*request.getfixturevalue("chroma_database")[:2])


def _chroma(request: pytest.FixtureRequest, port: int, *, asynchronous: bool = False) -> Open:
    import chromadb

    from toastrack_chroma import AsyncChromaStore, ChromaStore

    database = request.getfixturevalue("chroma_database")[2]
    embedder = request.getfixturevalue("embedder")

    @contextmanager
    def opened(collection: str) -> Iterator[Any]:
        address: dict[str, Any] = {"host": "127.0.0.1", "port": port, "database": database}
        if not asynchronous:
            client: Any = chromadb.HttpClient(**address)
            yield ChromaStore(client, collection, embedder=embedder)
            close_client(client)
            return
        with running_loop() as loop:
            client = loop.run(chromadb.AsyncHttpClient(**address))
            yield Awaited(AsyncChromaStore(client, collection, embedder=embedder), loop)
            loop.run(client._server._cleanup())

    return opened


def _qdrant_server(request: pytest.FixtureRequest) -> Connect:
    if not services.wanted() and "TOASTRACK_QDRANT_URL" not in os.environ:
        pytest.skip("there is no Qdrant server to be had without a container")
    parts = urlsplit(request.getfixturevalue("qdrant_url"))
    return tcp(str(parts.hostname), parts.port or 6333)


def _qdrant(
    request: pytest.FixtureRequest, port: int, *, asynchronous: bool = False, dropping: bool = True
) -> Open:
    from qdrant_client import AsyncQdrantClient, QdrantClient

    from toastrack_qdrant import AsyncQdrantStore, QdrantStore

    embedder = request.getfixturevalue("embedder")
    url = f"http://127.0.0.1:{port}"

    @contextmanager
    def opened(collection: str) -> Iterator[Any]:
        if not asynchronous:
            with closing(QdrantClient(url, timeout=60, check_compatibility=False)) as client:
                yield QdrantStore(client, collection, embedder=embedder)
                if dropping:
                    client.delete_collection(collection)
            return
        with running_loop() as loop:
            other = AsyncQdrantClient(url, timeout=60, check_compatibility=False)
            yield Awaited(AsyncQdrantStore(other, collection, embedder=embedder), loop)
            if dropping:
                loop.run(other.delete_collection(collection))
            loop.run(other.close())

    return opened


HOSTS = {
    "postgres": Host(_postgres_server, _postgres, words=True),
    "postgres-async": Host(_postgres_server, partial(_postgres, asynchronous=True), words=True),
    "postgres-connection": Host(
        _postgres_server, partial(_postgres, own=False), again=False, few=False, words=True
    ),
    "postgres-async-connection": Host(
        _postgres_server,
        partial(_postgres, own=False, asynchronous=True),
        again=False,
        few=False,
        words=True,
    ),
    "postgres-pool": Host(_postgres_server, _pool, words=True),
    "postgres-async-pool": Host(
        _postgres_server, partial(_pool, asynchronous=True), few=False, words=True
    ),
    "chroma": Host(_chroma_server, _chroma),
    "chroma-async": Host(_chroma_server, partial(_chroma, asynchronous=True), few=False),
    "qdrant": Host(_qdrant_server, _qdrant),
    "qdrant-async": Host(_qdrant_server, partial(_qdrant, asynchronous=True)),
}


def _cuts(names: Iterable[str]) -> Iterator[Any]:
    """Some cuts of each, and many, from which some servers do not come back."""
    for name in names:
        if HOSTS[name].few:
            yield pytest.param(name, FEW, False, id=f"{name}-{FEW}")
        for stays in (False, True):
            how = "stays away" if stays else "once"
            yield pytest.param(name, MANY, stays, id=f"{name}-{MANY}-{how}", marks=pytest.mark.rest)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tries of a host that stays away come at once."""
    for module in ("toastrack.stores.backend", "toastrack_postgres.reconnecting"):
        for name in ("LONG_BACKOFF", "SHORT_BACKOFF"):
            with suppress(ModuleNotFoundError):
                monkeypatch.setattr(f"{module}.{name}", (0.0, 0.0, 0.0))


CALLS: list[tuple[Callable[[Any], Any], Any]] = [
    (lambda store: store.open() and None, None),
    (lambda store: store.upsert(RECORDS).chunks, 6),
    (lambda store: store.search(AXES[2], 1)[0].id, "2"),
    (lambda store: store.replace("doc", CHAPTERS).chunks, 3),
    (lambda store: store.replace("doc", CHAPTERS[:2]).chunks, 2),
    (lambda store: store.search("text", 1, filter={"n": 3})[0].id, "3"),
    (lambda store: store.delete(["5"]) in (0, 1), True),  # 0 if it is done again
    (lambda store: [record and record.text for record in store.get(["0", "5"])], ["text 0", None]),
    (lambda store: store.count(), 7),
    (lambda store: sorted(store.document_ids()), ["0", "1", "2", "3", "4", "doc"]),
]
BY_WORDS: list[tuple[Callable[[Any], Any], Any]] = [
    (lambda store: store.build_text_index() in (True, False), True),  # False if it is done again
    (lambda store: store.build_text_index(), False),
    (lambda store: store.search("chapter 1", 1, mode="text")[0].id, "doc#1"),
    (lambda store: store.search("chapter 1", 1, mode="hybrid", weights=(0, 1))[0].id, "doc#1"),
]


def use(opened: Open, host: Host, proxy: Proxy, begin: Callable[[], None]) -> int:
    """Make every call, once more if it says that the connection is lost; return how often."""
    lost = 0
    collection = f"test_{uuid4().hex[:12]}"
    with ExitStack() as stack:
        store = stack.enter_context(opened(collection))
        begin()
        for call, expected in [*CALLS, *(BY_WORDS if host.words else [])]:
            try:
                found = call(store)
            except ConnectionLostError:
                lost += 1
                proxy.let_pass()
                if not host.again:
                    store = stack.enter_context(opened(collection))
                found = call(store)
            assert found == expected
        proxy.let_pass()
    return lost


@pytest.mark.parametrize(("name", "cuts", "stays"), list(_cuts(HOSTS)))
def test_a_cut_ends_in_a_further_try_or_in_one_error(
    request: pytest.FixtureRequest, name: str, cuts: int, stays: bool
) -> None:
    host = HOSTS[name]
    with Proxy(host.connect(request)) as proxy:
        opened = host.open(request, proxy.port)
        totals: dict[Direction, int] = {}

        def measure() -> None:
            totals["sent"] = -proxy.total("sent")
            totals["received"] = -proxy.total("received")

        assert use(opened, host, proxy, measure) == 0
        chosen = random.Random(f"{SEED} {name} {stays}")
        for way in totals:
            total = totals[way] + proxy.total(way)
            for count in chosen.sample(range(total), cuts):
                arm = partial(proxy.cut, way, count, 1_000 if stays else 1)
                try:
                    lost = use(opened, host, proxy, arm)
                except BaseException as error:
                    error.args = (f"cut after {count} bytes {way} (seed {SEED}, {name}): {error}",)
                    raise
                assert lost <= (host.again is False or stays)


_PACKAGES = {"postgres": "psycopg", "chroma": "chromadb", "qdrant": "qdrant_client"}
ADDRESSES: dict[str, Callable[[pytest.FixtureRequest, int], str]] = {
    "postgres": lambda request, port: (
        _postgres_address(request.getfixturevalue("postgres_dsn"), port)
        + f"&schema={request.getfixturevalue('schema')}"
    ),
    "chroma": lambda request, port: f"chroma+http://127.0.0.1:{port}/test_{uuid4().hex[:12]}",
    "qdrant": lambda request, port: f"qdrant+http://127.0.0.1:{port}/test_{uuid4().hex[:12]}",
}


def _postgres_address(dsn: str, port: int) -> str:
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(dsn)
    options = {name: str(given[name]) for name in ("user", "password") if given.get(name)}
    return f"postgresql://127.0.0.1:{port}/{given.get('dbname', '')}?{urlencode(options)}"


@pytest.mark.parametrize(("name", "cuts", "stays"), list(_cuts(ADDRESSES)))
def test_an_address_whose_first_connection_is_cut(
    request: pytest.FixtureRequest, embedder: Embedder, name: str, cuts: int, stays: bool
) -> None:
    with Proxy(HOSTS[name].connect(request)) as proxy:
        address = ADDRESSES[name](request, proxy.port)

        def ask() -> int:
            with open_store(address, embedder) as store:
                return store.count()

        assert ask() == 0  # it is created
        totals: dict[Direction, int] = {"sent": -proxy.total("sent")}
        totals["received"] = -proxy.total("received")
        assert ask() == 0
        chosen = random.Random(f"{SEED} {name} {stays}")
        for way in totals:
            total = totals[way] + proxy.total(way)
            for count in chosen.sample(range(total), min(cuts, total)):
                proxy.cut(way, count, 1_000 if stays else 1)
                try:
                    assert ask() == 0
                except ConnectionLostError:
                    pass
                except BaseException as error:
                    error.args = (f"cut after {count} bytes {way} (seed {SEED}, {name}): {error}",)
                    raise
                finally:
                    proxy.let_pass()
        assert ask() == 0


# -- a host that is not there -------------------------------------------------------------------


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port of loopback on which nobody listens, and which nobody else takes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def _fake_qdrant() -> Iterator[Connect]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield tcp("127.0.0.1", server.port)
        server.shutdown()
        thread.join()


WINDOW = [Record("new", "text", vector=AXES[1])]
EVERY_CALL: dict[str, Callable[[Any, Path], Any]] = {
    "open": lambda store, _: store.open(),
    "upsert": lambda store, _: store.upsert(WINDOW),
    "replace": lambda store, _: store.replace("doc", WINDOW),
    "replace_many": lambda store, _: store.replace_many([("doc", WINDOW)]),
    "delete": lambda store, _: store.delete(["1"]),
    "delete documents": lambda store, _: store.delete(documents=["1"]),
    "delete filter": lambda store, _: store.delete(filter={"n": 1}),
    "get": lambda store, _: store.get(["1"]),
    "get vectors": lambda store, _: store.get(["1"], vectors=True),
    "records": lambda store, _: list(store.records()),
    "records filter": lambda store, _: list(store.records({"n": 1}, vectors=True)),
    "document_ids": lambda store, _: list(store.document_ids()),
    "count": lambda store, _: store.count(),
    "count documents": lambda store, _: store.count(documents=True),
    "count filter": lambda store, _: store.count(filter={"n": 1}),
    "search": lambda store, _: store.search("text", min_score=0.1),
    "search vector": lambda store, _: store.search(AXES[1], filter={"n": 1}, exact=True),
    "search words": lambda store, _: store.search("text", mode="text", group_by_document=True),
    "search both": lambda store, _: store.search("text", mode="hybrid", filter={"n": 1}),
    "build_index": lambda store, _: store.build_index(filter_fields=["n"]),
    "build_text_index": lambda store, _: store.build_text_index(),
    "recall": lambda store, _: store.recall() if hasattr(store, "recall") else store.count(),
    "ingest": lambda store, _: ingest(WINDOW, store, source="here", prune=True),
    "ingest files": lambda store, folder: ingest(folder, store, prune=True),
    "describe": lambda store, _: store._describe(),
}
# What asks Chroma nothing: it looks after its own index, and has none of words.
STILL = dict.fromkeys(
    ("build_index", "build_text_index", "search words", "search both"), ("chroma", "chroma-async")
)
OPENERS: dict[str, Callable[[pytest.FixtureRequest, int], Open]] = {
    **{name: host.open for name, host in HOSTS.items() if not name.startswith("qdrant")},
    "qdrant": partial(_qdrant, dropping=False),
    "qdrant-async": partial(_qdrant, asynchronous=True, dropping=False),
}


def _few(names: Iterable[str]) -> Iterator[Any]:
    """Leave to ``make test-rest`` what is likely to be the same."""
    for name in names:
        is_rest = "async" in name or "connection" in name
        yield pytest.param(name, marks=[pytest.mark.rest] if is_rest else [])


# A client of Chroma's, and a connection, want their server when they are made.
NEVER = [name for name in OPENERS if not name.startswith("chroma") and "connection" not in name]


def _need(name: str) -> None:
    extra = name.partition("-")[0]
    pytest.importorskip(_PACKAGES[extra], reason=f"the extra {extra!r} is not installed")


def _check_lost(name: str, call: str, use: Callable[[], object]) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        pytest.fail(f"{name}, {call}: it returned {use()!r}")
    said = str(caught.value)
    assert "\n" not in said
    assert re.search(r"(again|is back|new connection|Start one)", said), f"{name}, {call}: {said}"
    if name.startswith("postgres"):
        import psycopg

        assert isinstance(caught.value, psycopg.OperationalError)


@pytest.mark.parametrize("name", list(_few(NEVER)))
def test_every_call_to_a_host_that_was_never_there(
    request: pytest.FixtureRequest, tmp_path: Path, nobody: int, name: str
) -> None:
    _need(name)
    (tmp_path / "note.md").write_text("rye")
    with OPENERS[name](request, nobody)("docs") as store:
        if "pool" in name:
            store._backend.given().timeout = 0.05
        for call, use in EVERY_CALL.items():
            _check_lost(name, call, lambda use=use: use(store, tmp_path))  # type: ignore[misc]


@pytest.mark.parametrize("name", list(_few(OPENERS)))
def test_every_call_to_a_host_that_went(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    (tmp_path / "note.md").write_text("rye")
    with ExitStack() as stack:
        _need(name)
        fake = name.startswith("qdrant")
        connect = stack.enter_context(_fake_qdrant()) if fake else HOSTS[name].connect(request)
        proxy = Proxy(connect)
        with proxy:
            store = stack.enter_context(OPENERS[name](request, proxy.port)("docs"))
            store.upsert(RECORDS)
        given: Any = store._backend.given()
        if "pool" in name:
            given.timeout = 0.05
        for call, use in EVERY_CALL.items():
            if call != "open" and name not in STILL.get(call, ()):
                _check_lost(name, call, lambda use=use: use(store, tmp_path))  # type: ignore[misc]


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_where_nobody_is(
    request: pytest.FixtureRequest, embedder: Embedder, nobody: int, name: str
) -> None:
    _need(name)
    address = ADDRESSES[name](request, nobody)

    def opened() -> None:
        with open_store(address, embedder):
            pass

    def listed() -> None:
        with collections_at(address):
            pass

    for call, use in {"open_store": opened, "collections_at": listed}.items():
        _check_lost(name, call, use)
