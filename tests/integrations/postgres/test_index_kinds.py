"""Indexes of less than whole vectors: which one a search asks, and that whole vectors decide."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args
from uuid import uuid4

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg import sql

from toastrack import Embedder, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import SyncRuntime, run_sync
from toastrack_postgres import AsyncPostgresStore, PostgresStore
from toastrack_postgres.codec import VectorType
from toastrack_postgres.index_kinds import IndexChoice, Indexed, Kind
from toastrack_postgres.one_trip import OneTripSession
from toastrack_postgres.search_plan import SearchOptions, planned
from toastrack_postgres.session import Asked, Session
from toastrack_postgres.sql import Statements
from toastrack_postgres.vector_index import check_wanted

# The model says nothing of what its first numbers are for; test_prefix_warning.py looks at that.
pytestmark = pytest.mark.filterwarnings("ignore:.*trained to stand for all of a vector")

DIMENSIONS = 32
ROWS = 3_000
PREFIX = 12
KINDS: tuple[Kind, ...] = get_args(Kind)


def records(count: int) -> list[Record]:
    vectors = np.random.default_rng(0).normal(size=(count, DIMENSIONS))
    return [
        Record(f"{n:05}", f"text {n}", {"even": n % 2 == 0, "rare": n % 100 == 7}, vector=vector)
        for n, vector in enumerate(vectors)
    ]


@dataclass(frozen=True)
class Filled:
    """A table with an index of each kind, which is only read."""

    store: PostgresStore
    connection: Any
    names: dict[str, str]


@pytest.fixture(scope="module", params=["halfvec", "vector"])
def filled(request: pytest.FixtureRequest, postgres_dsn: str, loaded: Embedder) -> Iterator[Filled]:
    storage: VectorType = request.param
    schema = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        store = PostgresStore(connection, "docs", schema=schema, embedder=loaded, storage=storage)
        store.upsert(records(ROWS))
        assert store.build_index() is True
        assert store.build_index(kind="binary") is True
        assert store.build_index(kind="prefix", prefix=PREFIX) is True
        connection.execute(f"analyze {schema}.docs")
        yield Filled(store, connection, names(connection, schema))
        connection.execute(f"drop schema {schema} cascade")


@pytest.fixture
def store(connection: Any, schema: str, embedder: Embedder) -> PostgresStore:
    """A store over the connection, with 200 rows."""
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    store.upsert(records(200))
    return store


def names(connection: Any, schema: str) -> dict[str, str]:
    """The names of the HNSW indexes of a schema, by what they are on."""
    rows = connection.execute(
        "select indexname, indexdef from pg_indexes "
        "where schemaname = %s and indexdef like '%% hnsw %%'",
        [schema],
    ).fetchall()
    words = {"binary_quantize(": "binary", "subvector(": "prefix"}
    return {
        next((kind for word, kind in words.items() if word in definition), "full"): name
        for name, definition in rows
    }


class Watched:
    """Notes the statements that a store sends, so that the server explains them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Asked] = []
        for kind in (Session, OneTripSession):  # inside a transaction, and outside
            monkeypatch.setattr(kind, "execute_checked", self._noting(kind.execute_checked))

    def _noting(self, execute: Any) -> Any:
        async def noted(session: Session, first: Asked, check: Any, second: Asked) -> Any:
            self.sent.append(second)
            return await execute(session, first, check, second)

        return noted

    def plan(self, connection: Any) -> str:
        """What Postgres does for the last statement that looks for rows."""
        statement, parameters = next(
            one for one in reversed(self.sent) if "toastrack_k" in one.parameters
        )
        assert isinstance(statement, sql.Composable)
        session = Session(SyncRuntime(), connection)
        rows = run_sync(session.execute(sql.SQL("explain ") + statement, parameters))
        return "\n".join(row[0] for row in rows)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


QUERY = np.random.default_rng(1).normal(size=DIMENSIONS)


