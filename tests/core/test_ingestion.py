"""ingest, over a real Postgres and a real (tiny) model."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_files import pdf

from toastrack import Embedder, Record, Skip, ingest
from toastrack.errors import MissingExtraError, RecordError, SourceError
from toastrack.ingestion import ingest as ingestion
from toastrack.ingestion.ingest import Progress
from toastrack.stores.windows import WINDOW

pytest.importorskip("toastrack_postgres", reason="the extra 'postgres' is not installed")
from toastrack_postgres import PostgresStore

LONG = " ".join(f"the {n} bread rises warm and sour in the oven." for n in range(40))


@pytest.fixture
def store(postgres_dsn: str, schema: str, embedder: Embedder) -> Iterator[PostgresStore]:
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "flour").mkdir(parents=True)
    (folder / "flour" / "rye.md").write_text("# Rye\n\nKeeps long.\n")
    (folder / "long.txt").write_text(LONG)
    rows = [{"id": f"row{n}", "text": f"bread {n}", "n": n} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def ids(store: PostgresStore) -> set[str]:
    return {match.id for match in store.search("bread", k=1_000, exact=True)}


def test_texts_that_fit_keep_their_id_and_longer_ones_are_split(
    store: PostgresStore, folder: Path, embedder: Embedder
) -> None:
    report = ingest(folder, store)
    chunks = embedder.split(LONG)
    assert len(chunks) > 2
    assert ids(store) == {
        "flour/rye.md",
        "row0",
        "row1",
        "row2",
        *(f"long.txt#{n}" for n in range(len(chunks))),
    }
    stored = store.get([f"long.txt#{n}" for n in range(len(chunks))])
    assert [record.text for record in stored if record] == chunks
    assert [(r.document_id, r.chunk) for r in stored if r] == [
        ("long.txt", n) for n in range(len(chunks))
    ]
    assert (report.read, report.chunks) == (5, 4 + len(chunks))
    assert report.embedded == report.written == report.chunks
    assert report.truncated == report.unchanged == report.deleted == report.skipped == 0


def test_a_second_run_embeds_nothing(store: PostgresStore, folder: Path) -> None:
    first = ingest(folder, store)
    second = ingest(folder, store)
    assert (second.embedded, second.written, second.deleted) == (0, 0, 0)
    assert second.unchanged == first.chunks


def test_a_changed_file_alone_is_embedded(store: PostgresStore, folder: Path) -> None:
    ingest(folder, store)
    (folder / "flour" / "rye.md").write_text("# Rye\n\nKeeps a week.\n")
    report = ingest(folder, store)
    assert (report.embedded, report.written) == (1, 1)


def test_a_document_that_shrank_leaves_no_chunk_behind(store: PostgresStore, folder: Path) -> None:
    chunks = ingest(folder, store).chunks - 4
    (folder / "long.txt").write_text("now it is short.")
    report = ingest(folder, store)
    assert (report.embedded, report.deleted) == (1, chunks)
    assert ids(store) == {"flour/rye.md", "long.txt", "row0", "row1", "row2"}


def test_a_document_that_became_blank_is_gone(store: PostgresStore, folder: Path) -> None:
    ingest(folder, store)
    (folder / "flour" / "rye.md").write_text(" \n")
    report = ingest(folder, store)
    assert (report.skipped, report.deleted) == (1, 1)
    assert store.get(["flour/rye.md"]) == [None]


def test_prune_removes_what_the_source_no_longer_has(store: PostgresStore, folder: Path) -> None:
    ingest(folder, store)
    (folder / "long.txt").unlink()
    before = store.count()
    assert ingest(folder, store).deleted == 0
    assert store.count() == before
    assert ingest(folder, store, prune=True).deleted == before - 4
    assert ids(store) == {"flour/rye.md", "row0", "row1", "row2"}


def test_two_inputs_with_one_id_stop_the_run_and_are_both_named(
    store: PostgresStore, folder: Path
) -> None:
    (folder / "more.jsonl").write_text('{"id": "row1", "text": "again"}\n')
    with pytest.raises(SourceError, match=r"'row1'.*more\.jsonl, line 1 .*rows\.jsonl, line 2"):
        ingest(folder, store)


def test_a_chunk_may_not_take_the_id_of_another_document(
    store: PostgresStore, folder: Path
) -> None:
    (folder / "z.jsonl").write_text('{"id": "long.txt#1", "text": "x"}\n')
    with pytest.raises(SourceError, match=r"'long\.txt#1'.*long\.txt \(chunk 1\).*z\.jsonl"):
        ingest(folder, store)


def test_records_are_split_but_ready_vectors_are_not(
    store: PostgresStore, embedder: Embedder
) -> None:
    vector = embedder.embed_query("bread")
    report = ingest([Record("a", LONG, vector=vector), Record("b", LONG)], store)
    assert store.get(["a"])[0] == Record("a", LONG)
    assert report.embedded == report.chunks - 1
    assert store.search(vector, k=1)[0].id == "a"


def test_a_stream_of_records_is_read_window_by_window(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each write, one window can be waiting for it, one embedded and one be ready."""
    monkeypatch.setattr("toastrack.stores.windows.WINDOW", 100)
    window = 400  # of records that bring their vectors
    taken = 0

    def stream() -> Iterator[Record]:
        nonlocal taken
        for number in range(9 * window):
            taken += 1
            yield Record(str(number), f"bread {number % 7}", vector=[1.0] * 32)

    ahead = []
    ingest(stream(), store, on_progress=lambda p: ahead.append(taken - p.report.written))
    assert len(ahead) >= 9
    assert max(ahead) <= 5 * window
    assert store.count() == 9 * window


