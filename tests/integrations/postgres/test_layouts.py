"""Tables that LangChain, LlamaIndex, pgai and others filled with MiniLM, as they do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
pytest.importorskip("sentence_transformers", reason="the extra 'local' is not installed")

from filled_by_others import (
    BAGELS,
    IDS,
    METADATA,
    QUESTION,
    TEXTS,
    Encode,
    check_only_read,
    check_read,
    encoding,
    langchain_embeddings,
    llama_index_into,
    refusals,
    refused,
)
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from urls import sqlalchemy_url

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError, UnsupportedError
from toastrack.stores import SearchMode, open_store
from toastrack_postgres import AsyncPostgresStore, PostgresStore

Fill = Callable[[str, str, Encode], str]
"""Takes a DSN and a schema, and returns the table's name."""


def langchain(dsn: str, schema: str, encode: Encode) -> str:
    package = pytest.importorskip(
        "langchain_postgres", reason="langchain-postgres is not installed"
    )
    engine = package.PGEngine.from_connection_string(sqlalchemy_url(dsn, "psycopg"))
    engine.init_vectorstore_table("bread", 384, schema_name=schema)
    store = package.PGVectorStore.create_sync(
        engine, langchain_embeddings(encode), "bread", schema_name=schema
    )
    store.add_texts(TEXTS, metadatas=METADATA, ids=IDS)
    asyncio.run(engine.close())
    return "bread"


def llama_index(dsn: str, schema: str, encode: Encode) -> str:
    package = pytest.importorskip(
        "llama_index.vector_stores.postgres",
        reason="llama-index-vector-stores-postgres is not installed",
    )
    store = package.PGVectorStore(
        connection_string=sqlalchemy_url(dsn, "psycopg2"),
        async_connection_string=sqlalchemy_url(dsn, "asyncpg"),
        table_name="bread",
        schema_name=schema,
        embed_dim=384,
    )
    llama_index_into(store, encode)
    asyncio.run(store.close())
    return "data_bread"


def pgai(dsn: str, schema: str, encode: Encode) -> str:
    """As pgai's _vectorizer_create_target_table creates the table for the articles of two ids.

    https://github.com/timescale/pgai/blob/main/projects/extension/sql/idempotent/012-vectorizer-int.sql
    """
    filled(
        dsn,
        schema,
        """
        create table {} (
            embedding_uuid uuid not null primary key default gen_random_uuid(),
            article bigint not null,
            chunk_seq int not null,
            chunk text not null,
            embedding vector(384) storage main not null,
            unique (article, chunk_seq)
        )
        """,
        ("embedding_uuid", "article", "chunk_seq", "chunk", "embedding"),
        [
            (id, place // 6, place % 6, text)
            for place, (id, text) in enumerate(zip(IDS, TEXTS, strict=True))
        ],
        encode,
    )
    return "bread"


def pgvector(dsn: str, schema: str, encode: Encode) -> str:
    """As the first of LangChain's stores has it; its column of vectors says no size."""
    filled(
        dsn,
        schema,
        """
        create table {} (id varchar primary key, collection_id uuid, document varchar,
                         cmetadata jsonb, embedding vector)
        """,
        ("id", "collection_id", "document", "cmetadata", "embedding"),
        [
            (id, uuid4(), text, json.dumps(metadata))
            for id, text, metadata in zip(IDS, TEXTS, METADATA, strict=True)
        ],
        encode,
    )
    return "bread"


def filled(
    dsn: str, schema: str, create: Any, names: Any, rows: list[tuple[Any, ...]], encode: Encode
) -> None:
    table = sql.Identifier(schema, "bread")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(create).format(table))
        for row, vector in zip(rows, encode(TEXTS), strict=True):
            # Written out, as a name may hold what stands for a parameter.
            insert = sql.SQL("insert into {} ({}) values ({})").format(
                table,
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join(map(sql.Literal, [*row, str(vector)])),
            )
            connection.execute(insert)


FILLERS: dict[str, Fill] = {
    "langchain": langchain,
    "langchain-pgvector": pgvector,
    "llama-index": llama_index,
    "pgai": pgai,
}


