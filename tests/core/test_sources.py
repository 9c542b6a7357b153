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
from toastrack.ingestion.sources import SourceFile, find_files
from toastrack.records import Skip


def files(*sources: str | Path) -> list[SourceFile]:
    return [found for found in find_files(sources) if isinstance(found, SourceFile)]


def skips(*sources: str | Path) -> list[tuple[str, str, str]]:
    return [
        (found.input, found.reason, found.kind)
        for found in find_files(sources)
        if isinstance(found, Skip)
    ]


def test_ids_are_posix_paths_relative_to_the_folder_given(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "deep.md").write_text("x")
    (tmp_path / "a.txt").write_text("x")
    assert [file.name for file in files(tmp_path)] == ["a.txt", "b/c/deep.md"]


def test_a_single_file_is_named_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes.TXT").write_text("x")
    assert [file.name for file in files(tmp_path / "notes.TXT")] == ["notes.TXT"]


def test_the_source_is_the_absolute_path_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "deep" / "page.md").write_text("x")
    monkeypatch.chdir(docs)
    for folder in (docs, ".", "../docs", "deep/.."):
        assert [file.source for file in files(folder)] == [str(docs)]
    for page in (docs / "deep" / "page.md", "deep/page.md"):
        assert [file.source for file in files(page)] == [str(docs / "deep")]
    assert [file.source for file in files("-")] == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="only some may make links there")
def test_a_link_to_a_folder_is_a_source_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "release-1").mkdir()
    (tmp_path / "release-1" / "page.md").write_text("x")
    (tmp_path / "current").symlink_to("release-1", target_is_directory=True)
    assert [file.source for file in files(tmp_path / "current")] == [str(tmp_path / "current")]


def test_hidden_and_unknown_files_of_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name in (".git/x.md", ".hidden.md", "photo.jpg", "Makefile", "page.md", "~$page.docx"):
        (tmp_path / name).write_text("x")
    assert [file.name for file in files(tmp_path)] == ["page.md"]
    assert skips(tmp_path) == [
        (".git", "it is hidden.", "not for us"),
        (".hidden.md", "it is hidden.", "not for us"),
        ("Makefile", "it has no ending.", "not for us"),
        ("photo.jpg", "files that end in .jpg are not read.", "not for us"),
        ("~$page.docx", "Office holds another file open by it.", "not for us"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="only some may make links there")
def test_links_are_followed_unless_they_lead_in_a_circle(tmp_path: Path) -> None:
    docs, outside = tmp_path / "docs", tmp_path / "outside"
    for folder in (docs / "a", docs / "z", outside / "deep"):
        folder.mkdir(parents=True)
    (docs / "z" / "z.md").write_text("x")
    (outside / "deep" / "o.md").write_text("x")
    (docs / "a" / "up").symlink_to(docs)
    (docs / "a" / "same").symlink_to(docs / "z")
    (docs / "more").symlink_to(outside)
    (outside / "back").symlink_to(outside)
    (docs / "gone.md").symlink_to(tmp_path / "nowhere")
    (docs / "gone").symlink_to(tmp_path / "nowhere")
    (docs / "self.md").symlink_to(docs / "self.md")
    assert [file.name for file in files(docs)] == ["more/deep/o.md", "z/z.md"]
    circle = "this is a link to a folder that is read already."
    assert skips(docs) == [
        ("a/same", circle, "not for us"),
        ("a/up", circle, "not for us"),
        ("gone", "it has no ending.", "not for us"),
        ("gone.md", "it is a link to nothing.", "cannot be read"),
        ("more/back", circle, "not for us"),
        ("self.md", "this link leads to itself.", "not for us"),
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "a.md").write_text("x")
    assert skips(tmp_path) == [("pipe.md", "this is neither a file nor a folder.", "not for us")]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.md").write_text("x")
    # Who runs as root may list everything.
    scandir = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert skips(tmp_path) == [
        ("locked", "the folder cannot be listed: Permission denied.", "cannot be read")
    ]


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
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("x")
    (skip,) = find_files([tmp_path])
    assert isinstance(skip, Skip)
    assert (skip.input, skip.kind) == (r"caf\xe9.txt", "cannot be read")
    assert str(skip).endswith(r"caf\xe9.txt: the file's name is not UTF-8.")
    with pytest.raises(SourceError, match=r"caf\\xe9\.txt.*not UTF-8"):
        find_files([path])


def test_packed_files_are_read_and_their_packed_bytes_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    rows = "".join(f'{{"id": "{n}", "text": "bread"}}\n' for n in range(2_000))
    path.write_bytes(gzip.compress(rows.encode()))
    (file,) = files(tmp_path)
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
    (file,) = files(tmp_path / "a.txt.gz")
    ((bad, _),) = file.read(ReadOptions())
    assert isinstance(bad, BadInput)
    assert "a.txt.gz: the file is damaged" in str(bad)


def test_parquet_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    with pytest.raises(SourceError, match="format is not known"):
        find_files([tmp_path / "a.parquet.gz"])


def test_a_dash_is_json_lines_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b'{"id": "a", "text": "x"}\n{broken\n')

    monkeypatch.setattr(sys, "stdin", Stdin)
    (file,) = files("-")
    (item, _), (bad, _) = file.read(ReadOptions())
    assert isinstance(item, SourceDocument)
    assert item.location == "standard input, line 1"
    assert isinstance(bad, BadInput)
