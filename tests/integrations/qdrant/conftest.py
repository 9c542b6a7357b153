"""Clients of Qdrant's that need no server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

from qdrant_client import QdrantClient

if TYPE_CHECKING:
    from edge_client import EdgeClient

MakeEngine = Callable[..., "EdgeClient"]


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """A client that keeps all in memory."""
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[MakeEngine]:
    """Builds clients of the engine itself; arguments are its configuration's."""
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    from edge_client import EdgeClient

    with ExitStack() as stack:

        def make(**config: Any) -> EdgeClient:
            client = EdgeClient(tmp_path, **config)
            stack.callback(client.close)
            return client

        yield make
