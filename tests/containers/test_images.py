"""``docker/build`` keeps an image as long as it would be built of the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import services


@pytest.fixture
def client() -> Iterator[Any]:
    client = services.connected()
    yield client
    client.close()


@pytest.fixture
def repository(client: Any) -> Iterator[str]:
    """The first part of image names of the test's own; its base is the one that is there."""
    from docker.errors import ImageNotFound

    try:
        base = client.images.get("toastrack/debian:trixie")
    except ImageNotFound:
        pytest.skip("there is no image toastrack/debian:trixie: run docker/build")
    if base.labels.get(services.BUILT_OF) != services.digest():
        pytest.fail("toastrack/debian:trixie is of another docker/build: run it")
    name = f"toastrack-test-{uuid4().hex[:12]}"
    base.tag(f"{name}/debian", "trixie")
    yield name
    for image in client.images.list():
        for tag in image.tags:
            if tag.startswith(f"{name}/"):
                client.images.remove(tag)


@pytest.fixture
def build(client: Any, repository: str, tmp_path: Path) -> Callable[[], Any]:
    """Builds the image of a copy of ``docker/`` and returns it."""
    shutil.copytree(services.BUILD.parent, tmp_path / "docker")

    def run() -> Any:
        subprocess.run(
            [tmp_path / "docker" / "build", "postgres"],
            env={**os.environ, "REPOSITORY": repository},
            capture_output=True,
            check=True,
        )
        return client.images.get(f"{repository}/postgres")

    return run


def test_an_image_is_built_anew_when_a_file_of_its_folder_changed(
    build: Callable[[], Any], tmp_path: Path
) -> None:
    first = build()
    assert first.labels[services.BUILT_OF] == services.digest("postgres")
    assert build().id == first.id
    with (tmp_path / "docker" / "postgres" / "entrypoint").open("a") as file:
        file.write("# changed\n")
    second = build()
    assert second.id != first.id
    assert second.labels[services.BUILT_OF] != first.labels[services.BUILT_OF]
    assert build().id == second.id


def test_what_lies_beside_the_files_of_an_image_does_not_count(tmp_path: Path) -> None:
    shutil.copytree(services.BUILD.parent, tmp_path / "docker")
    digest = partial(services.digest, script=tmp_path / "docker" / "build")
    before = digest("chroma")
    (tmp_path / "docker" / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "docker" / "chroma" / "wheels").mkdir()
    assert digest("chroma") == before
    (tmp_path / "docker" / "chroma" / "config.yaml").write_text("port: 1\n")
    assert digest("chroma") != before


def test_tests_do_not_run_against_an_image_of_other_files(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "digest", lambda name: "0" * 64)
    with (
        pytest.raises(pytest.fail.Exception, match="docker/build"),
        services.running("postgres"),
    ):
        pass
