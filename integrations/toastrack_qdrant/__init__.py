"""Store and search texts in Qdrant."""

from toastrack.errors import needs_extra

with needs_extra("qdrant", "qdrant_client"):
    from toastrack_qdrant.async_store import AsyncQdrantStore
    from toastrack_qdrant.documents import register_fastembed
    from toastrack_qdrant.points import point_id
    from toastrack_qdrant.store import QdrantStore

__all__ = ["AsyncQdrantStore", "QdrantStore", "point_id", "register_fastembed"]
