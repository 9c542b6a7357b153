"""Vector stores of frameworks whose methods first make sure of the space."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeVar
from weakref import WeakKeyDictionary

from toastrack.embedder import Embedder
from toastrack.stores.adoption import check_adopt
from toastrack.stores.foreign import SpaceCheck, collection_of
from toastrack.stores.proof import Adopt

T = TypeVar("T")

# What a guarded class was made of: so guarding again replaces the guard.
_unguarded: WeakKeyDictionary[type, type] = WeakKeyDictionary()

# The objects that were checked for the call that is running: their methods call one another.
_checked: ContextVar[frozenset[int]] = ContextVar("_checked", default=frozenset())


def guard_space(
    vector_store: T,
    embedder: Embedder,
    *,
    adopt: Adopt = False,
    writes: Collection[str],
    searches: Collection[str],
) -> T:
    """Let a framework's vector store refuse vectors of another space than an embedder's.

    The object stays what it is: its class becomes one that checks before some of its methods. Nothing
    is asked of its host yet.

    Args:
        vector_store: A vector store over Postgres, Qdrant or Chroma.
        embedder: Whose space it is to be.
        adopt: Take over a filled collection that says nothing of its space; True proves it first.
        writes: The names of the methods that add vectors, where it has them.
        searches: The names of those that compare vectors.

    Raises:
        UnsupportedError: It is a vector store that has no place for a space.
    """
    check_adopt(adopt)
    collection_of(vector_store, asynchronous=False)  # or it is refused
    kind: Any = _unguarded.get(type(vector_store), type(vector_store))
    return _as(_Guard(embedder, adopt, tuple(writes), tuple(searches)).class_of(kind), vector_store)


@dataclass(frozen=True)
class _Guard:
    """What a guarded class checks; a pickle of its objects carries it along."""

    embedder: Embedder
    adopt: Adopt
    writes: tuple[str, ...]
    searches: tuple[str, ...]

    def class_of(self, kind: Any) -> type[Any]:
        """Return a class like ``kind`` whose methods check first."""
        check = SpaceCheck(self.embedder, self.adopt)
        methods = {
            name: _checking(getattr(kind, name), check, writes=name in self.writes)
            for name in (*self.writes, *self.searches)
            if hasattr(kind, name)
        }
        names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
        pickling = {"__reduce_ex__": _pickling(kind, self)}
        guarded: type[Any] = type(kind)(kind.__name__, (kind,), {**names, **methods, **pickling})
        _unguarded[guarded] = kind
        return guarded


def _as(guarded: type[Any], vector_store: T) -> T:
    # Not by the class's own way: pydantic's takes fields only.
    object.__setattr__(vector_store, "__class__", guarded)
    return vector_store


def _pickling(kind: Any, guard: _Guard) -> Callable[..., Any]:
    """Return how a guarded object is pickled: a module holds its class as it was alone."""

    def reduce(self: Any, protocol: SupportsIndex) -> Any:
        made = kind.__reduce_ex__(self, protocol)
        if isinstance(made, str):
            return made
        make, arguments, *state = made
        plain = tuple(kind if one is type(self) else one for one in arguments)
        return (_made_guarded, (guard, kind, make, plain), *state)

    return reduce


def _made_guarded(guard: _Guard, kind: Any, make: Callable[..., Any], arguments: Any) -> Any:
    return _as(guard.class_of(kind), make(*arguments))


def _checking(method: Callable[..., Any], check: SpaceCheck, *, writes: bool) -> Callable[..., Any]:
    """Return a method that checks first; whatever it takes is the framework's."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def acall(self: Any, *args: Any, **options: Any) -> Any:
            with _once(self) as is_checked:
                if not is_checked:
                    await check.acheck(self, writes=writes)
                return await method(self, *args, **options)

        return acall

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        with _once(self) as is_checked:
            if not is_checked:
                check.check(self, writes=writes)
            return method(self, *args, **options)

    return call


@contextmanager
def _once(checked: object) -> Iterator[bool]:
    """Tell whether an object was checked for a call around this one."""
    before = _checked.get()
    token = _checked.set(before | {id(checked)})
    try:
        yield id(checked) in before
    finally:
        _checked.reset(token)
