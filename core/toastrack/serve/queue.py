"""How much may wait at once, so that a server that is full says so instead of growing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from toastrack.serve.refusals import Refusal

_MOST_SECONDS = 30


class Queue:
    """Counts what is waiting or being done, of one kind; whoever comes when it is full is told when to come back.

    What comes alone is always let in, however much it is: a request has a limit of its own.
    """

    def __init__(self, most: int, unit: str) -> None:
        self.most = most
        self.unit = unit
        self.taken = 0
        self._done = 0
        self._since = 0.0

    @contextmanager
    def place(self, amount: int) -> Iterator[None]:
        """Hold a place for so much until the block is left.

        Raises ``Refusal`` (429, with a Retry-After) if there is none.
        """
        self.take(amount)
        try:
            yield
            self._done += amount
        finally:
            self.give_back(amount)

    def take(self, amount: int) -> None:
        """Take a place; raises as ``place`` does."""
        if self.taken and self.taken + amount > self.most:
            seconds = self._seconds_until(amount)
            raise Refusal(
                429,
                f"{self.taken:,} {self.unit} are waiting already, of {self.most:,} that may. Ask again in "
                f"{seconds} s.",
                code="rate_limit_exceeded",
                headers={"retry-after": str(seconds)},
            )
        if not self.taken:
            self._since, self._done = time.monotonic(), 0
        self.taken += amount

    def give_back(self, amount: int) -> None:
        """Give a place back."""
        self.taken -= amount

    def _seconds_until(self, amount: int) -> int:
        """Guess when there will be a place, by how fast others were done since it was empty."""
        if not self._done:
            return 1
        each = (time.monotonic() - self._since) / self._done
        return max(1, min(_MOST_SECONDS, math.ceil(each * (self.taken + amount - self.most))))
