"""Stores of several processes that write at the same moment, round after round."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

from programs import SECONDS

from toastrack import Embedder, Record
from toastrack.errors import StoreError

WORDS = ("rye", "salt", "wheat", "dough")


def wanted(number: int, writer: int) -> list[Record]:
    """Return what a writer makes of a document: one record is everybody's, the other its own."""
    shared = Record(f"s{number}", WORDS[writer % 2], {"n": number}, document_id=f"d{number}")
    own = Record(f"o{number}-{writer}", WORDS[writer], document_id=f"d{number}")
    return [shared, own]


def race(
    open_store: Callable[..., Any], arguments: Sequence[Any], model: str, writers: int, rounds: int
) -> list[list[bool]]:
    """Replace documents by several processes at once; say for each round who returned.

    Args:
        open_store: A function of a module, which takes the arguments and an embedder.
        arguments: What can be pickled.
        model: The embedder's folder.
        writers: How many processes.
        rounds: How many documents, one after another.
    """
    context = multiprocessing.get_context("forkserver")
    barrier, answers = context.Barrier(writers), context.Queue()
    processes = [
        context.Process(
            target=_write,
            args=(open_store, arguments, model, writer, rounds, barrier, answers),
        )
        for writer in range(writers)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(answers.get(timeout=SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.join(SECONDS)
            process.kill()
    for answer in found.values():
        if isinstance(answer, Exception):
            raise answer
    return [list(each) for each in zip(*(found[writer] for writer in range(writers)), strict=True)]


def _write(
    open_store: Callable[..., Any],
    arguments: Sequence[Any],
    model: str,
    writer: int,
    rounds: int,
    barrier: Any,
    answers: Any,
) -> None:
    returned: list[bool] = []
    try:
        with open_store(*arguments, embedder=Embedder(model, device="cpu").load()) as store:
            for number in range(rounds):
                barrier.wait(SECONDS)
                try:
                    store.replace(f"d{number}", wanted(number, writer))
                    returned.append(True)
                except StoreError as error:
                    if "another writer is changing document" not in str(error):
                        raise
                    returned.append(False)
        answers.put((writer, returned))
    except Exception as error:
        barrier.abort()
        answers.put((writer, RuntimeError(f"writer {writer}: {error!r}")))


def postgres(dsn: str, schema: str, *, embedder: Embedder) -> Any:
    """Open a table of a schema."""
    from toastrack_postgres import PostgresStore

    return PostgresStore(dsn, "documents", schema=schema, embedder=embedder)


def chroma(host: str, port: int, database: str, *, embedder: Embedder) -> Any:
    """Open a collection of a server's database."""
    import chromadb

    from toastrack_chroma import ChromaStore

    client = chromadb.HttpClient(host=host, port=port, database=database)
    return ChromaStore(client, "documents", embedder=embedder)


def qdrant(url: str, collection: str, *, embedder: Embedder) -> Any:
    """Open a collection of a server."""
    from qdrant_client import QdrantClient

    from toastrack_qdrant import QdrantStore

    return QdrantStore(QdrantClient(url, timeout=60), collection, embedder=embedder)
