"""A document knows where it came from, and nobody else's source overwrites or prunes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toastrack import Record, ingest
from toastrack.errors import SourceError

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs
    from kinds import Kind

    from toastrack.stores import IngestStore

A, B, C = Record("a", "rye bread"), Record("b", "salt"), Record("c", "butter")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two projects with a README each; everything else has a name of its own."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / f"{folder.name}.md").write_text(f"The {folder.name} project.", "utf-8")
        (folder / "README.md").write_text(f"Read this about {folder.name}.", "utf-8")
    return one, two


def sources_of(store: IngestStore, *documents: str) -> list[str | None]:
    found = store._stored_sources(documents)
    return [found[document].source if document in found else None for document in documents]


@pytest.mark.connection
def test_two_folders_do_not_overwrite_each_other(
    store: IngestStore, folders: tuple[Path, Path], runs: Runs
) -> None:
    one, two = folders
    ingest(one, store)
    readme = store.get(["README.md"])
    runs.clear()
    with pytest.raises(SourceError) as caught:
        ingest(two, store, prune=True)
    said = str(caught.value)
    for part in (
        "'README.md'",
        repr(str(one)),
        repr(str(two)),
        "prefix='NAME'",
        f"source={str(one)!r}",
    ):
        assert part in said
    # It stopped before the first write, and before the first embedding.
    assert not runs
    assert sorted(store.document_ids()) == ["README.md", "one.md"]
    assert store.get(["README.md"]) == readme
    # Each way out is one.
    ingest(two, store, prefix="two")
    assert store.count() == 4
    report = ingest(two, store, source=str(one), prune=True)
    assert (report.embedded, report.deleted) == (2, 1)
    assert sorted(store.document_ids()) == ["README.md", "two.md", "two/README.md", "two/two.md"]
    assert sources_of(store, "README.md", "two/README.md") == [str(one), str(two)]


def test_a_moved_folder_embeds_nothing(
    store: IngestStore, folders: tuple[Path, Path], runs: Runs
) -> None:
    one, _ = folders
    ingest(one, store)
    runs.clear()
    moved = one.rename(one.with_name("moved"))
    report = ingest(moved, store)
    assert (report.embedded, report.written, report.unchanged) == (0, 2, 0)
    assert not runs
    assert sources_of(store, "README.md", "one.md") == [str(moved)] * 2
    report = ingest(moved, store, prune=True)
    assert (report.written, report.unchanged, report.deleted) == (0, 2, 0)
    (moved / "one.md").unlink()
    assert ingest(moved, store, prune=True).deleted == 1


def test_prune_removes_only_what_came_from_the_sources_of_its_run(
    store: IngestStore, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    (two / "README.md").rename(two / "other.md")
    ingest(one, store)
    ingest(two, store)
    ingest([A, B], store)
    ingest([C], store, source="table")
    (one / "one.md").unlink()
    assert ingest(one, store, prune=True).deleted == 1
    # What has no source is pruned by what has none alone.
    assert ingest([A], store, prune=True).deleted == 1
    assert ingest([Record("d", "butter")], store, source="table", prune=True).deleted == 1
    assert sorted(store.document_ids()) == ["README.md", "a", "d", "other.md", "two.md"]
    (two / "other.md").unlink()
    assert ingest([one, two], store, prune=True).deleted == 1
    assert sorted(store.document_ids()) == ["README.md", "a", "d", "two.md"]


def test_with_a_prefix_prune_removes_only_what_is_under_it(
    store: IngestStore, folders: tuple[Path, Path]
) -> None:
    one, _ = folders
    for prefix in ("v1", "v2"):
        ingest(one, store, prefix=prefix)
    (one / "one.md").unlink()
    assert ingest(one, store, prefix="v2", prune=True).deleted == 1
    assert sorted(store.document_ids()) == ["v1/README.md", "v1/one.md", "v2/README.md"]


def test_documents_without_a_source_are_taken_over_by_the_first_run_that_has_their_id(
    store: IngestStore, folders: tuple[Path, Path], runs: Runs
) -> None:
    one, two = folders
    page = (one / "one.md").read_text("utf-8")
    store.upsert([Record("one.md", page, {"source": "one.md"}), Record("README.md", "old")])
    assert sources_of(store, "one.md", "README.md") == [None, None]
    runs.clear()
    report = ingest(one, store)
    assert (report.embedded, report.written) == (1, 2)
    assert sum(runs) == 1
    assert sources_of(store, "one.md", "README.md") == [str(one)] * 2
    with pytest.raises(SourceError, match=r"README\.md"):
        ingest(two, store)


def test_a_write_that_names_no_source_leaves_the_stored_one(store: IngestStore) -> None:
    ingest([A, B, C], store, source="table")
    assert store.upsert([A, B]).unchanged == 2
    assert ingest([A], store).unchanged == 1
    report = ingest([replace(A, text="rye"), replace(B, metadata={"n": 1})], store)
    assert (report.embedded, report.written) == (1, 2)
    assert store.upsert([replace(C, text="cheese"), Record("new", "milk")]).written == 2
    assert sources_of(store, "a", "b", "c", "new") == ["table"] * 3 + [None]
    assert ingest([replace(A, text="rye")], store, source="table").unchanged == 1


def test_a_record_that_moves_to_another_document_leaves_its_source(store: IngestStore) -> None:
    ingest([A, B], store, source="table")
    store.replace("mine", [A])
    store.replace("too", [replace(B, text="pepper")])
    assert sources_of(store, "a", "b", "mine", "too") == [None] * 4
    ingest([C], store, source="table", prune=True)
    assert sorted(store.document_ids()) == ["c", "mine", "too"]


def test_a_text_is_the_same_only_as_a_whole(store: IngestStore, tmp_path: Path) -> None:
    lines = [f"The number {number} is written here, and not much else is." for number in range(9)]
    long, short = Record("long", "\n\n".join(lines)), Record("short", lines[0])
    assert ingest([long, short], store, source="one").chunks > 3
    before = store.get(["long#0", "long#1", "short"])
    for changed in (
        replace(long, text=before[0].text if before[0] else ""),
        replace(long, text="\n\n".join(lines[:-1])),
        replace(long, text=""),
        replace(short, text=long.text),
    ):
        with pytest.raises(SourceError, match="'one'"):
            ingest([Record("new", "milk"), changed], store, source="two")
    assert store.get(["long#0", "long#1", "short", "new"]) == [*before, None]
    assert ingest([long, short], store, source="two").embedded == 0
    assert sources_of(store, "long", "short") == ["two", "two"]


def test_rows_of_another_file_are_compared_before_the_first_write(
    store: IngestStore, tmp_path: Path, runs: Runs
) -> None:
    files = []
    for name, last in (("one", "rye"), ("two", "salt")):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "rows.csv")
        rows = [f"{name}-{number},bread {number}" for number in range(600)]
        files[-1].write_text("\n".join(["id,text", *rows, f"last,{last}"]), "utf-8")
    small = files[0].with_name("small.csv")
    small.write_text("id,text\nlast,rye\n", "utf-8")
    ingest(small, store)
    runs.clear()
    with pytest.raises(SourceError, match="'last'"):
        ingest(files[1], store)
    assert not runs
    assert store.count() == 1
    # A file of the same folder is of the same source.
    assert sources_of(store, "last") == [str(tmp_path / "one")]


def test_a_document_may_move_between_two_sources_of_one_run(
    store: IngestStore, folders: tuple[Path, Path]
) -> None:
    one, two = folders
    (two / "README.md").unlink()
    ingest([one, two], store)
    (one / "README.md").rename(two / "README.md").write_text("Now about both.", "utf-8")
    assert ingest([one, two], store, prune=True).deleted == 0
    assert sources_of(store, "README.md") == [str(two)]


def test_documents_are_listed_by_source_in_pages(
    store: IngestStore, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.page_size is not None:
        monkeypatch.setattr(kind.page_size, 3)
    for source in ("one", "two", None):
        records = [Record(f"{source}-{number}", "rye") for number in range(7)]
        ingest(records, store, source=source)
    for sources, expected in (
        (["one"], ["one"]),
        (["one", "two"], ["one", "two"]),
        (None, ["None"]),
        (["three"], []),
    ):
        found = list(store._documents_of(sources))
        assert sorted(found) == [f"{name}-{number}" for name in expected for number in range(7)]
    assert store._has_other_source(["one"])
    assert not store._has_other_source(["one", "two", "three"])


def test_a_source_of_odd_letters(store: IngestStore) -> None:
    name = "C:\\bread 'n' \"butter\" %s {x} ü/\U0001f35e"
    ingest([A], store, source=name)
    assert sources_of(store, "a") == [name]
    assert ingest([A], store, source=name).unchanged == 1
    other = replace(A, text="salt")
    with pytest.raises(SourceError):
        ingest([other], store, source="other")
    assert ingest([B], store, source=name, prune=True).deleted == 1


def test_two_stores_see_what_the_other_wrote(make_store: MakeStore) -> None:
    one, two = make_store(), make_store()
    one.open()
    two.open()
    ingest([A], one, source="one")  # type: ignore[arg-type]
    other = replace(A, text="salt")
    with pytest.raises(SourceError):
        ingest([other], two, source="two")  # type: ignore[arg-type]
