"""A search by the words of texts, as core asks an adapter for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from toastrack.records import Match

SearchMode = Literal["vector", "text", "hybrid"]
"""By meaning, by the words of the texts, or by both."""

TextSyntax = Literal["any", "web"]
"""How the words of a query are read: any of them may match, or as in web search."""

RRF = 60
"""Reciprocal rank fusion: what stands at place n of a list counts weight / (60 + n), from 1 on."""


@dataclass(frozen=True)
class TextQuery:
    """What is asked of the words of texts.

    Args:
        text: The query.
        syntax: How it is read.
        vector_weight: How much the list by vectors counts, where there are two.
        text_weight: How much the list by words counts.
    """

    text: str
    syntax: TextSyntax = "any"
    vector_weight: float = 1.0
    text_weight: float = 1.0


class TextHits(NamedTuple):
    """What a search by words found."""

    matches: list[Match]
    """Best first, of the kind "text", or "rrf" with a list by vectors beside it."""
    wordless: str | None = None
    """The language in which the query has no word, where it has none."""
