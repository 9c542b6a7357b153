"""The pages of vectors, ids and metadata that hosts hand out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toastrack.filters import matches
from toastrack.stores.id_set import IdSet
from toastrack.stores.top_k import TopK


def test_the_best_of_all_pages() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(100, 8))
    query = (rows[3] / np.linalg.norm(rows[3])).astype(np.float32)
    best = TopK(query, 10)
    for start in range(0, 100, 7):
        page = rows[start : start + 7]
        best.add([f"{start + n:02}" for n in range(len(page))], page * random.uniform(1, 9))
    best.add([], np.zeros((0, 8)))

    scores = rows @ query / np.linalg.norm(rows, axis=1)
    expected = np.argsort(-scores)[:10]
    assert list(best.scores()) == [f"{n:02}" for n in expected]
    assert list(best.scores().values()) == pytest.approx(scores[expected], abs=1e-6)


def test_equal_scores_stand_in_the_order_of_their_ids() -> None:
    best = TopK(np.array([1, 0], np.float32), 2)
    best.add(["c", "a"], np.ones((2, 2)))
    best.add(["b"], np.ones((1, 2)))
    assert list(best.scores()) == ["a", "b"]


def test_what_has_no_direction_is_left_out() -> None:
    best = TopK(np.array([1, 0], np.float32), 5)
    best.add(["nowhere", "opposite"], np.array([[0.0, 0.0], [-1.0, 0.0]]))
    assert best.scores() == {"opposite": -1.0}


def test_each_id_once() -> None:
    seen = IdSet()
    seen.add(["b", "a", "b", "é"])
    seen.add(iter(["a", "", "c\0d"]))
    assert len(seen) == 5
    assert seen.page(None, 2) == ["", "a"]
    assert seen.page("a", 9) == ["b", "c\0d", "é"]
    assert seen.page("é", 9) == []
    assert seen.page_and_next(None, 4) == (["", "a", "b", "c\0d"], (seen, "c\0d"))
    assert seen.page_and_next("c\0d", 4) == (["é"], None)


@pytest.mark.parametrize(
    ("metadata", "filter", "expected"),
    [
        ({}, {}, True),
        ({"v": 1}, {}, True),
        ({"v": 1}, {"v": 1.0}, True),
        ({"v": 10**30}, {"v": 1e30}, False),
        ({"v": 10**22}, {"v": 1e22}, True),
        ({"v": 2**53 + 1}, {"v": 2.0**53}, False),
        ({"v": True}, {"v": 1}, False),
        ({"v": 1}, {"v": True}, False),
        ({"v": False}, {"v": False}, True),
        ({"v": [1]}, {"v": 1}, False),
        ({"v": None}, {"v": ""}, False),
        ({}, {"v": ""}, False),
        ({"v": "a", "w": 2}, {"v": "a", "w": 2}, True),
        ({"v": "a", "w": 2}, {"v": "a", "w": 3}, False),
    ],
)
def test_a_filter_compares_like_python_but_for_bool(
    metadata: dict[str, Any], filter: dict[str, Any], expected: bool
) -> None:
    assert matches(metadata, filter) is expected
