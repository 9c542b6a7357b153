"""Whole ingests into Postgres: at once, killed, and many rows long."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest
from at_once import at_once
from programs import SECONDS, Warm

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg.conninfo import make_conninfo

from toastrack import Embedder, Record, ingest
from toastrack_postgres import AsyncPostgresStore, PostgresStore

DIMENSIONS = 32
DOCUMENTS = 550
Make = Callable[..., PostgresStore]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents for two windows; every tenth is split."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(DOCUMENTS):
        text = f"rye bread {number}. " * (30 if number % 10 == 0 else 1)
        (folder / f"{number:04}.txt").write_text(text)
    return folder


def ready(number: int) -> Iterator[Record]:
    """Records with vectors of their own, one after the other."""
    pick = np.random.default_rng(0)
    for n in range(number):
        yield Record(f"{n:06}", f"text {n}", {"n": n}, vector=pick.normal(size=DIMENSIONS))


def stored(connection: Any, schema: str, table: str) -> dict[str, tuple[Any, ...]]:
    rows = connection.execute(
        f"select id, document_id, chunk, text, metadata, text_hash, embedding::text "
        f"from {schema}.{table}"
    ).fetchall()
    return {row[0]: (*row[1:6], np.array(row[6][1:-1].split(","), float)) for row in rows}


def check_equal(found: dict[str, tuple[Any, ...]], expected: dict[str, tuple[Any, ...]]) -> None:
    assert found.keys() == expected.keys()
    for id, row in expected.items():
        assert found[id][:-1] == row[:-1]
        # Batches of other sizes round differently.
        assert np.abs(found[id][-1] - row[-1]).max() < 1e-3


# -- two at once --------------------------------------------------------------------------------


def test_two_threads_that_ingest_the_same(
    make: Make, connection: Any, schema: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack_postgres.transactions.RETRIES", 0)  # a deadlock is an error here
    whole = ingest(folder, make("alone"))
    reports = at_once(*(partial(ingest, folder, make().open()) for _ in range(2)))
    assert [report.chunks for report in reports] == [whole.chunks] * 2
    check_equal(stored(connection, schema, "docs"), stored(connection, schema, "alone"))
    again = ingest(folder, make(), prune=True)
    assert (again.embedded, again.deleted) == (0, 0)


def test_two_processes_that_ingest_the_same(
    make: Make,
    connection: Any,
    schema: str,
    folder: Path,
    tiny_folder: Path,
    postgres_dsn: str,
) -> None:
    if not postgres_dsn.startswith(("postgres://", "postgresql://")):
        pytest.skip("TOASTRACK_POSTGRES_DSN is no URL, which the command line wants")
    ingest(folder, make("alone"))
    make().open()
    url = f"{postgres_dsn}{'&' if '?' in postgres_dsn else '?'}table=docs&schema={schema}"
    code = "from toastrack.cli import main; main()"
    words = ["ingest", str(folder), "--to", url, "--model", str(tiny_folder), "--no-index"]
    before = deadlocks(connection)
    with psycopg.connect(postgres_dsn) as locking, ExitStack() as stack:
        # Both come to write, and begin at the same moment.
        locking.execute(f"lock table {schema}.docs in share mode")
        programs = [stack.enter_context(Warm(code, *words)) for _ in range(2)]
        wait_until(connection, "(select count(*) from pg_locks where not granted) = 2")
        locking.rollback()
        ends = [program.finish() for program in programs]
    assert [(status, errors) for status, _, errors in ends] == [(0, "")] * 2
    assert deadlocks(connection) == before
    check_equal(stored(connection, schema, "docs"), stored(connection, schema, "alone"))


def deadlocks(connection: Any) -> int:
    (number,) = connection.execute(
        "select deadlocks from pg_stat_database where datname = current_database()"
    ).fetchone()
    return int(number)


def wait_until(connection: Any, condition: str) -> None:
    connection.execute(f"set statement_timeout = '{SECONDS}s'")
    # What is waited for needs the processor more than who waits for it.
    connection.execute(
        f"do $$ begin while not ({condition}) loop perform pg_sleep(0.01); "
        "perform pg_stat_clear_snapshot(); end loop; end $$"
    )


# -- killed -------------------------------------------------------------------------------------

KILLED = """
import sys
import psycopg
import toastrack.stores.windows
from toastrack import Embedder, ingest
from toastrack_postgres import PostgresStore
conninfo, schema, folder, model, wait = sys.argv[1:]
toastrack.stores.windows.WINDOW = 50
def on_progress(progress):
    if wait == "between":
        with psycopg.connect(conninfo) as connection:
            connection.execute("select pg_advisory_lock(1)")
with PostgresStore(conninfo, "docs", schema=schema, embedder=Embedder(model)) as store:
    ingest(folder, store, on_progress=on_progress)
