"""Store and search texts in Chroma, and embed for it."""

from toastrack.errors import needs_extra

with needs_extra("chroma", "chromadb"):
    from toastrack_chroma.embedding_function import ToastrackEmbeddingFunction
    from toastrack_chroma.store import AsyncChromaStore, ChromaStore, open_collection

__all__ = ["AsyncChromaStore", "ChromaStore", "ToastrackEmbeddingFunction", "open_collection"]
