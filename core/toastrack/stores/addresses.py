"""Which adapter opens which URL; the only place in core that names one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Protocol, cast

from toastrack.embedder import Embedder
from toastrack.errors import StoreError
from toastrack.space import EmbeddingSpace
from toastrack.stores.protocol import Store

ChooseEmbedder = Callable[[EmbeddingSpace | None], Embedder]
"""Given the space that the collection recorded, or None, the embedder to open it with."""

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

URL_HELP = (
    "postgresql://user@host/database?table=docs, postgres+embedded:DIR?table=docs for a server of "
    "your own in a folder, qdrant+http://host:6333/collection, chroma+http://host:8000/collection, "
    "or qdrant:DIR/collection and chroma:DIR/collection for a folder"
)


class Adapter(Protocol):
    """What a module in the table offers."""

    def open_url(
        self, url: str, choose: ChooseEmbedder, *, create: bool, adopt: bool
    ) -> AbstractContextManager[Store]:
        """Open the store that a URL names, and close it and all that was started for it."""
        ...


def open_store(
    url: str, choose: ChooseEmbedder, *, create: bool, adopt: bool = False
) -> AbstractContextManager[Store]:
    """Open the store that a URL names."""
    scheme = url.partition(":")[0]
    module = _ADAPTERS.get(scheme)
    if module is None or ":" not in url:
        # The URL may hold a password, so it is not repeated.
        raise StoreError(
            f"{repr(scheme) if ':' in url else 'This'} is not a kind of store. Known: {URL_HELP}."
        )
    return cast(Adapter, import_module(module)).open_url(url, choose, create=create, adopt=adopt)
