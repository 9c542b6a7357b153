"""What is installed: light imports, one extra an adapter, a wheel with everything in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import metadata
from pathlib import Path

import pytest

import toastrack

ROOT = Path(__file__).parent.parent
HEAVY = {"numpy", "torch", "transformers", "sentence_transformers", "tokenizers"}
HEAVY |= {"huggingface_hub", "openvino", "psycopg", "pgvector", "rich", "typer"}


def test_import_is_light() -> None:
    code = "import toastrack, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(result.stdout.split())


def test_public_names_are_sorted_and_there() -> None:
    assert toastrack.__all__ == sorted(toastrack.__all__)
    assert {"Embedder", "EmbeddingSpace", "Match", "Record", "ingest"} <= set(toastrack.__all__)
    assert all(hasattr(toastrack, name) for name in toastrack.__all__)


def test_every_adapter_has_an_extra_and_every_extra_a_use() -> None:
    folders = {path.name for path in (ROOT / "integrations").glob("toastrack_*")}
    extras = set(metadata("toastrack").get_all("Provides-Extra") or [])
    others = {"all", "local", "openvino", "int8", "embedded", "fastembed", "parquet", "files"}
    others |= {"hosted", "serve", "sqlalchemy"}
    assert folders == {f"toastrack_{extra.replace('-', '_')}" for extra in extras - others}


def test_arrows_point_from_adapters_to_core() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert "import toastrack_" not in code, path
        assert "from toastrack_" not in code, path


def test_the_wheel_holds_every_package_typed(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel and is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {"toastrack", *(path.name for path in (ROOT / "integrations").glob("toastrack_*"))}
    for package in packages:
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {*packages, f"toastrack-{toastrack.__version__}.dist-info"}


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("postgres", "psycopg"),
        ("chroma", "chromadb"),
        ("qdrant", "qdrant_client"),
        ("langchain", "langchain_core"),
        ("llama-index", "llama_index"),
        ("llama-index", "llama_index.core"),
    ],
)
def test_without_an_extra_the_error_is_the_command_that_installs_it(
    extra: str, package: str
) -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {package!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import toastrack\n"
        f"try: import toastrack_{extra.replace('-', '_')}\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"MissingExtraError {package!r} is not installed. Run: pip ")
    assert f"[{extra}]" in result.stdout


@pytest.mark.parametrize(
    "package",
    [
        "toastrack_chroma",
        "toastrack_langchain",
        "toastrack_llama_index",
        "toastrack_postgres",
        "toastrack_qdrant",
    ],
)
def test_an_adapter_brings_no_torch(package: str) -> None:
    pytest.importorskip(package, reason=f"the extra of {package} is not installed")
    code = f"import {package}, sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    # Where fastembed is installed, Qdrant's own client imports it, and tokenizers with it.
    heavy = {"torch", "transformers", "sentence_transformers"}
    assert not heavy & set(result.stdout.split())
