"""Count the texts that were cut, and say so once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from toastrack.errors import TruncationError, TruncationWarning, truncation_remedy
from toastrack.utils.warn import warn_at_caller

OnTruncate = Literal["warn", "error", "ignore"]


def numbered(position: int) -> str:
    """Name a text by its position, where it has no other name."""
    return f"text {position}"


class TruncationCounter:
    """How many texts of one call were over the limit, and the longest of them.

    ``loss`` says what the cut means; ``remedy`` splits a text. ``tokens`` are those that were read.
    """

    def __init__(
        self,
        on_truncate: OnTruncate,
        remedy: str | None = None,
        *,
        loss: str = "What lies behind the limit cannot be found",
    ) -> None:
        self.on_truncate = on_truncate
        self._loss = loss
        # Asked for now, as the texts are counted on another thread.
        self._remedy = truncation_remedy.get() if remedy is None else remedy
        self.cut = 0
        self.longest = 0
        self.limit = 0
        self.seen = 0
        self.tokens = 0

    def add(
        self, uncut: Sequence[int], limit: int, *, first: int, name: Callable[[int], str]
    ) -> None:
        """Note the token counts of some texts; ``first`` is the position of the first of them.

        Raises ``TruncationError`` if the embedder was told not to cut.
        """
        self.limit = limit
        self.seen += len(uncut)
        for position, size in enumerate(uncut, start=first):
            self.tokens += min(size, limit)
            if size <= limit:
                continue
            if self.on_truncate == "error":
                raise TruncationError(
                    f"{name(position)} has {size} tokens, over the limit of {limit}. Split it with "
                    f"{self._remedy}, or allow the cut with on_truncate='warn'."
                )
            self.cut += 1
            self.longest = max(self.longest, size)

    def warn(self) -> None:
        """Warn, once, if anything was cut."""
        if self.cut and self.on_truncate == "warn":
            message = (
                f"{self.cut} of {self.seen} texts were cut at {self.limit} tokens; the longest "
                f"has {self.longest}. {self._loss}. Split them with {self._remedy}."
            )
            warn_at_caller(message, TruncationWarning)