# -- which one a search asks --------------------------------------------------------------------


@pytest.mark.rest
@pytest.mark.parametrize("kind", KINDS)
def test_a_search_asks_the_index_that_it_names(
    filled: Filled, kind: Kind, watched: Watched
) -> None:
    assert len(filled.store.search(QUERY, index=kind)) == 10
    assert f"Index Scan using {filled.names[kind]}" in watched.plan(filled.connection)


@pytest.mark.parametrize("kind", KINDS)
def test_a_filtered_search_may_ask_it_too(filled: Filled, kind: Kind, watched: Watched) -> None:
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute("set local enable_seqscan = off")
        found = filled.store.search(QUERY, filter={"even": True}, index=kind)
        assert len(found) == 10
        assert f"Index Scan using {filled.names[kind]}" in watched.plan(filled.connection)


def test_a_search_takes_the_best_that_is_there_at_the_moment(
    store: PostgresStore, connection: Any, schema: str, watched: Watched
) -> None:
    def asked() -> str:
        """The kind whose index a search could use."""
        watched.sent.clear()
        assert len(store.search(QUERY)) == 10
        with connection.transaction(force_rollback=True):
            connection.execute("set local enable_seqscan = off; set local enable_sort = off")
            plan = watched.plan(connection)
        used = [kind for kind, name in names(connection, schema).items() if f" {name} " in plan]
        return used[0] if used else "none"

    assert asked() == "none"
    store.build_index(kind="prefix", prefix=PREFIX)
    assert asked() == "prefix"
    store.build_index(kind="binary")
    assert asked() == "binary"
    store.build_index()
    assert asked() == "full"
    for kind in ("full", "binary", "prefix"):
        connection.execute(f"drop index {schema}.{names(connection, schema)[kind]}")
        assert asked() == {"full": "binary", "binary": "prefix", "prefix": "none"}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_is_not_there_cannot_be_asked(store: PostgresStore, kind: Kind) -> None:
    with pytest.raises(StoreError, match=rf"no index of the kind '{kind}'.*kind='{kind}'"):
        store.search(QUERY, index=kind)
    assert len(store.search(QUERY, exact=True, index=kind)) == 10


