"""The databases of ``docker/compose.yaml`` keep what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import compose
import pytest
from programs import toastrack


@pytest.fixture(params=["postgres", "chroma", "qdrant"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[compose.Project]:
    with compose.project(request.param, tmp_path) as project:
        yield project


def url_of(project: compose.Project) -> str:
    """Where its service keeps a test's collection."""
    address = f"127.0.0.1:{project.port}"
    return {
        "postgres": f"postgresql://toastrack:toastrack@{address}/toastrack?table=docs",
        "chroma": f"chroma+http://{address}/docs",
        "qdrant": f"qdrant+http://{address}/docs",
    }[project.service]


def test_a_service_keeps_its_data_over_down_and_up(
    project: compose.Project, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rye.md").write_text("Rye bread keeps fresh.\n")
    ingest = [
        *("ingest", str(tmp_path / "rye.md"), "--to", url_of(project)),
        *("--model", str(tiny_folder), "--json"),
    ]
    project("up", "--detach", "--wait", project.service)
    assert json.loads(toastrack(*ingest))["written"] == 1
    project("down")
    project("up", "--detach", "--wait", project.service)
    assert json.loads(toastrack(*ingest))["unchanged"] == 1
