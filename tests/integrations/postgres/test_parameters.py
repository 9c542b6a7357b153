"""Texts as parameters of the caller's own SQL: every statement, and every cursor, there is."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from pgvector.psycopg import register_vector
from psycopg import sql

from toastrack import Embedder
from toastrack.errors import StoreError, TruncationError
from toastrack_postgres import (
    DocumentText,
    ParameterError,
    QueryText,
    register_embedder,
    register_embedder_async,
    unregister_embedder,
)

TEXTS = ["rye bread keeps", "wheat is mild", "salt the dough", "an oven is hot"]
KINDS = pytest.mark.parametrize("kind", ["vector", "halfvec"])


class Watched(Embedder):
    """Notes each call of the model's: how many texts, and on which thread it was asked."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.queries: list[list[str]] = []
        self.documents: list[list[str]] = []
        self.threads: set[int] = set()

    def embed_query(self, text: str) -> Any:
        self._note(self.queries, [text])
        return super().embed_query(text)

    def embed_queries(self, texts: Any) -> Any:
        self._note(self.queries, texts)
        return super().embed_queries(texts)

    def embed_documents(self, texts: Any) -> Any:
        self._note(self.documents, texts)
        return super().embed_documents(texts)

    async def aembed_queries(self, texts: Any) -> Any:
        self.queries.append(list(texts))
        return await super().aembed_queries(texts)

    async def aembed_documents(self, texts: Any) -> Any:
        self.documents.append(list(texts))
        return await super().aembed_documents(texts)

    def _note(self, calls: list[list[str]], texts: Any) -> None:
        calls.append(list(texts))
        self.threads.add(threading.get_ident())


@pytest.fixture
def watched(loaded: Embedder, tiny_folder: Any) -> Watched:
    return Watched(tiny_folder, device="cpu")


@pytest.fixture
def conninfo(postgres_dsn: str, schema: str) -> str:
    made: str = psycopg.conninfo.make_conninfo(
        postgres_dsn, options=f"-c search_path={schema},public"
    )
    with psycopg.connect(made) as connection:
        create(connection)
    return made


def create(connection: Any) -> None:
    for kind in ("vector", "halfvec"):
        connection.execute(
            f"create table {kind}_loaves (id bigint primary key, text text, "
            f"embedding {kind}(32), others {kind}(32)[])"
        )


@pytest.fixture
def connection(conninfo: str, watched: Watched) -> Iterator[Any]:
    with psycopg.connect(conninfo) as connection:
        register_embedder(connection, watched)
        yield connection


def fill(connection: Any, kind: str, texts: list[str] = TEXTS) -> None:
    rows = [(n, text, DocumentText(text)) for n, text in enumerate(texts)]
    with connection.cursor() as cursor:
        cursor.executemany(
            f"insert into {kind}_loaves (id, text, embedding) values (%s, %s, %s)", rows
        )


def stored(connection: Any, kind: str) -> Any:
    """The vectors in the table, by id; asked for as text, which no loader of anybody's changes."""
    rows = connection.execute(
        f"select embedding::text from {kind}_loaves order by id", prepare=False
    ).fetchall()
    return np.array([[float(x) for x in row[0][1:-1].split(",")] for row in rows])


def assert_embedded(connection: Any, kind: str, texts: list[str], embedder: Embedder) -> None:
    vectors = Embedder(embedder.model, device="cpu").embed_documents(texts)
    np.testing.assert_allclose(
        stored(connection, kind), vectors, atol=1e-3 if kind == "halfvec" else 1e-6
    )


def nearest(embedder: Embedder, question: str, texts: list[str] = TEXTS) -> list[int]:
    query = Embedder(embedder.model, device="cpu").embed_query(question)
    documents = Embedder(embedder.model, device="cpu").embed_documents(texts)
    return [int(n) for n in np.argsort(-(documents @ query), kind="stable")]


# -- the texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [QueryText, DocumentText])
def test_a_text_is_a_value_and_no_string(kind: Any) -> None:
    text = kind("rye")
    assert text.text == "rye"
    assert not isinstance(text, str)
    assert {text, kind("rye")} == {text}
    as_query: Any = QueryText("rye")
    assert as_query != DocumentText("rye")
    assert pickle.loads(pickle.dumps(text)) == text == copy.deepcopy(text)
    with pytest.raises(AttributeError):
        text.text = "wheat"
    with pytest.raises(TypeError, match=f"make a list.*{kind.__name__}"):
        kind(["rye"])


# -- one statement ------------------------------------------------------------------------------


@KINDS
def test_select_embeds_once_and_by_its_role(connection: Any, watched: Watched, kind: str) -> None:
    fill(connection, kind)
    assert_embedded(connection, kind, TEXTS, watched)
    question = QueryText("which bread keeps")
    rows = connection.execute(
        f"select id, 1 - (embedding <=> %(q)s) from {kind}_loaves order by embedding <=> %(q)s",
        {"q": question},
    ).fetchall()
    assert [row[0] for row in rows] == nearest(watched, question.text)
    assert watched.queries == [["which bread keeps"]]
    positional = connection.execute(
        f"select id, embedding <=> %s from {kind}_loaves order by embedding <=> %s",
        [question, question],
    ).fetchall()
    assert [row[0] for row in positional] == [row[0] for row in rows]
    # By statement, and not on the object.
    assert watched.queries == [["which bread keeps"]] * 2


