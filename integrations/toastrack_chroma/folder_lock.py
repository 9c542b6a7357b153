"""A folder of Chroma's is for one process: another one answers from an index that has become stale."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from threading import Lock

from toastrack.errors import StoreError
from toastrack.stores import after_fork

if sys.platform != "win32":
    import fcntl

_NAME = "toastrack.lock"

# What this process holds: the lock's file, and for how many clients. Closing any file of a lock
# gives it up, so there is one for all of them.
_held: dict[str, tuple[int, int]] = {}
_lock = Lock()


def _start_anew() -> None:
    """In a forked child: its parent's locks are the parent's alone."""
    global _lock
    _lock = Lock()
    _held.clear()


after_fork(_start_anew)


def hold(folder: Path) -> None:
    """Keep other processes out of a folder; raise ``StoreError`` if one is in it.

    The lock goes with the process, however that ends. Only those who ask for it are kept out.
    """
    if sys.platform == "win32":
        return
    key = os.path.realpath(folder)
    with _lock:
        if key in _held:
            file, users = _held[key]
            _held[key] = file, users + 1
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return  # Chroma cannot write here either, and says so itself
        try:
            # Of this kind a forked child has none, while the other one is shared with it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise StoreError(
                f"Another process uses the folder {str(folder)!r}. Wait for it, or run a Chroma "
                "server, which serves many: chroma run --path DIR"
            ) from None
        except BaseException:
            os.close(file)
            raise
        _held[key] = file, 1


def let_go(folder: Path) -> None:
    """Undo one ``hold``."""
    key = os.path.realpath(folder)
    with _lock:
        if key not in _held:
            return
        file, users = _held.pop(key)
        if users > 1:
            _held[key] = file, users - 1
        else:
            os.close(file)
