"""Who says of a model that its vectors may be cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from toastrack import Embedder
from toastrack.models.known_models import is_known_matryoshka


@pytest.mark.parametrize(
    "name",
    [
        "mixedbread-ai/mxbai-embed-large-v1",
        "mixedbread-ai/mxbai-embed-2d-large-v1",
        "mixedbread-ai/mxbai-embed-xsmall-v1",
        "Mixedbread-AI/mxbai-embed-large-v1",
        "/models/mxbai-embed-large-v1",
        "/cache/models--nomic-ai--nomic-embed-text-v1.5/snapshots/0123",
        "nomic-ai/modernbert-embed-base",
        "Snowflake/snowflake-arctic-embed-m-v1.5",
        "Snowflake/snowflake-arctic-embed-l-v2.0",
    ],
)
def test_models_whose_authors_say_so(name: str) -> None:
    assert is_known_matryoshka(name)


@pytest.mark.parametrize(
    "name",
    [
        "nomic-ai/nomic-embed-text-v1",
        "Snowflake/snowflake-arctic-embed-m",
        "Snowflake/snowflake-arctic-embed-l",
        "BAAI/bge-large-en-v1.5",
        "sentence-transformers/all-MiniLM-L6-v2",
        "somebody/mxbai-embed-large-v1-tuned",
    ],
)
def test_models_whose_authors_do_not(name: str) -> None:
    assert not is_known_matryoshka(name)


@pytest.mark.parametrize(
    ("config", "page", "expected"),
    [
        ({}, None, False),
        ({"is_matryoshka": False}, "# A model\n", False),
        ({"is_matryoshka": True}, None, True),
        ({"matryoshka_dimensions": [64, 32]}, None, True),
        ({}, "---\ntags:\n- sentence-transformers\n- loss:MatryoshkaLoss\n---\n", True),
        ({}, "---\ntags:\n- loss:Matryoshka2dLoss\n---\n", True),
    ],
)
def test_files_that_say_so(
    config: dict[str, Any], page: str | None, expected: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    before = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(before | config), encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)
    if page is not None:
        (folder / "README.md").write_text(page, encoding="utf-8")
    assert Embedder(folder).is_matryoshka is expected


def test_a_known_model_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert Embedder("mixedbread-ai/mxbai-embed-large-v1").is_matryoshka
