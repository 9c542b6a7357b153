"""What an index misses: counted against the exact answer, in one table."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

# ruff: noqa: E402
import pytest
from awaited import Awaited, running_loop

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from toastrack import Embedder, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import RecallTable, open_store
from toastrack_postgres import AsyncPostgresStore, PostgresStore
from toastrack_postgres.search_plan import trials

# The model says nothing of what its first numbers are for; test_prefix_warning.py looks at that.
pytestmark = pytest.mark.filterwarnings("ignore:.*trained to stand for all of a vector")

DIMENSIONS = 32


def records(count: int) -> list[Record]:
    vectors = np.random.default_rng(0).normal(size=(count, DIMENSIONS))
    return [Record(f"{n:05}", f"text {n}", vector=vector) for n, vector in enumerate(vectors)]


@pytest.fixture
def store(connection: Any, schema: str, embedder: Embedder) -> PostgresStore:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    store.upsert(records(1_500))
    return store


def ways(table: RecallTable) -> list[tuple[str, int | None, float | None]]:
    return [(row.index, row.ef_search, row.oversampling) for row in table.rows]


def test_every_kind_that_is_there_is_compared_with_the_exact_answer(store: PostgresStore) -> None:
    store.build_index()
    store.build_index(kind="binary")
    store.build_index(kind="prefix", prefix=8)
    table = store.recall(sample=20)
    assert (table.k, table.queries, table.asked_with) == (10, 20, "rows")
    again = [(4, 40), (10, 100), (20, 200), (40, 400)]
    assert ways(table) == [
        ("exact", None, None),
        *(("full", size, None) for size in (40, 100, 200, 400)),
        *(("binary", size, times) for times, size in again),
        *(("prefix of 8", size, times) for times, size in again),
    ]
    exact, *others = table.rows
    assert exact.recall == 1
    by_way = {(row.index, row.ef_search): row.recall for row in others}
    assert 0.2 < by_way["prefix of 8", 40] < by_way["prefix of 8", 400] <= 1
    assert by_way["full", 400] > 0.95
    for row in table.rows:
        assert 0 < row.p50_ms <= row.p95_ms
        assert 0 <= row.recall <= 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_index_is_asked_in_an_empty_table(
    postgres_dsn: str, schema: str, embedder: Embedder, asynchronous: bool
) -> None:
    options: dict[str, Any] = {"schema": schema, "embedder": embedder}
    with ExitStack() as stack:
        store: Any
        if asynchronous:
            loop = stack.enter_context(running_loop())
            empty = AsyncPostgresStore(postgres_dsn, "empty", **options)
            store = stack.enter_context(Awaited(empty, loop))
        else:
            store = stack.enter_context(PostgresStore(postgres_dsn, "empty", **options))
        store.open()
        store.build_index()
        assert store.search("rye", index="full", ef_search=1_000, oversampling=2.0) == []
        with pytest.raises(ValueError, match="row"):
            store.recall()
        with pytest.raises(ValueError, match="quer"):
            store.recall(queries=iter(()))


def test_what_is_counted_is_what_searches_find(store: PostgresStore) -> None:
    store.build_index(kind="prefix", prefix=4)
    (row,) = [row for row in store.recall(5, 30).rows if row.oversampling == 4]
    hits = 0
    with psycopg.connect(store._backend._given.info.dsn) as connection:
        sampled = connection.execute(
            f"select id from {store._backend.label} order by hashtextextended(id, 0) limit 30"
        ).fetchall()
    for record in store.get([id for (id,) in sampled], vectors=True):
        assert record is not None
        assert record.vector is not None
        best = {match.id for match in store.search(record.vector, 6, exact=True)}
        found = store.search(record.vector, 6, index="prefix", oversampling=4)
        ours = [match.id for match in found if match.id != record.id][:5]
        hits += len(best & set(ours))
    assert row.recall == pytest.approx(hits / 150)
    assert row.recall < 1


def test_texts_are_asked_as_queries(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.build_index()
    embed = Embedder.embed_queries
    asked: list[list[str]] = []

    def noted(self: Embedder, texts: Any) -> Any:
        asked.append(list(texts))
        return embed(self, asked[-1])

    monkeypatch.setattr(Embedder, "embed_queries", noted)
    table = store.recall(3, queries=(text for text in ("which bread keeps?", "rye")))
    assert asked == [["which bread keeps?", "rye"]]
    assert (table.k, table.queries, table.asked_with) == (3, 2, "texts")
    assert "2 texts, embedded as queries" in str(table)


def test_a_table_of_recall_is_markdown_and_plain_values(store: PostgresStore) -> None:
    store.build_index(kind="binary")
    table = store.recall(2, 3)
    lines = str(table).splitlines()
    assert lines[0] == "| index | ef_search | oversampling | recall@2 | p50 ms | p95 ms |"
    assert lines[2].startswith("| exact |  |  | 1.000 | ")
    assert lines[3].startswith("| binary | 40 | 4 | ")
    # By itself a search compares 100 rows again.
    assert any(line.startswith("| binary | 100 | 50 | ") for line in lines)
    assert "3 rows, each left out of its own answer" in lines[-1]
    assert json.loads(json.dumps(table.to_dict()))["rows"][0]["recall"] == 1


def test_equal_rows_are_equally_good(connection: Any, schema: str, embedder: Embedder) -> None:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    vector = [1.0] * DIMENSIONS
    store.upsert(Record(str(n), "same", vector=vector) for n in range(300))
    store.build_index()
    assert {row.recall for row in store.recall(5, 10).rows} == {1.0}


def test_one_row_has_no_others_to_be_found(
    connection: Any, schema: str, embedder: Embedder
) -> None:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    store.build_index()
    with pytest.raises(ValueError, match="no query to ask"):
        store.recall()
    store.upsert(records(1))
    assert {row.recall for row in store.recall().rows} == {1.0}


def test_without_an_index_there_is_nothing_to_measure(store: PostgresStore) -> None:
    with pytest.raises(StoreError, match=r"no index.*build_index\(\)"):
        store.recall(sample=1)


def test_queries_that_are_none(store: PostgresStore) -> None:
    with pytest.raises(TypeError, match="several texts"):
        store.recall(queries="rye")
    with pytest.raises(ValueError, match="no query"):
        store.recall(queries=[])
    with pytest.raises(ValueError, match="k=0"):
        store.recall(0)
    with pytest.raises(ValueError, match="sample=0"):
        store.recall(sample=0)


def test_a_stores_own_ef_search_is_among_the_ways(
    store: PostgresStore, connection: Any, schema: str, embedder: Embedder
) -> None:
    store.build_index()
    own = PostgresStore(connection, "docs", schema=schema, embedder=embedder, ef_search=77)
    assert [row.ef_search for row in own.recall(sample=2).rows] == [None, 40, 77, 100, 200, 400]
    found = own._backend.searcher.indexes.vectors.usable
    assert [one.ef_search for one in trials(found, k=150, ef_search=None)] == [150, 200, 400]


def test_an_asynchronous_store_measures_the_same(
    store: PostgresStore, postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    store.build_index(kind="prefix", prefix=8)

    async def measured() -> RecallTable:
        async with AsyncPostgresStore(
            postgres_dsn, "docs", schema=schema, embedder=embedder
        ) as other:
            assert (await other.recall(3, queries=["rye"])).asked_with == "texts"
            return await other.recall(sample=10)

    table, other = store.recall(sample=10), asyncio.run(measured())
    assert ways(table) == ways(other)
    assert [row.recall for row in table.rows] == [row.recall for row in other.rows]


def test_other_hosts_say_that_they_do_not_measure(tmp_path: Any, embedder: Embedder) -> None:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    with (
        open_store(f"qdrant:{tmp_path}/docs", embedder) as store,
        pytest.raises(UnsupportedError, match="on Postgres alone"),
    ):
        store._recall(10, 200, None)
