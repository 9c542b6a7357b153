"""The index of the words in a collection's texts: which one is there, and how it is built."""

from __future__ import annotations

import re
from typing import Any

from qdrant_client import models

from toastrack.errors import StoreError, UnsupportedError
from toastrack.stores import RetryingSession
from toastrack_qdrant.points import Points

_SIMPLE = "simple"
_KEY = "toastrack_text_language"
"""Where a local client's collection says it: such a client does not tell which indexes it has."""

_NEEDS = (1, 20)
_NEEDED = "Searching by words needs Qdrant 1.20 or newer, whose text index ranks by BM25"


def language_of(info: models.CollectionInfo, *, local: bool, field: str = "text") -> str | None:
    """Return the language of the index by which texts are ranked; None if there is none."""
    if local:
        kept = (info.config.metadata or {}).get(_KEY)
        return kept if isinstance(kept, str) else None
    params = getattr(info.payload_schema.get(field), "params", None)
    if not getattr(params, "scoring", None):
        return None
    language = getattr(getattr(params, "stemmer", None), "language", None)
    return _SIMPLE if language is None else str(language.value)


def no_index(label: str) -> UnsupportedError:
    """Return the error for a search by words without an index of them."""
    return UnsupportedError(
        f"Collection {label!r} has no index of the words in its texts, which mode='text' and "
        "mode='hybrid' search by. Build it once: store.build_text_index(language='english'), or on the "
        "command line toastrack ingest --text-index english."
    )


def check_language(language: str) -> None:
    """Raise ``ValueError`` for a language whose endings Qdrant does not know."""
    known = [_SIMPLE, *(one.value for one in models.SnowballLanguage)]
    if language not in known:
        raise ValueError(
            f"language={language!r} is none of Qdrant's. It has: {', '.join(known)}; 'simple' takes "
            "words as they are."
        )


def check_layout(points: Points) -> None:
    """Raise ``UnsupportedError`` for texts that have no key of their own."""
    if not points.layout.has_text_key:
        raise UnsupportedError(
            f"Collection {points.label!r} has no texts that an index of words could be of: in the "
            f"layout {points.layout.name!r} they lie within JSON. mode='vector' finds them."
        )


async def check_host(points: Points, session: RetryingSession) -> None:
    """Raise ``UnsupportedError`` where the client or the server is too old to rank by words."""
    check_layout(points)
    if not hasattr(models, "TextQuery"):
        raise UnsupportedError(
            f"Collection {points.label!r}: {_NEEDED}, and qdrant-client 1.20 or newer: "
            "pip install -U qdrant-client."
        )
    if points.host.local:
        return
    version = str((await points.call(session, "info")).version)
    read = re.match(r"v?(\d+)\.(\d+)", version)
    if read and (int(read[1]), int(read[2])) < _NEEDS:
        # It would take the index, leave out that it ranks, and say nothing.
        raise UnsupportedError(f"Collection {points.label!r}: {_NEEDED}; the server is {version}.")


def check_other(
    info: models.CollectionInfo, points: Points, language: str, *, rebuild: bool
) -> bool:
    """Tell whether that index is there; raise ``StoreError`` for another one unless ``rebuild``."""
    label, field = points.label, points.layout.text_path
    found = language_of(info, local=points.host.local, field=field)
    if found is not None and found != language and not rebuild:
        raise StoreError(
            f"Collection {label!r}: its index of words is for language={found!r}, and {language!r} "
            "was asked for. Nothing was changed. Build it anew with "
            f"build_text_index(language={language!r}, rebuild=True)."
        )
    if found is None and field in info.payload_schema and not rebuild:
        raise StoreError(
            f"Collection {label!r}: its payload field {field!r} has an index that does not rank. "
            f"Nothing was changed. build_text_index(language={language!r}, rebuild=True) puts one "
            "that does in its place; filters on the field then go by its words."
        )
    return found is not None


async def build(
    points: Points,
    session: RetryingSession,
    info: models.CollectionInfo,
    language: str,
    *,
    rebuild: bool,
) -> bool:
    """Build the index unless it is there; True if one was built."""
    check_language(language)
    await check_host(points, session)
    local, field = points.host.local, points.layout.text_path
    if check_other(info, points, language, rebuild=rebuild) and not rebuild:
        return False
    if field in info.payload_schema:
        await points.call(session, "delete_payload_index", points.label, field)
    # A local client takes words as they are, and refuses to be told of endings or stop words.
    known: dict[str, Any] = {} if local else _knowledge(language)
    params = models.TextIndexParams(
        type=models.TextIndexType.TEXT, scoring=True, phrase_matching=True, **known
    )
    await points.call(session, "create_payload_index", points.label, field, params)
    if local:
        await points.call(session, "update_collection", points.label, metadata={_KEY: language})
    return True


def _knowledge(language: str) -> dict[str, Any]:
    """Return the endings and stop words of a language, as far as the server has them."""
    known: dict[str, Any] = {"tokenizer": models.TokenizerType.WORD}
    if language == _SIMPLE:
        return known
    known["stemmer"] = models.SnowballParams(
        type=models.Snowball.SNOWBALL, language=models.SnowballLanguage(language)
    )
    if language in {one.value for one in models.Language}:
        known["stopwords"] = models.Language(language)
    return known
