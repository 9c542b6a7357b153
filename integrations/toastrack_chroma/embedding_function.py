"""Chroma's embedding function: documents as they are, queries with the model's prompt."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import register_embedding_function
from typing_extensions import Never, Self

from toastrack import DEFAULT_MODEL, Embedder, EmbeddingSpace, Hosted, OnTruncate
from toastrack.errors import suggesting, unknown_argument

# What of this host splits a text that is over the limit.
_REMEDY = "toastrack.ingest() into a ChromaStore, or embedder.split(text)"
# What a vector depends on. Nothing else is stored, and nothing else is believed: a collection's
# config is written by whoever may write to the server.
_KEYS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "revision": (str, type(None)),
    "query_prompt": (str, type(None)),
    "document_prompt": (str, type(None)),
    "dimensions": (int, type(None)),
    "max_tokens": (int, type(None)),
    "base_url": (str,),  # of a hosted model alone
}
# A server can move.
_NEVER_CHANGING = tuple(key for key in _KEYS if key != "base_url")


@register_embedding_function
class ToastrackEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embeds what is added as documents and what is asked as queries.

        import chromadb

        collection = chromadb.EphemeralClient().get_or_create_collection(
            "docs", embedding_function=ToastrackEmbeddingFunction()
        )
        collection.upsert(ids=["rye"], documents=["Rye bread keeps for a week."])
        collection.query(query_texts=["which bread stays fresh?"], n_results=1)

    It is registered as ``"toastrack"``: a program that imports ``toastrack_chroma`` gets it back
    from any collection that was made with it. Chroma compares only that name when a collection is
    opened; ``open_collection`` and ``ChromaStore`` compare the model, too.

    Building one loads nothing. Given ``embedder=``, it uses that one and its model in memory.

    Args:
        model: A hub name or a local folder.
        revision: A branch, tag or commit on the hub.
        query_prompt: Replaces the prompt of queries; None takes the model's own.
        document_prompt: Replaces the prompt of documents; None takes the model's own.
        dimensions: Keep only the first n numbers and normalise again.
        max_tokens: Read fewer tokens than the model could.
        device: Where the model runs; not stored with a collection.
        on_truncate: What happens to a text over the limit; not stored with a collection.
        embedder: Use this one, whose settings are stored; no other argument may be given then.

    Raises:
        TypeError: There is no such argument; of a peer's it names ours.
        ValueError: ``embedder`` and other arguments are both given.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dimensions: int | None = None,
        max_tokens: int | None = None,
        device: str | None = None,
        on_truncate: OnTruncate | None = None,
        embedder: Embedder | None = None,
        **others: Never,
    ) -> None:
        if others:
            raise TypeError(unknown_argument(type(self).__name__, *others))
        settings: dict[str, Any] = {
            "revision": revision,
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
            "dimensions": dimensions,
            "max_tokens": max_tokens,
            "device": device,
            "on_truncate": on_truncate,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        if embedder is None:
            embedder = Embedder(model, **settings)
        elif not isinstance(embedder, Embedder):
            raise TypeError(f"embedder= takes an Embedder, not {type(embedder).__name__}.")
        else:
            given = {"model": None if model == DEFAULT_MODEL else model, **settings}
            also = [name for name, value in given.items() if value is not None]
            if also:
                raise ValueError(f"embedder= has its own {also[0]}; leave {also[0]}= out.")
        self._embedder: Embedder | None = embedder
        self._config = _settings_of(embedder)
        self._broken: ValueError | None = None

    @classmethod
    def recorded(cls, embedder: Embedder, space: EmbeddingSpace) -> Self:
        """Return the function of an embedder, with the prompts that its space has spelled out."""
        function = cls(embedder=embedder)
        function._config.update(
            query_prompt=space.query_prompt,
            document_prompt=space.document_prompt,
            revision=space.revision,
        )
        return function

    @property
    def embedder(self) -> Embedder:
        """What embeds; of a function that a collection recorded it is built at the first use.

        Raises:
            ValueError: What was recorded cannot be understood.
        """
        if self._broken is not None:
            raise ValueError(str(self._broken))
        if self._embedder is None:
            self._embedder = _shared_embedder(tuple(self._config.items()))
        return self._embedder

    def __repr__(self) -> str:
        settings = (f"{key}={value!r}" for key, value in self._config.items() if value is not None)
        return f"ToastrackEmbeddingFunction({', '.join(settings)})"

    def __call__(self, input: Documents) -> Embeddings:
        """Embed documents: a list of float32 vectors of length 1."""
        with suggesting(_REMEDY):
            return list(self.embedder.embed_documents(list(input)))

    def embed_query(self, input: Documents) -> Embeddings:
        """Embed queries, with the query prompt: a list of float32 vectors of length 1."""
        with suggesting(_REMEDY):
            return list(self.embedder.embed_queries(list(input)))

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma stores it."""
        return "toastrack"

    def default_space(self) -> Space:
        """Compare by cosine unless a collection says otherwise."""
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        """Vectors have length 1, so every distance gives one order."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """Return what is stored with a collection: what a vector depends on, and nothing else."""
        return dict(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> ToastrackEmbeddingFunction:
        """Build what a collection recorded; one that cannot be understood fails when it is used."""
        function = ToastrackEmbeddingFunction()
        function._embedder = None
        try:
            ToastrackEmbeddingFunction.validate_config(config)
        except ValueError as error:
            function._broken = error
        if isinstance(config, dict):
            function._config.update(
                {key: config[key] for key in _KEYS if key in config and _is_valid(key, config[key])}
            )
        return function

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Raise ``ValueError`` for a key that this version does not know, or a wrong value."""
        if not isinstance(config, dict) or "model" not in config:
            raise ValueError(
                f"The collection's config names no model: {config!r:.60}. Give embedding_function= "
                "yourself."
            )
        for key, value in config.items():
            if key not in _KEYS:
                raise ValueError(
                    f"The collection's config has {key!r}, which this version of toastrack does "
                    "not know. Use a newer one, or give embedding_function= yourself."
                )
            if not _is_valid(key, value):
                raise ValueError(
                    f"The collection's config has {key}={value!r:.60}, which cannot be. Give "
                    "embedding_function= yourself."
                )

    def validate_config_update(
        self, old_config: dict[str, Any], new_config: dict[str, Any]
    ) -> None:
        """Refuse another model or prompt: the stored vectors would not follow."""
        changed = [key for key in _NEVER_CHANGING if old_config.get(key) != new_config.get(key)]
        if changed:
            raise ValueError(
                f"{changed[0]} cannot change from {old_config.get(changed[0])!r} to "
                f"{new_config.get(changed[0])!r}: the stored vectors were made with the old one. "
                "Make a new collection."
            )


@lru_cache(maxsize=4)
def _shared_embedder(config: tuple[tuple[str, Any], ...]) -> Embedder:
    """Chroma builds a recorded function anew at each query; the model is to stay in memory."""
    settings = dict(config)
    base_url = settings.pop("base_url", None)
    return Embedder(engine="auto" if base_url is None else Hosted(base_url=base_url), **settings)


def _is_valid(key: str, value: object) -> bool:
    return isinstance(value, _KEYS[key]) and not isinstance(value, bool)


def _settings_of(embedder: Embedder) -> dict[str, Any]:
    settings: dict[str, Any] = {**embedder.settings()}  # what its constructor was given
    config = {key: settings[key] for key in _NEVER_CHANGING}
    if embedder.hosted is not None:
        config["base_url"] = embedder.hosted.url
    return config