@pytest.fixture
def opened(postgres_dsn: str, schema: str, minilm: Embedder) -> Iterator[Callable[..., Any]]:
    stores: list[PostgresStore] = []

    def make(table: str, **settings: Any) -> PostgresStore:
        settings = {"embedder": minilm, **settings}
        stores.append(PostgresStore(postgres_dsn, table, schema=schema, **settings))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.mark.parametrize("name", FILLERS)
def test_what_peers_filled_is_proven_and_read(
    postgres_dsn: str,
    schema: str,
    opened: Callable[..., PostgresStore],
    minilm_folder: Path,
    minilm: Embedder,
    name: str,
) -> None:
    table = FILLERS[name](postgres_dsn, schema, encoding(minilm_folder))
    with pytest.raises(StoreError, match="cannot be used: it lacks the columns"):
        opened(table, adopt=True).open()
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        opened(table, columns=name).open()
    opened(table, columns=name, adopt=True).open()

    store = opened(table, columns=name, verify=True).open()
    documents = {"llama-index": {"top", "bottom"}, "pgai": {"0", "1"}}.get(name, set(IDS))
    match = check_read(store, documents, has_metadata=name != "pgai")
    assert store.get([str(UUID(int=7))]) == [None]  # of the form that ids have there
    (near,) = store.search(QUESTION, k=1, neighbours=1)
    around = [TEXTS[BAGELS - 1], TEXTS[BAGELS], TEXTS[BAGELS + 1]]
    assert near.context == ("\n\n".join(around) if name == "pgai" else TEXTS[BAGELS])

    check_only_read(store)
    copied = opened("copy")
    assert copied.upsert(store.records(vectors=True)).embedded == 0
    assert copied.search(QUESTION, k=1)[0].score == pytest.approx(match.score, abs=2e-3)


@pytest.mark.parametrize(("name", "wrong"), refusals(FILLERS))
def test_what_peers_filled_otherwise_is_refused(
    postgres_dsn: str,
    schema: str,
    opened: Callable[..., PostgresStore],
    minilm_folder: Path,
    name: str,
    wrong: str,
) -> None:
    table = FILLERS[name](postgres_dsn, schema, encoding(minilm_folder, wrong))
    with refused(wrong):
        opened(table, columns=name, adopt=True).open()


def test_indexes_and_words_of_anothers_table(
    postgres_dsn: str, schema: str, opened: Callable[..., PostgresStore], minilm_folder: Path
) -> None:
    langchain(postgres_dsn, schema, encoding(minilm_folder))
    store = opened("bread", columns="langchain", adopt=True)
    assert store.build_index()
    assert not store.build_index()
    assert store.search(QUESTION, k=1)[0].id == IDS[BAGELS]
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("set enable_seqscan = off")
        statement = store._backend.table.statements.search([], exact=False).as_string(None)
        plan = connection.execute(
            "explain "
            + statement.replace("%(toastrack_query)b", f"'{[0.1] * 384}'").replace(
                "%(toastrack_k)s", "3"
            )
        ).fetchall()
    assert any("Index Scan using bread_embedding_idx" in line for (line,) in plan)
    with pytest.raises(UnsupportedError, match="no index of the words"):
        store.search("bagels", mode="text")
    assert store.build_text_index()
    assert [match.id for match in store.search("bagels", mode="text")] == [IDS[BAGELS]]
    assert store.search("boiled bagels", k=1, mode="hybrid")[0].id == IDS[BAGELS]
    own = sql.SQL("content like %(part)s and langchain_metadata->>'shelf' = 'top'")
    modes: tuple[SearchMode, ...] = ("vector", "text", "hybrid")
    for mode in modes:
        found = store.search("bread", mode=mode, where=own, params={"part": "Rye%"})
        assert [match.id for match in found] == [IDS[0]]
    with pytest.raises(UnsupportedError, match="filter_fields"):
        store.build_index(filter_fields=["place"])


OURS = (
    "create table {} (key varchar(80) primary key, doc text, nr bigint, body varchar, about {}, "
    "hash bytea, vec vector({}), more int default 3)"
)
COLUMNS = {
    "id": "key",
    "document_id": "doc",
    "chunk": "nr",
    "text": "body",
    "metadata": "about",
    "text_hash": "hash",
    "embedding": "vec",
}


