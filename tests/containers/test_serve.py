"""The server's image, brought up by the compose file over a model's folder, and ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import compose
import numpy as np
import pytest
from models import exported
from serving import ask

from toastrack import Embedder

KEY = "sk-s3cret-0123456789"
TEXTS = ["Rye bread keeps for a week.", "Salt the dough."]


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino", reason="openvino is not installed")
    return exported(tiny_folder, tmp_path_factory.mktemp("models") / "served")


@pytest.fixture
def project(model: Path, tmp_path: Path) -> Iterator[compose.Project]:
    environment = {"SERVE_MODEL": str(model), "TOASTRACK_API_KEY": KEY}
    with compose.project(
        "serve", tmp_path, "--profile", "serve", environment=environment
    ) as project:
        yield project


def test_it_serves_the_model_that_is_mounted_and_ends_when_told(
    project: compose.Project, model: Path
) -> None:
    project("up", "--detach", "--wait", "serve")
    address = f"http://127.0.0.1:{project.port}"
    body = {"model": "model", "input": TEXTS, "input_type": "query"}
    assert ask(address, body=body).status == 401
    reply = ask(address, body=body, authorization=f"Bearer {KEY}")
    assert reply.status == 200, reply
    found = np.array([item["embedding"] for item in reply.content["data"]])
    cosines = (found * Embedder(model).embed_queries(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.9999
    project("stop", "serve")
    shown = json.loads(project("ps", "--all", "--format", "json").splitlines()[0])
    assert shown["ExitCode"] == 0
    said = project("logs", "--no-log-prefix", "serve")
    # compose may clear its own line before that.
    assert said.removeprefix("\x1b[2K") == "model at http://0.0.0.0:8080/v1\n"
    assert KEY not in said
