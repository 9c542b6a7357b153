"""Which prompt a model wants for which role, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from toastrack.models.known_models import KnownModel

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
    *,
    query: str | None,
    document: str | None,
    saved: Mapping[Role, str] | None,
    known: KnownModel | None,
    known_by: str,
) -> Prompts:
    """Decide both prompts: the caller's, else the model's saved ones, else the table, else none."""
    if saved is not None:
        default = (saved["query"], saved["document"], "saved with the model")
    elif known is not None:
        default = (known.query, known.document, f"{known_by}, {known.source}")
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
