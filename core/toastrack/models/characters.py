"""Split texts by characters, where no tokenizer can be had."""

from __future__ import annotations

from toastrack.errors import needs_extra


def split_by_characters(
    text: str, most: int, overlap: int, *, markdown: bool
) -> list[tuple[int, str]]:
    """Split a text into chunks of at most ``most`` characters, each with where it begins.

    They end at paragraphs, sentences or words, in Markdown at headings. A text that fits comes back
    as it is; blank text too.
    """
    if not 0 <= overlap < most:
        raise ValueError(f"An overlap of {overlap} characters leaves no room in chunks of {most}.")
    if len(text) <= most or not text.strip():
        return [(0, text)]
    with needs_extra("hosted", "semantic_text_splitter"):
        from semantic_text_splitter import MarkdownSplitter, TextSplitter
    splitter = (MarkdownSplitter if markdown else TextSplitter)(most, overlap)
    chunks: list[tuple[int, str]] = splitter.chunk_indices(text)
    return chunks
