"""What the contract must know of a way to have a store: one ``Kind`` each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from toastrack import Embedder
from toastrack.stores import Adopt, ChooseEmbedder, IngestStore


class Open(Protocol):
    """Builds a store over one collection of a host; opening it is the test's own."""

    def __call__(
        self,
        collection: str,
        *,
        embedder: Embedder | ChooseEmbedder,
        create: bool,
        adopt: Adopt,
        **options: Any,
    ) -> IngestStore: ...


@dataclass(frozen=True)
class Kind:
    """One way to have a store."""

    name: str
    start: Callable[[pytest.FixtureRequest], AbstractContextManager[Open]]
    """Brings the host up, empty, and takes it down again."""
    precision: float
    """How far a score may be from that of float32 vectors."""
    page_size: str | None = None
    """The constant that says how many ids ``document_ids`` asks for at a time; None: it has no pages."""
    server: bool = False
    """It speaks to a server, which can be one in a container."""
    whole: bool = False
    """``make test`` runs all tests on it, and on the others those marked ``connection``."""
    own: bool = False
    """The store makes its connection itself, and so it does in every process."""
    words: bool = False
    """It searches by the words of texts, too."""
