"""LlamaIndex' node parser over the embedder's split."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.node_parser.interface import MetadataAwareTextSplitter
from llama_index.core.node_parser.node_utils import build_nodes_from_splits
from llama_index.core.schema import DEFAULT_TEXT_NODE_TMPL, BaseNode, MetadataMode, TextNode
from llama_index.core.utils import get_tqdm_iterable

from toastrack_llama_index.embedding import ToastrackEmbedding


class ToastrackNodeParser(MetadataAwareTextSplitter):
    """Splits documents into nodes that each fit the model, measured by the model's own tokenizer.

        from llama_index.core import Document

        parser = ToastrackNodeParser(embedding=ToastrackEmbedding(), chunk_size=128)
        nodes = parser.get_nodes_from_documents([Document(text=text)])

    What is measured is what will be embedded: LlamaIndex puts the metadata in front of the text.
    ``ToastrackEmbedding.node_parser`` builds one and says what the arguments mean.
    """

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
