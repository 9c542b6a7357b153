"""Give LangChain the embedder, its queries and documents each with the prompt they need, and the reranker."""

from toastrack.errors import needs_extra

with needs_extra("langchain", "langchain_core"):
    from toastrack_langchain.embeddings import ToastrackEmbeddings
    from toastrack_langchain.reranker import ToastrackReranker

__all__ = ["ToastrackEmbeddings", "ToastrackReranker"]
