"""Who may import whom: the rooms of core from top to bottom, and the three modules of an adapter."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "core" / "toastrack"
ADAPTERS = sorted(path for path in (ROOT / "integrations").glob("toastrack_*") if path.is_dir())

# From top to bottom: each may import those below it.
ROOMS = [
    "__init__",
    "cli",
    "serve",
    "export",
    "int8",
    "ingestion",
    "stores",
    "embedder",
    "reranker",
    "batching",
    "engines",
    "hosted",
    "models",
    "filters",
    "records",
    "errors",
    "space",
    "utils",
]

FOR_ADAPTERS = {"toastrack", "toastrack.errors", "toastrack.stores"}

STORES = [
    ("toastrack_postgres", "PostgresStore", "AsyncPostgresStore"),
    ("toastrack_qdrant", "QdrantStore", "AsyncQdrantStore"),
    ("toastrack_chroma", "ChromaStore", "AsyncChromaStore"),
]


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever the import stands, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            # `from toastrack import stores` imports the room, any other name its module.
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            rooms = {name for name in below if is_module(name)}
            yield from ((name, node.lineno) for name in rooms or {node.module})


def is_module(name: str) -> bool:
    roots = (CORE.parent, ROOT / "integrations")
    paths = [root.joinpath(*name.split(".")) for root in roots]
    return any(path.is_dir() or path.with_suffix(".py").is_file() for path in paths)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_room_has_its_place() -> None:
    there = {path.stem for path in CORE.glob("*.py")} | {
        path.name for path in CORE.iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert there == set(ROOMS)


def test_no_arrow_of_core_runs_up() -> None:
    """Then there is no circle among the rooms, either."""
    wrong = []
    for path in sorted(CORE.rglob("*.py")):
        here = path.relative_to(CORE).parts[0].removesuffix(".py")
        for module, line in imported(path):
            if module.partition(".")[0] != "toastrack":
                assert not module.startswith("toastrack_"), f"{path}:{line} imports an adapter"
                continue
            there = room_of(module)
            if there != here and ROOMS.index(there) < ROOMS.index(here):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {there}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", [CORE, *ADAPTERS], ids=lambda path: path.name)
def test_no_files_import_each_other_in_a_circle(package: Path) -> None:
    arrows: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        arrows[name] = {module for module, _ in imported(path) if module != name}
    # 1: on the way; 2: seen, and no circle.
    seen: dict[str, int] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert seen.get(module) != 1, f"a circle: {' -> '.join([*way, module])}"
        if module in seen or module not in arrows:
            return
        seen[module] = 1
        for other in sorted(arrows[module]):
            visit(other, (*way, module))
        seen[module] = 2

    for module in sorted(arrows):
        visit(module, ())


@pytest.mark.parametrize("adapter", ADAPTERS, ids=[path.name for path in ADAPTERS])
def test_an_adapter_imports_three_modules_of_core_and_no_other_adapter(adapter: Path) -> None:
    wrong = []
    for path in sorted(adapter.rglob("*.py")):
        for module, line in imported(path):
            top = module.partition(".")[0]
            is_foreign = top.startswith("toastrack_") and top != adapter.name
            if is_foreign or (top == "toastrack" and module not in FOR_ADAPTERS):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module}")
    assert not wrong, "\n".join(wrong)


def public_names(kind: type[Any]) -> set[str]:
    renamed = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
    return {
        renamed.get(name, name)
        for name in dir(kind)
        if not name.startswith("_") or name in renamed or name in renamed.values()
    }


@pytest.mark.parametrize(("package", "sync", "asynchronous"), STORES)
def test_both_classes_of_a_store_have_the_same_methods(
    package: str, sync: str, asynchronous: str
) -> None:
    module = pytest.importorskip(package, reason=f"{package} cannot be imported here")
    one, other = getattr(module, sync), getattr(module, asynchronous)
    assert public_names(one) == public_names(other)
    for name in sorted(public_names(one) | {"__init__", "_check", "_check_index"}):
        if name.startswith("__") and name != "__init__":
            continue
        mine, its = (inspect.getattr_static(kind, name) for kind in (one, other))
        assert isinstance(mine, property) == isinstance(its, property), name
        if isinstance(mine, property):
            continue
        same = [
            [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
            for function in (mine, its)
        ]
        assert same[0] == same[1], name
        waits = inspect.iscoroutinefunction(its) or inspect.isasyncgenfunction(its)
        assert waits == (name not in ("__init__", "_check")), name


@pytest.mark.parametrize(("package", "sync", "asynchronous"), STORES)
def test_both_classes_fulfil_their_protocol(package: str, sync: str, asynchronous: str) -> None:
    module = pytest.importorskip(package, reason=f"{package} cannot be imported here")
    from toastrack.stores import AsyncStore, Store

    for kind, protocol in (
        (getattr(module, sync), Store),
        (getattr(module, asynchronous), AsyncStore),
    ):
        assert public_names(protocol) <= public_names(kind)


def test_the_names_for_adapters_are_there() -> None:
    stores = import_module("toastrack.stores")
    assert len(set(stores.__all__)) == len(stores.__all__)
    assert all(hasattr(stores, name) for name in stores.__all__)


def test_importing_toastrack_loads_no_numpy_torch_or_host() -> None:
    heavy = [
        "numpy",
        "torch",
        "transformers",
        "sentence_transformers",
        "openvino",
        "tokenizers",
        "huggingface_hub",
        "psycopg",
        "pgvector",
        "qdrant_client",
        "chromadb",
        "langchain_core",
        "llama_index",
        "typer",
        "rich",
        "uvicorn",
    ]
    code = f"import sys, toastrack, toastrack.stores, toastrack.errors\nprint([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
