"""LlamaIndex' BaseEmbedding over the embedder, and its node parser over the embedder's split."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.node_parser.interface import MetadataAwareTextSplitter
from llama_index.core.node_parser.node_utils import build_nodes_from_splits
from llama_index.core.schema import DEFAULT_TEXT_NODE_TMPL, BaseNode, MetadataMode, TextNode
from llama_index.core.utils import get_tqdm_iterable

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
    from llama_index.core.vector_stores.types import BasePydanticVectorStore
    from typing_extensions import Self


T = TypeVar("T")
AnyVectorStore = TypeVar("AnyVectorStore", bound="BasePydanticVectorStore")

_SETTINGS = tuple(EmbedderSettings.__annotations__)
# What of this host splits a text that is over the limit.
_REMEDY = "the node parser that ToastrackEmbedding.node_parser() returns"
# What to_dict writes beside the fields.
_DERIVED = ("class_name", "space")
# LlamaIndex cuts documents into these before we see them; its own default of 10 leaves nothing to
# sort by length.
BATCH_SIZE = 512


class ToastrackEmbedding(BaseEmbedding):
    """An embedding whose queries and documents each get the prompt that the model wants.

        from llama_index.core import Document, VectorStoreIndex

        documents = [Document(text="Rye bread keeps for a week.")]
        index = VectorStoreIndex.from_documents(documents, embed_model=ToastrackEmbedding())
        index.as_retriever(similarity_top_k=1).retrieve("which bread stays fresh?")

    The settings are those of ``toastrack.Embedder``. Or give ``embedder=`` alone, to share one
    that exists. Building one is free: the model is loaded at the first text. ``to_dict`` holds
    what decides about vectors, so that an ``IngestionPipeline`` computes anew when that changes.
    """

    # What was given may be a key that belongs elsewhere.
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), hide_input_in_errors=True)

    # Frozen: a setting changed later would not reach the embedder.
    model_name: str = Field(default=DEFAULT_MODEL, frozen=True)
    revision: str | None = Field(default=None, frozen=True)
    query_prompt: str | None = Field(default=None, frozen=True)
    document_prompt: str | None = Field(default=None, frozen=True)
    dimensions: int | None = Field(default=None, frozen=True)
    max_tokens: int | None = Field(default=None, frozen=True)
    # Excluded: none of these makes another vector, so none may empty a cache.
    engine: EngineName | Hosted = Field(default="auto", exclude=True, frozen=True)
    device: str | None = Field(default=None, exclude=True, frozen=True)
    precision: Precision = Field(default="auto", exclude=True, frozen=True)
    on_truncate: OnTruncate = Field(default="warn", exclude=True, frozen=True)
    embed_batch_size: int = Field(default=BATCH_SIZE, exclude=True, gt=0, le=2048)
    num_workers: int | None = Field(default=None, exclude=True)
    embeddings_cache: Any = Field(default=None, exclude=True, repr=False)

    _embedder: Embedder = PrivateAttr()
    _cache_checked: bool = PrivateAttr(default=False)

    # LlamaIndex builds an embedding anew from its fields, and each release may bring new ones.
    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        *,
        embedder: Embedder | None = None,
        **fields: Any,
    ) -> None:
        for name in _DERIVED:
            fields.pop(name, None)
        given = {name: fields.pop(name) for name in _SETTINGS if name in fields}
        if fields.get("base_url") is not None:  # as ``to_dict`` writes it
            hosted = Hosted(base_url=fields.pop("base_url"))
            if embedder is None:
                given["engine"] = hosted
        if model_name is not None:
            given["model"] = model_name
        unknown = [name for name in fields if name not in type(self).model_fields]
        if unknown:
            raise ValueError(unknown_argument(type(self).__name__, *unknown))
        if embedder is None:
            embedder = Embedder(**given)
        elif given:
            raise ValueError(
                f"{embedder!r} has its settings, and {', '.join(given)} came beside it. Give "
                "embedder= alone, or the settings of a new one."
            )
        own: dict[str, Any] = dict(embedder.settings())
        super().__init__(model_name=own.pop("model"), **own, **fields)
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps beside the settings."""
        return "ToastrackEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The embedder that does the work."""
        return self._embedder

    def node_parser(
        self, chunk_size: int | None = None, chunk_overlap: int = 0, **options: Any
    ) -> ToastrackNodeParser:
        """Return a node parser whose nodes fit the model, metadata included.

            from llama_index.core import Document

            parser = ToastrackEmbedding(embedder=embedder).node_parser(chunk_size=128)
            nodes = parser.get_nodes_from_documents([Document(text=text)])

        Args:
            chunk_size: The limit of a node in tokens, with specials, prompt and the metadata that
                LlamaIndex puts in front of the text; None takes all that the model reads.
            chunk_overlap: How many tokens of one node are repeated at the start of the next.
            options: What every ``NodeParser`` of LlamaIndex takes.
        """
        return ToastrackNodeParser(
            embedding=self, chunk_size=chunk_size, chunk_overlap=chunk_overlap, **options
        )

    def guard(self, vector_store: AnyVectorStore, *, adopt: Adopt = False) -> AnyVectorStore:
        """Let a vector store of LlamaIndex' refuse what another model, prompt or size filled.

            from llama_index.core import VectorStoreIndex
            from llama_index.vector_stores.chroma import ChromaVectorStore

            embedding = ToastrackEmbedding()
            collection = chromadb.PersistentClient("vectors").get_or_create_collection("loaves")
            vector_store = embedding.guard(ChromaVectorStore(chroma_collection=collection))
            index = VectorStoreIndex.from_vector_store(vector_store, embed_model=embedding)

        It is the same object, of llama-index-vector-stores-postgres, -qdrant or -chroma. Whenever
        nodes are added or searched for, it compares what stands beside the collection; the first one,
        of whatever process, writes the space down where a store of toastrack's would. Nothing is
        asked before that. A vector store sees vectors only: give the index this embedding, too.

        Args:
            vector_store: Holds the vectors of this embedding, and of no other.
            adopt: Take over a filled collection that does not say which model embedded it, once some
                of its nodes were embedded again and gave the same vectors. "unchecked" believes that
                they do.

        Raises:
            UnsupportedError: The vector store has no place for a space.
            SpaceMismatchError: From its methods: the collection is of another space, or filled and
                says nothing.
        """
        return guard_space(
            vector_store,
            self._embedder,
            adopt=adopt,
            writes=("add", "async_add"),
            searches=("query", "aquery"),
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return what decides about the vectors: the settings, and the digest of the space.

        ``IngestionPipeline`` keys its cache by this, so other weights behind the same name are
        noticed. It takes the model's files: in a service, ``await embedder.aload()`` first.
        """
        written = {**super().to_dict(**kwargs), "space": self._embedder.space.digest}
        hosted = self._embedder.hosted
        # Else it would be built anew as a local model of that name.
        return written if hosted is None else {**written, "base_url": hosted.url}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; changed settings make a new embedder, else both share one."""
        if not update:
            return super().model_copy(deep=deep)
        fields = dict(self)
        if "embedder" in update:
            fields = {name: fields[name] for name in fields if name not in _SETTINGS}
            del fields["model_name"]
        return type(self)(**{**fields, **update})

    def _get_query_embedding(self, query: str) -> list[float]:
        with suggesting(_REMEDY):
            vector: list[float] = self._embedder.embed_query(query).tolist()
        return self._checked(vector)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        with suggesting(_REMEDY):
            vector: list[float] = (await self._embedder.aembed_query(query)).tolist()
        return self._checked(vector)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with suggesting(_REMEDY):
            vectors: list[list[float]] = self._embedder.embed_documents(texts).tolist()
        return self._checked(vectors)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with suggesting(_REMEDY):
            vectors: list[list[float]] = (await self._embedder.aembed_documents(texts)).tolist()
        return self._checked(vectors)

    def _checked(self, vectors: T) -> T:
        """Warn, once, of a cache that cannot tell a query from a document; pass vectors on.

        After the first text and not before: then the prompts are known without a download.
        """
        if self.embeddings_cache is not None and not self._cache_checked:
            self._cache_checked = True
            if self._embedder.query_prompt != self._embedder.document_prompt:
                warnings.warn(
                    "embeddings_cache is keyed by the text alone: a query gets the cached vector "
                    "of a document with the same text, and the other way round. Leave it out; "
                    "an IngestionPipeline's own cache is safe.",
                    UserWarning,
                    stacklevel=3,
                )
        return vectors


class ToastrackNodeParser(MetadataAwareTextSplitter):
    """Splits documents into nodes that each fit the model, measured by the model's own tokenizer.

        from llama_index.core import Document

        parser = ToastrackNodeParser(embedding=ToastrackEmbedding(), chunk_size=128)
        nodes = parser.get_nodes_from_documents([Document(text=text)])

    What is measured is what will be embedded: LlamaIndex puts the metadata in front of the text.
    ``ToastrackEmbedding.node_parser`` builds one and says what the arguments mean.
    """

    model_config = ConfigDict(extra="forbid")

    embedding: ToastrackEmbedding
    chunk_size: int | None = Field(default=None, gt=0)
    chunk_overlap: int = Field(default=0, ge=0)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps beside the settings."""
        return "ToastrackNodeParser"

    def split_text(self, text: str) -> list[str]:
        """Split a text that stands alone."""
        return self._split(text, lambda chunk: chunk)

    def split_text_metadata_aware(self, text: str, metadata_str: str) -> list[str]:
        """Split a text whose chunks are embedded with this metadata in front."""
        if not metadata_str:
            return self.split_text(text)
        return self._split(
            text,
            lambda chunk: DEFAULT_TEXT_NODE_TMPL.format(metadata_str=metadata_str, content=chunk),
        )

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return what decides about the nodes; takes the model's files."""
        data = super().to_dict(**kwargs)
        return {**data, "embedding": self.embedding.to_dict()}

    def _parse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        parsed: list[BaseNode] = []
        for node in get_tqdm_iterable(nodes, show_progress, "Parsing nodes"):
            # An empty node of this document says itself how its text will be embedded.
            (probe,) = build_nodes_from_splits([""], node)
            if self.include_metadata:
                probe.metadata = node.metadata

            def as_embedded(chunk: str, probe: TextNode = probe) -> str:
                probe.text = chunk
                return probe.get_content(MetadataMode.EMBED)

            chunks = self._split(
                node.get_content(MetadataMode.NONE), as_embedded, where=f" of {node.node_id!r}"
            )
            parsed.extend(build_nodes_from_splits(chunks, node, id_func=self.id_func))
        return parsed

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        return await asyncio.to_thread(self._parse_nodes, nodes, show_progress, **kwargs)

    def _split(self, text: str, as_embedded: Callable[[str], str], *, where: str = "") -> list[str]:
        """Split so that ``as_embedded`` of every chunk fits."""
        embedder = self.embedding.embedder
        embedder.split(
            ""
        )  # says what is missing, where the tokens of a hosted model cannot be counted
        limit = embedder.max_tokens if self.chunk_size is None else self.chunk_size
        if limit > embedder.max_tokens:
            raise ValueError(
                f"chunk_size={limit} is over the {embedder.max_tokens} tokens that "
                f"{embedder.model!r} reads."
            )
        around = embedder.count_tokens(as_embedded("")) - embedder.count_tokens("")
        room = limit - around
        while room > embedder.count_tokens("") + self.chunk_overlap:
            chunks = embedder.split(text, room, self.chunk_overlap)
            longest = max(embedder.count_tokens(as_embedded(chunk)) for chunk in chunks)
            if longest <= limit:
                return chunks
            # Text and metadata can merge into other tokens than both alone: ask for less.
            room -= longest - limit
        raise ValueError(
            f"The metadata{where} takes {around} of {limit} tokens and leaves no room for text. "
            "Name what need not be embedded in excluded_embed_metadata_keys."
        )
