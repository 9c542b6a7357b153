"""The server's image, brought up by the compose file over a model's folder, and ended."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import services
from models import exported
from serving import ask

from toastrack import Embedder

COMPOSE = services.BUILD.parent / "compose.yaml"
KEY = "sk-s3cret-0123456789"
TEXTS = ["Rye bread keeps for a week.", "Salt the dough."]


class Project:
    """The service of the compose file, over a model."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.port = services.free_port()
        name = f"toastrack-test-{uuid4().hex[:12]}"
        labels = {"services": {"serve": {"labels": services.labels("serve")}}}
        # Whatever a killed run leaves is found by its label, as with every container of a test.
        (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
        files = ["--file", str(COMPOSE), "--file", str(folder / "labels.json")]
        self._words = ["docker", "compose", "--project-name", name, "--profile", "serve", *files]
        self._environment = {
            **os.environ,
            "SERVE_IMAGE": services.SERVICES["serve"].image,
            "SERVE_MODEL": str(model),
            "SERVE_PORT": str(self.port),
            "TOASTRACK_API_KEY": KEY,
        }

    def __call__(self, *words: str) -> str:
        """``docker compose`` with these words; returns what it prints."""
        result = subprocess.run(
            [*self._words, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino", reason="openvino is not installed")
    return exported(tiny_folder, tmp_path_factory.mktemp("models") / "served")


@pytest.fixture
def project(model: Path, tmp_path: Path) -> Iterator[Project]:
    with closing(services.connected()) as client:
        services.image_of(client, services.SERVICES["serve"])
    project = Project(model, tmp_path)
    yield project
    project("down", "--volumes")


def test_it_serves_the_model_that_is_mounted_and_ends_when_told(
    project: Project, model: Path
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
