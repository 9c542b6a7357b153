"""Which code runs on which threads."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def calls_seen() -> Iterator[dict[int, set[str]]]:
    """Note all functions that this thread and those it starts call: names, by thread."""
    seen: dict[int, set[str]] = defaultdict(set)

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            module, name = frame.f_globals.get("__name__"), frame.f_code.co_name
        elif event == "c_call":
            name = argument.__name__
            module = argument.__module__ or type(argument.__self__).__module__
        else:
            return
        seen[threading.get_ident()].add(f"{module}.{name}")

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def of(places: tuple[str, ...], calls: set[str]) -> set[str]:
    """Return the calls that are of one of these packages, modules or functions."""
    return {call for call in calls if any(f"{call}.".startswith(f"{p}.") for p in places)}
