"""LangChain's Embeddings over the embedder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, model_validator

from toastrack import (
    DEFAULT_MODEL,
    Embedder,
    EmbedderSettings,
    EngineName,
    Hosted,
    OnTruncate,
    Precision,
)
from toastrack.errors import suggesting, unknown_argument
from toastrack.stores import Adopt, guard_space

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore
    from typing_extensions import Self

    from toastrack_langchain.splitter import ToastrackTextSplitter

AnyVectorStore = TypeVar("AnyVectorStore", bound="VectorStore")

_SETTINGS = tuple(EmbedderSettings.__annotations__)
# The methods of a vector store that write vectors, or compare them; all others call these.
_WRITES = re.compile("a?(add_|update_document)")
_SEARCHES = re.compile("a?(similarity_search|max_marginal_relevance_search|hybrid_search)")
# What of this host splits a text that is over the limit.
_REMEDY = "the text splitter that ToastrackEmbeddings.splitter() returns"


class ToastrackEmbeddings(BaseModel, Embeddings):
    """Embeddings whose queries and documents each get the prompt that the model wants.

        from langchain_core.vectorstores import InMemoryVectorStore

        vectors = InMemoryVectorStore(ToastrackEmbeddings())
        vectors.add_texts(["Rye bread keeps for a week."])
        vectors.similarity_search("which bread stays fresh?", k=1)

    The settings are those of ``toastrack.Embedder``; ``model_name=`` is another spelling of
    ``model=``. Or give ``embedder=`` alone, to share one that exists. Building one is free: the
    model is loaded at the first text. Vectors are lists of float, unit length.
    """

    model_config = ConfigDict(
        extra="forbid",
        # A setting changed later would not reach the embedder.
        frozen=True,
        # "model_" is pydantic's own, and model_name is LangChain's word.
        protected_namespaces=(),
        populate_by_name=True,
        arbitrary_types_allowed=True,
        # What was given may be a key that belongs elsewhere.
        hide_input_in_errors=True,
    )

    model_name: str = Field(default=DEFAULT_MODEL, alias="model")
    revision: str | None = None
    engine: EngineName | Hosted = "auto"
    device: str | None = None
    precision: Precision = "auto"
    query_prompt: str | None = None
    document_prompt: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    on_truncate: OnTruncate = "warn"
    embedder: Embedder = Field(default_factory=Embedder, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _build_embedder(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Make the embedder of the settings, or read the settings off the embedder."""
        values = dict(values)
        if "model_name" in values:
            if "model" in values:
                raise ValueError("model= and model_name= are one setting. Give one of them.")
            values["model"] = values.pop("model_name")
        unknown = [name for name in values if name not in cls.model_fields and name != "model"]
        if unknown:
            raise ValueError(unknown_argument(cls.__name__, *unknown))
        embedder = values.pop("embedder", None)
        given = {name: values.pop(name) for name in _SETTINGS if name in values}
        if embedder is None:
            embedder = Embedder(**given)
        elif not isinstance(embedder, Embedder):
            raise ValueError(f"embedder={embedder!r} is not a toastrack.Embedder.")
        elif given:
            raise ValueError(
                f"{embedder!r} has its settings, and {', '.join(given)} came beside it. Give "
                "embedder= alone, or the settings of a new one."
            )
        return {**values, **embedder.settings(), "embedder": embedder}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to be found.

        Raises:
            TruncationError: A text is over the limit and ``on_truncate="error"``; names it.
            ModelError: The model cannot be found, read or run, or its server does not answer.
        """
        with suggesting(_REMEDY):
            vectors: list[list[float]] = self.embedder.embed_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed one search query.

        Raises:
            TruncationError: It is over the limit and ``on_truncate="error"``.
            ModelError: The model cannot be found, read or run, or its server does not answer.
        """
        with suggesting(_REMEDY):
            vector: list[float] = self.embedder.embed_query(text).tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """``embed_documents``, awaited; the model never runs on the event loop.

        Raises:
            TruncationError: A text is over the limit and ``on_truncate="error"``; names it.
            ModelError: The model cannot be found, read or run, or its server does not answer.
        """
        with suggesting(_REMEDY):
            vectors: list[list[float]] = (await self.embedder.aembed_documents(texts)).tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """``embed_query``, awaited; the model never runs on the event loop.

        Raises:
            TruncationError: It is over the limit and ``on_truncate="error"``.
            ModelError: The model cannot be found, read or run, or its server does not answer.
        """
        with suggesting(_REMEDY):
            vector: list[float] = (await self.embedder.aembed_query(text)).tolist()
        return vector

    def guard(self, vector_store: AnyVectorStore, *, adopt: Adopt = False) -> AnyVectorStore:
        """Let a vector store of LangChain's refuse what another model, prompt or size filled.

            from langchain_chroma import Chroma

            embeddings = ToastrackEmbeddings()
            vectors = embeddings.guard(Chroma("loaves", embeddings, persist_directory="vectors"))
            vectors.add_texts(["Rye bread keeps for a week."])

        It is the same object, of langchain-postgres (``PGVectorStore``), langchain-qdrant or
        langchain-chroma. Whenever texts are added or searched for, it compares what stands beside the
        collection; the first one, of whatever process, writes the space down where a store of
        toastrack's would. Nothing is asked before that.

        Args:
            vector_store: It embeds with these embeddings, or with a cache over them.
            adopt: Take over a filled collection that does not say which model embedded it, once some
                of its texts were embedded again and gave the same vectors. "unchecked" believes that
                they do.

        Raises:
            UnsupportedError: The vector store has no place for a space.
            ValueError: It embeds with something else.
            SpaceMismatchError: From its methods: the collection is of another space, or filled and
                says nothing.
        """
        _check_embeds_with(self, vector_store)
        names = _own_methods(type(vector_store))
        return guard_space(
            vector_store,
            self.embedder,
            adopt=adopt,
            writes=[name for name in names if _WRITES.match(name)],
            searches=[name for name in names if _SEARCHES.match(name)],
        )

    def splitter(
        self,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        *,
        add_start_index: bool = False,
    ) -> ToastrackTextSplitter:
        """Return a text splitter whose chunks fit the model; needs langchain-text-splitters.

            splitter = ToastrackEmbeddings(embedder=embedder).splitter(chunk_size=128)
            documents = splitter.create_documents([text])

        Args:
            chunk_size: The limit of a chunk in tokens, specials and prompt counted; None takes
                all that the model reads.
            chunk_overlap: How many tokens of one chunk are repeated at the start of the next.
            add_start_index: Note in ``metadata["start_index"]`` where a chunk starts.

        Raises:
            ModuleNotFoundError: langchain-text-splitters is not installed.
            ModelError: The model cannot be found or read.
        """
        # langchain-text-splitters is a package of its own, and only splitting needs it.
        from toastrack_langchain.splitter import ToastrackTextSplitter

        return ToastrackTextSplitter(
            self.embedder, chunk_size, chunk_overlap, add_start_index=add_start_index
        )

    @property
    def cache_namespace(self) -> str:
        """What ``CacheBackedEmbeddings`` must keep vectors apart by; takes the model's files.

        It changes with the weights, the prompts, ``dimensions`` and ``max_tokens``. LangChain
        keys both roles alike, so queries need a store of their own:

            from langchain_classic.embeddings import CacheBackedEmbeddings
            from langchain_classic.storage import InMemoryByteStore

            embeddings = ToastrackEmbeddings(embedder=embedder)
            CacheBackedEmbeddings.from_bytes_store(
                embeddings,
                InMemoryByteStore(),
                namespace=embeddings.cache_namespace,
                query_embedding_cache=InMemoryByteStore(),  # True would mix both roles
                key_encoder="blake2b",
            )

        Raises:
            ModelError: The model cannot be found or read.
        """
        return f"toastrack-{self.embedder.space.digest}-{self.embedder.max_tokens}-"

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; changed settings make a new embedder, else both share one."""
        if not update:
            return super().model_copy(deep=deep)
        if "embedder" in update:
            return type(self)(**update)
        return type(self)(**{**self.model_dump(), **update})


def _check_embeds_with(ours: ToastrackEmbeddings, vector_store: VectorStore) -> None:
    used: Any = vector_store.embeddings
    while used is not None and not isinstance(used, ToastrackEmbeddings):
        used = getattr(used, "underlying_embeddings", None)  # CacheBackedEmbeddings
    kind = type(vector_store).__name__
    if used is None:
        raise ValueError(
            f"This {kind} embeds with {type(vector_store.embeddings).__name__}. Make it with these "
            "embeddings, and guard it then."
        )
    theirs, mine = used.embedder.settings(), ours.embedder.settings()
    if theirs != mine:
        names = ", ".join(name for name, value in mine.items() if theirs.get(name) != value)
        raise ValueError(
            f"This {kind} embeds with other embeddings than these: they differ in {names}. Guard it "
            "with its own, or make it with these."
        )


def _own_methods(kind: type[VectorStore]) -> list[str]:
    """Return what is not LangChain's own of any vector store.

    Those methods call the others, and find out by comparing them with their own which these are.
    """
    from langchain_core.vectorstores import VectorStore

    return [
        name
        for name in dir(kind)
        if getattr(kind, name, None) is not getattr(VectorStore, name, None)
    ]
