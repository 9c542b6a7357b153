"""Folders, files and standard input to a list of what there is to read, each with its id."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from zlib import error as ZlibError

from toastrack.errors import SourceError
from toastrack.ingestion.readers import PACKED, READERS, BadInput, Columns, Reader, SourceDocument
from toastrack.ingestion.readers.jsonl import read_jsonl

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class SourceFile:
    """One file to read; ``name`` is its POSIX path relative to the folder that was given."""

    path: Path | None
    """None is standard input."""
    name: str
    size: int | None
    reader: Reader

    def read(self, columns: Columns) -> Iterator[tuple[SourceDocument | BadInput, int]]:
        """Yield each document with how many bytes of the file it took."""
        location = "standard input" if self.path is None else str(self.path)
        try:
            with ExitStack() as stack:
                raw, file = self._open(stack)
                before = 0
                for item in self.reader(file, location=location, name=self.name, columns=columns):
                    # Of a packed file the packed bytes count, as they do in its size.
                    now = before if raw is None else raw.tell()
                    yield item, now - before
                    before = now
        except (gzip.BadGzipFile, EOFError, ZlibError) as error:
            raise SourceError(f"{location}: the file is damaged: {error}.") from None
        except OSError as error:
            raise SourceError(f"{location}: {error.strerror or error}.") from error

    def _open(self, stack: ExitStack) -> tuple[BinaryIO | None, BinaryIO]:
        if self.path is None:
            return None, sys.stdin.buffer
        raw = stack.enter_context(self.path.open("rb"))
        if self.path.suffix.lower() != PACKED:
            return raw, raw
        return raw, cast(BinaryIO, stack.enter_context(gzip.open(raw)))


def find_files(sources: Iterable[str | os.PathLike[str]]) -> list[SourceFile]:
    """List every readable file of the sources, sorted within each folder.

    A folder is searched with all below it, except hidden files and folders. Files of a folder
    with other endings are left aside; a file given by name must have a known one. "-" is JSON
    Lines on standard input.
    """
    return [file for source in sources for file in _files_of(source)]


def _files_of(given: str | os.PathLike[str]) -> Iterator[SourceFile]:
    if given == STANDARD_INPUT:
        yield SourceFile(None, STANDARD_INPUT, None, read_jsonl)
        return
    source = Path(given).expanduser()
    if source.is_file():
        if _reader(source) is None:
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
            if not name.startswith(".") and _reader(path) is not None and path.is_file():
                yield path


def _reader(path: Path) -> Reader | None:
    """Return what reads a file of this name, packed or not."""
    ending = path.suffix.lower()
    if ending == PACKED:
        ending = path.with_suffix("").suffix.lower()
        if ending == ".parquet":
            return None
    return READERS.get(ending)


def _file(path: Path, name: str) -> SourceFile:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise SourceError(f"{os.fsencode(path)!r}: the file's name is not UTF-8.") from None
    return SourceFile(path, name, path.stat().st_size, cast(Reader, _reader(path)))


def _formats() -> str:
    return ", ".join(READERS) + f" (or {PACKED} of them)"
