"""Which prompt a model wants for which role, and who says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["query", "document"]

# The names sentence-transformers saves and looks up: encode_query and encode_document in
# https://sbert.net/docs/package_reference/sentence_transformer/model.html
SAVED_NAMES: Mapping[Role, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


@dataclass(frozen=True)
class Prompts:
    """The text put in front of queries and of documents, and where each came from."""

    query: str
    document: str
    query_source: str
    document_source: str

    def of(self, role: Role) -> str:
        """Return the prompt of one role."""
        return self.query if role == "query" else self.document


@dataclass(frozen=True)
class KnownPrompts:
    """What the authors of a model ask for in its documentation."""

    names: str
    query: str
    document: str
    source: str


_SEARCH = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)

# Consulted when a model's own configuration says nothing. First match of the whole name wins.
KNOWN = (
    KnownPrompts(
        r"mixedbread-ai/mxbai-embed-large-v1",
        _SEARCH,
        "",
        "https://huggingface.co/mixedbread-ai/mxbai-embed-large-v1",
    ),
    KnownPrompts(
        r"mixedbread-ai/mxbai-embed-2d-large-v1",
        _SEARCH,
        "",
        "https://www.mixedbread.com/docs/embeddings/mxbai-embed-2d-large-v1",
    ),
    # Its own page names no prompt; this is the one of the family that it was trained with.
    KnownPrompts(
        r"mixedbread-ai/mxbai-embed-xsmall-v1",
        _SEARCH,
        "",
        "https://www.mixedbread.com/docs/embeddings/mxbai-embed-large-v1",
    ),
    KnownPrompts(
        r"mixedbread-ai/deepset-mxbai-embed-de-large-v1",
        "query: ",
        "passage: ",
        "https://huggingface.co/mixedbread-ai/deepset-mxbai-embed-de-large-v1",
    ),
    KnownPrompts(
        r"BAAI/bge-(small|base|large)-en(-v1\.5)?",
        _SEARCH,
        "",
        "https://huggingface.co/BAAI/bge-large-en-v1.5#usage",
    ),
    KnownPrompts(
        r"BAAI/bge-(small|base|large)-zh(-v1\.5)?",
        "为这个句子生成表示以用于检索相关文章：",  # noqa: RUF001 - the model was trained with it
        "",
        "https://huggingface.co/BAAI/bge-large-zh-v1.5#usage",
    ),
    KnownPrompts(r"BAAI/bge-m3", "", "", "https://huggingface.co/BAAI/bge-m3#faq"),
    KnownPrompts(
        r"intfloat/multilingual-e5-large-instruct|intfloat/e5-mistral-7b-instruct",
        _WEB_SEARCH,
        "",
        "https://huggingface.co/intfloat/multilingual-e5-large-instruct#faq",
    ),
    KnownPrompts(
        r"intfloat/(multilingual-)?e5-(small|base|large)(-v2)?",
        "query: ",
        "passage: ",
        "https://huggingface.co/intfloat/e5-large-v2#faq",
    ),
    KnownPrompts(
        r"Alibaba-NLP/gte-Qwen.*-instruct",
        _WEB_SEARCH,
        "",
        "https://huggingface.co/Alibaba-NLP/gte-Qwen2-1.5B-instruct",
    ),
    KnownPrompts(
        r"(thenlper|Alibaba-NLP)/gte-.*",
        "",
        "",
        "https://huggingface.co/Alibaba-NLP/gte-large-en-v1.5",
    ),
    KnownPrompts(
        r"nomic-ai/(nomic-embed-text-v(1|1\.5|2-moe)|modernbert-embed-base)",
        "search_query: ",
        "search_document: ",
        "https://huggingface.co/nomic-ai/nomic-embed-text-v1.5#task-instruction-prefixes",
    ),
    KnownPrompts(
        r"Snowflake/snowflake-arctic-embed-(m|l)-v2\.0",
        "query: ",
        "",
        "https://huggingface.co/Snowflake/snowflake-arctic-embed-l-v2.0",
    ),
    KnownPrompts(
        r"Snowflake/snowflake-arctic-embed-(xs|s|m|m-long|m-v1\.5|l)",
        _SEARCH,
        "",
        "https://huggingface.co/Snowflake/snowflake-arctic-embed-l",
    ),
)


def known_prompts(model: str) -> KnownPrompts | None:
    """Return what is known of a hub model by its name, or None."""
    for entry in KNOWN:
        if re.fullmatch(entry.names, model, re.IGNORECASE):
            return entry
    return None


def saved_prompts(config: Mapping[str, object]) -> dict[Role, str] | None:
    """Read the prompts out of a ``config_sentence_transformers.json``; None if it has none.

    sentence-transformers writes ``{"query": "", "document": ""}`` into every model it saves, so
    a pair of empty prompts says nothing about what the model was trained with.
    """
    prompts = config.get("prompts")
    if not isinstance(prompts, Mapping):
        return None
    found: dict[Role, str] = {}
    for role, names in SAVED_NAMES.items():
        texts = [prompts[name] for name in names if isinstance(prompts.get(name), str)]
        found[role] = next((text for text in texts if text), "")
    return found if any(found.values()) else None


def resolve_prompts(
    model: str,
    *,
    query: str | None,
    document: str | None,
    saved: Mapping[Role, str] | None,
) -> Prompts:
    """Decide both prompts: the caller's, else the model's saved ones, else the table, else none."""
    known = known_prompts(model)
    if saved is not None:
        default = (saved["query"], saved["document"], "saved with the model")
    elif known is not None:
        default = (known.query, known.document, f"known model, {known.source}")
    else:
        default = ("", "", "none: the model names no prompt")
    given = "argument"
    return Prompts(
        query=default[0] if query is None else query,
        document=default[1] if document is None else document,
        query_source=default[2] if query is None else given,
        document_source=default[2] if document is None else given,
    )


def add_prompt(prompt: str, text: str) -> str:
    """Put the prompt in front of a text, once: a text that already starts with it stays as it is."""
    return text if text.startswith(prompt) else prompt + text
