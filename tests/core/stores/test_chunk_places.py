"""Chunks joined as they stood in their document."""

from __future__ import annotations

import pytest

from toastrack import Record
from toastrack.stores.chunk_places import PLACE, Part, joined, part_of, place, without_place


def parts(*given: tuple[int, str, int | None, str]) -> list[Part]:
    return [Part(*one) for one in given]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (parts((0, "rye", 0, "")), "rye"),
        (parts((0, "rye", 0, ""), (1, "salt", 4, "\n")), "rye\nsalt"),
        (parts((0, "rye", 0, ""), (1, "salt", 3, "")), "ryesalt"),
        (parts((0, "rye and", 0, ""), (1, "and salt", 4, "")), "rye and salt"),
        # Known to nobody, or to only one of both.
        (parts((0, "rye", None, ""), (1, "salt", None, "")), "rye\n\nsalt"),
        (parts((0, "rye", 0, ""), (1, "salt", None, "")), "rye\n\nsalt"),
        # One is missing between them.
        (parts((0, "rye", 0, ""), (2, "salt", 9, " ")), "rye\n\nsalt"),
        # One has got another text since.
        (parts((0, "rye or", 0, ""), (1, "and salt", 4, "")), "rye or\n\nand salt"),
        (parts((0, "ryebread", 0, ""), (1, "salt", 4, " ")), "ryebread\n\nsalt"),
        (parts((0, "r", 0, ""), (1, "salt", 4, " ")), "r\n\nsalt"),
    ],
)
def test_joined(given: list[Part], expected: str) -> None:
    assert joined(given) == expected


def test_a_place_is_read_again_and_hidden() -> None:
    record = Record("doc#1", "salt", {"lang": "en", **place(9, "\n\n")}, chunk=1)
    assert part_of(record, 1) == Part(1, "salt", 9, "\n\n")
    assert without_place(record.metadata) == {"lang": "en"}
    long_gap = Record("doc#1", "salt", place(1_000, " " * 990), chunk=1)
    assert joined([Part(0, "x" * 10, 0, ""), part_of(long_gap, 1)]) == "x" * 10 + "\n\nsalt"


@pytest.mark.parametrize(
    "damaged", [None, 7, [], {}, {"start": -1, "gap": ""}, {"start": 1.5, "gap": ""}, {"start": 1}]
)
def test_a_damaged_place_is_none(damaged: object) -> None:
    record = Record("doc#1", "salt", {PLACE: damaged}, chunk=1)
    assert part_of(record, 1) == Part(1, "salt", None, "")
