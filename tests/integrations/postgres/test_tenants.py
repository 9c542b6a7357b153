"""Several tenants in one database: row-level security, and tables in partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from psycopg.conninfo import make_conninfo

from toastrack import Embedder, Record
from toastrack.errors import StoreError, UnsupportedError
from toastrack_postgres import (
    AsyncPostgresStore,
    DocumentText,
    PostgresStore,
    QueryText,
    register_embedder,
)

TENANTS = ["north", "south"]


def records(tenant: str, count: int = 30) -> list[Record]:
    """One document of three records, and others, with vectors that are ready."""
    vectors = np.random.default_rng(len(tenant)).normal(size=(count, 32))
    return [
        Record(
            f"{tenant}-{n}",
            f"rye {n}",
            {"tenant": tenant, "n": n},
            vector=vector,
            document_id=f"{tenant}-guide" if n < 3 else None,
        )
        for n, vector in enumerate(vectors)
    ]


@pytest.fixture
def admin(postgres_dsn: str) -> Iterator[Any]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def conninfos(
    admin: Any, postgres_dsn: str, schema: str, embedder: Embedder
) -> Iterator[dict[str, str]]:
    """A table with a policy, and for each tenant a conninfo of a role that it holds for."""
    role = f"test_{uuid4().hex[:12]}"
    try:
        admin.execute(f"create role {role}")
    except psycopg.errors.InsufficientPrivilege:
        pytest.skip("this user may not create roles")
    admin.execute(f"grant {role} to current_user")
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        store.upsert([record for tenant in TENANTS for record in records(tenant)])
        store.build_index()
    admin.execute(
        f"""
        alter table {schema}.docs enable row level security;
        create policy tenants on {schema}.docs
            using (metadata ->> 'tenant' = current_setting('app.tenant'));
        grant usage on schema {schema} to {role};
        grant select, insert, update, delete on {schema}.docs to {role}
        """
    )
    yield {
        tenant: make_conninfo(
            postgres_dsn,
            options=f"-c role={role} -c app.tenant={tenant} -c search_path={schema},public",
        )
        for tenant in TENANTS
    }
    admin.execute(f"drop owned by {role}")
    admin.execute(f"drop role {role}")


@pytest.mark.parametrize(("mine", "others"), [TENANTS, TENANTS[::-1]])
def test_every_statement_honours_row_level_security(
    conninfos: dict[str, str], admin: Any, schema: str, embedder: Embedder, mine: str, others: str
) -> None:
    with PostgresStore(conninfos[mine], "docs", schema=schema, embedder=embedder) as store:
        vector = records(others)[7].vector
        assert vector is not None
        for found in (
            store.search(vector, k=50),
            store.search(vector, k=50, exact=True),
            store.search(vector, k=50, filter={"n": {"$gte": 0}}),
            store.search("rye", k=50),
        ):
            assert {match.metadata["tenant"] for match in found} == {mine}
            assert len(found) == 30
        assert store.count() == 30
        assert store.count(documents=True) == 28
        assert store.count(filter={"tenant": others}) == 0
        assert {id.partition("-")[0] for id in store.document_ids()} == {mine}
        assert store.get([f"{others}-1"]) == [None]
        assert {record.metadata["tenant"] for record in store.records()} == {mine}
        assert store.delete([f"{others}-1"], documents=[f"{others}-guide"]) == 0
        assert store.delete(filter={"tenant": others}) == 0
        assert store.replace(f"{others}-guide", []).deleted == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            store.upsert([Record("new", "rye", {"tenant": others})])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            store.upsert([Record(f"{others}-9", "taken over", {"tenant": mine})])
        assert store.upsert([Record("new", "rye", {"tenant": mine})]).written == 1
        assert store.replace(f"{mine}-guide", []).deleted == 3
        assert store.delete(filter={"n": 9}) == 1
        assert store.count() == 27
    (left,) = admin.execute(
        f"select count(*) from {schema}.docs where metadata ->> 'tenant' = %s", [others]
    ).fetchone()
    assert left == 30


def test_awaited_and_in_own_sql_it_is_honoured_too(
    conninfos: dict[str, str], schema: str, embedder: Embedder
) -> None:
    async def main() -> None:
        async with AsyncPostgresStore(
            conninfos["north"], "docs", schema=schema, embedder=embedder
        ) as store:
            found = await store.search("rye", k=50)
            assert {match.metadata["tenant"] for match in found} == {"north"}
            assert await store.count() == 30

    asyncio.run(main())
    with psycopg.connect(conninfos["south"]) as connection:
        register_embedder(connection, embedder, check=[("docs", "embedding")])
        found = connection.execute(
            "select metadata ->> 'tenant' from docs order by embedding <=> %s", [QueryText("rye")]
        ).fetchall()
        assert found == [("south",)] * 30
        updated = connection.execute("update docs set embedding = %s", [DocumentText("rye")])
        assert updated.rowcount == 30


COLUMNS = (
    "id text, document_id text, chunk int, text text, metadata jsonb, text_hash bytea, "
    "embedding halfvec(32)"
)


@pytest.mark.parametrize("concurrently", [False, True])
def test_a_table_partitioned_by_hash_of_the_id_works(
    admin: Any, postgres_dsn: str, schema: str, embedder: Embedder, concurrently: bool
) -> None:
    admin.execute(
        f"create table {schema}.docs ({COLUMNS}, primary key (id)) partition by hash (id)"
    )
    for n in range(3):
        admin.execute(
            f"create table {schema}.docs_{n} partition of {schema}.docs "
            f"for values with (modulus 3, remainder {n})"
        )
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        assert store.upsert(records("north", 300)).written == 300
        assert store.upsert(records("north", 300)).unchanged == 300
        if concurrently:  # one part has its own, and one that was left broken
            operators = "using hnsw (embedding halfvec_cosine_ops)"
            admin.execute(f"create index on {schema}.docs_0 {operators}")
            admin.execute(f"create index broken on {schema}.docs_1 {operators}")
            admin.execute(
                "update pg_index set indisvalid = false where indexrelid = %s::regclass",
                [f"{schema}.broken"],
            )
        assert store.build_index(concurrently=concurrently) is True
        assert store.build_index(concurrently=concurrently) is False
        with pytest.raises(StoreError, match=r"m=16, and m=8 .* rebuild=True"):
            store.build_index(m=8, concurrently=concurrently)
        if concurrently:
            for what in ({"rebuild": True}, {"filter_fields": ["n"]}):
                with pytest.raises(UnsupportedError, match=r"without concurrently="):
                    store.build_index(concurrently=True, **what)
        else:
            assert store.build_index(m=8, rebuild=True, filter_fields=["n"]) is True
        (parts,) = admin.execute(
            "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid "
            "join pg_am m on m.oid = c.relam "
            "where c.relnamespace = %s::regnamespace and m.amname = 'hnsw' and c.relkind = 'i' "
            "and i.indisvalid",
            [schema],
        ).fetchone()
        assert parts == 3
        vector = records("north", 300)[7].vector
        assert vector is not None
        assert store.search(vector, k=1)[0].id == "north-7"
        found = [match.id for match in store.search(vector, k=20)]
        exact = [match.id for match in store.search(vector, k=20, exact=True)]
        assert len({*found} & {*exact}) >= 19
        assert len(store.search(vector, k=300)) == 300
        assert store.replace("north-guide", []).deleted == 3
        assert store.delete(["north-9"]) == 1
        assert store.count() == 296


def test_a_table_partitioned_by_tenant_is_refused_with_the_reason(
    admin: Any, postgres_dsn: str, schema: str, embedder: Embedder
) -> None:
    admin.execute(
        f"create table {schema}.docs ({COLUMNS}, tenant text, primary key (tenant, id)) "
        "partition by list (tenant)"
    )
    store = PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder)
    with pytest.raises(StoreError, match=r"partitioned.*row-level security.*a table for each"):
        store.open()
    store.close()