@KINDS
def test_insert_update_and_delete(connection: Any, watched: Watched, kind: str) -> None:
    insert = f"insert into {kind}_loaves (id, text, embedding) values (%s, %s, %s), (%s, %s, %s)"
    connection.execute(insert, [0, "a", DocumentText(TEXTS[0]), 1, "b", DocumentText(TEXTS[1])])
    assert watched.documents == [TEXTS[:2]]
    connection.execute(
        f"update {kind}_loaves set embedding = %(v)s where id = %(id)s",
        {"v": DocumentText(TEXTS[2]), "id": 1, "not used": 3},
    )
    assert_embedded(connection, kind, [TEXTS[0], TEXTS[2]], watched)
    connection.execute(
        f"insert into {kind}_loaves (id, embedding) values (0, %s) "
        "on conflict (id) do update set embedding = excluded.embedding",
        [DocumentText(TEXTS[3])],
    )
    assert_embedded(connection, kind, [TEXTS[3], TEXTS[2]], watched)
    gone = connection.execute(
        f"delete from {kind}_loaves where embedding <=> %s < 1e-3", [DocumentText(TEXTS[3])]
    )
    assert gone.rowcount == 1


@KINDS
def test_merge(connection: Any, watched: Watched, kind: str) -> None:
    if connection.info.server_version < 150_000:
        pytest.skip("MERGE came with Postgres 15")
    fill(connection, kind, TEXTS[:1])
    connection.execute(
        f"merge into {kind}_loaves t using (select 0 as id) s on t.id = s.id "
        "when matched then update set embedding = %s",
        [DocumentText(TEXTS[1])],
    )
    assert_embedded(connection, kind, TEXTS[1:2], watched)


@KINDS
def test_many_questions_in_one_statement_are_one_call(
    connection: Any, watched: Watched, kind: str
) -> None:
    fill(connection, kind)
    questions = ["which bread keeps", "how hot is the oven", "which bread keeps"]
    rows = connection.execute(
        "select q.n, found.id from unnest(%s) with ordinality q (v, n) "
        f"cross join lateral (select id from {kind}_loaves order by embedding <=> q.v limit 2) found",
        [[QueryText(question) for question in questions]],
    ).fetchall()
    assert watched.queries == [questions[:2]]
    for n, question in enumerate(questions, start=1):
        assert [row[1] for row in rows if row[0] == n] == nearest(watched, question)[:2]


@KINDS
def test_arrays_any_and_nulls(connection: Any, watched: Watched, kind: str) -> None:
    fill(connection, kind)
    texts: list[Any] = [DocumentText(text) for text in TEXTS[:2]]
    same = f"select id from {kind}_loaves where embedding = any (%s::{kind}[]) order by id"
    assert connection.execute(same, [texts]).fetchall() == [(0,), (1,)]
    assert connection.execute(same, [[None, *texts]]).fetchall() == [(0,), (1,)]
    connection.execute(f"update {kind}_loaves set others = %s where id = 0", [texts])
    assert connection.execute(
        f"select array_length(others, 1), others[2] = (select embedding from {kind}_loaves "
        f"where id = 1) from {kind}_loaves where id = 0"
    ).fetchone() == (2, True)


@KINDS
def test_binary_quantize(connection: Any, watched: Watched, kind: str) -> None:
    fill(connection, kind)
    question = QueryText("which bread keeps")
    (row,) = connection.execute(
        f"select id from {kind}_loaves order by binary_quantize(embedding)::bit(32) "
        "<~> binary_quantize(%s), embedding <=> %s limit 1",
        [question, question],
    ).fetchall()
    vectors = Embedder(watched.model, device="cpu")
    distance = (
        (vectors.embed_documents(TEXTS) > 0) != (vectors.embed_query(question.text) > 0)
    ).sum(axis=1)
    assert distance[row[0]] == distance.min()


@KINDS
@pytest.mark.parametrize("placeholder", ["%s", "%b", "%t"])
def test_each_placeholder(connection: Any, watched: Watched, kind: str, placeholder: str) -> None:
    connection.execute(
        f"insert into {kind}_loaves (id, embedding, others) values (0, {placeholder}, {placeholder})",
        [DocumentText(TEXTS[0]), [DocumentText(TEXTS[0])]],
    )
    assert_embedded(connection, kind, TEXTS[:1], watched)
    assert connection.execute(f"select others[1] = embedding from {kind}_loaves").fetchone() == (
        True,
    )


def test_composed_statements_and_percent_signs(connection: Any, watched: Watched) -> None:
    statement = sql.SQL("insert into {} (id, text, embedding) values (5 %% 3, 'a %%s', {})").format(
        sql.Identifier("vector_loaves"), sql.Placeholder("v")
    )
    connection.execute(statement, {"v": DocumentText(TEXTS[0])})
    connection.execute(
        b"insert into vector_loaves (id, embedding) values (3, %s)", [DocumentText(TEXTS[1])]
    )
    assert_embedded(connection, "vector", TEXTS[:2], watched)
    assert connection.execute("select id, text from vector_loaves where id = 2").fetchone() == (
        2,
        "a %s",
    )


def test_what_has_no_texts_is_as_it_was(connection: Any, watched: Watched) -> None:
    assert connection.execute("select %s + 1", [1]).fetchone() == (2,)
    assert connection.execute("select 1; select 2").fetchone() == (1,)
    assert connection.execute("select %(a)s, %(a)s", {"a": [1]}).fetchone() == ([1], [1])
    with pytest.raises(psycopg.ProgrammingError, match="2 parameters were passed"):
        connection.execute("select %s", [1, 2])
    assert watched.queries == watched.documents == []


