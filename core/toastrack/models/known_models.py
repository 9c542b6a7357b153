"""Well-known models, and what their authors ask for where the files do not say it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class KnownModel:
    """What the authors of a model ask for in its documentation, and how they pool it."""

    names: str
    query: str
    document: str
    source: str
    pooling: str = "mean"


_SEARCH = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)

# The innermost choice of a pattern below, and whether it may be left out.
_GROUP = re.compile(r"\(([^()]*)\)(\??)")

# Consulted when a model's own configuration says nothing. First match of the whole name wins.
KNOWN = (
    KnownModel(
        r"mixedbread-ai/mxbai-embed-large-v1",
        _SEARCH,
        "",
        "https://huggingface.co/mixedbread-ai/mxbai-embed-large-v1",
        "cls",
    ),
    KnownModel(
        r"mixedbread-ai/mxbai-embed-2d-large-v1",
        _SEARCH,
        "",
        "https://www.mixedbread.com/docs/embeddings/mxbai-embed-2d-large-v1",
        "cls",
    ),
    # Its own page names no prompt; this is the one of the family that it was trained with.
    KnownModel(
        r"mixedbread-ai/mxbai-embed-xsmall-v1",
        _SEARCH,
        "",
        "https://www.mixedbread.com/docs/embeddings/mxbai-embed-large-v1",
    ),
    KnownModel(
        r"mixedbread-ai/deepset-mxbai-embed-de-large-v1",
        "query: ",
        "passage: ",
        "https://huggingface.co/mixedbread-ai/deepset-mxbai-embed-de-large-v1",
    ),
    KnownModel(
        r"BAAI/bge-(small|base|large)-en(-v1\.5)?",
        _SEARCH,
        "",
        "https://huggingface.co/BAAI/bge-large-en-v1.5#usage",
        "cls",
    ),
    KnownModel(
        r"BAAI/bge-(small|base|large)-zh(-v1\.5)?",
        "为这个句子生成表示以用于检索相关文章：",  # noqa: RUF001 - the model was trained with it
        "",
        "https://huggingface.co/BAAI/bge-large-zh-v1.5#usage",
        "cls",
    ),
    KnownModel(r"BAAI/bge-m3", "", "", "https://huggingface.co/BAAI/bge-m3#faq", "cls"),
    KnownModel(
        r"intfloat/multilingual-e5-large-instruct",
        _WEB_SEARCH,
        "",
        "https://huggingface.co/intfloat/multilingual-e5-large-instruct#faq",
    ),
    KnownModel(
        r"intfloat/e5-mistral-7b-instruct",
        _WEB_SEARCH,
        "",
        "https://huggingface.co/intfloat/e5-mistral-7b-instruct#faq",
        "lasttoken",
    ),
    KnownModel(
        r"intfloat/(multilingual-)?e5-(small|base|large)(-v2)?",
        "query: ",
        "passage: ",
        "https://huggingface.co/intfloat/e5-large-v2#faq",
    ),
    KnownModel(
        r"Alibaba-NLP/gte-Qwen.*-instruct",
        _WEB_SEARCH,
        "",
        "https://huggingface.co/Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "lasttoken",
    ),
    KnownModel(
        r"Alibaba-NLP/gte-((base|large)-en-v1\.5|(multilingual|modernbert)-base)",
        "",
        "",
        "https://huggingface.co/Alibaba-NLP/gte-large-en-v1.5",
        "cls",
    ),
    KnownModel(
        r"(thenlper|Alibaba-NLP)/gte-.*", "", "", "https://huggingface.co/thenlper/gte-large"
    ),
    KnownModel(
        r"nomic-ai/(nomic-embed-text-v(1|1\.5|2-moe)|modernbert-embed-base)",
        "search_query: ",
        "search_document: ",
        "https://huggingface.co/nomic-ai/nomic-embed-text-v1.5#task-instruction-prefixes",
    ),
    KnownModel(
        r"Snowflake/snowflake-arctic-embed-(m|l)-v2\.0",
        "query: ",
        "",
        "https://huggingface.co/Snowflake/snowflake-arctic-embed-l-v2.0",
        "cls",
    ),
    KnownModel(
        r"Snowflake/snowflake-arctic-embed-(xs|s|m|m-long|m-v1\.5|l)",
        _SEARCH,
        "",
        "https://huggingface.co/Snowflake/snowflake-arctic-embed-l",
        "cls",
    ),
)

# Whose authors say, on the same pages, that the first numbers of a vector do for all of it.
_MATRYOSHKA = (
    r"mixedbread-ai/mxbai-embed-((2d-)?large|xsmall)-v1",
    r"mixedbread-ai/deepset-mxbai-embed-de-large-v1",
    r"nomic-ai/(nomic-embed-text-v(1\.5|2-moe)|modernbert-embed-base)",
    r"Snowflake/snowflake-arctic-embed-(m-v1\.5|(m|l)-v2\.0)",
)


_OWNERS = (
    *("mixedbread-ai", "BAAI", "intfloat", "thenlper", "Alibaba-NLP", "nomic-ai", "Snowflake"),
)

# Models that were made out of well-known ones are called after them, and mostly want their prompts.
_FAMILIES = {
    "mxbai": r"mxbai-embed",
    "bge": r"bge-(small|base|large)",
    "e5": r"(?<![a-z0-9])e5(?![a-z0-9])",
    "gte-Qwen": r"gte-qwen",
    "nomic": r"nomic-embed|modernbert-embed",
    "arctic": r"arctic-embed",
}


def known_model(name: str) -> KnownModel | None:
    """Return what is known of a hub model by its name, or None."""
    for entry in KNOWN:
        if re.fullmatch(entry.names, name, re.IGNORECASE):
            return entry
    return None


def is_known_matryoshka(path: str) -> bool:
    """Tell whether a model was trained for it, by its name on the hub or the folder of a copy."""
    names = (path, *_hub_names(path))
    return any(
        re.fullmatch(pattern, name, re.IGNORECASE) for pattern in _MATRYOSHKA for name in names
    )


def nearest_name(name: str) -> str | None:
    """Return the well-known model whose name is most like this one, None if none is."""
    names = [written for entry in KNOWN for written in _written(entry.names)]
    likely = {written.lower(): written for written in names}
    bare = {written.partition("/")[2].lower(): written for written in names}
    wanted = name.lower()
    for known in (likely, bare):
        if found := get_close_matches(wanted, known, n=1, cutoff=0.85):
            return known[found[0]]
    return None


def _written(pattern: str) -> Iterator[str]:
    """The names that a pattern of ours matches; none for one that matches any number."""
    if ".*" in pattern:
        return
    group = _GROUP.search(pattern)
    if group is None:
        yield pattern.replace("\\.", ".")
        return
    for choice in [*group[1].split("|"), *([""] if group[2] else [])]:
        yield from _written(pattern[: group.start()] + choice + pattern[group.end() :])


def known_copy(path: str) -> KnownModel | None:
    """Return what is known of a copy of a model by the folder that it lies in, or None."""
    for name in _hub_names(path):
        if (entry := known_model(name)) is not None:
            return entry
    return None


def family(path: str) -> str | None:
    """Return the family of models that want prompts to which a name or folder belongs, or None."""
    name = "/".join(_parts(path)[-3:])
    for found, pattern in _FAMILIES.items():
        if re.search(pattern, name, re.IGNORECASE):
            return found
    return None


def _hub_names(path: str) -> Iterator[str]:
    """The names on the hub under which the model in a folder may have been found."""
    parts = _parts(path)
    for part in parts[-3:]:
        if part.startswith("models--"):  # as the hub's cache calls it
            yield part.removeprefix("models--").replace("--", "/", 1)
    yield "/".join(parts[-2:])
    for last in parts[-1:]:
        # As download scripts flatten "owner/name".
        yield from (last.replace(mark, "/", 1) for mark in ("--", "__", "_"))
        yield from (f"{owner}/{last}" for owner in _OWNERS)


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")]