def test_a_part_of_a_document_is_refused(store: PostgresStore) -> None:
    with pytest.raises(SourceError, match=r"'a' is a part of 'b'.*store\.replace"):
        ingest([Record("a", "x", document_id="b")], store)


def test_progress_ends_at_the_size_of_the_files(store: PostgresStore, folder: Path) -> None:
    seen: list[Progress] = []
    ingest(folder, store, on_progress=seen.append)
    size = sum(path.stat().st_size for path in folder.rglob("*.*"))
    assert seen[-1].bytes_done == seen[-1].bytes_total == size
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)


def test_what_was_written_before_an_error_stays_and_the_rest_follows(
    store: PostgresStore, tmp_path: Path
) -> None:
    rows = [json.dumps({"id": str(n), "text": f"bread {n}"}) for n in range(2 * WINDOW)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*rows[:-1], '{"id": "broken"']))
    with pytest.raises(SourceError, match=f"line {2 * WINDOW}.*To leave it out: skip_bad=True"):
        ingest(path, store)
    assert store.count() == WINDOW
    path.write_text("\n".join(rows))
    report = ingest(path, store)
    assert (report.unchanged, report.embedded) == (WINDOW, WINDOW)


def test_an_error_of_the_store_names_the_record(store: PostgresStore, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "nul", "text": "a\\u0000b"}')
    with pytest.raises(RecordError, match=r"rows\.jsonl, line 1: Record 'nul'.*NUL"):
        ingest(path, store)


def test_what_is_bad_can_be_counted_instead(store: PostgresStore, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": "a", "text": "bread"}\n'
        "{broken\n"
        '{"id": "nul", "text": "a\\u0000b"}\n'
        '{"id": "nan", "text": "rye", "n": NaN}\n'
        '{"id": "b", "text": "salt"}\n'
    )
    (tmp_path / "old.txt").write_bytes(b"caf\xe9")
    said: list[str] = []
    report = ingest(tmp_path, store, skip_bad=True, on_skip=lambda skip: said.append(str(skip)))
    assert (report.written, report.skipped) == (2, 4)
    assert ids(store) == {"a", "b"}
    assert [re.sub(rf"^{re.escape(str(tmp_path))}/", "", line).split(": ")[0] for line in said] == [
        "old.txt",
        "rows.jsonl, line 2",
        "rows.jsonl, line 3",
        "rows.jsonl, line 4",
    ]