@pytest.mark.parametrize("kind", ["jsonb", "json"])
def test_a_table_that_holds_all_of_it_is_written(
    postgres_dsn: str, schema: str, embedder: Embedder, opened: Callable[..., Any], kind: str
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        table = sql.Identifier(schema, "bread")
        create = sql.SQL(OURS).format(table, sql.SQL(kind), sql.Literal(embedder.dimensions))
        connection.execute(create)
    store = opened("bread", columns=COLUMNS, embedder=embedder)
    records = [Record(f"r{n}", f"rye {n}", {"n": n}, document_id="d", chunk=n) for n in range(5)]
    assert store.upsert(records).written == 5
    assert store.upsert(records).unchanged == 5
    moved = [Record("r0", "rye 0", {"n": 9}, document_id="d", chunk=0), *records[1:]]
    assert store.replace("d", moved[:4]).deleted == 1
    assert store.get(["r0", "r4"]) == [moved[0], None]
    assert store.search("rye", filter={"n": 9})[0].id == "r0"
    assert store.build_index()
    assert store.search("rye 2", k=1, exact=True) == store.search("rye 2", k=1)
    with pytest.raises(UnsupportedError, match="'binary'"):
        store.build_index(kind="binary")
    assert store.delete(filter={"n": 9}) == 1
    assert store.delete(["r1"], documents=["none"]) == 1
    assert store.count() == 2
    with psycopg.connect(postgres_dsn) as connection:
        columns = sql.SQL("select key, nr, more from {} order by key").format(table)
        assert connection.execute(columns).fetchall() == [("r2", 2, 3), ("r3", 3, 3)]
    assert opened("bread", columns=COLUMNS, embedder=embedder).open().space == embedder.space


def test_a_damaged_comment_names_the_tables_own_column(
    postgres_dsn: str, schema: str, embedder: Embedder, opened: Callable[..., PostgresStore]
) -> None:
    def run(statement: Any) -> None:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            table = sql.Identifier(schema, "bread")
            size = sql.Literal(embedder.dimensions)
            connection.execute(sql.SQL(statement).format(table, sql.SQL("jsonb"), size))

    run(OURS)
    store = opened("bread", columns=COLUMNS, embedder=embedder)
    store.upsert([Record("a", "rye", document_id="d", chunk=0)])
    run("comment on column {}.vec is 'toastrack {{'")
    calls: list[Callable[[], Any]] = [
        lambda: store.search("rye"),
        lambda: store.upsert([Record("b", "salt", document_id="d", chunk=1)]),
        lambda: store.delete(["a"]),
        lambda: opened("bread", columns=COLUMNS, embedder=embedder).open(),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="the comment on its column vec is damaged"):
            call()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("alter table {} drop column hash", "no column for text_hash"),
        ("alter table {} drop constraint bread_pkey", "key is not unique"),
        ("alter table {} add column must int not null", "must must be given"),
    ],
)
def test_why_it_cannot_be_written(
    postgres_dsn: str, schema: str, embedder: Embedder, opened: Any, change: Any, why: str
) -> None:
    columns = {name: at for name, at in COLUMNS.items() if "text_hash" not in (name, "")}
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        table = sql.Identifier(schema, "bread")
        create = sql.SQL(OURS).format(table, sql.SQL("jsonb"), sql.Literal(embedder.dimensions))
        connection.execute(create)
        connection.execute(sql.SQL(change).format(table))
    given = columns if "hash" in why else COLUMNS
    with pytest.raises(UnsupportedError, match=why):
        opened("bread", columns=given, embedder=embedder).upsert([Record("a", "rye")])


