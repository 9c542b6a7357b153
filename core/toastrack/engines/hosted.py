"""The engines that leave the work to a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toastrack.hosted.server import ModelServer
from toastrack.models.prompts import Role, add_prompt
from toastrack.models.tokenizer import Tokenizer, Tokens
from toastrack.utils import arrays

# Bytes of text in a request, counted as if all its texts were as long as the longest.
_BATCH_BYTES = 1024 * 1024


class _Asking:
    """What both have in common: a text is read as its UTF-8, and a request holds so much of it."""

    name = "hosted"
    batch_tokens = _BATCH_BYTES
    may_be_left = True

    def __init__(self, server: ModelServer) -> None:
        self.server = server

    def __str__(self) -> str:
        return f"{self.name}: {self.server}"

    @property
    def batch_texts(self) -> int | None:
        """How many texts a request holds, by what the server has taken so far."""
        return self.server.most_texts


class HostedEngine(_Asking):
    """Makes vectors by asking a server for them."""

    def __init__(self, server: ModelServer) -> None:
        super().__init__(server)
        self._fields: dict[str, Mapping[str, str]] = {}

    def wire_prompt(self, role: Role, prompt: str) -> str:
        """Return what tells the texts of a role and prompt from others, which need other requests."""
        fields = self.server.fields(role, prompt)
        key = " ".join(f"{name}={value}" for name, value in fields.items())
        self._fields[key] = fields
        return key

    def prepare(
        self, texts: Sequence[str], prompt: str, tokenizer: Tokenizer | None, limit: int
    ) -> list[Tokens]:
        """Put the prompt before texts where that is ours to do, and cut them where that can be done.

        Without a tokenizer they go as they are, and nobody knows how many tokens they have.
        """
        prompted = [add_prompt(prompt, text) for text in texts]
        uncut = [0] * len(texts)
        if tokenizer is not None:
            uncut = tokenizer.counts(prompted)
            prompted = [
                tokenizer.cut(text, limit) if count > limit else text
                for text, count in zip(prompted, uncut, strict=True)
            ]
        if self.server.prompt_by != "prefix":
            prompted = [text.removeprefix(prompt) for text in prompted]
        return [Tokens(text.encode(), count) for text, count in zip(prompted, uncut, strict=True)]

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one raw vector a text."""
        return self.server.embed([_text(item) for item in batch], self._fields[prompt])


class HostedReranker(_Asking):
    """Scores documents beside a query by asking a server; a request has one query."""

    def prepare(self, documents: Sequence[str]) -> list[Tokens]:
        """Read documents as they are sent."""
        return [Tokens(text.encode(), 0) for text in documents]

    def run(self, batch: Sequence[Tokens], *, prompt: str) -> arrays.FloatMatrix:
        """Return one score a document; ``prompt`` is the query."""
        return self.server.score(prompt, [_text(item) for item in batch])


def _text(item: Tokens) -> str:
    return bytes(item.ids).decode()
