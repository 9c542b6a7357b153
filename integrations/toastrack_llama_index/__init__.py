"""Give LlamaIndex the embedder, its queries and documents each with the prompt they need, the reranker and our stores."""

from toastrack.errors import needs_extra

with needs_extra("llama-index", "llama_index", "llama_index.core"):
    from toastrack_llama_index.embedding import ToastrackEmbedding, ToastrackNodeParser
    from toastrack_llama_index.reranker import ToastrackRerank
    from toastrack_llama_index.retriever import ToastrackRetriever

__all__ = ["ToastrackEmbedding", "ToastrackNodeParser", "ToastrackRerank", "ToastrackRetriever"]
