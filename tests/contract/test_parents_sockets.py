"""What a forked child does to the connections of its parent to a server over HTTP: nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
from programs import SECONDS
from proxies import Proxy, tcp
from qdrant_server import Server

_PROGRAM = """
import asyncio, gc, os, sys
# Qdrant's client would import it, and with it onnxruntime, which hangs where a fork ends.
sys.modules["fastembed"] = None
from toastrack import Embedder, Record
from toastrack.errors import StoreError
from toastrack.stores import open_store
host, kind, port, collection, model, *ends = sys.argv[1:]
loop = None
# To this host by its plain name Qdrant's client keeps no connection open.
name = "127.1" if host == "qdrant" else "127.0.0.1"

class Awaited:
    def __init__(self, store):
        self.store = store
    def __getattr__(self, name):
        return lambda *args: loop.run_until_complete(getattr(self.store, name)(*args))

def made():
    global loop
    embedder = Embedder(model, device="cpu")
    if kind == "own":
        return open_store(f"{host}+http://{name}:{port}/{collection}", embedder).__enter__()
    if host == "chroma":
        import chromadb
        from toastrack_chroma import AsyncChromaStore, ChromaStore
        make = chromadb.AsyncHttpClient if kind == "async" else chromadb.HttpClient
        stores, options = (ChromaStore, AsyncChromaStore), {"host": "127.0.0.1", "port": int(port)}
    else:
        from qdrant_client import AsyncQdrantClient, QdrantClient
        from toastrack_qdrant import AsyncQdrantStore, QdrantStore
        make = AsyncQdrantClient if kind == "async" else QdrantClient
        stores = QdrantStore, AsyncQdrantStore
        options = {"url": f"http://{name}:{port}", "check_compatibility": False}
    if kind == "sync":
        return stores[0](make(**options), collection, embedder=embedder)
    loop = asyncio.new_event_loop()
    async def client():
        made = make(**options)
        return await made if host == "chroma" else made
    return Awaited(stores[1](loop.run_until_complete(client()), collection, embedder=embedder))

store = made()
store.upsert([Record("a", "rye", vector=[1.0] * 32)])
count = store.count()
print("open", flush=True)
for end in ends:
    input()
    child = os.fork()
    if not child:
        if end == "collect":
            store = None
            gc.collect()
        if end == "use" and kind == "own":
            assert store.count() == count
        if end == "use" and kind != "own":
            call = (lambda: asyncio.run(store.store.count())) if kind == "async" else store.count
            try:
                call()
                sys.exit(3)
            except StoreError as error:
                assert "made in another process" in str(error)
        if end in ("close", "use"):
            asyncio.run(store.store.close()) if kind == "async" else store.close()
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
input()
print(store.count() == count, flush=True)
os._exit(0)
"""
ENDS = ("exit", "close", "collect", "use")


@contextmanager
def _chroma(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    with Proxy(tcp(*request.getfixturevalue("chroma_server"))) as proxy:
        yield proxy


@contextmanager
def _qdrant(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Proxy(tcp("127.0.0.1", server.port)) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


HOSTS: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Proxy]]] = {
    "chroma": _chroma,
    "qdrant": _qdrant,
}
RARE = pytest.mark.rest


@pytest.mark.parametrize(
    "client", ["own", pytest.param("sync", marks=RARE), pytest.param("async", marks=RARE)]
)
@pytest.mark.parametrize("host", HOSTS)
def test_a_child_says_nothing_on_the_connections_of_its_parent(
    request: pytest.FixtureRequest, tiny_folder: Path, host: str, client: str
) -> None:
    """However it ends, also by taking the interpreter down; and it closes none."""
    collection = "docs" if host == "qdrant" else f"test-{uuid4().hex[:12]}"
    with HOSTS[host](request) as proxy:
        arguments = [host, client, str(proxy.port), collection, str(tiny_folder), *ENDS]
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            try:
                assert process.stdout.readline() == "open\n"
                for end in ENDS:
                    before = [(passed.sent, passed.ended.is_set()) for passed in proxy.connections]
                    assert not all(ended for _, ended in before), "there is a connection to touch"
                    process.stdin.write("\n")
                    process.stdin.flush()
                    assert process.stdout.readline() == "0\n", end
                    after = [(passed.sent, passed.ended.is_set()) for passed in proxy.connections]
                    assert after[: len(before)] == before, end
                    if client != "own" or end != "use":
                        assert len(after) == len(before), end
                printed, errors = process.communicate("\n", timeout=SECONDS)
                assert printed == "True\n", errors
            finally:
                process.kill()
