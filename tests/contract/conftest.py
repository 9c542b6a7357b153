"""The table of stores that the contract is tested on, and the fixtures that open them.

A store joins with one entry in ``KINDS``. One whose methods are coroutines joins behind a facade
that runs them and is a ``toastrack.stores.protocol.Store``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol
from uuid import uuid4

import pytest
import services
from awaited import Awaited, Loop, entered, running_loop
from chroma_server import close_client
from kinds import Kind, Open

from toastrack import Embedder
from toastrack.stores import ChooseEmbedder, Store


@contextmanager
def _postgres(
    request: pytest.FixtureRequest,
    *,
    connect: Callable[[str], AbstractContextManager[Any]] = nullcontext,
    storage: Any = "halfvec",
) -> Iterator[Open]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    from toastrack_postgres import PostgresStore

    schema: str = request.getfixturevalue("schema")
    with connect(request.getfixturevalue("postgres_dsn")) as connection:
        yield partial(PostgresStore, connection, schema=schema, storage=storage)


def _connection(conninfo: str) -> AbstractContextManager[Any]:
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    connection: AbstractContextManager[Any] = psycopg.connect(conninfo)
    return connection


def _pool(conninfo: str) -> AbstractContextManager[Any]:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    pool: AbstractContextManager[Any] = psycopg_pool.ConnectionPool(
        conninfo, min_size=1, max_size=2, open=False
    )
    return pool


@contextmanager
def _async_postgres(
    request: pytest.FixtureRequest,
    *,
    connect: Callable[[Loop, str], AbstractContextManager[Any]] | None = None,
) -> Iterator[Open]:
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    from toastrack_postgres import AsyncPostgresStore

    schema: str = request.getfixturevalue("schema")
    dsn: str = request.getfixturevalue("postgres_dsn")
    with (
        running_loop() as loop,
        connect(loop, dsn) if connect else nullcontext(dsn) as connection,
    ):

        def build(collection: str, **options: Any) -> Any:
            return Awaited(
                AsyncPostgresStore(connection, collection, schema=schema, **options), loop
            )

        yield build


def _async_connection(loop: Loop, conninfo: str) -> AbstractContextManager[Any]:
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    return entered(loop, loop.run(psycopg.AsyncConnection.connect(conninfo)))


def _async_pool(loop: Loop, conninfo: str) -> AbstractContextManager[Any]:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    return entered(
        loop, psycopg_pool.AsyncConnectionPool(conninfo, min_size=1, max_size=2, open=False)
    )


@contextmanager
def _chroma(
    request: pytest.FixtureRequest, connect: Callable[[pytest.FixtureRequest], Any]
) -> Iterator[Open]:
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from toastrack_chroma import ChromaStore

    client = connect(request)
    yield partial(ChromaStore, client)
    close_client(client)


def _ephemeral(request: pytest.FixtureRequest) -> Any:
    import chromadb
    from chromadb.config import Settings

    # Ephemeral clients of one process share their memory; a database keeps the tests apart.
    name = f"test_{uuid4().hex[:12]}"
    chromadb.AdminClient(Settings(is_persistent=False)).create_database(name)
    return chromadb.EphemeralClient(database=name)


def _persistent(request: pytest.FixtureRequest) -> Any:
    import chromadb

    return chromadb.PersistentClient(request.getfixturevalue("tmp_path") / "chroma")


def _chroma_server(request: pytest.FixtureRequest) -> Any:
    import chromadb

    host, port, database = request.getfixturevalue("chroma_database")
    return chromadb.HttpClient(host=host, port=port, database=database)


@contextmanager
def _async_chroma(request: pytest.FixtureRequest) -> Iterator[Open]:
    chromadb = pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from toastrack_chroma import AsyncChromaStore

    host, port, database = request.getfixturevalue("chroma_database")
    with running_loop() as loop:
        client = loop.run(chromadb.AsyncHttpClient(host=host, port=port, database=database))

        def build(collection: str, **options: Any) -> Any:
            return Awaited(AsyncChromaStore(client, collection, **options), loop)

        yield build
        loop.run(client._server._cleanup())  # the client itself has no way to be closed


@contextmanager
def _qdrant(request: pytest.FixtureRequest, *, on_disk: bool = False) -> Iterator[Open]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import QdrantStore

    folder = str(request.getfixturevalue("tmp_path") / "qdrant")
    client = qdrant_client.QdrantClient(
        **({"path": folder} if on_disk else {"location": ":memory:"})
    )
    yield partial(QdrantStore, client)
    client.close()


@contextmanager
def _qdrant_engine(request: pytest.FixtureRequest) -> Iterator[Open]:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    from edge_client import EdgeClient

    from toastrack_qdrant import QdrantStore

    client = EdgeClient(request.getfixturevalue("tmp_path"))
    yield partial(QdrantStore, client)
    client.close()


@contextmanager
def _async_qdrant(request: pytest.FixtureRequest) -> Iterator[Open]:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import AsyncQdrantStore

    client = qdrant_client.AsyncQdrantClient(":memory:")
    with running_loop() as loop:
        yield lambda collection, **options: Awaited(
            AsyncQdrantStore(client, collection, **options), loop
        )
        loop.run(client.close())


@contextmanager
def _qdrant_server(request: pytest.FixtureRequest) -> Iterator[Open]:
    url: str = request.getfixturevalue("qdrant_url")
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    client = QdrantClient(url, timeout=60)
    # Collections of one server are shared by all tests.
    prefix = f"test_{uuid4().hex[:12]}_"
    yield lambda collection, **options: QdrantStore(client, prefix + collection, **options)
    for collection in client.get_collections().collections:
        if collection.name.startswith(prefix):
            client.delete_collection(collection.name)
    client.close()


@contextmanager
def _async_qdrant_server(request: pytest.FixtureRequest) -> Iterator[Open]:
    url: str = request.getfixturevalue("qdrant_url")
    from qdrant_client import AsyncQdrantClient

    from toastrack_qdrant import AsyncQdrantStore

    prefix = f"test_{uuid4().hex[:12]}_"
    with running_loop() as loop:

        async def connect() -> AsyncQdrantClient:
            return AsyncQdrantClient(url, timeout=60)

        client = loop.run(connect())
        yield lambda collection, **options: Awaited(
            AsyncQdrantStore(client, prefix + collection, **options), loop
        )
        loop.run(client.close())


_PAGE = "toastrack_postgres.reading.PAGE"
_CHROMA_PAGE = "toastrack_chroma.rows.Rows.page"
_QDRANT_PAGE = "toastrack_qdrant.points.Points.page"


def _has_words(host: str) -> bool:
    if host == "qdrant" and find_spec("qdrant_client"):
        # Before 1.20 its client cannot ask for what ranks by words.
        return hasattr(import_module("qdrant_client.models"), "TextQuery")
    return host != "chroma"


# A host's code is the same for all its kinds, so one of its two classes each is whole.
KINDS = [
    Kind("postgres-conninfo", _postgres, 2e-3, _PAGE, server=True, whole=True, own=True),
    Kind("postgres-connection", partial(_postgres, connect=_connection), 2e-3, _PAGE, server=True),
    Kind("postgres-pool", partial(_postgres, connect=_pool), 2e-3, _PAGE, server=True),
    Kind("postgres-async-conninfo", _async_postgres, 2e-3, _PAGE, server=True, own=True),
    Kind(
        "postgres-async-connection",
        partial(_async_postgres, connect=_async_connection),
        2e-3,
        _PAGE,
        server=True,
        whole=True,
    ),
    Kind(
        "postgres-async-pool",
        partial(_async_postgres, connect=_async_pool),
        2e-3,
        _PAGE,
        server=True,
    ),
    Kind(
        "postgres-vector",
        partial(_postgres, storage="vector"),
        1e-5,
        _PAGE,
        server=True,
        own=True,
    ),
    Kind("chroma-ephemeral", partial(_chroma, connect=_ephemeral), 1e-5, _CHROMA_PAGE, whole=True),
    Kind("chroma-persistent", partial(_chroma, connect=_persistent), 1e-5, _CHROMA_PAGE),
    Kind(
        "chroma-server",
        partial(_chroma, connect=_chroma_server),
        1e-5,
        _CHROMA_PAGE,
        server=True,
    ),
    Kind("chroma-async-server", _async_chroma, 1e-5, _CHROMA_PAGE, server=True, whole=True),
    Kind("qdrant-memory", _qdrant, 1e-5, _QDRANT_PAGE, whole=True),
    Kind("qdrant-path", partial(_qdrant, on_disk=True), 1e-5, _QDRANT_PAGE),
    Kind("qdrant-engine", _qdrant_engine, 1e-5, _QDRANT_PAGE),
    Kind("qdrant-async-memory", _async_qdrant, 1e-5, _QDRANT_PAGE, whole=True),
    Kind("qdrant-server", _qdrant_server, 1e-5, _QDRANT_PAGE, server=True),
    Kind("qdrant-async-server", _async_qdrant_server, 1e-5, _QDRANT_PAGE, server=True),
]
KINDS = [replace(kind, words=_has_words(kind.name.partition("-")[0])) for kind in KINDS]
if services.wanted():
    KINDS = [kind for kind in KINDS if kind.server]
elif "TOASTRACK_QDRANT_URL" not in os.environ:
    # There is no Qdrant server to be had without a container.
    KINDS = [kind for kind in KINDS if kind.name not in ("qdrant-server", "qdrant-async-server")]


def _kinds_of(module: str) -> list[Kind]:
    try:
        kinds: list[Kind] = import_module(module).KINDS
    except (ModuleNotFoundError, AttributeError) as error:
        raise pytest.UsageError(
            f"--kinds {module}: {error}. It is a module on the path (PYTHONPATH=.) with a list KINDS."
        ) from error
    return kinds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over every kind of store, or over those of another module."""
    if "kind" in metafunc.fixturenames:
        module = metafunc.config.getoption("kinds")
        kinds = _kinds_of(module) if module else KINDS
        if metafunc.definition.get_closest_marker("by_words"):
            kinds = [kind for kind in kinds if kind.words]
        metafunc.parametrize("kind", kinds, ids=[kind.name for kind in kinds])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to ``make test-rest`` what is likely to be the same on all kinds of a host."""
    if config.getoption("kinds"):
        elsewhere = [item for item in items if not _is_for_any_host(item)]
        items[:] = [item for item in items if _is_for_any_host(item)]
        config.hook.pytest_deselected(items=elsewhere)
    if services.wanted():
        return  # each kind meets another server there
    for item in items:
        call = getattr(item, "callspec", None)
        kind = call.params.get("kind") if call else None
        if isinstance(kind, Kind) and not kind.whole and not item.get_closest_marker("connection"):
            item.add_marker("rest")


def _is_for_any_host(item: pytest.Item) -> bool:
    """Tell whether a test is about the store of ``--kinds``, and not about hosts that we know."""
    call = getattr(item, "callspec", None)
    # Without any kind that a test is for, pytest puts something else in its place.
    return bool(call and isinstance(call.params.get("kind"), Kind)) and not item.get_closest_marker(
        "own_hosts"
    )


class MakeStore(Protocol):
    """Builds stores that are closed when the test is over."""

    def __call__(
        self,
        other: Embedder | ChooseEmbedder | None = None,
        /,
        *,
        collection: str = "documents",
        create: bool = True,
        adopt: Any = False,
        verify: bool = False,
    ) -> Store: ...


@pytest.fixture
def make_store(
    kind: Kind, request: pytest.FixtureRequest, embedder: Embedder
) -> Iterator[MakeStore]:
    """Builds stores over collections of one host; without an embedder they take the fixture's."""
    with ExitStack() as stack:
        open_store = stack.enter_context(kind.start(request))

        def make(
            other: Embedder | ChooseEmbedder | None = None,
            /,
            *,
            collection: str = "documents",
            create: bool = True,
            adopt: Any = False,
            verify: bool = False,
        ) -> Store:
            chosen = embedder if other is None else other
            options: dict[str, Any] = {"verify": True} if verify else {}
            store = open_store(collection, embedder=chosen, create=create, adopt=adopt, **options)
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """An empty store."""
    return make_store()


class Runs(list[int]):
    """How many texts each run of the model had."""


@pytest.fixture
def runs(loaded: Embedder, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Notes every run of the model, which runs as ever."""
    seen = Runs()
    engine = type(loaded._engine())
    run = engine.run

    def noted(self: Any, batch: Sequence[Any], *, prompt: str) -> Any:
        seen.append(len(batch))
        return run(self, batch, prompt=prompt)

    monkeypatch.setattr(engine, "run", noted)
    return seen