"""


@pytest.mark.parametrize("moment", ["between", "within"])
def test_a_killed_ingest_goes_on_where_it_was(
    make: Make,
    connection: Any,
    schema: str,
    folder: Path,
    tiny_folder: Path,
    postgres_dsn: str,
    moment: str,
) -> None:
    """Killed between two transactions, or while it waits for a lock within one."""
    name = f"toastrack-{uuid4().hex[:12]}"
    conninfo = make_conninfo(postgres_dsn, application_name=name)
    whole = ingest(folder, make("alone"))
    make().open()
    arguments = [conninfo, schema, str(folder), str(tiny_folder), moment]
    with psycopg.connect(postgres_dsn) as locking:
        if moment == "within":
            locking.execute(f"lock table {schema}.docs in share mode")
        else:
            locking.execute("select pg_advisory_lock(1)")
        with Warm(KILLED, *arguments) as program:
            wait_until(connection, "exists (select from pg_locks where not granted)")
            program.kill()
    gone = f"not exists (select from pg_stat_activity where application_name = '{name}')"
    wait_until(connection, gone)
    (there,) = connection.execute(f"select count(*) from {schema}.docs").fetchone()
    assert (there == 0) == (moment == "within")
    assert there < whole.chunks

    report = ingest(folder, make())

    assert (report.unchanged, report.embedded) == (there, whole.chunks - there)
    check_equal(stored(connection, schema, "docs"), stored(connection, schema, "alone"))


# -- many rows ----------------------------------------------------------------------------------


@pytest.mark.rest
def test_more_rows_in_one_call_than_a_statement_has_parameters(
    make: Make, connection: Any, schema: str
) -> None:
    report = make().upsert(ready(70_000))
    assert (report.read, report.written, report.embedded) == (70_000, 70_000, 0)
    found = connection.execute(
        f"select count(*), count(distinct text_hash), min(id), max(id) from {schema}.docs"
    ).fetchone()
    assert found == (70_000, 70_000, "000000", "069999")


@pytest.mark.rest
def test_memory_does_not_grow_with_the_rows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", 128)  # four times as many that are ready

    def peak(number: int) -> int:
        store = make(f"docs_{number}").open()
        tracemalloc.start()
        try:
            ingest(ready(number), store)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)  # what is loaded once is not counted
    small, large = peak(2_000), peak(15_000)
    assert large < 1.2 * small


# -- the event loop -----------------------------------------------------------------------------


def test_the_event_loop_runs_while_the_model_does(
    postgres_dsn: str, schema: str, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model waits for something that only the event loop can do."""
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine

    run = SentenceTransformersEngine.run
    started, turned = threading.Event(), threading.Event()

    def waiting(self: SentenceTransformersEngine, batch: Sequence[Any], *, prompt: str) -> Any:
        started.set()
        assert turned.wait(300), "the event loop was blocked"
        return run(self, batch, prompt=prompt)

    monkeypatch.setattr(SentenceTransformersEngine, "run", waiting)

    async def turn() -> None:
        while not started.is_set():
            await asyncio.sleep(0)
        turned.set()

    async def main() -> None:
        async with AsyncPostgresStore(
            postgres_dsn, "docs", schema=schema, embedder=embedder
        ) as store:
            calls: list[Callable[[], Any]] = [
                lambda: store.upsert([Record("a", "rye")]),
                lambda: store.search("rye"),
            ]
            for call in calls:
                started.clear()
                turned.clear()
                await asyncio.gather(call(), turn())

    asyncio.run(main())


def test_what_changes_before_it_is_deleted_stays(
    make: Make, connection: Any, schema: str, postgres_dsn: str
) -> None:
    store = make()
    vector = np.ones(DIMENSIONS)
    store.upsert(Record(id, "rye", {"v": "z"}, vector=vector) for id in "abc")
    with psycopg.connect(postgres_dsn) as other, ThreadPoolExecutor(1) as pool:
        change = f"update {schema}.docs set metadata = %s::jsonb where id = %s"
        other.execute(change, ['{"v": "a"}', "b"])
        other.execute(change, ['{"v": "y"}', "c"])
        deleted = pool.submit(store.delete, filter={"v": {"$gt": "x"}})
        wait_until(connection, "exists (select from pg_locks where not granted)")
        other.commit()
        assert deleted.result() == 2
    assert [record and record.id for record in store.get(list("abc"))] == [
        None,
        "b",
        None,
    ]


@pytest.mark.rest
@pytest.mark.parametrize("number", [50_000])
def test_many_documents_in_one_transaction_of_the_callers(
    postgres_dsn: str, schema: str, embedder: Embedder, connection: Any, number: int
) -> None:
    """A lock for each document would fill the server's table of locks."""
    with psycopg.connect(postgres_dsn) as own:
        store = PostgresStore(own, "docs", schema=schema, embedder=embedder)
        with own.transaction():
            assert ingest(ready(number), store).written == number
            ((held,),) = own.execute(
                "select count(*) from pg_locks where locktype = 'advisory' "
                "and pid = pg_backend_pid()"
            ).fetchall()
            assert 0 < held < 300
        counted = connection.execute(f"select count(*) from {schema}.docs").fetchone()
        assert counted == (number,)
        with own.transaction():
            assert store.delete(documents=[f"{n:06}" for n in range(number)]) == number
