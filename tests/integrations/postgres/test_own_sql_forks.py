"""Texts in statements of the caller's own, over a fork: what a child connects itself answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from forks import Child

from toastrack import Embedder
from toastrack_postgres import DocumentText, ParameterError, QueryText, register_embedder

TEXTS = ["rye bread keeps", "wheat is mild", "salt the dough", "an oven is hot"]
CHILDREN = 3


@pytest.fixture
def dsn(postgres_dsn: str, schema: str, embedder: Embedder) -> str:
    """A database with a table of vectors."""
    path: str = psycopg.conninfo.make_conninfo(
        postgres_dsn, options=f"-c search_path={schema},public"
    )
    with psycopg.connect(path) as connection:
        connection.execute("create table loaves (id int, embedding vector(32))")
        register_embedder(connection, embedder)
        rows = [(number, DocumentText(text)) for number, text in enumerate(TEXTS)]
        connection.cursor().executemany("insert into loaves values (%s, %s)", rows)
    return path


def nearest(connection: Any, text: str) -> int:
    """Ask with a text, and write one beside it, of which the server is asked where it lands."""
    connection.execute("create temp table if not exists crumbs (embedding vector(32))")
    connection.execute("insert into crumbs values (%s)", [DocumentText(text)])
    statement = "select id from loaves order by embedding <=> %s limit 1"
    ((found,),) = connection.execute(statement, [DocumentText(text)]).fetchall()
    return int(found)


@contextmanager
def going_on(dsn: str, embedder: Embedder) -> Iterator[list[int]]:
    """Another thread asks all the time over a connection of its own; gives what was wrong."""
    done, wrong = Event(), list[int]()
    connection = psycopg.connect(dsn)
    register_embedder(connection, embedder)

    def ask() -> None:
        while not done.is_set():
            wrong.extend(n for n, text in enumerate(TEXTS) if nearest(connection, text) != n)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield wrong
    finally:
        done.set()
        thread.join()
        connection.close()


def test_a_child_that_connects_itself(dsn: str, embedder: Embedder) -> None:
    def answer() -> list[int]:
        with psycopg.connect(dsn) as connection:
            register_embedder(connection, embedder)
            return [nearest(connection, text) for text in TEXTS]

    with going_on(dsn, embedder) as wrong:
        for _ in range(CHILDREN):
            assert Child(answer).answer() == [0, 1, 2, 3]
    assert not wrong


def test_a_connection_of_the_parent_s(dsn: str, embedder: Embedder) -> None:
    """A text on it is refused before a byte is sent: the parent would get the answer."""
    with psycopg.connect(dsn) as connection:
        register_embedder(connection, embedder)
        client_side = psycopg.ClientCursor(connection)
        statement = "select id from loaves order by embedding <=> %s limit 1"
        uses = {
            "read": lambda: connection.execute(statement, [QueryText("rye")]),
            "write": lambda: connection.execute(
                "insert into loaves values (9, %s)", [DocumentText("rye")]
            ),
            "many": lambda: connection.cursor().executemany(statement, [[QueryText("rye")]] * 2),
            "by hand": lambda: client_side.mogrify(statement, [QueryText("rye")]),
        }
        for name, use in uses.items():
            with pytest.raises(ParameterError, match="made in another process"):
                pytest.fail(f"{name}: {Child(use).answer()!r}")
        assert [nearest(connection, text) for text in TEXTS] == [0, 1, 2, 3]


def test_an_engine_of_sqlalchemy_s(dsn: str, embedder: Embedder) -> None:
    """Its connections are left to the parent as its own documentation says."""
    sa = pytest.importorskip("sqlalchemy", reason="the extra 'sqlalchemy' is not installed")
    from pgvector.sqlalchemy import VECTOR

    from toastrack_postgres.sqlalchemy import register_engine

    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    register_engine(engine, embedder)
    loaves = sa.table("loaves", sa.column("id"), sa.column("embedding", VECTOR(32)))

    def answer() -> list[int]:
        with engine.connect() as connection:
            return [
                connection.scalars(
                    sa.select(loaves.c.id)
                    .order_by(loaves.c.embedding.cosine_distance(DocumentText(text)))
                    .limit(1)
                ).one()
                for text in TEXTS
            ]

    def in_child() -> list[int]:
        engine.dispose(close=False)
        return answer()

    def refused() -> str:
        with pytest.raises(sa.exc.ProgrammingError) as caught:
            answer()
        assert isinstance(caught.value.orig, ParameterError)
        return str(caught.value.orig)

    assert answer() == [0, 1, 2, 3]
    with going_on(dsn, embedder) as wrong:
        for _ in range(CHILDREN):
            assert Child(in_child).answer() == [0, 1, 2, 3]
    assert not wrong
    assert answer() == [0, 1, 2, 3]
    assert "made in another process" in Child(refused).answer()
    engine.dispose()
