"""HTML, PDF and Word: their text, titles, sections and pages."""

from __future__ import annotations

import io
import sys

import pytest
from made_files import docx, packed, pdf

from toastrack.errors import MissingExtraError
from toastrack.ingestion.readers import FORMATS, BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers import docx as docx_module
from toastrack.ingestion.readers import pdf as pdf_module

for package in ("bs4", "markdownify", "mammoth", "pypdf"):
    pytest.importorskip(package, reason="the extra 'files' is not installed")


def item_of(ending: str, content: bytes, encoding: str | None = None) -> SourceDocument | BadInput:
    (item,) = FORMATS[ending].read(
        io.BytesIO(content),
        location=f"docs/rye{ending}",
        name=f"rye{ending}",
        options=ReadOptions(encoding=encoding),
    )
    return item


def read(ending: str, content: bytes, encoding: str | None = None) -> SourceDocument:
    item = item_of(ending, content, encoding)
    assert isinstance(item, SourceDocument), item
    return item


PAGE = """<!doctype html>
<html><head><title>Rye &amp; more</title><style>p {}</style><script>alert(1)</script></head>
<body><nav><a href="/">Home</a></nav>
<main><h1>Rye</h1><p>Keeps <b>long</b>,<br>see <a href="https://x.example">there</a>.</p>
<h2>Why</h2><table><tr><th>flour</th><th>days</th></tr><tr><td>rye</td><td>7</td></tr></table>
<ul><li>one</li><li>two</li></ul><img src="x.png" alt="a loaf"></main>
<footer>imprint</footer></body></html>"""


def test_a_page_is_read_as_markdown() -> None:
    item = read(".html", PAGE.encode())
    assert item.metadata == {"source": "rye.html", "title": "Rye & more"}
    assert [place.metadata["section"] for place in item.places] == ["Rye", "Rye > Why"]
    assert item.text.startswith("# Rye\n\nKeeps long,")
    assert "| rye | 7 |" in item.text
    assert "* two" in item.text
    for gone in ("alert", "Home", "imprint", "https", "x.png", "**"):
        assert gone not in item.text


def test_without_a_main_part_the_body_is_read_and_the_heading_is_the_title() -> None:
    item = read(".htm", b"<h1>Rye</h1><p>Keeps 2*3*4 days, my_own_way.")
    assert item.metadata["title"] == "Rye"
    assert item.text == "# Rye\n\nKeeps 2*3*4 days, my_own_way."


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("<meta charset=latin-1><p>Röggen".encode("latin-1"), None),
        ("<p>Röggen".encode("latin-1"), "latin-1"),
        ("<p>Röggen".encode("utf-16"), None),
        ("<meta charset=nonsense><p>Röggen".encode(), None),
    ],
)
def test_a_pages_encoding(content: bytes, encoding: str | None) -> None:
    assert read(".html", content, encoding).text == "Röggen"


def test_a_page_that_cannot_be_read_is_named() -> None:
    item = item_of(".html", b"<p>caf\xe9")
    assert isinstance(item, BadInput)
    assert "(0xE9) is not UTF-8" in str(item)
    item = item_of(".html", b"<div>" * 5_000 + b"x")
    assert item == BadInput("docs/rye.html", "the page is nested too deeply.")
    # Some versions of Python's parser take it.
    item = item_of(".html", b"<p>rye<![*>")
    if isinstance(item, BadInput):
        assert str(item) == "docs/rye.html: not HTML that can be read: its markup is damaged."


def test_word_headings_are_sections() -> None:
    content = docx(
        [
            ("Heading1", "Rye"),
            ("Normal", "Keeps <long> & dark."),
            ("Heading2", "Why"),
            ("", "Water."),
        ]
    )
    item = read(".docx", content)
    assert item.text == "# Rye\n\nKeeps <long> & dark.\n\n## Why\n\nWater."
    assert item.metadata == {"source": "rye.docx", "title": "Rye"}
    assert [place.metadata["section"] for place in item.places] == ["Rye", "Rye > Why"]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]><x>&i;</x>"
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not at all", "not a Word document"),
        (b"", "not a Word document"),
        (packed({"a.txt": "x"}), "not a Word document"),
        (docx([("", "x" * 9_000)])[:-400], "not a Word document"),
        (packed({"word/document.xml": BOMB}), "not a Word document"),
        (docx([], inside="<w:p><w:sdt>" * 5_000), "not a Word document"),
    ],
    ids=["text", "empty", "zip", "cut", "entities", "unclosed"],
)
def test_a_word_file_that_cannot_be_read_is_named(content: bytes, says: str) -> None:
    item = item_of(".docx", content)
    assert isinstance(item, BadInput)
    assert str(item).startswith(f"docs/rye.docx: {says}")


def test_a_word_file_that_unpacks_to_too_much_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docx_module, "_MAX_XML", 100_000)
    item = item_of(".docx", docx([("", "x" * 200_000)]))
    assert isinstance(item, BadInput)
    assert "unpacked it is" in str(item)


def test_the_pages_of_a_pdf_are_known() -> None:
    content = pdf([["Rye keeps long.", "And dark."], [], ["Salt the dough."]], title="The handbook")
    item = read(".pdf", content)
    assert item.text == "Rye keeps long.\nAnd dark.\n\nSalt the dough."
    assert item.metadata == {"source": "rye.pdf", "title": "The handbook"}
    assert [(place.offset, place.metadata) for place in item.places] == [
        (0, {"page": 1}),
        (item.text.index("Salt"), {"page": 3}),
    ]


def test_a_pdf_without_text_has_nothing_in_it() -> None:
    item = item_of(".pdf", pdf([[], []]))
    assert isinstance(item, BadInput)
    assert (item.kind, "may be a scan" in str(item)) == ("nothing in it", True)


@pytest.mark.parametrize(
    "content", [b"", b"not at all", pdf([["x"]])[:200], b"%PDF-1.4\n" + b"[" * 50_000]
)
def test_a_pdf_that_cannot_be_read_is_named(content: bytes) -> None:
    item = item_of(".pdf", content)
    assert isinstance(item, BadInput)
    assert str(item).startswith("docs/rye.pdf: ")
    assert item.kind == "cannot be read"


def test_a_pdf_of_too_much_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_module, "MAX_DOCUMENT", 100)
    item = item_of(".pdf", pdf([["x" * 80]] * 3))
    assert isinstance(item, BadInput)
    assert "its text is over" in str(item)
    monkeypatch.setattr(pdf_module, "_MAX_PAGES", 2)
    item = item_of(".pdf", pdf([["x"]] * 3))
    assert isinstance(item, BadInput)
    assert "over 2 pages" in str(item)


@pytest.mark.parametrize(
    ("ending", "package"), [(".html", "markdownify"), (".pdf", "pypdf"), (".docx", "mammoth")]
)
def test_what_is_missing_is_said_before_a_file_is_opened(
    ending: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert FORMATS[ending].missing() == [package]
    with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed.*\[files\]"):
        item_of(ending, b"")
