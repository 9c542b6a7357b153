"""Markdown: one file, one document, with its front matter, its title and its sections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, BinaryIO

from toastrack.ingestion.readers.base import BadInput, Place, ReadOptions, SourceDocument
from toastrack.ingestion.readers.decoding import decode, read_all
from toastrack.ingestion.readers.json_values import as_json

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.M | re.S)
_MAX_FRONT_MATTER = 2**16
_DEEPEST = 100
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_markdown(
    file: BinaryIO, *, location: str, name: str, options: ReadOptions
) -> Iterator[SourceDocument | BadInput]:
    """Yield the file as one document; its front matter becomes metadata and is no part of its text."""
    try:
        text = decode(read_all(file), options.encoding)
        matter, text = _front_matter(text)
    except ValueError as error:
        yield BadInput(location, str(error))
        return
    yield markdown_document(name, text, location, {"source": name}, matter)


def markdown_document(
    name: str,
    text: str,
    location: str,
    metadata: Mapping[str, Any],
    own: Mapping[str, Any] | None = None,
) -> SourceDocument:
    """Make a document of Markdown, with the first heading for a title; ``own`` metadata wins."""
    title, places = _sections(text)
    found = {**({"title": title} if title else {}), **metadata, **(own or {})}
    return SourceDocument(name, text, location, found, places=places, markdown=True)


def _look_over(events: Iterable[Any]) -> bool:
    """Tell whether there is an alias: a few aliases of aliases would be gigabytes as JSON.

    Raises ``ValueError`` for what is nested deeply, of which each level takes longer than the last.
    """
    import yaml

    depth, aliased = 0, False
    for event in events:
        aliased |= isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is over {_DEEPEST} levels deep")
    return aliased


def _front_matter(text: str) -> tuple[Mapping[str, Any], str]:
    """Return the metadata that a file begins with, and the text behind it.

    Raises ``ValueError`` if it cannot be read. Between two rules there may also be text: what is no
    mapping stays where it is.
    """
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    import yaml

    source = found[1]
    if len(source) > _MAX_FRONT_MATTER:
        raise ValueError(f"the front matter is over {_MAX_FRONT_MATTER // 1024} kB.")
    try:
        aliased = _look_over(yaml.parse(source))
        matter = {} if aliased else yaml.safe_load(source)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 2}: " if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ValueError(f"{line}the front matter is not YAML: {problem}.") from None
    if aliased:
        raise ValueError("the front matter has an alias (*name), which is not read.")
    if matter is None:
        return {}, text[found.end() :]
    if not isinstance(matter, dict):
        return {}, text
    plain: Mapping[str, Any] = as_json(matter)
    return plain, text[found.end() :]


def _sections(text: str) -> tuple[str | None, list[Place]]:
    """Return the first heading, and where each section begins, under the path of its headings."""
    if "#" not in text and "\n=" not in text and "\n-" not in text:
        return None, []
    from markdown_it import MarkdownIt

    # Of what stands in a line only headings are looked at.
    markdown = MarkdownIt("commonmark").disable("inline")
    inline = MarkdownIt("commonmark")
    starts = [0, *(end.end() for end in _LINE_END.finditer(text))]
    title: str | None = None
    path: list[tuple[int, str]] = []
    places = []
    tokens = markdown.parse(text)
    for opening, content in pairwise(tokens):
        if opening.type != "heading_open" or opening.map is None:
            continue
        (parsed,) = inline.parseInline(content.content)
        words = "".join(
            " " if part.type in ("softbreak", "hardbreak") else part.content
            for part in parsed.children or []
            if part.type in ("text", "code_inline", "softbreak", "hardbreak")
        ).strip()
        title = title or words or None
        if opening.level > 0:  # in a quotation or a list
            continue
        depth = int(opening.tag[1:])
        path = [(above, heading) for above, heading in path if above < depth]
        path.append((depth, words))
        section = " > ".join(heading for _, heading in path if heading)
        places.append(Place(starts[opening.map[0]], {"section": section}))
    return title, places
