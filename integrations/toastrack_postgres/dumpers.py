"""How texts and their vectors are sent where a statement has them as parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
from psycopg import adapt, pq

from toastrack_postgres.codec import (
    ParameterDumper,
    VectorArrayParameter,
    VectorParameter,
    VectorType,
)
from toastrack_postgres.parameters import TEXT_TYPES, ParameterError, QueryText, Text
from toastrack_postgres.registry import VectorOids, registration_of


class _ParameterTextDumper(ParameterDumper):
    """Writes a vector out, for client-side cursors, ``%t`` and COPY as text."""

    format = pq.Format.TEXT

    def dump(self, obj: Any) -> bytes:
        return obj.as_text().encode()  # type: ignore[no-any-return]


class _TextDumper(adapt.Dumper):
    """Embeds one text, for a cursor that is none of ours and so has not done it before."""

    format = pq.Format.BINARY

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        registration = registration_of(self.connection)
        if registration is None:
            raise ParameterError(
                f"{cls.__name__}: this connection knows no embedder. Call register_embedder("
                "connection, embedder), or await register_embedder_async."
            )
        if isinstance(self.connection, psycopg.AsyncConnection):
            raise ParameterError(
                f"{cls.__name__}: this cursor would run the model on the event loop. Take one of "
                "connection.cursor(), made after register_embedder_async, and give it the text as "
                "a parameter, in a list or tuple at most."
            )
        registration.check_process()
        self._embedder = registration.embedder
        self.oid = registration.oids.scalar["vector"]

    def _parameter(self, text: Text) -> VectorParameter:
        if isinstance(text, QueryText):
            vector = self._embedder.embed_query(text.text)
        else:
            (vector,) = self._embedder.embed_documents([text.text])
        return VectorParameter(vector, "vector", self.oid)

    def dump(self, obj: Any) -> bytes:
        return self._parameter(obj).data


class _TextTextDumper(_TextDumper):
    format = pq.Format.TEXT

    def dump(self, obj: Any) -> bytes:
        return self._parameter(obj).as_text().encode()


def register_text_dumpers(adapters: adapt.AdaptersMap) -> None:
    """Teach adapters the texts. Of two dumpers for one type the last is that of ``%s``."""
    for kind in TEXT_TYPES:
        adapters.register_dumper(kind, _TextTextDumper)
        adapters.register_dumper(kind, _TextDumper)


def register_dumpers(adapters: adapt.AdaptersMap) -> None:
    """Teach adapters our own types, and nothing about anybody else's."""
    register_text_dumpers(adapters)
    for parameter in (VectorParameter, VectorArrayParameter):
        adapters.register_dumper(parameter, _ParameterTextDumper)
        adapters.register_dumper(parameter, ParameterDumper)


def register_column_dumpers(
    adapters: adapt.AdaptersMap, oids: VectorOids, format: pq.Format
) -> None:
    """Teach one cursor to send our vectors where a COPY was told its columns' types.

    There all objects of a column go to one dumper, by the column's type; so the one that was there,
    which may be pgvector's or the caller's own, gets all that are not ours.
    """
    for known in (oids.scalar, oids.array):
        for kind, oid in known.items():
            before: type[Any] | None
            try:
                before = adapters.get_dumper_by_oid(oid, format)
            except psycopg.ProgrammingError:
                before = None
            if before is None or not issubclass(before, _ColumnDumper):
                adapters.register_dumper(None, _column_dumper(kind, oid, format, before))


class _ColumnDumper(adapt.Dumper):
    kind: VectorType
    before: type[Any] | None

    def __init__(self, cls: type, context: Any = None) -> None:
        super().__init__(cls, context)
        self._before = self.before(cls, context) if self.before else None

    def dump(self, obj: Any) -> Any:
        if not isinstance(obj, (VectorParameter, VectorArrayParameter)):
            if self._before is not None:
                return self._before.dump(obj)
            obj = VectorParameter(np.asarray(obj, np.float32), self.kind, self.oid)
        return obj.data if self.format == pq.Format.BINARY else obj.as_text().encode()


def _column_dumper(
    kind: VectorType, oid: int, format: pq.Format, before: type[Any] | None
) -> type[_ColumnDumper]:
    attributes = {"kind": kind, "oid": oid, "format": format, "before": before}
    return type("ColumnDumper", (_ColumnDumper,), attributes)
