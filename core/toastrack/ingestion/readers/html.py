"""HTML: one page, one document, read as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from toastrack.errors import needs_extra
from toastrack.ingestion.readers.base import BadInput, ReadOptions, SourceDocument
from toastrack.ingestion.readers.decoding import decode, is_encoding, read_all
from toastrack.ingestion.readers.markdown import markdown_document

# Nobody reads it, or it is on every page.
_NO_TEXT = ["script", "style", "template", "noscript", "svg", "iframe", "nav"]
# Of these the words stay: an address or a star is nothing to search for.
_WORDS_ONLY = ["a", "img", "b", "strong", "i", "em"]
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def read_html(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield the page as one document; of a page with a ``main`` part only that is read."""
    with needs_extra("files", "bs4", "markdownify"):
        import markdownify  # noqa: F401 - so that a missing one is named before the file is read
        from bs4 import BeautifulSoup
        from bs4.dammit import EncodingDetector
        from bs4.exceptions import ParserRejectedMarkup
    try:
        content = read_all(file)
        said = EncodingDetector.find_declared_encoding(content, is_html=True)
        written = decode(content, options.encoding or (said if is_encoding(said) else None))
    except ValueError as error:
        yield BadInput(location, str(error))
        return
    try:
        page = BeautifulSoup(written, "html.parser")
        title = page.title.get_text(" ", strip=True) if page.title else ""
        text = to_markdown(page.find("main") or page.body or page)
    except RecursionError:
        yield BadInput(location, "the page is nested too deeply.")
        return
    except ParserRejectedMarkup:
        yield BadInput(location, "not HTML that can be read: its markup is damaged.")
        return
    yield markdown_document(
        name, text, location, {"source": name, **({"title": title} if title else {})}
    )


def to_markdown(part: Any) -> str:
    """Return the text of parsed HTML, with its headings, lists and tables."""
    from markdownify import MarkdownConverter

    for element in part.find_all([*_NO_TEXT, "title"]):
        element.decompose()
    converter = MarkdownConverter(
        heading_style="ATX",
        strip=_WORDS_ONLY,
        escape_asterisks=False,
        escape_underscores=False,
    )
    return _BLANK_LINES.sub("\n\n", converter.convert_soup(part)).strip()