def test_an_error_of_the_model_comes_before_the_statement(
    conninfo: str, loaded: Embedder, tiny_folder: Any
) -> None:
    strict = Embedder(tiny_folder, device="cpu", on_truncate="error")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_embedder(connection, strict)
        insert = "insert into vector_loaves (id, embedding) values (%s, %s)"
        with pytest.raises(TruncationError):
            connection.execute(insert, [0, DocumentText("rye " * 100)])
        connection.execute(insert, [1, DocumentText("rye")])
        assert connection.execute("select count(*) from vector_loaves").fetchone() == (1,)


# -- cursors ------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("factory", [psycopg.ClientCursor, psycopg.RawCursor])
def test_other_cursors_of_psycopg(
    connection: Any, watched: Watched, kind: str, factory: Any
) -> None:
    unregister_embedder(connection)
    connection.cursor_factory = factory
    register_embedder(connection, watched)
    place = "$1" if factory is psycopg.RawCursor else "%s"
    connection.execute(
        f"insert into {kind}_loaves (id, embedding) values (0, {place})", [DocumentText(TEXTS[0])]
    )
    assert_embedded(connection, kind, TEXTS[:1], watched)
    with pytest.raises(ParameterError, match=r"Parameter 1 .* lands in the type text"):
        connection.execute(
            f"insert into {kind}_loaves (id, text) values (1, {place})", [DocumentText(TEXTS[0])]
        )
    (row,) = connection.execute(
        f"select id from {kind}_loaves order by binary_quantize(embedding)::bit(32) <~> "
        f"binary_quantize({place})",
        [QueryText("rye")],
    ).fetchall()
    assert row == (0,)


@KINDS
def test_server_side_cursors(connection: Any, watched: Watched, kind: str) -> None:
    fill(connection, kind)
    with connection.cursor("found") as cursor:
        cursor.execute(
            f"select id from {kind}_loaves order by embedding <=> %s", [QueryText("rye keeps")]
        )
        assert [row[0] for row in cursor] == nearest(watched, "rye keeps")
    assert watched.queries == [["rye keeps"]]


@KINDS
def test_streams(connection: Any, watched: Watched, kind: str) -> None:
    fill(connection, kind)
    with connection.cursor() as cursor:
        rows = cursor.stream(
            f"select id from {kind}_loaves order by embedding <=> %s", [QueryText("rye keeps")]
        )
        assert [row[0] for row in rows] == nearest(watched, "rye keeps")
    assert watched.queries == [["rye keeps"]]


@KINDS
@pytest.mark.parametrize("autocommit", [True, False])
def test_pipelines(conninfo: str, watched: Watched, kind: str, autocommit: bool) -> None:
    if not psycopg.Pipeline.is_supported():
        pytest.skip("this libpq has no pipelines")
    with psycopg.connect(conninfo, autocommit=autocommit) as connection:
        register_embedder(connection, watched)
        with connection.pipeline():
            for n, text in enumerate(TEXTS):
                connection.execute(
                    f"insert into {kind}_loaves (id, embedding) values (%s, %s)",
                    [n, DocumentText(text)],
                )
            with pytest.raises(ParameterError, match="lands in the type text"):
                connection.execute(
                    f"insert into {kind}_loaves (id, text) values (9, %s)", [DocumentText("rye")]
                )
            found = connection.execute(
                f"select id from {kind}_loaves order by embedding <=> %s", [QueryText("rye keeps")]
            )
            cursor = connection.cursor()
            cursor.executemany(
                f"update {kind}_loaves set embedding = %s where id = %s",
                [(DocumentText(text), n) for n, text in enumerate(reversed(TEXTS))],
            )
        assert [row[0] for row in found] == nearest(watched, "rye keeps")
        assert cursor.rowcount == 4
        assert_embedded(connection, kind, TEXTS[::-1], watched)


def test_cursors_of_other_hands_embed_one_by_one(conninfo: str, watched: Watched) -> None:
    with psycopg.connect(conninfo) as connection:
        before = connection.cursor()
        register_embedder(connection, watched)
        for n, cursor in enumerate([before, psycopg.Cursor(connection)]):
            cursor.executemany(
                "insert into vector_loaves (id, embedding) values (%s, %s)",
                [(2 * n, DocumentText(TEXTS[2 * n])), (2 * n + 1, DocumentText(TEXTS[2 * n + 1]))],
            )
            cursor.execute("select embedding <=> %t from vector_loaves", [QueryText("rye")])
        assert watched.documents == [[text] for text in TEXTS]
        assert watched.queries == [["rye"], ["rye"]]
        assert_embedded(connection, "vector", TEXTS, watched)


def test_own_cursor_factories_stay(conninfo: str, watched: Watched) -> None:
    class Mine(psycopg.Cursor):  # type: ignore[misc, name-defined]
        seen: list[Any] = []  # noqa: RUF012

        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            self.seen.append(query)
            return super().execute(query, params, **options)

    class MineOnTheServer(psycopg.ServerCursor):  # type: ignore[misc, name-defined]
        pass

    with psycopg.connect(conninfo, cursor_factory=Mine) as connection:
        connection.server_cursor_factory = MineOnTheServer
        connection.row_factory = psycopg.rows.dict_row
        register_embedder(connection, watched)
        register_embedder(connection, watched)
        statement = "select embedding <=> %s as far from vector_loaves"
        with connection.cursor("far") as cursor:
            assert isinstance(cursor, MineOnTheServer)
            cursor.execute(statement, [QueryText("rye")])
        cursor = connection.execute(statement, [QueryText("rye")])
        assert isinstance(cursor, Mine)
        assert Mine.seen == [statement]
        unregister_embedder(connection)
        assert connection.cursor_factory is Mine
        assert connection.server_cursor_factory is MineOnTheServer
        assert connection.row_factory is psycopg.rows.dict_row