def test_an_index_of_the_users_own_will_do(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(
        f"create index signs on {schema}.docs using hnsw "
        f"((binary_quantize(embedding)::bit({DIMENSIONS})) bit_hamming_ops)"
    )
    assert store.build_index(kind="binary") is False
    assert len(store.search(QUERY, index="binary")) == 10
    assert store.build_index() is True


def test_an_index_of_some_rows_serves_no_search(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    connection.execute(
        f"create index few on {schema}.docs using hnsw (embedding halfvec_cosine_ops) "
        "where id < '00100'"
    )
    with pytest.raises(StoreError, match="no index"):
        store.search(QUERY, index="full")
    assert store.build_index() is True


# -- what it finds ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_whole_vectors_decide(filled: Filled, kind: Kind) -> None:
    exact = {match.id: match.score for match in filled.store.search(QUERY, k=ROWS, exact=True)}
    recalls = []
    for query in np.random.default_rng(2).normal(size=(20, DIMENSIONS)):
        best = {match.id for match in filled.store.search(query, exact=True)}
        found = filled.store.search(query, index=kind, oversampling=100, ef_search=1_000)
        assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
        recalls.append(len(best & {match.id for match in found}) / 10)
    assert np.mean(recalls) > 0.9
    for match in filled.store.search(QUERY, index=kind):
        assert match.score == pytest.approx(exact[match.id], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 10, 500, 2_999, 5_000])
def test_every_kind_gives_as_many_rows_as_there_are(filled: Filled, kind: Kind, k: int) -> None:
    found = filled.store.search(QUERY, k=k, index=kind)
    assert len({match.id for match in found}) == len(found) == min(k, ROWS)
    rare = filled.store.search(QUERY, k=k, index=kind, filter={"rare": True})
    assert len(rare) == min(k, 30)
    assert filled.store.search(QUERY, k=k, index=kind, filter={"rare": "nobody"}) == []


def test_more_rows_compared_again_find_more(filled: Filled) -> None:
    def recall(oversampling: float) -> float:
        hits = 0
        for query in np.random.default_rng(3).normal(size=(20, DIMENSIONS)):
            best = {match.id for match in filled.store.search(query, exact=True)}
            found = filled.store.search(query, index="prefix", oversampling=oversampling)
            hits += len(best & {match.id for match in found})
        return hits / 200

    assert recall(1) < recall(10) < recall(40)


def test_rows_of_zeros_have_no_cosine_here_either(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.build_index(kind="binary")
    connection.execute(
        f"insert into {schema}.docs (id, text, embedding) values ('zero', 'nothing', %s)",
        [str([0] * DIMENSIONS)],
    )
    found = store.search(QUERY, k=500, index="binary")
    assert len(found) == 200


# -- what it is told ----------------------------------------------------------------------------


def told(store: PostgresStore, k: int = 10, **options: Any) -> int:
    """The ef_search that a search without a filter sets."""
    seen: list[int] = []
    settings = store._backend.table.statements.search_settings
    execute = OneTripSession.execute_checked

    async def noted(session: OneTripSession, first: Asked, check: Any, second: Asked) -> Any:
        rows, found = await execute(session, first, check, second)
        if first.statement == settings:
            seen.append(int(rows[0][3]))
        return rows, found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OneTripSession, "execute_checked", noted)
        store.search(QUERY, k, **options)
    return seen[-1]


def test_an_index_looks_at_as_many_rows_as_a_search_says(filled: Filled) -> None:
    assert told(filled.store) == 40
    assert told(filled.store, k=70) == 70
    assert told(filled.store, ef_search=7) == 7
    assert told(filled.store, filter={"even": True}) == 400
    assert told(filled.store, filter={"even": True}, ef_search=90) == 90
    assert told(filled.store, index="binary") == 100
    assert told(filled.store, k=50, index="binary") == 500
    assert told(filled.store, k=50, index="binary", oversampling=2.5) == 125
    assert told(filled.store, k=50, index="binary", oversampling=90) == 1_000
    assert told(filled.store, index="prefix", ef_search=333) == 333


def test_a_store_has_an_ef_search_of_its_own(
    store: PostgresStore, connection: Any, schema: str, embedder: Embedder
) -> None:
    wide = PostgresStore(connection, "docs", schema=schema, embedder=embedder, ef_search=222)
    wide.open()
    assert told(wide) == 222
    assert told(wide, ef_search=5) == 5


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"index": "best"}, "index='best'"),
        ({"ef_search": 0}, "ef_search=0"),
        ({"ef_search": 1_001}, "ef_search=1001"),
        ({"oversampling": 0.5}, "oversampling=0.5"),
        ({"oversampling": float("nan")}, "oversampling=nan"),
    ],
)
def test_settings_that_are_none_are_named(
    store: PostgresStore, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        store.search(QUERY, **options)


def test_a_store_refuses_an_ef_search_that_is_none(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="ef_search=2000"):
        PostgresStore("postgresql://localhost/db", embedder=embedder, ef_search=2_000)


def test_a_filtered_search_that_compared_too_few_is_run_again() -> None:
    plan = planned(
        [Indexed("binary", 32)], k=10, filtered=True, options=SearchOptions(), ef_search=None
    )
    assert plan.is_short(10, 99, 10)
    assert not plan.is_short(10, 100, 10)
    unfiltered = plan._replace(filtered=False)
    assert not unfiltered.is_short(10, 50, 10)
    assert unfiltered.is_short(9, 100, 10)


# -- how it is built ----------------------------------------------------------------------------


@pytest.mark.parametrize("concurrently", [False, True])
def test_each_kind_is_built_once(
    store: PostgresStore, connection: Any, schema: str, concurrently: bool
) -> None:
    for kind in KINDS:
        size = PREFIX if kind == "prefix" else None
        assert store.build_index(kind=kind, prefix=size, concurrently=concurrently) is True
        assert store.build_index(kind=kind, prefix=size, concurrently=concurrently) is False
    assert store.build_index(kind="prefix") is False
    assert sorted(names(connection, schema)) == sorted(KINDS)
    assert store._describe().index == (
        "hnsw (m=16, ef_construction=64); hnsw binary (m=16, ef_construction=64); "
        f"hnsw prefix (prefix={PREFIX}, m=16, ef_construction=64)"
    )


def test_another_prefix_than_the_index_has_is_refused(
    store: PostgresStore, connection: Any, schema: str
) -> None:
    store.build_index(kind="prefix", prefix=PREFIX, m=8)
    with pytest.raises(StoreError) as error:
        store.build_index(kind="prefix", prefix=20)
    assert f"has prefix={PREFIX}, and prefix=20 was asked for" in str(error.value)
    assert "build_index(kind='prefix', prefix=20, rebuild=True)" in str(error.value)
    assert store.build_index(kind="prefix", prefix=20, rebuild=True) is True
    assert store._describe().index == "hnsw prefix (prefix=20, m=8, ef_construction=64)"
    assert store.build_index(kind="prefix", rebuild=True) is True
    assert store._describe().index == "hnsw prefix (prefix=20, m=8, ef_construction=64)"
    assert list(names(connection, schema)) == ["prefix"]


@pytest.mark.parametrize("concurrently", [False, True])
def test_what_a_broken_build_left_is_built_anew(
    store: PostgresStore, connection: Any, schema: str, concurrently: bool
) -> None:
    store.build_index()
    store.build_index(kind="binary")
    before = names(connection, schema)
    try:
        connection.execute(
            "update pg_index set indisvalid = false where indexrelid = %s::regclass",
            [f"{schema}.{before['binary']}"],
        )
    except psycopg.errors.InsufficientPrivilege:
        pytest.skip("this user may not change the catalog")
    with pytest.raises(StoreError, match="no index"):
        store.search(QUERY, index="binary")
    assert store.build_index(kind="binary", concurrently=concurrently) is True
    assert len(store.search(QUERY, index="binary")) == 10
    assert names(connection, schema)["full"] == before["full"]


def test_tables_whose_long_names_begin_alike_have_indexes_of_their_own(
    connection: Any, schema: str, embedder: Embedder
) -> None:
    for table in ("x" * 62 + "1", "x" * 62 + "2", "ж" * 31):
        store = PostgresStore(connection, table, schema=schema, embedder=embedder)
        store.upsert(records(20))
        for kind in KINDS:
            size = PREFIX if kind == "prefix" else None
            assert store.build_index(kind=kind, prefix=size, filter_fields=["even"]) is True
            assert len(store.search(QUERY, index=kind, filter={"even": True})) == 10
    built = connection.execute(
        "select tablename, indexname from pg_indexes where schemaname = %s "
        "and indexdef not like '%% UNIQUE %%' and indexdef not like '%% (document_id)'",
        [schema],
    ).fetchall()
    assert len(built) == 3 * (len(KINDS) + 3)
    assert all(len(name.encode()) <= 63 for _, name in built)


@pytest.mark.parametrize("concurrently", [False, True])
def test_a_partitioned_table_has_each_kind(
    connection: Any, schema: str, embedder: Embedder, concurrently: bool
) -> None:
    store = PostgresStore(connection, "docs", schema=schema, embedder=embedder)
    connection.execute(
        f"""
        create table {schema}.docs (
            id text primary key, document_id text, chunk int, text text, metadata jsonb,
            text_hash bytea, embedding halfvec({DIMENSIONS})
        ) partition by hash (id);
        create table {schema}.docs_0 partition of {schema}.docs
            for values with (modulus 2, remainder 0);
        create table {schema}.docs_1 partition of {schema}.docs
            for values with (modulus 2, remainder 1)
        """
    )
    store.upsert(records(200))
    for kind in KINDS:
        size = PREFIX if kind == "prefix" else None
        assert store.build_index(kind=kind, prefix=size, concurrently=concurrently) is True
        assert store.build_index(kind=kind, prefix=size, concurrently=concurrently) is False
        assert len(store.search(QUERY, index=kind)) == 10
    assert (
        len(
            connection.execute(
                "select from pg_indexes where schemaname = %s and indexdef like '%% hnsw %%'",
                [schema],
            ).fetchall()
        )
        == 9
    )


def test_an_extension_that_the_search_path_does_not_have(
    store: PostgresStore, connection: Any
) -> None:
    connection.execute("set search_path = pg_catalog")
    for kind in KINDS:
        size = PREFIX if kind == "prefix" else None
        assert store.build_index(kind=kind, prefix=size) is True
        assert store.build_index(kind=kind, prefix=size) is False
        assert len(store.search(QUERY, index=kind)) == 10


def test_kinds_and_prefixes_that_are_none(store: PostgresStore) -> None:
    kind: Any = "ivfflat"
    with pytest.raises(ValueError, match="kind='ivfflat'"):
        store.build_index(kind=kind)
    with pytest.raises(ValueError, match="prefix= goes with kind='prefix'"):
        store.build_index(prefix=16)
    for size in (0, DIMENSIONS, 100):
        with pytest.raises(ValueError, match=f"prefix of {size} .*first 1 to 31"):
            store.build_index(kind="prefix", prefix=size)
    with pytest.raises(ValueError, match="prefix of 256 "):
        store.build_index(kind="prefix")


def test_vectors_too_large_for_the_full_kind_take_the_others(connection: Any, schema: str) -> None:
    (extension,) = connection.execute(
        "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
    ).fetchone()
    wide: list[tuple[VectorType, int]] = [("halfvec", 16_000), ("vector", 2_001)]
    for storage, dimensions in wide:
        with pytest.raises(UnsupportedError):
            check_wanted("full", None, storage, dimensions, "s.docs")
        connection.execute(f"create table {schema}.{storage} (embedding {storage}({dimensions}))")
        table = Statements(schema=schema, table=storage, extension_schema=extension)
        for on in (Indexed("binary", dimensions), Indexed("prefix", 2_000)):
            check_wanted(on.kind, 2_000 if on.kind == "prefix" else None, storage, dimensions, "x")
            connection.execute(
                table.create_hnsw_index(on, storage, m=16, ef_construction=64, concurrently=False)
            )
    with pytest.raises(ValueError, match="first 1 to 4,000"):
        check_wanted("prefix", 4_001, "halfvec", 16_000, "s.docs")
    with pytest.raises(UnsupportedError, match="64,000 signs"):
        check_wanted("binary", None, "halfvec", 64_001, "s.docs")


async def check_async(dsn: str, schema: str, embedder: Embedder) -> None:
    choices: tuple[IndexChoice, ...] = get_args(IndexChoice)
    async with AsyncPostgresStore(
        dsn, "docs", schema=schema, embedder=embedder, ef_search=50
    ) as store:
        assert await store.build_index() is True
        assert await store.build_index(kind="binary") is True
        assert await store.build_index(kind="prefix", prefix=PREFIX) is True
        for choice in choices:
            found = await store.search(QUERY, index=choice, oversampling=20, ef_search=60)
            assert len(found) == 10


def test_an_asynchronous_store_has_the_same_kinds(
    store: PostgresStore, postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    asyncio.run(check_async(postgres_dsn, schema, embedder))
