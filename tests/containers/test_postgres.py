"""What only a Postgres server does: it restarts, hangs, refuses and is too old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from threading import Thread
from uuid import uuid4

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

import services

from toastrack import Embedder, Record, Report, ingest
from toastrack.errors import StoreError
from toastrack_postgres import AsyncPostgresStore, PostgresStore

TEXTS = [f"rye and wheat, number {number}" for number in range(600)]
RECORDS = [Record(f"r{number:03}", text) for number, text in enumerate(TEXTS)]


def conninfo(server: services.Running, *, password: str = "s3cret", options: str = "") -> str:
    return f"postgresql://toastrack:{password}@127.0.0.1:{server.port}/toastrack{options}"


@pytest.fixture
def table() -> str:
    return f"docs_{uuid4().hex[:12]}"


def documents() -> Iterator[tuple[str, Sequence[Record]]]:
    for record in RECORDS:
        yield record.id, [record]


class RestartAfter:
    """Restarts the server once so many documents are written; notes what was acknowledged."""

    def __init__(self, server: services.Running, documents: int) -> None:
        self._server = server
        self._left = documents
        self.acknowledged: list[str] = []
        self.restarted: Thread | None = None

    def __call__(self, report: Report, done: Sequence[str]) -> None:
        self.acknowledged.extend(done)
        self._left -= len(done)
        if self._left <= 0 and self.restarted is None:
            self.restarted = Thread(target=self._server.restart)
            self.restarted.start()


def test_an_ingest_goes_on_over_a_restart(
    postgres: services.Running, embedder: Embedder, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", 16)
    with PostgresStore(conninfo(postgres), table, embedder=embedder) as store:
        restart = RestartAfter(postgres, 100)
        report = store.replace_many(documents(), restart)
        assert restart.restarted is not None
        restart.restarted.join()
        assert report.chunks == store.count() == len(RECORDS)
        assert sorted(restart.acknowledged) == [record.id for record in RECORDS]
        assert store.get(record.id for record in RECORDS) == RECORDS
        assert store.upsert(RECORDS).unchanged == len(RECORDS)


def test_an_asynchronous_ingest_goes_on_over_a_restart(
    postgres: services.Running, embedder: Embedder, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", 16)

    async def main() -> None:
        async with AsyncPostgresStore(conninfo(postgres), table, embedder=embedder) as store:
            restart = RestartAfter(postgres, 100)
            report = await store.replace_many(documents(), restart)
            assert restart.restarted is not None
            await asyncio.to_thread(restart.restarted.join)
            assert report.chunks == await store.count() == len(RECORDS)
            assert (await store.upsert(RECORDS)).unchanged == len(RECORDS)

    asyncio.run(main())


def test_what_was_acknowledged_survives_a_kill(
    postgres: services.Running, embedder: Embedder, table: str
) -> None:
    store = PostgresStore(conninfo(postgres), table, embedder=embedder)
    store.upsert(RECORDS[:100])
    postgres.kill()
    postgres.start()
    assert store.get(record.id for record in RECORDS[:100]) == RECORDS[:100]
    store.close()


def test_a_search_after_a_stop_and_start(
    postgres: services.Running, embedder: Embedder, table: str
) -> None:
    with PostgresStore(conninfo(postgres), table, embedder=embedder) as store:
        store.upsert(RECORDS[:10])
        found = store.search("rye", k=3)
        postgres.stop()
        postgres.start()
        assert store.search("rye", k=3) == found


def test_a_silent_server_is_left_when_the_user_said(
    postgres: services.Running, embedder: Embedder, table: str
) -> None:
    silent = conninfo(postgres, options="?connect_timeout=2&tcp_user_timeout=2000")
    with PostgresStore(silent, table, embedder=embedder):
        pass
    store = PostgresStore(silent, table, embedder=embedder)
    with postgres.paused():
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            store.open()
        # Not a figure of speed: psycopg itself would wait for more than two minutes.
        assert time.monotonic() - started < 60
    assert store.count() == 0
    store.close()


@pytest.mark.parametrize("what", ["wrong password", "no such database", "nobody there"])
def test_what_cannot_be_reached_is_one_clear_error(
    postgres: services.Running, embedder: Embedder, what: str
) -> None:
    wrong = {
        "wrong password": conninfo(postgres, password="gu3ss"),
        "no such database": conninfo(postgres).replace("/toastrack", "/nowhere"),
        "nobody there": "postgresql://toastrack:s3cret@127.0.0.1:1/toastrack",
    }[what]
    with pytest.raises(psycopg.OperationalError) as caught:
        PostgresStore(wrong, "docs", embedder=embedder).open()
    message = str(caught.value)
    assert "gu3ss" not in message
    assert "s3cret" not in message
    expected = {
        "wrong password": "password",
        "no such database": "nowhere",
        "nobody there": "refused",
    }
    assert expected[what] in message


def test_a_server_that_is_too_old_is_refused(
    postgres: services.Running, embedder: Embedder
) -> None:
    # No Debian has an older pgvector: what the server says of itself is set back instead.
    name = f"old_{uuid4().hex[:12]}"
    with psycopg.connect(conninfo(postgres), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    address = (
        conninfo(postgres).replace("/toastrack", f"/{name}").replace(f"//{name}:", "//toastrack:")
    )
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("create extension vector")
        connection.execute("update pg_extension set extversion = '0.7.4' where extname = 'vector'")
    with pytest.raises(StoreError, match=r"0\.7\.4.*0\.8"):
        PostgresStore(address, "docs", embedder=embedder).open()


def test_ingest_of_files_over_tcp(
    postgres: services.Running, embedder: Embedder, table: str, tmp_path: object
) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "a.md").write_text("# Rye\n\nIt keeps fresh.\n")
    with PostgresStore(conninfo(postgres), table, embedder=embedder) as store:
        assert ingest([folder], store).embedded == 1
        assert ingest([folder], store).embedded == 0
        store.build_index()
        assert [match.id for match in store.search("rye", k=5)] == ["a.md"]