def test_unregistering_leaves_what_was_set_since(conninfo: str, watched: Watched) -> None:
    with psycopg.connect(conninfo) as connection:
        register_embedder(connection, watched)
        ours = connection.cursor()
        derived = type("Derived", (connection.cursor_factory,), {})
        connection.cursor_factory = derived
        unregister_embedder(connection)
        unregister_embedder(connection)
        assert connection.cursor_factory is derived
        assert connection.server_cursor_factory is psycopg.ServerCursor
        for cursor in (ours, connection.cursor(), psycopg.Cursor(connection)):
            assert cursor.execute("select %s", [1]).fetchone() == (1,)
            with pytest.raises(ParameterError, match="register_embedder"):
                cursor.execute("select %s", [QueryText("rye")])
        with ours.copy("copy vector_loaves (id) from stdin") as copying:
            copying.write_row([1])
        ours.executemany("insert into vector_loaves (id) values (%s)", [[2], [3]])
        assert ours.rowcount == 2


def test_a_connection_without_an_embedder_says_so(conninfo: str) -> None:
    with (
        psycopg.connect(conninfo) as connection,
        pytest.raises(psycopg.ProgrammingError, match="register_embedder"),
    ):
        connection.execute("select %s", [QueryText("rye")])


# -- executemany --------------------------------------------------------------------------------


INSERT = "insert into vector_loaves (id, embedding) values (%s, %s)"


def test_executemany_reads_windows_of_a_thousand(connection: Any, watched: Watched) -> None:
    read = 0
    seen: list[int] = []

    def rows() -> Iterator[tuple[int, DocumentText]]:
        nonlocal read
        for read in range(1, 2_502):
            seen.append(len(watched.documents))
            yield read, DocumentText(f"loaf {read}")

    with connection.cursor() as cursor:
        cursor.executemany(INSERT, rows())
        assert cursor.rowcount == 2_501
    assert [len(texts) for texts in watched.documents] == [1_000, 1_000, 501]
    # The generator was asked for the second thousand when the first was embedded.
    assert seen[0] == 0
    assert seen[1_000] == 1
    assert seen[2_000] == 2
    assert connection.execute("select count(*) from vector_loaves").fetchone() == (2_501,)


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001])
def test_executemany_returns_as_psycopg_does(connection: Any, watched: Watched, count: int) -> None:
    rows = [(n, DocumentText("loaf")) for n in range(count)]
    with connection.cursor() as cursor:
        cursor.executemany(f"{INSERT} returning id", rows, returning=True)
        assert ids(cursor) == list(range(count))
    with connection.cursor() as cursor:
        cursor.executemany("delete from vector_loaves where id = %s", [[n] for n in range(count)])
        assert cursor.rowcount == count


def ids(cursor: Any) -> list[int]:
    found: list[int] = []
    while cursor.pgresult is not None:
        found += [row[0] for row in cursor.fetchall()]
        if not cursor.nextset():
            break
    return found


def test_executemany_embeds_a_text_once_a_window(connection: Any, watched: Watched) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "update vector_loaves set embedding = %(v)s where embedding <=> %(q)s < %(far)s",
            [{"v": DocumentText("rye"), "q": QueryText("rye"), "far": far} for far in (0.1, 0.2)],
        )
    assert (watched.documents, watched.queries) == ([["rye"]], [["rye"]])


def test_executemany_looks_at_all_its_windows(connection: Any, watched: Watched) -> None:
    rows: list[Any] = [(n, None, DocumentText("loaf")) for n in range(1_001)]
    rows.append((1_001, DocumentText("loaf"), None))
    with (
        connection.transaction(force_rollback=True),
        pytest.raises(ParameterError, match="lands in the type text"),
    ):
        connection.cursor().executemany(
            "insert into vector_loaves (id, text, embedding) values (%s, %s, %s)", rows
        )


# -- COPY ---------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("types", [False, True], ids=["", "types"])
def test_copy(connection: Any, watched: Watched, kind: str, binary: bool, types: bool) -> None:
    form = "(format binary)" if binary else ""
    # As text, an older psycopg does not ask what types were set.
    others = types and binary
    texts = [DocumentText(text) for text in TEXTS]
    ready = np.full(32, 0.5, np.float32)
    cursor = connection.cursor()
    with (
        cursor.copy(
            f"COPY {kind}_loaves (id, Text, embedding, others) FROM STDIN {form}"
        ) as copying,
    ):
        assert isinstance(copying, psycopg.Copy)
        if types:
            copying.set_types(["int8", "text", kind, f"{kind}[]"])
        for n, text in enumerate(texts[:3]):
            number = n if types or not binary else psycopg.types.numeric.Int8(n)
            copying.write_row([number, text.text, text, texts[:2]])
        number = 3 if types or not binary else psycopg.types.numeric.Int8(3)
        copying.write_row([number, None, ready if others else texts[3], None])
    assert cursor.rowcount == 4
    assert watched.documents == [TEXTS[:3] if others else TEXTS]
    (same,) = connection.execute(
        f"select bool_and(others[2] = (select embedding from {kind}_loaves where id = 1)) "
        f"from {kind}_loaves where id < 3"
    ).fetchone()
    assert same is True
    connection.execute(
        f"update {kind}_loaves set embedding = %s where id = 3 and {others}", [texts[3]]
    )
    assert_embedded(connection, kind, TEXTS, watched)