def test_an_id_of_numbers_that_may_stand_twice(
    postgres_dsn: str,
    schema: str,
    opened: Callable[..., PostgresStore],
    minilm_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("toastrack_postgres.reading.PAGE", 2)
    filled(
        postgres_dsn,
        schema,
        "create table {} (nr int, body text, embedding halfvec(384))",
        ("nr", "body", "embedding"),
        [(place // 3, text) for place, text in enumerate(TEXTS)],
        encoding(minilm_folder),
    )
    store = opened("bread", columns={"id": "nr", "text": "body"}, adopt=True)
    assert sorted(record.text for record in store.records()) == sorted(TEXTS)
    assert {record.id for record in store.records()} == {"0", "1", "2", "3"}
    assert store.get(["x", "9" * 30, "-1", "\u0661"]) == [None] * 4
    assert store.search(QUESTION, k=1)[0].id == str(BAGELS // 3)


@pytest.mark.parametrize("kind", ["jsonb", "json"])
def test_metadata_that_is_no_object_and_names_that_need_quotes(
    postgres_dsn: str,
    schema: str,
    opened: Callable[..., PostgresStore],
    minilm_folder: Path,
    kind: str,
) -> None:
    names = ['schlüssel "a"\'; {0} %s', "é" * 31, 'm"%(a)s', "v{}:"]
    parts = dict(zip(("id", "text", "metadata", "embedding"), names, strict=True))
    columns = [sql.Identifier(name).as_string(None) for name in names]
    said = ['{"n": 1}', "null", "[1]", '["n"]', "5", '"n"', None]
    filled(
        postgres_dsn,
        schema,
        "create table {} (%s text primary key, %s text, %s KIND, %s vector(384))".replace(
            "KIND", kind
        )
        % tuple(column.replace("{", "{{").replace("}", "}}") for column in columns),
        names,
        [(f"{number}'\"%s", text, said[number % len(said)]) for number, text in enumerate(TEXTS)],
        encoding(minilm_folder),
    )
    store = opened("bread", columns=parts, adopt=True)
    usual = {f"{number}'\"%s" for number in range(0, len(TEXTS), len(said))}
    found = {match.id: match.metadata for match in store.search(QUESTION, k=100)}
    assert found == {
        f"{number}'\"%s": {"n": 1} if number % len(said) == 0 else {}
        for number in range(len(TEXTS))
    }
    assert {record.id: record.metadata for record in store.records()} == found
    assert store.get(["1'\"%s"])[0] == Record("1'\"%s", TEXTS[1], {})
    filters: list[dict[str, Any]] = [{"n": 1}, {"n": {"$exists": True}}]
    for filter in filters:
        assert {match.id for match in store.search(QUESTION, k=100, filter=filter)} == usual
    rest = store.search(QUESTION, k=100, filter={"n": {"$ne": 1}})
    assert {match.id for match in rest} == {*found} - usual
    assert store.build_text_index()
    assert store.search("bagels", mode="text", k=1)[0].id == f"{BAGELS}'\"%s"
    assert opened("bread", columns=parts, verify=True).open().count() == len(TEXTS)


@pytest.mark.parametrize(
    ("columns", "said"),
    [("nobody", "none of 'langchain'"), ({"txt": "a"}, "has no part 'txt'")],
)
def test_columns_that_there_are_not(opened: Any, columns: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened("bread", columns=columns)


def test_what_a_table_lacks_is_told_at_once(
    postgres_dsn: str, schema: str, opened: Callable[..., PostgresStore]
) -> None:
    with pytest.raises(UnsupportedError, match="is for one that is there"):
        opened("bread", columns="langchain").open()
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        table = sql.Identifier(schema, "bread")
        connection.execute(sql.SQL("create table {} (id int, body int)").format(table))
    with pytest.raises(StoreError, match="lacks a column for embedding") as caught:
        opened("bread", columns={"text": "body", "metadata": "about"}).open()
    assert "lacks the column 'about' for metadata" in str(caught.value)
    assert "its column body for text is integer" in str(caught.value)


def test_the_asynchronous_store_and_addresses(
    postgres_dsn: str, schema: str, minilm: Embedder, minilm_folder: Path
) -> None:
    pgai(postgres_dsn, schema, encoding(minilm_folder))

    async def search() -> list[str]:
        async with AsyncPostgresStore(
            postgres_dsn, "bread", schema=schema, embedder=minilm, columns="pgai", adopt=True
        ) as store:
            with pytest.raises(UnsupportedError, match="only read"):
                await store.upsert([Record("new", "Toast it.")])
            return [match.id for match in await store.search(QUESTION, k=1)]

    assert asyncio.run(search()) == [IDS[BAGELS]]
    for columns in ("pgai", "id:embedding_uuid,text:chunk,chunk:chunk_seq"):
        ours = {"table": "bread", "schema": schema, "columns": columns}
        address = f"postgresql://?{urlencode({**conninfo_to_dict(postgres_dsn), **ours})}"
        with open_store(address, minilm, create=False) as opened:
            assert opened.search(QUESTION, k=1)[0].id == IDS[BAGELS]
