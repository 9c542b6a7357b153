"""What a forked child starts anew: the parent's threads are not there, and their locks stay locked."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_fork(start_anew: Callable[[], None]) -> None:
    """Call this first thing in every forked child, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=start_anew)