def test_copy_holds_rows_back(connection: Any, watched: Watched) -> None:
    row: list[Any] = [0, None]
    with connection.cursor().copy("copy vector_loaves (id, embedding) from stdin") as copying:
        copying.write_row(row)  # nothing to wait for
        for row[0] in range(1, 601):
            row[1] = DocumentText(f"loaf {row[0]}")
            copying.write_row(row)
            assert len(watched.documents) == row[0] // 256
        copying.write_row([601, None])
        copying.write("602\t\\N\n")
    assert [len(texts) for texts in watched.documents] == [256, 256, 88]
    assert connection.execute(
        "select count(*), count(embedding), max(id) from vector_loaves"
    ).fetchone() == (603, 600, 602)


def test_copy_of_all_columns_and_names_in_quotes(connection: Any, watched: Watched) -> None:
    connection.execute('create schema if not exists "my shop"')
    connection.execute(
        'create table "my shop"."Lo""aves" (gone int, "id, x" int, double int generated always as '
        '("id, x" * 2) stored, v halfvec(32))'
    )
    connection.execute('alter table "my shop"."Lo""aves" drop column gone')
    for n, columns in enumerate(["", ' ( "id, x" , V )']):
        with connection.cursor().copy(
            f' copy "my shop" . "Lo""aves"{columns} from stdin (format binary)'
        ) as copying:
            copying.set_types(["int4", "halfvec"])
            copying.write_row([n, DocumentText("rye")])
    rows = connection.execute(
        'select v <=> %s < 1e-3 from "my shop"."Lo""aves"', [DocumentText("rye")]
    ).fetchall()
    assert rows == [(True,), (True,)]
    connection.execute('drop schema "my shop" cascade')


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("copy vector_loaves (id, text) from stdin", r"Value 2 .*column 'text' is text"),
        ("copy vector_loaves from stdin", r"Value 2 .*column 'text' is text"),
        ("/* mine */ copy vector_loaves (id, embedding) from stdin", "could not be read"),
    ],
)
def test_copy_into_other_types_is_refused(
    connection: Any, watched: Watched, statement: str, place: str
) -> None:
    with (
        pytest.raises(ParameterError, match=place),
        connection.cursor().copy(statement) as copying,
    ):
        copying.write_row([1, DocumentText("rye")])
    connection.rollback()
    assert watched.documents == []
    with connection.cursor().copy(statement) as copying:
        copying.write("1\t\\N" + ("\t\\N\t\\N" if "(" not in statement else "") + "\n")
    assert connection.execute("select count(*) from vector_loaves").fetchone() == (1,)


@KINDS
def test_copy_to(connection: Any, watched: Watched, kind: str) -> None:
    fill(connection, kind)
    with connection.cursor().copy(
        f"copy (select id from {kind}_loaves order by embedding <=> %s) to stdout",
        [QueryText("rye keeps")],
    ) as copying:
        copying.set_types(["int8"])
        assert [row[0] for row in copying.rows()] == nearest(watched, "rye keeps")
    assert watched.queries == [["rye keeps"]]


# -- where a text may land ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "parameters", "message"),
    [
        (
            "insert into vector_loaves (id, text, embedding) values (%s, %s, %s)",
            [1, DocumentText("rye"), DocumentText("rye")],
            "Parameter 2 .* type text",
        ),
        (
            "with x as (select 1) insert into vector_loaves (id, text) select 1, %(t)s",
            {"t": DocumentText("rye")},
            "Parameter 't' .* type text",
        ),
        ("update vector_loaves set text = %s", [QueryText("rye")], "Parameter 1 .* type text"),
        (
            "update vector_loaves set text = 'x' || %s::text",
            [QueryText("rye")],
            "Parameter 1 .* type text",
        ),
        (
            "insert into vector_loaves (id, text) select n, v from unnest(%s) with ordinality u(v, n)",
            [[DocumentText("rye")]],
            r"Parameter 1 .* type text\[\]",
        ),
        ("insert into others (reals) values (%s)", [DocumentText("rye")], r"type real\[\]"),
        ("insert into others (sparse) values (%s)", [DocumentText("rye")], "type sparsevec"),
        ("insert into others (doc) values (%s)", [DocumentText("rye")], "type jsonb"),
    ],
)
@pytest.mark.parametrize("autocommit", [True, False])
def test_a_text_in_another_type_is_refused(
    conninfo: str,
    watched: Watched,
    statement: str,
    parameters: Any,
    message: str,
    autocommit: bool,
) -> None:
    with psycopg.connect(conninfo, autocommit=autocommit) as connection:
        connection.execute("create table others (reals real[], sparse sparsevec(32), doc jsonb)")
        register_embedder(connection, watched)
        for _ in range(2):
            with pytest.raises(ParameterError, match=message):
                connection.execute(statement, parameters)
            with pytest.raises(ParameterError, match=message):
                connection.cursor().executemany(statement, [parameters])
        assert watched.queries == watched.documents == []
        # The transaction goes on.
        assert connection.execute("select count(*) from vector_loaves").fetchone() == (0,)


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (
            "insert into bits (id, bits) values (%s, binary_quantize(%s))",
            [1, DocumentText("rye")],
        ),
        (
            "insert into bits (id, v) select n, v from unnest(%s) with ordinality u (v, n)",
            [[DocumentText("rye")]],
        ),
        ("insert into bits (id, v) values (1, l2_normalize(%s))", [DocumentText("rye")]),
        ("insert into bits (id, ours) values (1, %s)", [DocumentText("rye")]),
        ("insert into bits (id, v) values (1, coalesce(null, %s))", [DocumentText("rye")]),
        (
            "insert into bits (id, v, day) values (%s, %s, now() - %s)",
            [1, DocumentText("rye"), __import__("datetime").timedelta(1)],
        ),
        ("insert into bits (id, v, words) values (%s, %s, %s)", [1, DocumentText("rye"), ["a"]]),
    ],
)
def test_a_text_in_a_function_of_vectors_is_taken(
    connection: Any, statement: str, parameters: Any
) -> None:
    connection.execute("create domain ours as halfvec(32) check (value is not null)")
    connection.execute(
        "create table bits (id int, bits bit(32), v vector(32), day timestamptz, words text[], "
        "ours ours default array_fill(0, array[32])::halfvec(32))"
    )
    connection.execute(statement, parameters)
    assert connection.execute("select count(*) from bits").fetchone() == (1,)


