"""The sha256 of a model's files, taken once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from toastrack.utils.forks import after_fork

_CHUNK = 1 << 20
_lock = Lock()


def _start_anew() -> None:
    global _lock
    _lock = Lock()


after_fork(_start_anew)


def weights_digest(files: Sequence[Path]) -> str:
    """Return the sha256 of the weights: of the file, or of the list of digests of several."""
    root = Path(os.path.commonpath([path.parent for path in files]))
    return joint_digest({path.relative_to(root).as_posix(): file_digest(path) for path in files})


def joint_digest(digests: Mapping[str, str]) -> str:
    """Return the one digest there is, else that of names and digests together."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = [f"{name} {digest}" for name, digest in digests.items()]
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file; free for a file in the hub's cache, else remembered.

    The hub's client names a large file's blob by its sha256. Any other file's digest is kept in
    the user's cache folder and holds as long as the file's size and modification time do.
    """
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        # Anybody can call a file so; only what the client itself put there is what its name says.
        cache = _hub_cache()
        if cache is not None and blob.is_relative_to(cache):
            return blob.name
    status = blob.stat()
    key = f"{blob}|{status.st_size}|{status.st_mtime_ns}"
    with _lock:
        remembered = _read_cache()
        if key not in remembered:
            digest = hashlib.sha256()
            with blob.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            remembered = {k: v for k, v in remembered.items() if not k.startswith(f"{blob}|")}
            remembered[key] = digest.hexdigest()
            _write_cache(remembered)
        return remembered[key]


def _hub_cache() -> Path | None:
    """Where the hub's client keeps what it fetched; None if it is not installed."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def cached_hub_digest(model: str, commit: str) -> str | None:
    """Return what ``cache_hub_digest`` was given for a hub model's weights, or None."""
    with suppress(OSError):
        digest = _hub_digest_file(model, commit).read_text(encoding="utf-8").strip()
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            return digest
    return None


def cache_hub_digest(model: str, commit: str, digest: str) -> None:
    """Keep what the hub says of weights that are not on this machine, for when it is not asked."""
    _write(_hub_digest_file(model, commit), digest + "\n")


def _hub_digest_file(model: str, commit: str) -> Path:
    # A file each: two processes that write one would lose what cannot be taken again offline.
    return cache_folder() / "weights" / f"{model.replace('/', '--')}@{commit}"


def cache_folder() -> Path:
    """Return where toastrack keeps what can be made again."""
    from platformdirs import user_cache_path

    return user_cache_path("toastrack")


def _cache_file() -> Path:
    return cache_folder() / "digests.json"


_in_process: dict[str, str] = {}


def _read_cache() -> dict[str, str]:
    if not _in_process:
        with suppress(OSError, ValueError):
            content = json.loads(_cache_file().read_text(encoding="utf-8"))
            if isinstance(content, dict):
                _in_process.update({key: str(value) for key, value in content.items()})
    return _in_process


def _write_cache(digests: dict[str, str]) -> None:
    _in_process.clear()
    _in_process.update(digests)
    _write(_cache_file(), json.dumps(digests))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    # A read-only home costs a second of hashing or a question to the hub, nothing else.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
