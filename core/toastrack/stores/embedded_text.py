"""What another library embedded of a row: not always the text alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any, NamedTuple

_NODE = "_node_content"
"""Where LlamaIndex keeps a node as JSON, but for what the host has a place of its own for."""

# llama_index.core.schema, MetadataMode.EMBED:
# https://github.com/run-llama/llama_index/blob/main/llama-index-core/llama_index/core/schema.py
_TEMPLATE = "{metadata_str}\n\n{content}"
_FIELD = "{key}: {value}"
# Far more characters than any model reads.
_LONGEST = 4 * 1024 * 1024


class EmbeddedText(NamedTuple):
    """The text that was embedded for a row, as far as the row tells."""

    text: str
    doubt: str = ""
    """Why it may have been another; "" where nothing says so."""


def embedded_text(text: str, metadata: Mapping[str, Any]) -> EmbeddedText:
    """Return what was embedded for a row: its text, and what LlamaIndex puts in front of it."""
    written = metadata.get(_NODE)
    if written is None:
        return EmbeddedText(text)
    try:
        node = json.loads(written) if isinstance(written, str) else written
        return EmbeddedText(_of_node(node, text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return EmbeddedText(text, f"its metadata {_NODE!r} cannot be read ({error!s:.60})")


def node_text(metadata: Mapping[str, Any]) -> str:
    """Return the text of LlamaIndex' node itself; "" where there is none that can be read."""
    try:
        return _text_in(json.loads(metadata[_NODE]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def _text_in(node: Mapping[str, Any]) -> str:
    return str(node.get("text") or (node.get("text_resource") or {}).get("text") or "")


def _of_node(node: Mapping[str, Any], text: str) -> str:
    text = text or _text_in(node)
    left_out = set(node.get("excluded_embed_metadata_keys") or ())
    field = node.get("metadata_template") or _FIELD
    separator = node.get("metadata_seperator", node.get("metadata_separator", "\n"))
    said = _joined(
        separator,
        (
            _filled(field, {"key": key, "value": str(value)})
            for key, value in (node.get("metadata") or {}).items()
            if key not in left_out
        ),
    ).strip()
    if not said:
        return text
    template = node.get("text_template") or _TEMPLATE
    return _filled(template, {"content": text, "metadata_str": said}).strip()


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template that stands in somebody's data, and do nothing else that it says.

    ``str.format`` would read attributes, and fill up to any width. Raises ``ValueError`` for that.
    """

    def parts() -> Iterator[str]:
        for literal, name, width, conversion in Formatter().parse(template):
            yield literal
            if name is None:
                continue
            if name not in values or width or conversion:
                raise ValueError(f"a template holds {name[:20]!r} in a way that is not LlamaIndex'")
            yield values[name]

    return _joined("", parts())


def _joined(separator: str, parts: Iterator[str]) -> str:
    """Join texts, or raise ``ValueError`` before they take more memory than any text does."""
    found: list[str] = []
    left = _LONGEST
    for part in parts:
        left -= len(separator) + len(part)
        if left < 0:
            raise ValueError(f"it makes a text of more than {_LONGEST:,} characters")
        found.append(part)
    return separator.join(found)


def with_fields(text: str, metadata: Mapping[str, Any]) -> str:
    """Return a text behind its fields, as LlamaIndex embeds them unless it is told otherwise."""
    said = "\n".join(
        _FIELD.format(key=key, value=value) for key, value in metadata.items() if key[:1] != "_"
    )
    return _TEMPLATE.format(metadata_str=said, content=text).strip() if said else text
