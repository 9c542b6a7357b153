"""Folders and files to a list of what there is to read, each with its id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toastrack.errors import SourceError
from toastrack.readers import READERS, Reader


@dataclass(frozen=True)
class SourceFile:
    """One file to read; ``name`` is its POSIX path relative to the folder that was given."""

    path: Path
    name: str
    size: int
    reader: Reader


def find_files(sources: Iterable[str | os.PathLike[str]]) -> list[SourceFile]:
    """List every readable file of the sources, sorted within each folder.

    A folder is searched with all below it, except hidden files and folders. Files of a folder
    with other endings are left aside; a file given by name must have a known one.
    """
    return [file for source in sources for file in _files_of(Path(source).expanduser())]


def _files_of(source: Path) -> Iterator[SourceFile]:
    if source.is_file():
        if source.suffix.lower() not in READERS:
            raise SourceError(f"{source}: its format is not known. toastrack reads {_formats()}.")
        yield _file(source, source.name)
    elif source.is_dir():
        empty = True
        for path in sorted(_walk(source)):
            empty = False
            yield _file(path, path.relative_to(source).as_posix())
        if empty:
            raise SourceError(f"{source}: the folder holds no file that ends in {_formats()}.")
    elif source.exists():
        raise SourceError(f"{source}: this is neither a file nor a folder.")
    else:
        raise SourceError(f"{source}: there is no such file or folder.")


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and path.suffix.lower() in READERS and path.is_file():
                yield path


def _file(path: Path, name: str) -> SourceFile:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise SourceError(f"{os.fsencode(path)!r}: the file's name is not UTF-8.") from None
    return SourceFile(path, name, path.stat().st_size, READERS[path.suffix.lower()])


def _formats() -> str:
    return ", ".join(READERS)
