"""What importing the adapter needs, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout


def test_no_engine_is_loaded() -> None:
    # Where fastembed is installed qdrant-client imports it by itself.
    code = "import sys; sys.modules['fastembed'] = None; import toastrack_qdrant; "
    loaded = set(run(code + "print(*sys.modules)").split())
    engines = {"torch", "transformers", "sentence_transformers", "tokenizers", "onnxruntime"}
    assert not loaded & engines


def test_without_the_client_the_error_is_the_command_that_installs_it() -> None:
    printed = run(
        "import sys; sys.modules['qdrant_client'] = None\n"
        "try: import toastrack_qdrant\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    assert printed.startswith("MissingExtraError 'qdrant_client' is not installed. Run: pip ")
    assert "[qdrant]" in printed


def test_without_an_engine_a_store_still_opens_and_a_text_names_the_extra(
    tiny_folder: Path,
) -> None:
    printed = run(
        "import sys\n"
        "for name in ('torch', 'sentence_transformers', 'tokenizers', 'fastembed'):\n"
        "    sys.modules[name] = None\n"
        "from qdrant_client import QdrantClient\n"
        "from toastrack import Embedder\n"
        "from toastrack_qdrant import QdrantStore\n"
        f"embedder = Embedder({str(tiny_folder)!r})\n"
        "store = QdrantStore(QdrantClient(':memory:'), 'docs', embedder=embedder)\n"
        "try: store.search('rye')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    assert printed.startswith("MissingExtraError")
    assert "[local]" in printed
