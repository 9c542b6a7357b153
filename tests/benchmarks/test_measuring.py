"""Turns are fair, tables say everything, and a child's memory is its own."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import inputs
import numpy as np
import pytest
from measuring import CannotRunError, Contestant, Table, needs, percentile, take_turns
from processes import peak_of


def contestant(name: str, order: list[str]) -> Contestant:
    def load() -> Callable[[], object]:
        order.append(f"load {name}")
        return lambda: order.append(name)

    return Contestant(name, load, before=lambda: order.append(f"before {name}"))


def test_contestants_take_turns_and_each_round_starts_with_another() -> None:
    order: list[str] = []
    turns = take_turns([contestant(name, order) for name in "ab"], 2)
    ready = ["load a", "before a", "a", "load b", "before b", "b"]
    first, second = ["before a", "a", "before b", "b"], ["before b", "b", "before a", "a"]
    assert order == ready + first + second
    assert [len(turn.seconds) for turn in turns.values()] == [2, 2]


def test_without_a_warm_up_they_are_loaded_before_all_turns() -> None:
    order: list[str] = []
    take_turns([contestant(name, order) for name in "ab"], 1, warm_up=False)
    assert order == ["load a", "load b", "before a", "a", "before b", "b"]


def test_one_that_fails_says_so_and_the_others_go_on() -> None:
    def broken() -> object:
        raise ValueError("no such thing\nand more")

    def absent() -> Callable[[], object]:
        raise CannotRunError("not measured: x is not installed")

    turns = take_turns(
        [
            Contestant("broken", lambda: broken),
            Contestant("absent", absent),
            Contestant("good", lambda: lambda: 7),
        ],
        3,
    )
    assert turns["broken"].failed == "failed: ValueError: no such thing"
    assert turns["absent"].failed == "not measured: x is not installed"
    assert (turns["good"].failed, len(turns["good"].seconds), turns["good"].result) == ("", 3, 7)


def test_who_has_taken_long_enough_takes_no_further_turn() -> None:
    turns = take_turns([Contestant("slow", lambda: lambda: None)], 5, patience=0)
    assert len(turns["slow"].seconds) == 1


@pytest.mark.parametrize("module", ["nothing_called_so", "nothing_called_so.at_all"])
def test_a_missing_package_is_named(module: str) -> None:
    with pytest.raises(CannotRunError, match="not measured: some-package is not installed"):
        needs(module, "some-package")


def test_a_percentile_is_numpys() -> None:
    values = list(np.random.default_rng(0).normal(size=37))
    for percent in (0, 50, 99, 100):
        assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_a_table_is_markdown_for_people_and_figures_for_programs() -> None:
    table = Table("Bread", {"": "", "loaves/s": ",.1f", "share": ".0%", "remark": ""})
    table.add("rye | spelt", 1234.56, 0.5)
    table.add("wheat", None, None, "not measured: no flour")
    table.note("By hand.")
    assert table.markdown().splitlines() == [
        "### Bread",
        "",
        "|  | loaves/s | share | remark |",
        "| --- | --- | --- | --- |",
        "| rye \\| spelt | 1,234.6 | 50% |  |",
        "| wheat |  |  | not measured: no flour |",
        "",
        "By hand.",
    ]
    rows = json.loads(json.dumps(table.as_dict()))["rows"]
    assert rows[0] == {"": "rye | spelt", "loaves/s": 1234.56, "share": 0.5, "remark": None}
    with pytest.raises(ValueError, match="5 cells are too many"):
        table.add(1, 2, 3, 4, 5)


def test_a_childs_peak_is_not_its_parents() -> None:
    ballast = bytearray(300_000_000)
    small, large = peak_of("pass"), peak_of("bytearray(200_000_000)")
    assert len(ballast) / 1e6 > small
    assert 200 < large - small + 10 < 220


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="ended with 1 and said: ValueError: no flour"):
        peak_of("raise ValueError('no flour')")


def test_the_stand_in_has_the_lengths_of_real_passages() -> None:
    lengths = [len(text.split()) for text in inputs.passages(4_000, corpus=Path("none"))]
    assert statistics.median(lengths) == pytest.approx(234, rel=0.1)
    assert statistics.mean(lengths) == pytest.approx(284, rel=0.1)
    assert percentile(lengths, 90) == pytest.approx(497, rel=0.1)


def test_a_bert_large_costs_what_its_weights_and_its_attention_do() -> None:
    model = inputs.Subject("large", Path(), Path(), 1_024, 24, 4_096, "float16")
    weights = 302e6  # 24 layers of 12 x 1024 x 1024
    assert model.gflop([1]) == pytest.approx(2 * weights / 1e9, rel=0.01)
    attention = model.gflop([512]) - 512 * model.gflop([1])
    assert attention == pytest.approx(4 * 24 * 1_024 * 512**2 / 1e9, rel=0.01)
