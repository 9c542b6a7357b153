"""Warnings that point at the line of the caller's that they are about."""

from __future__ import annotations

import sys
import warnings

_said: set[tuple[str, str]] = set()


def warn_at_caller(message: str, category: type[Warning]) -> None:
    """Point the warning at the first line outside of toastrack and its adapters."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def warn_once(about: str, message: str, category: type[Warning]) -> None:
    """The same, unless this process has said it of the same thing before."""
    if (about, message) not in _said:
        _said.add((about, message))
        warn_at_caller(message, category)


def _is_ours(module: str) -> bool:
    package = module.partition(".")[0]
    return package == "toastrack" or package.startswith("toastrack_")
