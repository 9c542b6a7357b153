"""A server on a socket of its own: who may reach it, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from toastrack.errors import needs_extra
from toastrack.serve.app import App, Limits, Served

if TYPE_CHECKING:
    import uvicorn

KEY_NAME = "TOASTRACK_API_KEY"

# A client keeps a connection for a minute or so, and must not find it closed when it asks again.
_SECONDS_KEPT = 75
_SECONDS_TO_END = 30
# Connections that are open, whether somebody asks or not.
_CONNECTIONS = 1_000


class Server:
    """One server: it has its address before its models are loaded, and answers when they are.

    ``key_name`` is the environment variable that holds the key, which may be unset where only this
    machine can ask.

    Raises ``ValueError`` for an address that is taken, or that other machines reach without a key.
    """

    def __init__(
        self,
        served: Served,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        key_name: str = KEY_NAME,
    ) -> None:
        with needs_extra("serve", "uvicorn", "h11", "orjson"):
            import orjson as orjson
            import uvicorn as uvicorn
        key = _key(key_name)
        self._served = served
        self._app = App(served, key=key, limits=limits)
        self._bound = _bind(host, port, may_be_seen=key is not None, key_name=key_name)
        self._running: uvicorn.Server | None = None

    @property
    def address(self) -> str:
        """Where it is, as clients write it before ``/v1``."""
        host, port = self._bound.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def load(self) -> None:
        """Load the models; nobody is answered before."""
        self._served.embedder.load()
        if self._served.reranker is not None:
            self._served.reranker.load()

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Answer requests until a signal ends it; what runs then is finished."""
        import uvicorn

        from toastrack.serve.http import Http

        config = uvicorn.Config(
            self._app,
            http=Http,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_CONNECTIONS,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_SECONDS_KEPT,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        with self._bound, _ends_quietly():
            self._bound.listen(_CONNECTIONS)
            self._running = uvicorn.Server(config)
            on_ready()
            self._running.run(sockets=[self._bound])

    def close(self) -> None:
        """Give the address back, which ``run`` does when it ends."""
        self._bound.close()

    def stop(self) -> None:
        """End it as a signal does, from any thread, once it is ready."""
        if self._running is not None:
            self._running.should_exit = True


@contextmanager
def _ends_quietly() -> Iterator[None]:
    """Take the signal that ended a server for its end, though uvicorn raises it once more."""
    if current_thread() is not main_thread():
        yield  # signals are the business of the main thread
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _key(name: str) -> str | None:
    key = os.environ.get(name, "").strip()
    if not key:
        return None
    # An error would show it.
    if not key.isascii() or not key.isprintable() or " " in key:
        key = ""
        raise ValueError(f"{name} is no key: it holds signs that no request can carry.")
    return key


def _bind(host: str, port: int, *, may_be_seen: bool, key_name: str) -> socket.socket:
    """Bind an address and leave it at that: who asks before the model is there finds nobody.

    One that other machines reach needs a key.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(
            f"host={host!r} is no address of this machine: {error.strerror}."
        ) from None
    if not may_be_seen and not ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ValueError(
            f"host={host!r} is an address that other machines reach, so requests must have a key. Put "
            f"one into {key_name}, such as what `openssl rand -hex 32` prints."
        )
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ValueError(
            f"port={port} at {host} cannot be had: {error.strerror}. Another program has it, or it is "
            "not yours to take."
        ) from None
    return bound
