"""Give LlamaIndex the embedder: queries and documents each with the prompt they need."""

from toastrack.errors import needs_extra

with needs_extra("llama-index", "llama_index", "llama_index.core"):
    from toastrack_llama_index.embedding import ToastrackEmbedding, ToastrackNodeParser

__all__ = ["ToastrackEmbedding", "ToastrackNodeParser"]
