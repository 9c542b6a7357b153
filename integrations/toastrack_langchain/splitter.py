"""LangChain's TextSplitter over the embedder's split."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from langchain_core.documents import Document

from toastrack import Embedder

try:
    from langchain_text_splitters import TextSplitter
except ModuleNotFoundError as error:
    if error.name != "langchain_text_splitters":
        raise
    raise ModuleNotFoundError(
        "'langchain_text_splitters' is not installed. Run: pip install langchain-text-splitters",
        name=error.name,
    ) from None


class ToastrackTextSplitter(TextSplitter):
    """Splits into chunks that each fit the model, measured by the model's own tokenizer.

    ``ToastrackEmbeddings.splitter`` builds one and says what the arguments mean.
    """

    def __init__(
        self,
        embedder: Embedder,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        *,
        add_start_index: bool = False,
    ) -> None:
        embedder.split(
            ""
        )  # says what is missing, where the tokens of a hosted model cannot be counted
        super().__init__(
            chunk_size=embedder.max_tokens if chunk_size is None else chunk_size,
            chunk_overlap=chunk_overlap,
            length_function=embedder.count_tokens,
            add_start_index=add_start_index,
        )
        self._embedder = embedder

    def split_text(self, text: str) -> list[str]:
        """Split one text; blank text has no chunks, as in LangChain's own splitters."""
        if not text.strip():
            return []
        return self._embedder.split(text, self._chunk_size, self._chunk_overlap)

    def create_documents(
        self, texts: list[str], metadatas: list[dict[Any, Any]] | None = None
    ) -> list[Document]:
        """Split texts; each chunk has a copy of its text's metadata."""
        documents = []
        for number, text in enumerate(texts):
            start = end = 0
            for chunk in self.split_text(text):
                metadata = deepcopy(metadatas[number]) if metadatas else {}
                if self._add_start_index:
                    # The base class would count the overlap in characters.
                    start = text.find(chunk, start + 1 if self._chunk_overlap and end else end)
                    end = start + len(chunk)
                    metadata["start_index"] = start
                documents.append(Document(page_content=chunk, metadata=metadata))
        return documents
