"""An embedder on an engine of SQLAlchemy's: texts where its columns of vectors have values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toastrack import Embedder
from toastrack.errors import UnsupportedError, needs_extra
from toastrack_postgres.parameters import TEXT_TYPES
from toastrack_postgres.register import register_embedder, register_embedder_async
from toastrack_postgres.registry import registration_of

with needs_extra("sqlalchemy", "sqlalchemy"):
    from pgvector.sqlalchemy import HALFVEC, VECTOR
    from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["register_engine"]


def register_engine(engine: Engine | AsyncEngine, embedder: Embedder) -> None:
    """Let ``QueryText`` and ``DocumentText`` be values of this engine's columns of vectors.

        register_engine(engine, embedder)
        nearest = Loaf.embedding.cosine_distance(QueryText("which bread stays fresh?"))
        session.scalars(select(Loaf).order_by(nearest).limit(5))

    The columns are pgvector's own ``VECTOR`` and ``HALFVEC``. What a flush or a bulk insert puts
    into one statement is embedded in one call; on an ``AsyncEngine`` the model runs off the event
    loop. Other engines stay as they are. Call it before the engine's first connection is taken.

    Args:
        engine: An engine over psycopg: ``create_engine("postgresql+psycopg://...")``, or
            ``create_async_engine`` with the same.
        embedder: Embeds the texts.

    Raises:
        UnsupportedError: The engine is over another driver, such as asyncpg or psycopg2.
        StoreError: When a connection is taken: the database has no pgvector.
    """
    sync: Engine = engine if isinstance(engine, Engine) else engine.sync_engine
    dialect: Any = sync.dialect
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise UnsupportedError(
            f"register_engine needs an engine over psycopg, and this one is over {dialect.driver}. "
            "Write postgresql+psycopg:// in its URL, with create_engine and create_async_engine "
            "alike."
        )
    kinds = {VECTOR: _Vector, HALFVEC: _HalfVector}
    # On the instance: the class's belong to every engine.
    dialect.colspecs = {**dialect.colspecs, **kinds}
    # What was compiled, or asked how it is sent, before it was told.
    dialect.__dict__.pop("_type_memos", None)
    sync.clear_compiled_cache()

    @event.listens_for(sync, "checkout")
    def register(connection: Any, record: Any, proxy: Any) -> None:
        is_async = dialect.is_async
        known = registration_of(connection.driver_connection if is_async else connection)
        if known is not None and known.embedder is embedder:
            return
        if is_async:
            connection.run_async(lambda given: register_embedder_async(given, embedder))
        else:
            register_embedder(connection, embedder)


def _passing_texts(process: Any) -> Any:
    """Leave texts to the cursor, and do with anything else what pgvector does."""

    def passing(value: Any) -> Any:
        return value if isinstance(value, TEXT_TYPES) else process(value)

    return passing


class _Vector(VECTOR):  # type: ignore[misc]
    cache_ok = True
    # Else many rows of one insert would be a VALUES list, in which a parameter is a text.
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        return _passing_texts(super().bind_processor(dialect))


class _HalfVector(HALFVEC):  # type: ignore[misc]
    cache_ok = True
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        return _passing_texts(super().bind_processor(dialect))
