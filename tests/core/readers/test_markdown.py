"""Markdown: front matter, titles and sections."""

from __future__ import annotations

import io
from typing import Any

import pytest

from toastrack.ingestion.readers import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.markdown import read_markdown


def item_of(content: str | bytes) -> SourceDocument | BadInput:
    file = io.BytesIO(content if isinstance(content, bytes) else content.encode("utf-8"))
    (item,) = read_markdown(file, location="docs/rye.md", name="rye.md", options=ReadOptions())
    return item


def read(content: str) -> SourceDocument:
    item = item_of(content)
    assert isinstance(item, SourceDocument), item
    return item


def sections(content: str) -> list[tuple[str, str]]:
    """Each section's heading path, and the line that it begins with."""
    item = read(content)
    return [
        (place.metadata["section"], item.text[place.offset :].splitlines()[0])
        for place in item.places
    ]


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("# Rye\n\nKeeps long.\n", "Rye"),
        ("Keeps long.\n\n## The `rye` *loaf*\n", "The rye loaf"),
        ("Rye\n===\n\nKeeps long.\n", "Rye"),
        ("```\n# no heading\n```\n\n# Rye\n", "Rye"),
        ("> # Rye\n", "Rye"),
        ("Keeps long.\n", None),
    ],
)
def test_the_first_heading_is_the_title(content: str, title: str | None) -> None:
    item = read(content)
    assert item.metadata.get("title") == title
    assert item.metadata["source"] == "rye.md"
    assert (item.text, item.markdown) == (content, True)


def test_each_section_knows_the_headings_above_it() -> None:
    content = (
        "preface\n\n# Rye\n\na\n\n### Keeping\n\nb\n\n```\n# no heading\n```\n\n"
        "## Flour\n\nc\n\n> ## quoted\n\nSalt\n====\n\nd\n"
    )
    for text in (content, content.replace("\n", "\r\n"), content.replace("\n", "\r")):
        assert sections(text) == [
            ("Rye", "# Rye"),
            ("Rye > Keeping", "### Keeping"),
            ("Rye > Flour", "## Flour"),
            ("Salt", "Salt"),
        ]


@pytest.mark.parametrize("end", ["---", "..."])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_front_matter_becomes_metadata_and_is_no_text(end: str, line: str) -> None:
    matter = ["---", "title: The loaf", "tags: [rye, dark]", "day: 2024-05-01", "7: seven", end]
    item = read(line.join([*matter, "# Rye", "", "Keeps long."]))
    assert item.text == line.join(["# Rye", "", "Keeps long."])
    assert item.metadata == {
        "source": "rye.md",
        "title": "The loaf",
        "tags": ["rye", "dark"],
        "day": "2024-05-01",
        "7": "seven",
    }
    assert [place.offset for place in item.places] == [0]


def test_the_users_own_fields_win() -> None:
    item = read("---\nsource: a book\n---\n# Rye\n")
    assert item.metadata == {"source": "a book", "title": "Rye"}


@pytest.mark.parametrize(
    ("content", "text", "metadata"),
    [
        ("---\n---\nx", "x", {}),
        ("---\n\nbetween two rules\n\n---\n\nx", None, {}),
        ("---\nno end: 1\n", None, {}),
        ("x\n---\na: 1\n---\n", None, {"title": "x"}),
        (
            "---\nwhen: 2024-05-01 10:00:00\nn: .nan\n---\n",
            "",
            {"when": "2024-05-01T10:00:00", "n": None},
        ),
    ],
)
def test_what_is_no_front_matter_stays_text(
    content: str, text: str | None, metadata: dict[str, Any]
) -> None:
    item = read(content)
    assert item.text == (content if text is None else text)
    assert item.metadata == {"source": "rye.md", **metadata}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("---\na: b: c\n---\n", "line 2: the front matter is not YAML: mapping values"),
        ("---\na: [1\n---\n", "the front matter is not YAML"),
        ("---\na: &x [1]\nb: [*x, *x]\n---\n", "alias"),
        (f"---\na: {'[' * 60_000}\n---\n", "over 100 levels deep"),
        (f"---\n{'- ' * 30_000}\n---\n", "over 100 levels deep"),
        (f"---\n{'? ' * 30_000}\n---\n", "over 100 levels deep"),
        (f"---\na: {'{a: ' * 15_000}\n---\n", "over 100 levels deep"),
        (f"---\na: {'x' * 70_000}\n---\n", "the front matter is over 64 kB"),
        ("---\na: !!python/object/apply:os.getcwd []\n---\n", "could not determine a constructor"),
        (b"caf\xe9", "byte 3 of the file (0xE9) is not UTF-8"),
    ],
    ids=[
        "colon",
        "list",
        "alias",
        "deep",
        "deep list",
        "deep key",
        "deep mapping",
        "long",
        "python",
        "latin-1",
    ],
)
def test_front_matter_that_cannot_be_read_is_named(content: str | bytes, says: str) -> None:
    item = item_of(content)
    assert isinstance(item, BadInput)
    assert str(item).startswith("docs/rye.md: ")
    assert says in str(item)


@pytest.mark.parametrize("sign", [">", "- ", "[", "*a ", "#", "<div>"])
def test_deep_nesting_ends(sign: str) -> None:
    assert read(sign * 20_000 + "\n\n# Rye\n").markdown