def test_a_statement_is_described_once(
    conninfo: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toastrack_postgres import landing

    asked: list[str] = []
    original = landing._Question.landing

    async def noted(self: Any, *args: Any) -> Any:
        asked.append(self._statement)
        return await original(self, *args)

    monkeypatch.setattr(landing._Question, "landing", noted)
    with psycopg.connect(conninfo) as connection:
        register_embedder(connection, watched)
        for n in range(3):
            connection.execute(INSERT, [n, DocumentText("rye")])
        connection.execute("select embedding <=> %s from vector_loaves", [QueryText("rye")])
        connection.execute("delete from vector_loaves where embedding = %s", [QueryText("rye")])
    assert asked == ["insert into vector_loaves (id, embedding) values ($1, $2)"]


def test_a_wrong_statement_says_so_itself(conninfo: str, watched: Watched) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_embedder(connection, watched)
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("insert into nowhere values (%s)", [DocumentText("rye")])
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("insert vector_loaves %s", [DocumentText("rye")])
        with pytest.raises(psycopg.ProgrammingError, match="1 placeholders"):
            connection.execute(
                "insert into vector_loaves (embedding) values (%s)", [DocumentText("a"), 1]
            )
        with connection.transaction(force_rollback=True):
            with pytest.raises(psycopg.errors.UndefinedTable):
                connection.execute("select * from nowhere")
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                connection.execute(INSERT, [1, DocumentText("rye")])


# -- beside others ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["before", "after"])
def test_beside_pgvectors_own_registration(conninfo: str, watched: Watched, order: str) -> None:
    with psycopg.connect(conninfo) as connection:
        if order == "before":
            register_vector(connection)
        register_embedder(connection, watched)
        if order == "after":
            register_vector(connection)
        ready = np.full(32, 0.5, np.float32)
        insert = "insert into halfvec_loaves (id, embedding) values (%s, %s)"
        connection.execute(insert, [0, ready])
        connection.execute(insert, [1, DocumentText("rye")])
        with connection.cursor().copy(
            "copy vector_loaves (id, embedding) from stdin (format binary)"
        ) as copying:
            copying.set_types(["int8", "vector"])
            copying.write_row([0, ready])
            copying.write_row([1, DocumentText("rye")])
        (loaded, distance) = connection.execute(
            "select embedding, embedding <=> %s from vector_loaves where id = 1",
            [DocumentText("rye")],
        ).fetchone()
        # What pgvector loads is pgvector's: an array, or an object of its own from 0.4 on.
        vector = loaded.to_numpy() if hasattr(loaded, "to_numpy") else loaded
        assert vector.shape == (32,)
        assert distance < 1e-3
        unregister_embedder(connection)
        connection.execute(insert, [2, ready])
        with connection.cursor().copy(
            "copy vector_loaves (id, embedding) from stdin (format binary)"
        ) as copying:
            copying.set_types(["int8", "vector"])
            copying.write_row([3, ready])
        assert connection.execute("select count(*) from vector_loaves").fetchone() == (3,)


def test_no_loader_is_registered(connection: Any) -> None:
    fill(connection, "vector", TEXTS[:1])
    fill(connection, "halfvec", TEXTS[:1])
    (vector, half, array) = connection.execute(
        "select v.embedding, h.embedding, array[v.embedding] from vector_loaves v, halfvec_loaves h"
    ).fetchone()
    assert all(isinstance(value, str) for value in (vector, half, array))


# -- registering --------------------------------------------------------------------------------


@pytest.mark.parametrize("autocommit", [True, False])
def test_registering_leaves_a_connection_as_idle_as_it_was(
    conninfo: str, watched: Watched, autocommit: bool
) -> None:
    idle, busy = psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.INTRANS
    with psycopg.connect(conninfo, autocommit=autocommit) as connection:
        register_embedder(connection, watched)
        assert connection.info.transaction_status == idle
        with connection.transaction():
            connection.execute("insert into vector_loaves (id) values (1)")
            register_embedder(connection, watched)
            assert connection.info.transaction_status == busy
            connection.execute(INSERT, [2, DocumentText("rye")])
        assert connection.info.transaction_status == idle
        assert connection.execute("select count(*) from vector_loaves").fetchone() == (2,)


def test_another_embedder_takes_its_place(
    connection: Any, watched: Watched, tiny_folder: Any
) -> None:
    cursor = connection.cursor()
    other = Watched(tiny_folder, device="cpu", query_prompt="other: ")
    register_embedder(connection, other)
    cursor.execute("select embedding <=> %s from vector_loaves", [QueryText("rye")])
    assert (watched.queries, other.queries) == ([], [["rye"]])


def test_a_pool(conninfo: str, watched: Watched) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")
    with psycopg_pool.ConnectionPool(
        conninfo, min_size=2, configure=lambda c: register_embedder(c, watched), open=True
    ) as pool:
        for n in range(3):
            with pool.connection() as connection:
                connection.execute(INSERT, [n, DocumentText(TEXTS[n])])
        with pool.connection() as connection:
            assert_embedded(connection, "vector", TEXTS[:3], watched)


def test_pgvector_in_a_schema_of_its_own(postgres_dsn: str, watched: Watched) -> None:
    """Not in the search_path, so that its names have to be written with their schema."""
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute("drop database if exists toastrack_elsewhere")
        admin.execute("create database toastrack_elsewhere template template0")
        conninfo = psycopg.conninfo.make_conninfo(postgres_dsn, dbname="toastrack_elsewhere")
        try:
            with psycopg.connect(conninfo) as connection:
                with pytest.raises(StoreError, match="CREATE EXTENSION vector"):
                    register_embedder(connection, watched)
                connection.rollback()
                connection.execute("create schema ext")
                connection.execute("create extension vector schema ext")
                connection.execute(
                    "create table t (id int, v ext.halfvec(32), vs ext.vector(32)[])"
                )
                for factory in (psycopg.Cursor, psycopg.ClientCursor):
                    connection.cursor_factory = factory
                    register_embedder(connection, watched)
                    connection.execute(
                        "insert into t values (%s, %s, %s)",
                        [1, DocumentText("rye"), [DocumentText("rye"), None]],
                    )
                rows = connection.execute(
                    "select v operator(ext.<=>) %s < 1e-3, vs[2] is null from t",
                    [DocumentText("rye")],
                ).fetchall()
                assert rows == [(True, True)] * 2
        finally:
            admin.execute("drop database toastrack_elsewhere with (force)")


def test_what_cannot_be_registered_is_named(conninfo: str, watched: Watched) -> None:
    with pytest.raises(TypeError, match=r"psycopg\.Connection, not str"):
        register_embedder(conninfo, watched)  # type: ignore[arg-type]
    with psycopg.connect(conninfo) as connection:
        with pytest.raises(TypeError, match="embedder is a str"):
            register_embedder(connection, "mxbai")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="register_embedder_async takes"):
            asyncio.run(register_embedder_async(connection, watched))
        connection.cursor_factory = lambda *_, **__: psycopg.Cursor(connection)
        with pytest.raises(TypeError, match="subclass of a cursor"):
            register_embedder(connection, watched)


