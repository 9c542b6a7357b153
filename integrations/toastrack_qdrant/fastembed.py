"""Lets ``models.Document`` name one of our embedders, through fastembed's list of models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import PurePath
from threading import Lock
from typing import TYPE_CHECKING, Any

from qdrant_client import AsyncQdrantClient, QdrantClient

from toastrack import Embedder
from toastrack.errors import UnsupportedError, needs_extra
from toastrack.stores import after_fork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = Iterator[NDArray[np.float32]]

_PREFIX = "toastrack/"

_embedders: dict[str, Embedder] = {}
_registering = Lock()


def _start_anew() -> None:
    """In a forked child: another thread may have held it."""
    global _registering
    _registering = Lock()


after_fork(_start_anew)


def register_fastembed(
    embedder: Embedder,
    name: str | None = None,
    *,
    client: QdrantClient | AsyncQdrantClient | None = None,
) -> str:
    """Make ``models.Document(text=..., model=name)`` use this embedder; return the name.

        from qdrant_client import models

        name = register_fastembed(embedder, client=client)
        client.query_points("bread", query=models.Document(text="why is rye sour?", model=name))

    Queries get the query prompt and points do not. Needs the extra ``fastembed``. Registering the
    same again changes nothing.

    ``QdrantStore`` has none of these limits, which are qdrant-client's own (seen with 1.20):

    - One client embeds documents of several threads into each other's vectors. Give each
      thread a client of its own, or put a lock around every call.
    - ``AsyncQdrantClient`` embeds on the event loop and holds it up.
    - Workers of ``upload_points(parallel=...)`` know only what is registered when their module is
      imported.
    - Examples of a ``RecommendQuery`` are embedded as queries.
    - A client with ``cloud_inference=True`` sends the text and the name to the server.

    Args:
        embedder: Loaded here, as fastembed wants to know the vectors' size.
        name: Starts with "toastrack/", so that it is nobody else's model; None makes one of the
            model's name.
        client: The client to be used with it, to see that it would ask the embedder.

    Raises:
        MissingExtraError: fastembed is not installed.
        UnsupportedError: The client has ``cloud_inference=True``, so it would never ask.
        ModelError: The model cannot be found or read.
        ValueError: The name does not start with "toastrack/", or is another embedder's.
    """
    if not isinstance(embedder, Embedder):
        raise TypeError(f"register_fastembed takes an Embedder, not {type(embedder).__name__}.")
    if client is not None and client.cloud_inference:
        raise UnsupportedError(
            "This client has cloud_inference=True: it sends texts to the server, and our embedder "
            "is never asked. Make one without it, or use QdrantStore."
        )
    if name is None:
        name = _PREFIX + PurePath(embedder.model).name
    if not name.startswith(_PREFIX) or name == _PREFIX:
        raise ValueError(
            f"name={name!r} must start with {_PREFIX!r}: fastembed has models of its own under "
            "other names and would take those."
        )
    key, space = name.lower(), embedder.space  # fastembed compares names in lower case
    with _registering:
        models = _models()
        known = _embedders.setdefault(key, embedder)
        if known.space != space:
            raise ValueError(
                f"{name!r} is {known.model!r} already, in another embedding space. Choose another "
                "name=."
            )
        models.describe(name, space.dimensions)
    return name


@cache
def _models() -> Any:
    """Return our entry in fastembed's list of models, made once."""
    with needs_extra("fastembed", "fastembed"):
        from fastembed import TextEmbedding
        from fastembed.common.model_description import DenseModelDescription, ModelSource
        from fastembed.text.text_embedding_base import TextEmbeddingBase

    descriptions: dict[str, DenseModelDescription] = {}

    class ToastrackTextEmbedding(TextEmbeddingBase):
        """One of our embedders, as fastembed wants a model to be."""

        # fastembed itself offers these to every model; none has a meaning here.
        def __init__(
            self,
            model_name: str,
            cache_dir: str | None = None,
            threads: int | None = None,
            providers: Any = None,
            cuda: Any = None,
            device_ids: list[int] | None = None,
            lazy_load: bool = False,
        ) -> None:
            super().__init__(model_name)
            self.lazy_load = lazy_load
            self._embedder = _embedders[model_name.lower()]

        @classmethod
        def describe(cls, name: str, dimensions: int) -> None:
            """Put a name onto the list."""
            descriptions[name.lower()] = DenseModelDescription(
                model=name,
                dim=dimensions,
                description="",
                license="",
                size_in_GB=0.0,
                sources=ModelSource(url="toastrack"),
                model_file="",
            )

        @classmethod
        def _list_supported_models(cls) -> list[DenseModelDescription]:
            return list(descriptions.values())

        def embed(
            self,
            documents: str | Iterable[str],
            batch_size: int = 256,
            parallel: int | None = None,
            **kwargs: Any,
        ) -> Vectors:
            """Embed documents."""
            yield from self._embedder.embed_documents(_texts(documents))

        def query_embed(self, query: str | Iterable[str], **kwargs: Any) -> Vectors:
            """Embed queries."""
            yield from self._embedder.embed_queries(_texts(query))

        @classmethod
        def get_embedding_size(cls, model_name: str) -> int:
            """Return the number of dimensions."""
            return _embedders[model_name.lower()].dimensions

        @property
        def embedding_size(self) -> int:
            """The number of dimensions."""
            return self._embedder.dimensions

    TextEmbedding.EMBEDDINGS_REGISTRY.insert(0, ToastrackTextEmbedding)
    return ToastrackTextEmbedding


def _texts(texts: str | Iterable[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
