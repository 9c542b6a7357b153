"""Store and search texts in Qdrant."""

from toastrack.errors import needs_extra

with needs_extra("qdrant", "qdrant_client"):
    from toastrack_qdrant.fastembed import register_fastembed
    from toastrack_qdrant.layouts import point_id
    from toastrack_qdrant.store import AsyncQdrantStore, QdrantStore

__all__ = ["AsyncQdrantStore", "QdrantStore", "point_id", "register_fastembed"]
