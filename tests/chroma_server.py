"""A real Chroma server, from the program that the chromadb package brings."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

_SECONDS_TO_START = 120


@contextmanager
def running_chroma(folder: Path) -> Iterator[int]:
    """Run a server over a folder and yield its port."""
    process, port = start_chroma(folder)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(120)


def start_chroma(
    folder: Path, port: int | None = None, *, max_request: int = 40 * 2**20
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server on loopback and wait until it answers."""
    port = port or _free_port()
    program = Path(sys.executable).with_name("chroma")
    folder.mkdir(exist_ok=True)
    settings = folder / "settings.yaml"
    settings.write_text(
        f'persist_path: "{folder}"\nlisten_address: "127.0.0.1"\nport: {port}\n'
        f"max_payload_size_bytes: {max_request}\n"
    )
    process = subprocess.Popen(
        [str(program), "run", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + _SECONDS_TO_START
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=5).close()
            return process, port
        except (URLError, OSError):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                process.wait()
                raise RuntimeError(f"{program} did not start on port {port}.") from None
            time.sleep(0.05)


def close_client(client: Any) -> None:
    """Close a client and its connections, which Chroma leaves to the garbage collector."""
    if hasattr(client, "close"):
        client.close()
    for owner in (client, getattr(client, "_admin_client", None)):
        session = getattr(getattr(owner, "_server", None), "_session", None)
        if session is not None:
            session.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def close_connections() -> None:
    """Close what Chroma keeps open for every client of the process, even of loops that are gone."""
    from chromadb.api.shared_system_client import SharedSystemClient

    for system in SharedSystemClient._identifier_to_system.values():
        for part in system._instances.values():
            if hasattr(part, "_session"):
                part._session.close()
            getattr(part, "_clients", {}).clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def close_relative_folders() -> None:
    """Close what Chroma opened at a path relative to a folder that the test is about to leave.

    Chroma keeps an open database by the path as it was written, so the next test's "vectors" would
    be this one's, and fail as soon as Chroma opens another connection to it.
    """
    from chromadb.api.shared_system_client import SharedSystemClient

    for identifier, system in list(SharedSystemClient._identifier_to_system.items()):
        settings = system.settings
        if settings.is_persistent and not Path(settings.persist_directory).is_absolute():
            del SharedSystemClient._identifier_to_system[identifier]
            getattr(SharedSystemClient, "_identifier_to_refcount", {}).pop(identifier, None)
            system.stop()
