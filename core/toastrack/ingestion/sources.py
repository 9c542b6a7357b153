"""Folders, files and standard input to a list of what there is to read, each with its id."""

from __future__ import annotations

import errno
import gzip
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from toastrack.records import Skip, SkipKind

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
    source: str | None = None
    """The absolute path of the folder that was given, or that it lies in; None has none."""

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
                        item = replace(item, kind="cannot be read")
                    yield item, now - before
                    before = now
        except (gzip.BadGzipFile, EOFError, ZlibError) as error:
            yield BadInput(location, f"the file is damaged: {error}."), 0
        except MissingExtraError as error:
            yield BadInput(location, str(error)), 0
        except OSError as error:
            yield BadInput(location, f"{error.strerror or error}."), 0

    def _open(self, stack: ExitStack) -> tuple[BinaryIO | None, BinaryIO]:
        if self.path is None:
            return None, sys.stdin.buffer
        raw = stack.enter_context(self.path.open("rb"))
        if self.path.suffix.lower() != PACKED:
            return raw, raw
        return raw, cast(BinaryIO, stack.enter_context(gzip.open(raw)))


def find_files(sources: Iterable[str | os.PathLike[str]]) -> list[SourceFile | Skip]:
    """List every readable file of the sources, sorted within each folder, and what is left out.

    A folder is searched with all below it, except hidden files and folders. Files of a folder
    with other endings are left out; a file given by name must have a known one. "-" is JSON
    Lines on standard input.
    """
    return [found for source in sources for found in _found_in(source)]


@dataclass(frozen=True)
class Lacking:
    """What files need that is not installed."""

    packages: Sequence[str] = ()
    extras: Sequence[str] = ()
    hint: str = ""
    """Which file needs it, and the other way out."""


def lacking_for(files: Iterable[SourceFile | Skip]) -> Lacking:
    """Return what all of these files lack, with the first of them."""
    packages: dict[str, None] = {}
    extras: dict[str, None] = {}
    first = ""
    missing = {id(format): format.missing() for format in FORMATS.values()}
    if any(missing.values()):
        for file in files:
            if isinstance(file, SourceFile) and file.format.extra and missing[id(file.format)]:
                packages.update(dict.fromkeys(missing[id(file.format)]))
                extras[file.format.extra] = None
                first = first or file.location
    hint = (
        f"{first} needs the extra {next(iter(extras))!r}; skip_bad=True leaves it out."
        if first
        else ""
    )
    return Lacking(list(packages), list(extras), hint)


def _found_in(given: str | os.PathLike[str]) -> list[SourceFile | Skip]:
    if given == STANDARD_INPUT:
        return [SourceFile(None, STANDARD_INPUT, None, FORMATS[".jsonl"], named=True)]
    source = Path(given).expanduser()
    if source.is_file():
        format = _format(source)
        if format is None:
            raise SourceError(f"{source}: its format is not known. toastrack reads {_formats()}.")
        try:
            source.name.encode("utf-8")
        except UnicodeEncodeError:
            raise SourceError(f"{os.fsencode(source)!r}: {_NOT_UTF8}") from None
        size, folder = source.stat().st_size, _source_of(source.parent)
        return [SourceFile(source, source.name, size, format, named=True, source=folder)]
    if source.is_dir():
        found = _Folder(source).found()
        if all(isinstance(item, Skip) and item.kind != "cannot be read" for item in found):
            raise SourceError(f"{source}: the folder holds no file that ends in {_formats()}.")
        return found
    if source.exists():
        raise SourceError(f"{source}: this is neither a file nor a folder.")
    raise SourceError(f"{source}: there is no such file or folder.")


def _source_of(folder: Path) -> str:
    # Links stay, which resolve() follows: "current" is one source, wherever it leads this week.
    return _shown(os.path.abspath(folder))  # noqa: PTH100


_NOT_UTF8 = "the file's name is not UTF-8."


class _Folder:
    """What lies in a folder and below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source = _source_of(folder)
        self._found: list[tuple[Path, SourceFile | Skip]] = []
        self._folders = [folder]
        self._links: deque[Path] = deque()
        self._seen: set[tuple[int, int]] = set()

    def found(self) -> list[SourceFile | Skip]:
        """Return the files and what is left out, sorted by their paths."""
        # Links come last, so that what they lead to keeps its own path where it has one here.
        while self._folders or self._links:
            self._list(self._folders.pop() if self._folders else self._links.popleft())
        return [item for _, item in sorted(self._found, key=lambda found: found[0])]

    def _list(self, folder: Path) -> None:
        try:
            status = folder.stat()
            if folder.is_symlink() and (status.st_dev, status.st_ino) in self._seen:
                reason = "this is a link to a folder that is read already."
                self._leave_out(folder, reason, "not for us")
                return
            self._seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    self._add(entry, Path(entry.path))
        except OSError as error:
            # Nobody knows what is in there: to prune would delete all of it.
            self._leave_out(folder, f"the folder cannot be listed: {error.strerror}.")

    def _add(self, entry: os.DirEntry[str], path: Path) -> None:
        if entry.name.startswith("."):
            self._leave_out(path, "it is hidden.", "not for us")
            return
        if entry.name.startswith("~$"):
            self._leave_out(path, "Office holds another file open by it.", "not for us")
            return
        try:
            is_folder = entry.is_dir()
        except OSError as error:
            is_circle = error.errno == errno.ELOOP
            reason = "this link leads to itself." if is_circle else f"{error.strerror}."
            self._leave_out(path, reason, "not for us" if is_circle else "cannot be read")
            return
        if is_folder:
            (self._links if entry.is_symlink() else self._folders).append(path)
        elif (format := _format(path)) is None:
            ending = path.suffix
            reason = f"files that end in {ending} are not read." if ending else "it has no ending."
            self._leave_out(path, reason, "not for us")
        else:
            self._add_file(entry, path, format)

    def _add_file(self, entry: os.DirEntry[str], path: Path, format: Format) -> None:
        name = path.relative_to(self._folder).as_posix()
        try:
            name.encode("utf-8")
            size = entry.stat().st_size
        except UnicodeEncodeError:
            self._leave_out(path, _NOT_UTF8)
        except OSError as error:
            what = "it is a link to nothing" if entry.is_symlink() else error.strerror
            self._leave_out(path, f"{what}.")
        else:
            if entry.is_file():
                self._found.append(
                    (path, SourceFile(path, name, size, format, source=self._source))
                )
            else:
                self._leave_out(path, "this is neither a file nor a folder.", "not for us")

    def _leave_out(self, path: Path, reason: str, kind: SkipKind = "cannot be read") -> None:
        name = path.relative_to(self._folder).as_posix()
        self._found.append((path, Skip(_shown(name), _shown(str(path)), reason, kind)))


def _shown(path: str) -> str:
    """Return a path as it can be printed, also one that is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _format(path: Path) -> Format | None:
    """Return what reads a file of this name, packed or not."""
    ending = path.suffix.lower()
    if ending != PACKED:
        return FORMATS.get(ending)
    inner = FORMATS.get(path.with_suffix("").suffix.lower())
    return None if inner is None or inner.packed else inner


def _formats() -> str:
    return ", ".join(FORMATS) + f" (text also packed, {PACKED})"
