"""What usually went wrong where stored vectors are not an embedder's: each is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, NamedTuple

from toastrack.embedder import Embedder, EmbedderSettings
from toastrack.errors import ModelError, ToastrackError
from toastrack.hosted.model import HostedModel
from toastrack.models.known_models import KNOWN
from toastrack.models.other_pooling import other_pooling, pooled
from toastrack.stores.embedded_text import with_fields
from toastrack.stores.sampled import AGREES, Sampled, another, cosines, counts_tokens

# Two tell that something is wrong, and so many that it is right.
_FIRST = 2
_ALL = 16
# Limits that models have, and libraries set.
_LIMITS = (32, 64, 128, 256, 384, 512, 1_024, 2_048, 4_096)


class Suspect(NamedTuple):
    """One thing that may have gone wrong."""

    name: str
    settings: EmbedderSettings
    """Of an embedder that does the same."""
    text: Callable[[Sampled], str] = lambda one: one.text
    opens: bool = True
    """Such an embedder opens the collection."""


def suspect(embedder: Embedder, sampled: Sequence[Sampled], doubt: str) -> str:
    """Say in sentences what fits the stored vectors, and if nothing does what was tried.

    Args:
        embedder: The one whose vectors they are not.
        sampled: Texts with the stored vectors; those first that differ most.
        doubt: Why the texts may be other ones than were embedded; "" if nothing says so.
    """
    if not sampled:
        return "No text of it is short enough to be compared."
    size = len(sampled[0].vector)
    full = another(embedder, {"dimensions": None})
    if size > full.dimensions:
        return f"{embedder.model!r} makes no more than {full.dimensions} numbers a vector."
    cut: EmbedderSettings = {} if size == embedder.dimensions else {"dimensions": size}
    tried: list[str] = []
    is_missing = False
    with ExitStack() as stack:
        suspects = _suspects(full, sampled, is_cut=bool(cut))
        for one in chain(suspects, _poolings(full, stack)):
            agrees, why = _fits(full, one, sampled)
            if agrees:
                return _said(embedder, one, cut)
            is_missing = is_missing or bool(why)
            tried.append(f"{one.name} (not tried: {why})" if why else one.name)
    sentences = [f"Tried, and none of them fits: {'; '.join(tried)}."]
    if doubt:
        sentences.append(
            f"But what was embedded is not known: {doubt}. If it was this model, adopt='unchecked' "
            "believes you."
        )
    elif is_missing:
        sentences.append("What was not tried may fit.")
    else:
        sentences.append("It was another model, or other texts than are stored were embedded.")
    return " ".join(sentences)


def _suspects(embedder: Embedder, sampled: Sequence[Sampled], *, is_cut: bool) -> Iterator[Suspect]:
    if is_cut:
        yield Suspect("its vectors are the first numbers of this model's", {})
    ours = embedder.document_prompt
    if embedder.query_prompt not in ("", ours):
        name = "the query prompt is in front of its documents"
        yield Suspect(name, {"document_prompt": embedder.query_prompt})
    if ours:
        yield Suspect("no prompt is in front of its documents", {"document_prompt": ""})
    known = {prompt for model in KNOWN for prompt in (model.query, model.document)}
    for prompt in sorted(known - {"", ours, embedder.query_prompt}):
        yield Suspect(
            f"the prompt {prompt!r} is in front of its documents", {"document_prompt": prompt}
        )
    if any(one.text != one.record.text for one in sampled):
        name = "the text alone was embedded, without its fields"
        yield Suspect(name, {}, lambda one: one.record.text, opens=False)
    elif any(one.record.metadata for one in sampled):
        name = "the fields of the metadata are in front of its texts"
        yield Suspect(name, {}, _behind_fields, opens=False)
    if any("\n" in one.text for one in sampled):
        name = "line breaks became spaces"
        yield Suspect(name, {}, lambda one: one.text.replace("\n", " "), opens=False)
    if not counts_tokens(embedder):
        return
    longest = max(embedder.count_tokens(one.text) for one in sampled)
    for limit in _LIMITS:
        if limit < min(longest, embedder.max_tokens):
            yield Suspect(f"its texts were cut at {limit} tokens", {"max_tokens": limit})


def _behind_fields(one: Sampled) -> str:
    return with_fields(one.text, one.record.metadata)


def _poolings(embedder: Embedder, stack: ExitStack) -> Iterator[Suspect]:
    """Yield the model with another pooling: its weights are loaded once more for that."""
    model = embedder._model
    if isinstance(model, HostedModel):
        return
    pooling = other_pooling(folder := model.files.folder())
    if pooling is None:
        return
    other = str(stack.enter_context(pooled(folder, pooling)))
    prompts = dict.fromkeys((embedder.document_prompt, embedder.query_prompt, ""))
    for prompt in prompts:
        front = ""
        if prompt != embedder.document_prompt:
            front = f", with {f'the prompt {prompt!r}' if prompt else 'no prompt'}"
        yield Suspect(
            f"its tokens were pooled by {pooling!r}{front}",
            {
                "model": other,
                "revision": None,
                "document_prompt": prompt,
                "query_prompt": embedder.query_prompt,
                "max_tokens": embedder.max_tokens,
            },
            opens=False,
        )


def _fits(embedder: Embedder, one: Suspect, sampled: Sequence[Sampled]) -> tuple[bool, str]:
    """Tell whether vectors agree, or why they cannot be made."""
    try:
        suspected = another(embedder, one.settings)
        for some in (sampled[:_FIRST], sampled[_FIRST:_ALL]):
            if some and _lowest(suspected, some, [one.text(each) for each in some]) < AGREES:
                return False, ""
    except ModelError as error:
        if embedder.hosted is None:
            return False, ""
        return False, f"{error!s:.200}"  # a server may be away at that moment
    except (ToastrackError, ValueError):
        return False, ""  # such as a prompt that leaves a text no room
    return True, ""


def _lowest(embedder: Embedder, sampled: Sequence[Sampled], texts: Sequence[str]) -> Any:
    return cosines(embedder, sampled, texts).min()


def _said(embedder: Embedder, found: Suspect, cut: EmbedderSettings) -> str:
    settings: dict[str, Any] = {**found.settings, **cut}
    if found.opens:
        if embedder.hosted is not None:
            settings["engine"] = embedder.hosted
        arguments = "".join(f", {name}={value!r}" for name, value in settings.items())
        return (
            f"What fits: {found.name}. Open it with Embedder({embedder.model!r}{arguments}), or "
            "embed its texts anew."
        )
    if "model" in settings:
        return f"What fits: {found.name}, which is another space. Embed its texts anew."
    return (
        f"What fits: {found.name}. The model is this one; adopt='unchecked' takes the collection "
        "as it is."
    )
