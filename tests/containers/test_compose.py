"""``docker/compose.yaml``, brought up as it says, under a project and on ports of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
import services
from programs import toastrack

COMPOSE = services.BUILD.parent / "compose.yaml"


class Project:
    """One service of the file."""

    def __init__(self, service: str, folder: Path) -> None:
        self.service = service
        self.port = services.free_port()
        name = f"toastrack-test-{uuid4().hex[:12]}"
        labels = services.labels(service)
        # Whatever a killed run leaves is found by its label, as with every container of a test.
        (folder / "labels.json").write_text(
            json.dumps({"services": {service: {"labels": labels}}}), encoding="utf-8"
        )
        files = ["--file", str(COMPOSE), "--file", str(folder / "labels.json")]
        self._words = ["docker", "compose", "--project-name", name, *files]
        self._environment = {
            **os.environ,
            f"{service.upper()}_IMAGE": services.SERVICES[service].image,
            f"{service.upper()}_PORT": str(self.port),
        }

    def __call__(self, *words: str) -> None:
        """``docker compose`` with these words."""
        result = subprocess.run(
            [*self._words, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr

    @property
    def url(self) -> str:
        """Where its service keeps a test's collection."""
        address = f"127.0.0.1:{self.port}"
        return {
            "postgres": f"postgresql://toastrack:toastrack@{address}/toastrack?table=docs",
            "chroma": f"chroma+http://{address}/docs",
            "qdrant": f"qdrant+http://{address}/docs",
        }[self.service]


@pytest.fixture(params=["postgres", "chroma", "qdrant"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with closing(services.connected()) as client:
        services.image_of(client, services.SERVICES[request.param])
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if version.returncode:
        pytest.skip("docker has no 'compose' of version 2")
    project = Project(request.param, tmp_path)
    yield project
    project("down", "--volumes")


def test_a_service_keeps_its_data_over_down_and_up(
    project: Project, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rye.md").write_text("Rye bread keeps fresh.\n")
    ingest = [
        *("ingest", str(tmp_path / "rye.md"), "--to", project.url),
        *("--model", str(tiny_folder), "--json"),
    ]
    project("up", "--detach", "--wait", project.service)
    assert json.loads(toastrack(*ingest))["written"] == 1
    project("down")
    project("up", "--detach", "--wait", project.service)
    assert json.loads(toastrack(*ingest))["unchanged"] == 1
