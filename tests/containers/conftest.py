"""Containers of the test's own, that may be restarted, paused and killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import services


# Before the fixtures that start containers, which live as long as a file.
@pytest.fixture(scope="session", autouse=True)
def _containers() -> None:
    if not services.wanted():
        pytest.skip("containers were not asked for: make test-containers")


@pytest.fixture(scope="module")
def postgres() -> Iterator[services.Running]:
    """A Postgres server of this file's own."""
    with services.running("postgres") as running:
        yield running


@pytest.fixture(scope="module")
def chroma() -> Iterator[services.Running]:
    """A Chroma server of this file's own."""
    with services.running("chroma") as running:
        yield running
