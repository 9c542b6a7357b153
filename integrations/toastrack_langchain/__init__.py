"""Give LangChain the embedder: queries and documents each with the prompt they need."""

from toastrack.errors import needs_extra

with needs_extra("langchain", "langchain_core"):
    from toastrack_langchain.embeddings import ToastrackEmbeddings

__all__ = ["ToastrackEmbeddings"]
