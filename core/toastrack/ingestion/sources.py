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

from toastrack.errors import MissingExtraError, SourceError
from toastrack.ingestion.readers import (
    FORMATS,
    PACKED,
    BadInput,
    Format,
    ReadOptions,
    SourceDocument,
)

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class SourceFile:
    """One file to read; ``name`` is its POSIX path relative to the folder that was given."""

    path: Path | None
    """None is standard input."""
    name: str
    size: int | None
    format: Format
    named: bool = False
    """It was given itself, not the folder it lies in."""

    @property
    def location(self) -> str:
        """What people call it."""
        return "standard input" if self.path is None else str(self.path)

    def read(self, options: ReadOptions) -> Iterator[tuple[SourceDocument | BadInput, int]]:
        """Yield each document with how many bytes of the file it took."""
        location = self.location
        try:
            with ExitStack() as stack:
                raw, file = self._open(stack)
                before = 0
                read = self.format.read
                for item in read(file, location=location, name=self.name, options=options):
                    # Of a packed file the packed bytes count, as they do in its size.
                    now = before if raw is None else raw.tell()
                    if self.named and isinstance(item, BadInput) and item.kind == "not for us":
                        item = BadInput(item.message)
                    yield item, now - before
                    before = now
        except (gzip.BadGzipFile, EOFError, ZlibError) as error:
            yield BadInput(f"{location}: the file is damaged: {error}."), 0
        except MissingExtraError as error:
            yield BadInput(f"{location}: {error}"), 0
        except OSError as error:
            yield BadInput(f"{location}: {error.strerror or error}."), 0

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
        yield SourceFile(None, STANDARD_INPUT, None, FORMATS[".jsonl"])
        return
    source = Path(given).expanduser()
    if source.is_file():
        if _format(source) is None:
            raise SourceError(f"{source}: its format is not known. toastrack reads {_formats()}.")
        yield _file(source, source.name, named=True)
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
            if not name.startswith(".") and _format(path) is not None and path.is_file():
                yield path


def _format(path: Path) -> Format | None:
    """Return what reads a file of this name, packed or not."""
    ending = path.suffix.lower()
    if ending != PACKED:
        return FORMATS.get(ending)
    inner = FORMATS.get(path.with_suffix("").suffix.lower())
    return None if inner is None or inner.packed else inner


def _file(path: Path, name: str, *, named: bool = False) -> SourceFile:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise SourceError(f"{os.fsencode(path)!r}: the file's name is not UTF-8.") from None
    return SourceFile(path, name, path.stat().st_size, cast(Format, _format(path)), named)


def _formats() -> str:
    return ", ".join(FORMATS) + f" (text also packed, {PACKED})"
