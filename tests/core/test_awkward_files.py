"""One run over a folder of awkward files: what becomes of each, by name."""

from __future__ import annotations

import gzip
import os
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from made_files import docx, packed, pdf

from toastrack import Embedder, ingest

pytest.importorskip("toastrack_postgres", reason="the extra 'postgres' is not installed")
from toastrack_postgres import PostgresStore

for _package in ("pyarrow", "bs4", "markdownify", "mammoth", "pypdf"):
    pytest.importorskip(_package, reason="the extras 'files' and 'parquet' are not installed")

WRITTEN = Path(__file__).parent.parent / "data" / "awkward"

# The ids that a file's documents have, and how its inputs were left out.
OUTCOME: dict[str, tuple[list[str], list[str]]] = {
    # tests/data/awkward
    "notes.text": (["notes.text"], []),
    "manual.rst": (["manual.rst"], []),
    "front.markdown": (["front.markdown"], []),
    "broken-front.md": ([], ["cannot be read"]),
    "aliases.md": ([], ["cannot be read"]),
    "rules.md": (["rules.md"], []),
    "fenced.md": (["fenced.md"], []),
    "only-front.md": ([], ["nothing in it"]),
    "blank.md": ([], ["nothing in it"]),
    "german.csv": (["g1", "g2"], []),
    "quotes.csv": (["q2", "q3"], ["cannot be read"]),
    "twice.csv": ([], ["cannot be read"]),
    "no-text.csv": ([], ["cannot be read"]),
    "header-only.csv": ([], ["nothing in it"]),
    "trailing.csv": (["tr1"], []),
    "ragged.csv": (["r1", "r3"], ["cannot be read"]),
    "tabs.tsv": (["tab1"], []),
    "rows.ndjson": (["nd1", "nd3"], ["cannot be read", "cannot be read"]),
    "array.json": (["j1", "j2"], []),
    "package.json": ([], ["not for us"]),
    "cut.json": (["c1"], ["cannot be read"]),
    "page.html": (["page.html"], []),
    "script.htm": ([], ["nothing in it"]),
    # made here
    "latin.txt": ([], ["cannot be read"]),
    "utf16.txt": (["utf16.txt"], []),
    "utf16.csv": (["u1"], []),
    "mac.csv": (["m1", "m2"], []),
    "nul.txt": ([], ["cannot be read"]),
    "empty.jsonl": ([], ["nothing in it"]),
    "deep.jsonl": (["after"], ["cannot be read"]),
    "packed.md.gz": (["packed.md.gz"], []),
    "cut.txt.gz": ([], ["cannot be read"]),
    "bomb.txt.gz": ([], ["cannot be read"]),
    "bomb.docx": ([], ["cannot be read"]),
    "word.docx": (["word.docx"], []),
    "not-a.docx": ([], ["cannot be read"]),
    "pages.pdf": (["pages.pdf"], []),
    "scan.pdf": ([], ["nothing in it"]),
    "cut.pdf": ([], ["cannot be read"]),
    "not.parquet": ([], ["cannot be read"]),
    "photo.JPG": ([], ["not for us"]),
    "Makefile": ([], ["not for us"]),
    ".hidden.md": ([], ["not for us"]),
    ".git": ([], ["not for us"]),
    "circle": ([], ["not for us"]),
    "gone.md": ([], ["cannot be read"]),
    "pipe.txt": ([], ["not for us"]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "awkward"
    shutil.copytree(WRITTEN, folder)
    long = gzip.compress(b"x" * 17 * 2**20)
    made = {
        "latin.txt": b"caf\xe9",
        "utf16.txt": "Röggen".encode("utf-16"),
        "utf16.csv": "id;text\nu1;Röggen\n".encode("utf-16"),
        "mac.csv": b"id,text\rm1,Rye\rm2,Salt\r",
        "nul.txt": b"a\0b",
        "empty.jsonl": b"",
        "deep.jsonl": b"[" * 100_000 + b'\n{"id": "after", "text": "Rye"}\n',
        "packed.md.gz": gzip.compress(b"# Rye\n"),
        "cut.txt.gz": gzip.compress(os.urandom(5_000))[:2_000],
        "bomb.txt.gz": long,
        "bomb.docx": packed({"word/document.xml": "x" * 70 * 2**20}),
        "word.docx": docx([("Heading1", "Rye"), ("", "Keeps long.")]),
        "not-a.docx": b"not at all",
        "pages.pdf": pdf([["Rye keeps long."], ["Salt."]]),
        "scan.pdf": pdf([[]]),
        "cut.pdf": pdf([["Rye"]])[:100],
        "not.parquet": b"PAR1 not at all",
        "photo.JPG": b"\xff\xd8",
        "Makefile": b"all:\n",
        ".hidden.md": b"# Hidden\n",
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    (folder / ".git").mkdir()
    (folder / "circle").symlink_to(folder)
    (folder / "gone.md").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.txt")
    return folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_every_file_is_accounted_for_by_name(
    postgres_dsn: str, schema: str, embedder: Embedder, folder: Path
) -> None:
    assert len(OUTCOME) >= 40
    assert sorted(OUTCOME) == sorted(path.name for path in folder.iterdir())
    notes: list[str] = []
    with PostgresStore(postgres_dsn, "docs", schema=schema, embedder=embedder) as store:
        report = ingest(folder, store, skip_bad=True, on_note=notes.append)
        stored = sorted(store.document_ids())
    left_out: dict[str, list[str]] = defaultdict(list)
    for skip in report.skips:
        name = Path(skip.location.partition(", ")[0]).name
        left_out[name].append(skip.kind)
        assert skip.reason.endswith("."), skip
    assert {name: kinds for name, (_, kinds) in OUTCOME.items() if kinds} == left_out
    assert stored == sorted(id for ids, _ in OUTCOME.values() for id in ids)
    assert report.read == report.chunks == report.written == len(stored)
    assert report.skipped == len(report.skips) == sum(report.skipped_by_kind.values())
    assert sorted(Path(note.partition(":")[0]).name for note in notes) == [
        "german.csv",
        "utf16.csv",
    ]