# -- asynchronous -------------------------------------------------------------------------------


@pytest.fixture
def on_loop(conninfo: str, watched: Watched) -> Callable[..., Any]:
    """Run a coroutine over an asynchronous connection that knows the embedder."""

    @asynccontextmanager
    async def connected(**options: Any) -> AsyncIterator[Any]:
        async with await psycopg.AsyncConnection.connect(conninfo, **options) as connection:
            await register_embedder_async(connection, watched)
            yield connection

    def run(body: Callable[[Any], Coroutine[Any, Any, Any]], **options: Any) -> Any:
        async def main() -> Any:
            async with connected(**options) as connection:
                return await body(connection)

        return asyncio.run(main())

    return run


@pytest.fixture
def model_threads(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads on which the model ran, or was given texts to read."""
    seen: set[int] = set()
    engine = watched._worker().engine
    for name in ("prepare", "run"):
        original = getattr(engine, name)

        def noted(*args: Any, _original: Any = original, **options: Any) -> Any:
            seen.add(threading.get_ident())
            return _original(*args, **options)

        monkeypatch.setattr(engine, name, noted)
    return seen


@KINDS
def test_asynchronous_statements(
    on_loop: Any, watched: Watched, kind: str, model_threads: set[int]
) -> None:
    async def body(connection: Any) -> None:
        here = threading.get_ident()
        insert = f"insert into {kind}_loaves (id, text, embedding) values (%s, %s, %s)"
        async with connection.cursor() as cursor:
            rows = [(n, text, DocumentText(text)) for n, text in enumerate(TEXTS[:2])]
            await cursor.executemany(insert, rows)
            assert cursor.rowcount == 2
            async with cursor.copy(
                f"copy {kind}_loaves (id, embedding) from stdin (format binary)"
            ) as copying:
                copying.set_types(["int8", kind])
                await copying.write_row([2, DocumentText(TEXTS[2])])
        await connection.execute(insert, [3, TEXTS[3], DocumentText(TEXTS[3])])
        search = f"select id from {kind}_loaves order by embedding <=> %s"
        question = QueryText("rye keeps")
        expected = await asyncio.to_thread(nearest, watched, question.text)
        found = [await (await connection.execute(search, [question])).fetchall()]
        async with connection.cursor() as cursor:
            found.append([row async for row in cursor.stream(search, [question])])
        async with connection.cursor("found") as cursor:
            await cursor.execute(search, [question])
            found.append(await cursor.fetchall())
        async with connection.pipeline():
            cursor = await connection.execute(search, [question])
            found.append(await cursor.fetchall())
        assert [[row[0] for row in rows] for rows in found] == [expected] * 4
        for statement, values in (
            (f"update {kind}_loaves set text = %s", [DocumentText("rye")]),
            (f"update {kind}_loaves set text = %(t)s", {"t": DocumentText("rye")}),
        ):
            with pytest.raises(ParameterError, match="lands in the type text"):
                await connection.execute(statement, values)
        with pytest.raises(ParameterError, match="column 'text' is text"):
            async with connection.cursor().copy(f"copy {kind}_loaves (text) from stdin") as copying:
                await copying.write_row([DocumentText("rye")])
        assert model_threads
        assert here not in model_threads

    on_loop(body)


@pytest.mark.parametrize("autocommit", [True, False])
def test_asynchronous_executemany_of_several_windows(
    on_loop: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch, autocommit: bool
) -> None:
    read = 0

    def rows() -> Iterator[tuple[int, DocumentText]]:
        nonlocal read
        for read in range(2_001):
            yield read, DocumentText(f"loaf {read}")

    calls: list[tuple[int, int]] = []

    async def embed(texts: Any) -> Any:
        calls.append((len(texts), read))
        return await Watched.aembed_documents(watched, texts)

    monkeypatch.setattr(watched, "aembed_documents", embed)

    async def body(connection: Any) -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany(INSERT, rows())
            assert cursor.rowcount == 2_001
            assert calls == [(1_000, 999), (1_000, 1_999), (1, 2_000)]
            await cursor.execute("delete from vector_loaves")
            await cursor.executemany(f"{INSERT} returning id", rows(), returning=True)
            found = []
            while True:
                found += [row[0] for row in await cursor.fetchall()]
                if not cursor.nextset():
                    break
            assert found == list(range(2_001))
            await cursor.execute("delete from vector_loaves")
            twice = [*rows(), (0, DocumentText("again"))]
            with pytest.raises(psycopg.errors.UniqueViolation):
                async with connection.transaction() if not autocommit else connection.cursor():
                    await cursor.executemany(INSERT, twice)
            left = await (await connection.execute("select count(*) from vector_loaves")).fetchone()
            assert left == (0,)
            if psycopg.Pipeline.is_supported():
                async with connection.pipeline():
                    await cursor.executemany(INSERT, rows())
                assert cursor.rowcount == 2_001

    on_loop(body, autocommit=autocommit)


def test_the_loop_goes_on_meanwhile(
    on_loop: Any, watched: Watched, model_threads: set[int]
) -> None:
    """Shown by thread: what the model runs on is never the loop's."""

    async def body(connection: Any) -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        async with connection.cursor() as cursor:
            rows = [(n, DocumentText(f"loaf {n} of rye")) for n in range(200)]
            await cursor.executemany(INSERT, rows)
        ticking.cancel()
        assert ticks > 1
        assert model_threads
        assert threading.get_ident() not in model_threads

    on_loop(body)


def test_cursors_of_other_hands_are_refused_on_a_loop(conninfo: str, watched: Watched) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            before = connection.cursor()
            await register_embedder_async(connection, watched)
            for cursor in (before, psycopg.AsyncCursor(connection)):
                with pytest.raises(ParameterError, match=r"connection\.cursor\(\)"):
                    await cursor.execute("select %s", [QueryText("rye")])
            unregister_embedder(connection)
            assert connection.cursor_factory is psycopg.AsyncCursor

    asyncio.run(main())
    assert watched.queries == []


@pytest.mark.parametrize("what", ["execute", "executemany", "copy"])
def test_a_cancelled_call_ends(
    on_loop: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def body(connection: Any) -> None:
        began = asyncio.Event()

        async def forever(texts: Any) -> Any:
            began.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(watched, "aembed_documents", forever)

            async def call() -> None:
                async with connection.cursor() as cursor:
                    if what == "execute":
                        await cursor.execute(INSERT, [1, DocumentText("rye")])
                    elif what == "executemany":
                        rows = [(n, DocumentText("rye")) for n in range(1_001)]
                        await cursor.executemany(INSERT, rows)
                    else:
                        async with cursor.copy(
                            "copy vector_loaves (id, embedding) from stdin"
                        ) as copying:
                            await copying.write_row([1, DocumentText("rye")])

            task = asyncio.create_task(call())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await connection.rollback()
        await connection.execute(INSERT, [2, DocumentText("rye")])
        found = await (await connection.execute("select id from vector_loaves")).fetchall()
        assert found == [(2,)]

    on_loop(body)


def test_an_asynchronous_pool(conninfo: str, watched: Watched) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg-pool is not installed")

    async def main() -> None:
        async def configure(connection: Any) -> None:
            await register_embedder_async(connection, watched)

        async with (
            psycopg_pool.AsyncConnectionPool(
                conninfo, min_size=2, configure=configure, open=False
            ) as pool,
            pool.connection() as connection,
        ):
            await connection.execute(INSERT, [1, DocumentText("rye")])

    asyncio.run(main())
    assert watched.documents == [["rye"]]
