"""Which embedder a connection was given, and what is known of its database."""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from toastrack import Embedder
from toastrack_postgres.codec import VectorType
from toastrack_postgres.parameters import ParameterError

# Statements whose parameters' types are kept: as many as a connection has in use, and few of those
# that a program generates, some with thousands of parameters.
_KEPT = 64


@dataclass(frozen=True)
class VectorOids:
    """The oids of pgvector's types in one database."""

    scalar: dict[VectorType, int]
    array: dict[VectorType, int]

    def is_vector(self, oid: int) -> bool:
        """Tell whether a type is vector, halfvec, or an array of them."""
        return oid in self.scalar.values() or oid in self.array.values()

    def kind_of(self, oid: int) -> VectorType:
        """Return which of the two a type is, or holds."""
        return next(
            kind
            for oids in (self.scalar, self.array)
            for kind, known in oids.items()
            if known == oid
        )


class Remembered:
    """A small cache; what was not asked for longest goes first.

    Each step is one that threads cannot disturb. A lock could be held at a fork, and what is lost to
    another thread is asked for again.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any) -> Any:
        """Return what is known; None if nothing is."""
        value = self._values.get(key)
        if value is not None:
            with suppress(KeyError):  # another thread needed its place
                self._values.move_to_end(key)
        return value

    def keep(self, key: Any, value: Any) -> None:
        """Keep a value."""
        self._values[key] = value
        while len(self._values) > _KEPT:
            with suppress(KeyError):
                self._values.popitem(last=False)


@dataclass(frozen=True)
class Registration:
    """An embedder on one connection. It does not hold the connection, which may end first."""

    embedder: Embedder
    oids: VectorOids
    landings: Remembered = field(default_factory=Remembered)
    """By statement: the types that the server gives its parameters, or a COPY's columns."""
    process: int = field(default_factory=os.getpid)
    """Where it was registered, and its connection is of use."""

    def check_process(self) -> None:
        """Raise ``ParameterError`` in a forked child, before anything is sent."""
        if self.process != os.getpid():
            raise ParameterError(
                "This connection was made in another process, and two on one connection read each "
                "other's answers. Connect, and register the embedder, in the worker (gunicorn: in "
                "post_fork)."
            )


_registrations: WeakKeyDictionary[Any, Registration] = WeakKeyDictionary()


def registration_of(connection: Any) -> Registration | None:
    """Return what a connection was registered with."""
    return None if connection is None else _registrations.get(connection)


def keep_registration(connection: Any, registration: Registration | None) -> None:
    """Register a connection, or forget it."""
    if registration is None:
        _registrations.pop(connection, None)
    else:
        _registrations[connection] = registration