def test_what_is_left_out_is_named_and_the_counts_add_up(
    store: PostgresStore, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "photo.jpg").write_text("x")
    (tmp_path / "blank.md").write_text(" \n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "a.md").write_text("# Rye\n")
    rows = ['{"id": "b", "text": "bread"}', '{"id": "c", "text": " "}', "{broken"]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    seen: list[Progress] = []
    report = ingest(tmp_path, store, skip_bad=True, on_progress=seen.append)
    assert report.skips == [
        Skip(".git", f"{tmp_path}/.git", "it is hidden.", "not for us"),
        Skip(
            "photo.jpg",
            f"{tmp_path}/photo.jpg",
            "files that end in .jpg are not read.",
            "not for us",
        ),
        Skip("blank.md", f"{tmp_path}/blank.md", "there is no text in it.", "nothing in it"),
        Skip("empty.csv", f"{tmp_path}/empty.csv", "there is no row in it.", "nothing in it"),
        Skip("c", f"{tmp_path}/rows.jsonl, line 2", "there is no text in it.", "nothing in it"),
        report.skips[-1],
    ]
    assert report.skips[-1].kind == "cannot be read"
    assert report.skips[-1].location == f"{tmp_path}/rows.jsonl, line 3"
    assert report.skipped_by_kind == {"not for us": 2, "nothing in it": 3, "cannot be read": 1}
    assert (report.read, report.skipped, report.written) == (2, 6, 2)
    assert seen[-1].report.skipped == 6


def test_a_folder_that_cannot_be_listed_stops_the_run_before_it_prunes(
    store: PostgresStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(folder, store)
    before = store.count()
    scandir = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "flour":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(SourceError, match="flour: the folder cannot be listed: Permission denied"):
        ingest(folder, store, prune=True)
    assert store.count() == before
    report = ingest(folder, store, skip_bad=True)
    assert report.skipped_by_kind == {"cannot be read": 1}


def test_only_the_first_of_many_are_kept(
    store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "_SKIPS", 3)
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_text("x")
    (tmp_path / "a.md").write_text("# Rye\n")
    report = ingest(tmp_path, store)
    assert (report.skipped, len(report.skips)) == (5, 3)


def test_skipping_and_pruning_do_not_go_together(store: PostgresStore, folder: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read today would be deleted"):
        ingest(folder, store, skip_bad=True, prune=True)


def test_ready_vectors_come_from_their_column(store: PostgresStore, tmp_path: Path) -> None:
    row = {"id": "a", "text": LONG, "v": [1.0] * 32, "lang": "en", "noise": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    report = ingest(tmp_path, store, vector_column="v", metadata_columns=["lang"])
    assert (report.embedded, report.written) == (0, 1)
    assert store.get(["a"]) == [Record("a", LONG, {"lang": "en"})]


def test_nothing_to_ingest_is_an_error(store: PostgresStore) -> None:
    with pytest.raises(SourceError, match="nothing to ingest"):
        ingest([], store)


@pytest.mark.parametrize("prefix", [None, "p"])
def test_prune_leaves_what_lies_beside_a_file_that_was_given(
    store: PostgresStore, tmp_path: Path, prefix: str | None
) -> None:
    for name in ("rye", "salt", "gone"):
        (tmp_path / f"{name}.md").write_text(name)
    ingest(tmp_path, store, prefix=prefix)
    (tmp_path / "gone.md").unlink()
    rye = tmp_path / "rye.md"
    assert ingest(rye, store, prefix=prefix, prune=True).deleted == 1
    assert [id.removeprefix("p/") for id in store.document_ids()] == ["rye.md", "salt.md"]
    source = str(tmp_path)
    assert ingest(rye, store, prefix=prefix, source=source, prune=True).deleted == 1


def test_a_file_that_is_given_twice_is_named(store: PostgresStore, tmp_path: Path) -> None:
    file = tmp_path / "rye.md"
    file.write_text("rye")
    with pytest.raises(SourceError, match=r"rye\.md was given twice"):
        ingest([tmp_path, file], store)


def test_prune_never_empties_a_store_by_mistake(store: PostgresStore, tmp_path: Path) -> None:
    store.upsert([Record("a", "bread")])
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(SourceError, match="would delete all that is stored"):
        ingest(tmp_path, store, prune=True)
    assert store.count() == 1


def test_chunks_know_their_section_and_the_users_fields_win(
    store: PostgresStore, tmp_path: Path
) -> None:
    (tmp_path / "rye.md").write_text(
        f"---\ntags: [dark]\n---\npreface\n\n# Rye\n\n{LONG}\n\n## Why\n\n{LONG}\n"
    )
    (tmp_path / "own.md").write_text("---\nsection: mine\ntitle: Mine\n---\n# Salt\n")
    (tmp_path / "short.md").write_text("\n\n# Short\n\nIt is.\n")
    ingest(tmp_path, store)
    chunks = [record for record in store.records() if record.document == "rye.md"]
    chunks.sort(key=lambda record: record.chunk or 0)
    sections = [record.metadata.get("section") for record in chunks]
    assert list(dict.fromkeys(sections)) == [None, "Rye", "Rye > Why"]
    assert all(record.metadata["tags"] == ["dark"] for record in chunks)
    assert all(record.metadata["title"] == "Rye" for record in chunks)
    assert sum(record.text.startswith("## Why") for record in chunks) == 1
    own, short = store.get(["own.md", "short.md"])
    assert own is not None
    assert short is not None
    assert own.metadata == {"source": "own.md", "title": "Mine", "section": "mine"}
    assert short.metadata == {"source": "short.md", "title": "Short", "section": "Short"}


def test_chunks_of_a_pdf_know_their_page(store: PostgresStore, tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the extra 'files' is not installed")
    words = [f"the {n} bread rises warm and sour" for n in range(20)]
    (tmp_path / "a.pdf").write_bytes(pdf([words, words]))
    ingest(tmp_path, store)
    chunks = sorted(store.records(), key=lambda record: record.chunk or 0)
    pages = [record.metadata["page"] for record in chunks]
    assert pages == sorted(pages)
    assert set(pages) == {1, 2}


def test_a_missing_extra_is_said_before_anything_is_written(
    store: PostgresStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").write_text("# Rye\n")
    (tmp_path / "b.pdf").write_bytes(b"%PDF")
    (tmp_path / "c.docx").write_bytes(b"PK")
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    for package in ("pypdf", "mammoth", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    said_at_once = r"'pypdf', 'mammoth', 'pyarrow' are not .*\[files,parquet\]"
    with pytest.raises(MissingExtraError, match=said_at_once) as error:
        ingest(tmp_path, store)
    assert str(error.value).startswith(
        f"{tmp_path / 'b.pdf'} needs the extra 'files'; skip_bad=True leaves it out. 'pypdf'"
    )
    assert store.count() == 0
    said: list[str] = []
    report = ingest(tmp_path, store, skip_bad=True, on_skip=lambda skip: said.append(str(skip)))
    assert (report.written, report.skipped) == (1, 3)
    assert "b.pdf: 'pypdf' is not installed. Run: pip install" in said[0]


def test_progress_is_told_while_one_long_document_is_embedded(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.stores.plan._FLUSH_SECONDS", -1)
    seen: list[tuple[int, int, int | None]] = []

    def show(progress: Progress) -> None:
        seen.append((progress.report.embedded, progress.report.written, progress.bytes_done))

    text = "\n\n".join(f"Bread number {n} is good. " * 12 for n in range(300))
    report = ingest([Record("long", text)], store, on_progress=show)
    assert seen[-1][:2] == (report.embedded, report.written) == (report.chunks, report.chunks)
    embedded = [number for number, written, done in seen if (written, done) == (0, 0)]
    assert embedded == sorted(embedded)
    assert 0 < embedded[0] < report.chunks


def test_a_delimiter_that_was_found_is_noted(store: PostgresStore, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;text\na;Rye, dark\n")
    said: list[str] = []
    ingest(tmp_path, store, on_note=said.append)
    assert len(said) == 1
    assert "a.csv: semicolons stand between the fields" in said[0]
    assert store.get(["a"]) == [Record("a", "Rye, dark")]


def test_json_that_holds_no_rows_stops_no_folder_but_itself(
    store: PostgresStore, tmp_path: Path
) -> None:
    (tmp_path / "package.json").write_text('{"name": "bread"}')
    (tmp_path / "a.md").write_text("# Rye\n")
    report = ingest(tmp_path, store)
    assert (report.written, report.skipped) == (1, 1)
    with pytest.raises(SourceError, match="no array of objects"):
        ingest(tmp_path / "package.json", store)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"delimiter": ";;"}, "delimiter=';;' is not one sign"),
        ({"encoding": "nonsense"}, "encoding='nonsense' is not known"),
        ({"encoding": "base64"}, "encoding='base64' is not known"),
        ({"text": "{a.b}"}, "is no template"),
        ({"text": "{a}", "text_column": "b"}, "text= and text_column="),
        ({"column_types": {"n": list}}, "'n' is <class 'list'>"),
        ({"id_from": "nowhere"}, "id_from='nowhere'"),
        ({"prefix": "/"}, "prefix='/' is no name"),
    ],
)
def test_an_argument_that_cannot_be_is_named(
    store: PostgresStore, folder: Path, wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        ingest(folder, store, **wrong)


def test_two_folders_live_under_two_prefixes(store: PostgresStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"# Folder {name}\n")
        (tmp_path / name / "long.txt").write_text(LONG)
        ingest(tmp_path / name, store, prefix=name)
    readme, other, chunk = store.get(["a/README.md", "b/README.md", "b/long.txt#1"])
    assert readme is not None
    assert other is not None
    assert chunk is not None
    assert (readme.metadata["title"], other.metadata["title"]) == ("Folder a", "Folder b")
    assert readme.metadata["source"] == "README.md"
    assert chunk.document_id == "b/long.txt"
    (tmp_path / "b" / "long.txt").unlink()
    assert ingest(tmp_path / "b", store, prefix="b/", prune=True).embedded == 0
    assert set(store.document_ids()) == {"a/README.md", "a/long.txt", "b/README.md"}


@pytest.mark.parametrize("source", ["", " ", "a\0b", "\ud800"])
def test_a_source_that_is_no_name_is_refused(store: PostgresStore, source: str) -> None:
    with pytest.raises(ValueError, match="source="):
        ingest([Record("42", "rye")], store, source=source)


def test_a_source_is_a_text(store: PostgresStore, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="source= takes a name, not"):
        ingest([Record("42", "rye")], store, source=tmp_path)  # type: ignore[arg-type]


def test_standard_input_has_the_source_that_is_named(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(text: str) -> None:
        line = json.dumps({"id": "a", "text": text}) + "\n"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line.encode())))

    given("rye")
    ingest("-", store, source="feed")
    given("salt")
    with pytest.raises(SourceError, match="'feed'"):
        ingest("-", store, source="other")
    given("salt")
    assert ingest("-", store).written == 1
    given("salt")
    assert ingest("-", store, source="feed", prune=True).unchanged == 1


def test_records_get_the_prefix_too(store: PostgresStore) -> None:
    ingest([Record("42", "rye")], store, prefix="crm")
    assert store.get(["crm/42"]) == [Record("crm/42", "rye")]
