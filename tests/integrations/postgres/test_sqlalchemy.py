"""Texts where SQLAlchemy's columns of vectors have values, on one engine alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

# ruff: noqa: E402
import pytest

psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
sa = pytest.importorskip("sqlalchemy", reason="the extra 'sqlalchemy' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, declarative_base

from toastrack import Embedder
from toastrack.errors import UnsupportedError
from toastrack_postgres import DocumentText, ParameterError, QueryText
from toastrack_postgres.sqlalchemy import register_engine

TEXTS = ["rye bread keeps", "wheat is mild", "salt the dough", "an oven is hot"]

Base: Any = declarative_base()


class Article(Base):  # type: ignore[misc]
    __tablename__ = "articles"
    id = sa.Column(sa.BigInteger, primary_key=True)
    title = sa.Column(sa.Text)
    embedding = sa.Column(HALFVEC(32))
    exact = sa.Column(VECTOR(32))


@pytest.fixture
def url(postgres_dsn: str, schema: str) -> Any:
    options = psycopg.conninfo.conninfo_to_dict(
        postgres_dsn, options=f"-c search_path={schema},public"
    )
    host, port = options.pop("host", None), options.pop("port", None)
    made = sa.URL.create(
        "postgresql+psycopg",
        username=options.pop("user", None),
        password=options.pop("password", None),
        database=options.pop("dbname", None),
        query={key: str(value) for key, value in options.items()},
    )
    # A socket's folder is no host of a URL.
    made = made.update_query_dict({"host": host} if host and host.startswith("/") else {})
    if host and not host.startswith("/"):
        made = made.set(host=host)
    return made.set(port=int(port)) if port else made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call of a model has; the vectors tell texts apart by their lengths."""
    seen: list[int] = []

    def embed(self: Embedder, texts: Any) -> Any:
        seen.append(len(texts))
        return np.array([np.arange(32, dtype=np.float32) == len(text) % 32 for text in texts])

    monkeypatch.setattr(Embedder, "embed_documents", embed)
    return seen


@pytest.fixture
def engine(url: Any, embedder: Embedder) -> Iterator[Any]:
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    register_engine(engine, embedder)
    yield engine
    engine.dispose()


def article(n: int, text: str) -> Any:
    return Article(id=n, title=text, embedding=DocumentText(text), exact=DocumentText(text))


def question(text: str) -> Any:
    return sa.select(Article.id).order_by(Article.embedding.cosine_distance(QueryText(text)))


def nearest(embedder: Embedder, text: str) -> list[int]:
    scores = embedder.embed_documents(TEXTS) @ embedder.embed_query(text)
    return [int(n) for n in np.argsort(-scores)]


def test_objects_are_added_and_found(engine: Any, embedder: Embedder) -> None:
    with Session(engine) as session:
        session.add_all([article(n, text) for n, text in enumerate(TEXTS)])
        session.commit()
        assert list(session.scalars(question("rye keeps"))) == nearest(embedder, "rye keeps")
        for column in (Article.embedding, Article.exact):
            distance = column.cosine_distance(QueryText("rye keeps"))
            statement = sa.select(Article).where(distance < 2).order_by(distance).limit(1)
            assert session.scalars(statement).one().id == nearest(embedder, "rye keeps")[0]
        one: Any = session.get(Article, 0)
        one.embedding = DocumentText("wheat is mild")
        session.commit()
        found = one.embedding
        vector = np.asarray(found.to_list() if hasattr(found, "to_list") else found)
        np.testing.assert_allclose(vector, embedder.embed_documents(TEXTS[1:2])[0], atol=1e-3)


def test_a_thousand_objects_are_a_handful_of_calls(engine: Any, calls: list[int]) -> None:
    with Session(engine) as session:
        session.add_all([article(n, f"loaf {n}") for n in range(1_000)])
        session.commit()
        assert session.scalar(sa.select(sa.func.count(Article.embedding))) == 1_000
    assert sum(calls) == 1_000
    assert len(calls) <= 5


@pytest.mark.parametrize("returning", [False, True])
def test_bulk_inserts(engine: Any, calls: list[int], returning: bool) -> None:
    rows = [{"id": n, "title": "a", "embedding": DocumentText(f"loaf {n}")} for n in range(1_500)]
    insert: Any = sa.insert(Article)
    with engine.begin() as connection:
        result = connection.execute(insert.returning(Article.id) if returning else insert, rows)
        if returning:
            assert sorted(result.scalars()) == list(range(1_500))
        assert connection.scalar(sa.select(sa.func.count(Article.embedding))) == 1_500
    assert sum(calls) == 1_500
    assert len(calls) <= 5


def test_updates_vectors_and_text_statements(engine: Any, embedder: Embedder) -> None:
    ready = embedder.embed_documents(TEXTS)
    with engine.begin() as connection:
        connection.execute(
            sa.insert(Article),
            [{"id": n, "embedding": list(vector)} for n, vector in enumerate(ready)],
        )
        connection.execute(
            sa.update(Article).where(Article.id == 0).values(embedding=DocumentText(TEXTS[3]))
        )
        found = connection.execute(
            sa.text("select id from articles order by embedding <=> :q, id limit 2"),
            {"q": DocumentText(TEXTS[3])},
        )
        assert list(found.scalars()) == [0, 3]


def test_a_text_in_a_column_of_texts_is_refused(engine: Any) -> None:
    with engine.begin() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
        connection.execute(sa.insert(Article), {"id": 1, "title": DocumentText("rye")})
    assert isinstance(caught.value.orig, ParameterError)
    assert "'title'" in str(caught.value)


def test_other_engines_stay_as_they_are(url: Any, postgres_dsn: str, embedder: Embedder) -> None:
    ours, others = sa.create_engine(url), sa.create_engine(url)
    try:
        Base.metadata.create_all(others)
        with ours.connect() as connection, pytest.raises(sa.exc.StatementError):
            connection.execute(question("rye"))
        register_engine(ours, embedder)
        with ours.connect() as connection:
            assert connection.execute(question("rye")).all() == []
        with others.connect() as connection, pytest.raises(sa.exc.StatementError):
            connection.execute(question("rye"))
        with psycopg.connect(postgres_dsn) as plain:
            assert plain.cursor_factory is psycopg.Cursor
    finally:
        ours.dispose()
        others.dispose()


def test_other_drivers_are_refused(embedder: Embedder) -> None:
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    engine = sa.create_engine("postgresql+psycopg2://localhost/shop")
    with pytest.raises(UnsupportedError, match=r"psycopg2.*postgresql\+psycopg://"):
        register_engine(engine, embedder)


def test_an_asynchronous_engine(
    url: Any, engine: Any, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    model = embedder._worker().engine
    for name in ("prepare", "run"):
        original = getattr(model, name)

        def noted(*args: Any, _original: Any = original, **options: Any) -> Any:
            threads.add(threading.get_ident())
            return _original(*args, **options)

        monkeypatch.setattr(model, name, noted)
    expected = nearest(embedder, "rye keeps")
    threads.clear()

    async def main() -> None:
        asynchronous = create_async_engine(url)
        register_engine(asynchronous, embedder)
        try:
            async with AsyncSession(asynchronous) as session:
                session.add_all([article(n, text) for n, text in enumerate(TEXTS)])
                await session.commit()
                found = await session.scalars(question("rye keeps"))
                assert list(found) == expected
            async with asynchronous.connect() as connection:
                rows = await connection.stream(question("rye keeps"))
                assert [row[0] async for row in rows] == expected
        finally:
            await asynchronous.dispose()
        assert threads
        assert threading.get_ident() not in threads

    asyncio.run(main())
