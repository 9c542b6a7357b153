"""Whether a text is a query or a document, in the words of all who ask for embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toastrack.models.prompts import Prompts, Role
from toastrack.serve.refusals import Refusal, wrong, wrong_value

# Voyage, NVIDIA, sentence-transformers and text-embeddings-inference: query; Cohere and Nomic:
# search_query; Google: RETRIEVAL_QUERY; Jina: retrieval.query and others with a dot before the role.
_WORDS: Mapping[str, Role] = {
    "query": "query",
    "search_query": "query",
    "retrieval_query": "query",
    "document": "document",
    "passage": "document",
    "corpus": "document",
    "search_document": "document",
    "retrieval_document": "document",
}
_FIELDS = ("input_type", "prompt_name", "task", "task_type")
_TAKES = (
    'for a query "query", "search_query" or "retrieval.query", and for a document "document", '
    '"passage", "search_document" or "retrieval.passage"'
)


def split_name(model: str, names: Mapping[str, Any]) -> tuple[str, Role | None]:
    """Read ``MODEL:query`` as a model and a role, for clients that can name nothing but a model."""
    name, _, word = model.rpartition(":")
    if model not in names and name in names:
        if word in ("query", "document"):
            return name, _WORDS[word]
        raise Refusal(
            404,
            f"{name!r} is served as {name!r}, '{name}:query' and '{name}:document', and not as {model!r}.",
            param="model",
            code="model_not_found",
        )
    return model, None


def role_of(body: Mapping[str, Any], named: Role | None, prompts: Prompts) -> Role:
    """Return the role that a request names, wherever it does; none is a document's.

    Raises ``Refusal`` for a word that is no role, a prompt that is not the model's, or two roles.
    """
    found: dict[str, Role] = {} if named is None else {"model": named}
    for field in _FIELDS:
        word = body.get(field)
        if word is None:
            continue
        role = _WORDS.get(word.lower().rpartition(".")[2]) if isinstance(word, str) else None
        if role is None:
            raise wrong_value(field, word, f"{_TAKES}; this model has no prompt for other tasks")
        found[field] = role
    if body.get("prompt") is not None:
        found["prompt"] = _role_of_prompt(body["prompt"], prompts)
    if len(set(found.values())) > 1:
        said = " and ".join(f"{field} says {role}" for field, role in found.items())
        raise wrong(list(found)[-1], f"{said}. Leave one of them out.")
    return next(iter(found.values()), "document")


def _role_of_prompt(prompt: object, prompts: Prompts) -> Role:
    """Return the role whose prompt this is; mixedbread's API takes one beside the texts."""
    if isinstance(prompt, str):
        for role in ("document", "query"):
            if _bare(prompt) == _bare(prompts.of(role)):
                return role
    raise wrong_value(
        "prompt",
        prompt,
        f"this model's own prompts, {prompts.query!r} for a query and {prompts.document!r} for a "
        'document. Leave it out and send "input_type": "query" for queries',
    )


def _bare(prompt: str) -> str:
    return prompt.strip().removesuffix(":").rstrip()
