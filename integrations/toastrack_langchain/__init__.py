"""Give LangChain the embedder, its queries and documents each with the prompt they need, the reranker and our stores."""

from toastrack.errors import needs_extra

with needs_extra("langchain", "langchain_core"):
    from toastrack_langchain.embeddings import ToastrackEmbeddings
    from toastrack_langchain.reranker import ToastrackReranker
    from toastrack_langchain.retriever import ToastrackRetriever

__all__ = ["ToastrackEmbeddings", "ToastrackReranker", "ToastrackRetriever"]
