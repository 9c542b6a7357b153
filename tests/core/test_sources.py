"""What is read of folders and files, and under which id."""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path

import pytest

from toastrack.errors import SourceError
from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.sources import find_files


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
    with pytest.raises(
        SourceError, match=r"photo\.jpg.*reads \.txt, .*\.md, .*\.csv, .*\.parquet, .*\.pdf"
    ):
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


def test_packed_files_are_read_and_their_packed_bytes_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    rows = "".join(f'{{"id": "{n}", "text": "bread"}}\n' for n in range(2_000))
    path.write_bytes(gzip.compress(rows.encode()))
    (file,) = find_files([tmp_path])
    items = list(file.read(ReadOptions()))
    assert (file.name, len(items)) == ("rows.jsonl.gz", 2_000)
    assert sum(size for _, size in items) <= path.stat().st_size


# Named, because a packed file holds the time it was made at, and all workers collect the same.
@pytest.mark.parametrize(
    "damage",
    [b"not gzip at all", gzip.compress(b"x" * 9_000)[:-20]],
    ids=["no gzip", "cut short"],
)
def test_a_damaged_packed_file_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.txt.gz").write_bytes(damage)
    (file,) = find_files([tmp_path / "a.txt.gz"])
    ((bad, _),) = file.read(ReadOptions())
    assert isinstance(bad, BadInput)
    assert "a.txt.gz: the file is damaged" in bad.message


def test_parquet_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(SourceError, match="format is not known"):
        find_files([tmp_path / "a.parquet.gz"])


def test_a_dash_is_json_lines_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b'{"id": "a", "text": "x"}\n{broken\n')

    monkeypatch.setattr(sys, "stdin", Stdin)
    (file,) = find_files(["-"])
    (item, _), (bad, _) = file.read(ReadOptions())
    assert isinstance(item, SourceDocument)
    assert item.location == "standard input, line 1"
    assert isinstance(bad, BadInput)
