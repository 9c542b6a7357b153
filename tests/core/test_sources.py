"""What is read of folders and files, and under which id."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from toastrack.errors import SourceError
from toastrack.sources import find_files


def test_ids_are_posix_paths_relative_to_the_folder_given(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "deep.md").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    assert [file.name for file in find_files([tmp_path])] == ["a.txt", "b/c/deep.md"]


def test_a_single_file_is_named_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes.TXT").write_text("x")
    assert [file.name for file in find_files([tmp_path / "notes.TXT"])] == ["notes.TXT"]


def test_hidden_and_unknown_files_of_a_folder_are_left_aside(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in (".git/x.md", ".hidden.md", "photo.jpg", "page.md"):
        (tmp_path / name).write_text("x")
    assert [file.name for file in find_files([tmp_path])] == ["page.md"]


def test_a_file_of_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(SourceError, match=r"photo\.jpg.*reads \.txt, \.md, \.jsonl"):
        find_files([tmp_path / "photo.jpg"])


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no file that ends in"):
        find_files([tmp_path])


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: there is no such file or folder"):
        find_files([tmp_path / "nowhere"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows such file names")
def test_a_file_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    with pytest.raises(SourceError, match=r"caf\\xe9\.txt.*not UTF-8"):
        find_files([tmp_path])
