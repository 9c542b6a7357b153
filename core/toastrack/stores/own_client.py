"""A client of a store's own: what an address leads to, in each process for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from threading import Lock
from typing import Any

from toastrack.utils.forks import keep_for_ever


class OwnClient(ABC):
    """Makes a client at its first use, closes it with its store, and makes it anew after a fork.

    A pickle of it is what ``__init__`` was given, and opens a client of its own.
    """

    def __init__(self, *address: Any) -> None:
        self.address = address
        self.inherited = False
        """The parent of this process had a client when it forked."""
        self._client: Any = None
        self._lock = Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.address

    @abstractmethod
    def make(self) -> Any:
        """Connect; ``StoreError`` if that cannot be."""

    @abstractmethod
    def dispose(self, client: Any) -> None:
        """Close a client."""

    def get(self) -> Any:
        """Return the client of this process."""
        with self._lock:
            if self._client is None:
                self._client = self.make()
            return self._client

    def close(self) -> None:
        """Close the client; the next call makes another."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            self.dispose(client)

    def leave_to_parent(self) -> None:
        """In a forked child: leave the parent's client as it is."""
        if self._client is not None:
            keep_for_ever(self._client)
            self.inherited = True
        self._client = None
        self._lock = Lock()
