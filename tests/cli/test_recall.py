"""``toastrack recall``: a table for people, and one for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import Run

from toastrack import Embedder, Record
from toastrack.stores import open_store


@pytest.fixture
def filled(url: str, embedder: Embedder) -> str:
    with open_store(url, embedder) as store:
        store.upsert(Record(str(number), f"bread number {number}") for number in range(30))
        store.build_index()
    return url


def test_recall_prints_markdown(run: Run, filled: str) -> None:
    code, out, err = run("recall", "--in", filled, "-k", "3", "--sample", "5")
    assert (code, err) == (0, "")
    assert out.startswith("| index | ef_search | oversampling | recall@3 | p50 ms | p95 ms |\n")
    assert "\n| full | 40 |  | 1.000 | " in out
    assert "5 rows, each left out" in out


def test_recall_prints_json_for_programs(run: Run, filled: str, tmp_path: Path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("which bread?\n\n number 7 \n")
    code, out, _ = run("recall", "--in", filled, "--queries", questions, "--json")
    table = json.loads(out)
    assert code == 0
    assert (table["k"], table["queries"], table["asked_with"]) == (10, 2, "texts")
    assert table["rows"][0]["index"] == "exact"
    assert set(table["rows"][1]) == {
        "index",
        "ef_search",
        "oversampling",
        "recall",
        "p50_ms",
        "p95_ms",
    }


def test_recall_without_an_index_says_what_to_do(run: Run, url: str, embedder: Embedder) -> None:
    with open_store(url, embedder) as store:
        store.upsert([Record("rye", "Rye keeps.")])
    code, _, err = run("recall", "--in", url)
    assert code == 2
    assert "has no index" in err


def test_questions_that_cannot_be_read(run: Run, url: str, tmp_path: Path) -> None:
    code, _, err = run("recall", "--in", url, "--queries", tmp_path / "none.txt")
    assert code == 2
    assert "none.txt' cannot be read" in err
    (tmp_path / "empty.txt").write_text("\n")
    code, _, err = run("recall", "--in", url, "--queries", tmp_path / "empty.txt")
    assert code == 2
    assert "has no question in it" in err
