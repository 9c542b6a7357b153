"""Databases in containers, through the Docker API: started for a run of the tests, swept after.

Every container carries a label and ends by itself after a while, so that a killed run leaves
nothing for long, and what it leaves is removed at the next start.
"""

from __future__ import annotations

import gc
import os
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(__file__).parent.parent / "docker" / "build"
BUILT_OF = "toastrack.built-of"
_OURS = "toastrack/"
_LABEL = "toastrack.tests"
_SECONDS_TO_LIVE = 3_600
_SECONDS_TO_START = 60
_SECONDS_TO_STOP = 60


@dataclass(frozen=True)
class Service:
    """One database as it runs in a container."""

    image: str
    port: int
    environment: dict[str, str]
    data: str
    """Where the container keeps what must survive it."""
    can_pull: bool = False
    """Its image is not built here, so it is asked of the registry."""


SERVICES = {
    "postgres": Service(
        os.environ.get("POSTGRES_IMAGE", "toastrack/postgres"),
        5432,
        {"POSTGRES_USER": "toastrack", "POSTGRES_PASSWORD": "s3cret", "POSTGRES_DB": "toastrack"},
        "/var/lib/postgresql",
    ),
    "serve": Service(os.environ.get("SERVE_IMAGE", "toastrack/serve"), 8080, {}, "/model"),
    "chroma": Service(os.environ.get("CHROMA_IMAGE", "toastrack/chroma"), 8000, {}, "/data"),
    "qdrant": Service(
        os.environ.get("QDRANT_IMAGE", "qdrant/qdrant:v1.19.0"),
        6333,
        {},
        "/qdrant/storage",
        can_pull=True,
    ),
}


def wanted() -> bool:
    """Tell whether this run is to use containers; `make test-containers` says so."""
    return bool(os.environ.get("TOASTRACK_TEST_CONTAINERS"))


class Running:
    """A container, and what tests do to it."""

    def __init__(self, container: Any, service: Service) -> None:
        self.container = container
        self._service = service

    @property
    def port(self) -> int:
        """The port on loopback."""
        self.container.reload()
        bindings = self.container.attrs["NetworkSettings"]["Ports"][f"{self._service.port}/tcp"]
        return int(bindings[0]["HostPort"])

    def wait(self) -> None:
        """Wait until its own health check says that it serves."""
        end = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < end:
            self.container.reload()
            state = self.container.attrs["State"]
            if not state["Running"]:
                break
            if state.get("Health", {}).get("Status") == "healthy":
                return
            time.sleep(0.1)
        raise RuntimeError(f"{self._service.image} did not start:\n{self.logs()}")

    def restart(self) -> None:
        """``docker restart``, and wait."""
        self.container.restart(timeout=_SECONDS_TO_STOP)
        self.wait()

    def stop(self) -> None:
        """``docker stop``, with the grace that a database needs."""
        self.container.stop(timeout=_SECONDS_TO_STOP)

    def kill(self) -> None:
        """``docker kill``: SIGKILL."""
        self.container.kill()
        self.container.wait()

    def start(self) -> None:
        """``docker start``, and wait."""
        self.container.start()
        self.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """``docker pause``: the server is there and says nothing."""
        self.container.pause()
        try:
            yield
        finally:
            self.container.unpause()

    def logs(self) -> str:
        """The end of what it printed."""
        text: str = self.container.logs(tail=30).decode(errors="replace")
        return text


def labels(name: str) -> dict[str, str]:
    """Return what tells that a container is this process' own."""
    return {_LABEL: name, f"{_LABEL}.process": str(os.getpid())}


@contextmanager
def running(name: str) -> Iterator[Running]:
    """Run a service on a free port of loopback; skip, saying why, where that cannot be."""
    service = SERVICES[name]
    client = connected()
    image = image_of(client, service)
    config = image.attrs["Config"]
    container = client.containers.run(
        image,
        # It ends by itself when nobody is left to end it.
        entrypoint=["timeout", "-k", "60", str(_SECONDS_TO_LIVE), *(config["Entrypoint"] or [])],
        command=config["Cmd"],
        environment=service.environment,
        ports={f"{service.port}/tcp": ("127.0.0.1", free_port())},
        labels=labels(name),
        shm_size="512m",
        healthcheck=_health(service),
        detach=True,
    )
    try:
        started = Running(container, service)
        started.wait()
        yield started
    finally:
        container.remove(force=True, v=True)
        client.close()


def connected() -> Any:
    """Return a client of the engine, swept of what killed runs left."""
    docker: Any = pytest.importorskip("docker", reason="the package 'docker' is not installed")
    from docker.errors import APIError, DockerException

    missing = ""
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        missing = f"no Docker engine answers: {error}"
    if missing:
        # Its client leaves a socket that did not connect to the garbage collector.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        pytest.skip(missing)
    for left in client.containers.list(all=True, filters={"label": _LABEL}, ignore_removed=True):
        if _is_left(left):
            try:
                left.remove(force=True, v=True)
            except APIError as error:  # another worker of this run is at it, or was
                if error.status_code not in (404, 409):
                    raise
    return client


def _is_left(container: Any) -> bool:
    """Tell whether the process that started a container is not there any more."""
    try:
        os.kill(int(container.labels.get(f"{_LABEL}.process", 0)), 0)
    except ProcessLookupError:
        return True
    return False


def image_of(client: Any, service: Service) -> Any:
    """Return a service's image; skip, saying why, where there is none to be had."""
    from docker.errors import APIError, ImageNotFound

    try:
        image = client.images.get(service.image)
    except ImageNotFound:
        if not service.can_pull:
            pytest.skip(f"there is no image {service.image}: run docker/build")
    else:
        _check_ours(service.image, image)
        return image
    try:
        return client.images.pull(service.image)
    except APIError as error:
        pytest.skip(f"{service.image} cannot be pulled: {error.explanation or error}")


def _check_ours(name: str, image: Any) -> None:
    if not name.startswith(_OURS):
        return
    if image.labels.get(BUILT_OF) != digest(name.removeprefix(_OURS)):
        pytest.fail(f"{name} was built of other files than docker/ has now: run docker/build")


def digest(*names: str, script: Path = BUILD) -> str:
    """Return what ``docker/build`` would build an image of."""
    words = [str(script), "--digest", *names]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def free_port() -> int:
    """Return a port that is kept over restarts, unlike one that Docker chooses."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _health(service: Service) -> dict[str, Any]:
    # Every half a second: tests wait for it.
    second = 1_000_000_000
    if service.port == 5432:
        test = ["CMD-SHELL", "pg_isready -h 127.0.0.1 -U toastrack -d toastrack"]
    else:
        path = "/readyz" if service.port == 6333 else "/api/v2/heartbeat"
        request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
        probe = f"exec 3<>/dev/tcp/127.0.0.1/{service.port} && printf '{request}' >&3"
        test = ["CMD", "bash", "-c", f"{probe} && grep -q 200 <&3"]
    return {"test": test, "interval": second // 2, "timeout": 3 * second, "retries": 100}
