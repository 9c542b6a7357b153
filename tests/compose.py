"""``docker/compose.yaml``, brought up as it says, under a project and on ports of a test's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import services

COMPOSE = services.BUILD.parent / "compose.yaml"


class Project:
    """One service of the file."""

    def __init__(
        self, service: str, folder: Path, options: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        self.service = service
        self.port = services.free_port()
        name = f"toastrack-test-{uuid4().hex[:12]}"
        labels = {"services": {service: {"labels": services.labels(service)}}}
        # Whatever a killed run leaves is found by its label, as with every container of a test.
        (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
        files = ["--file", str(COMPOSE), "--file", str(folder / "labels.json")]
        self._words = ["docker", "compose", "--project-name", name, *options, *files]
        self._environment = {
            **os.environ,
            f"{service.upper()}_IMAGE": services.SERVICES[service].image,
            f"{service.upper()}_PORT": str(self.port),
            **environment,
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


@contextmanager
def project(
    service: str, folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Project]:
    """Make a project of one service, which is down at the start and without a trace after it.

    Args:
        service: Its name in the file.
        folder: Where a file of the project's own may be written.
        options: Of ``docker compose``, before its command.
        environment: Further variables that the file reads.
    """
    with closing(services.connected()) as client:
        services.image_of(client, services.SERVICES[service])
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if version.returncode:
        pytest.skip("docker has no 'compose' of version 2")
    made = Project(service, folder, options, environment or {})
    yield made
    made("down", "--volumes")
