"""One model on one server, shared by all in the process that ask for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Lock, RLock
from typing import Any, Literal
from weakref import WeakValueDictionary

from toastrack.errors import ModelError, RefusedError
from toastrack.hosted.client import Answer, Client
from toastrack.hosted.replies import scores_of, tokens_of, vectors_of
from toastrack.hosted.settings import Hosted, Usage
from toastrack.models.prompts import Role
from toastrack.space import EmbeddingSpace
from toastrack.utils import arrays
from toastrack.utils.forks import after_fork, keep_for_ever

# What is wrong with the texts of a request, and not with all requests.
_REFUSED = (400, 413, 422)
_TOO_LARGE = 413
# What servers without a list of models answer when they are asked for it.
_NO_LIST = (400, 401, 403, 404, 405, 501)


class ModelServer:
    """Asks a server for the vectors and scores of one of its models.

    ``dimensions`` is what the server is asked to cut vectors to; None leaves them whole.
    """

    def __init__(self, model: str, hosted: Hosted, dimensions: int | None) -> None:
        self.model = model
        self.hosted = hosted
        self.client = Client(hosted)
        self.most_texts = hosted.most_texts
        self._asked_dimensions = dimensions
        self._lock = RLock()
        self._counting = Lock()
        self._usage = Usage(0, 0)
        self._size: int | None = None
        self._described: tuple[EmbeddingSpace | None] | None = None
        self._takes_texts = False

    def __str__(self) -> str:
        return f"{self.model} at {self.hosted.url}"

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._usage

    @property
    def prompt_by(self) -> Literal["role", "field", "prefix"]:
        """How the prompt of a text gets there."""
        if self.hosted.prompt_by != "auto":
            return self.hosted.prompt_by
        if self.hosted.is_mixedbread:
            return "field"
        return "prefix" if self.described_space is None else "role"

    @property
    def described_space(self) -> EmbeddingSpace | None:
        """The space of the vectors, from a server that tells it: ``toastrack serve``.

        Raises ``ModelError`` if the server does not answer at all.
        """
        if self.hosted.is_mixedbread:
            return None
        with self._lock:
            if self._described is None:
                self._described = (self._ask_for_space(),)
            return self._described[0]

    @property
    def size(self) -> int:
        """How many numbers the server's vectors have; found out with the first of them."""
        with self._lock:
            if self._size is None:
                self.embed(["size"], {})
            assert self._size is not None
            return self._size

    @property
    def known_size(self) -> int | None:
        """The same, or None while it would take a request to know it."""
        return self._size

    def fields(self, role: Role, prompt: str) -> Mapping[str, str]:
        """Return what stands beside the texts of a role, for their prompt."""
        if self.prompt_by == "role":
            return {"input_type": role}
        return {"prompt": prompt} if self.prompt_by == "field" and prompt else {}

    def embed(self, texts: Sequence[str], fields: Mapping[str, str]) -> arrays.FloatMatrix:
        """Return one vector a text, as the server made it, in the order of the texts."""
        body: dict[str, Any] = {"model": self.model, "encoding_format": "float", **fields}
        if self._asked_dimensions is not None:
            body["dimensions"] = self._asked_dimensions
        vectors = self._in_parts(texts, lambda some, end: self._embed(body, some, end))
        size = vectors.shape[1]
        with self._lock:
            if self._asked_dimensions is not None and size != self._asked_dimensions:
                raise ModelError(
                    f"{self} answers with vectors of {size} numbers where "
                    f"{self._asked_dimensions} were asked for. Leave dimensions_by= out: they are "
                    "cut here then."
                )
            if self._size not in (None, size):
                raise ModelError(
                    f"{self} now answers with vectors of {size} numbers, and did with {self._size}: "
                    "another model runs there. Build the embedder anew."
                )
            self._size = size
        return vectors

    def score(self, query: str, documents: Sequence[str]) -> arrays.FloatMatrix:
        """Return the score of each document, float32 of shape ``(n, 1)``, in their order."""
        return self._in_parts(documents, lambda some, end: self._score(query, some, end))

    def _embed(
        self, body: Mapping[str, Any], texts: Sequence[str], end: float
    ) -> arrays.FloatMatrix | Answer:
        answer = self.client.request("POST", "/embeddings", {**body, "input": texts}, end=end)
        if not answer.is_fine:
            return answer
        vectors = vectors_of(answer.content, len(texts))
        self._count(answer)
        return vectors

    def _score(
        self, query: str, documents: Sequence[str], end: float
    ) -> arrays.FloatMatrix | Answer:
        path, name = "/rerank", "texts" if self._takes_texts else "documents"
        if self.hosted.is_mixedbread:
            path, name = "/reranking", "input"
        body = {"model": self.model, "query": query, name: documents}
        answer = self.client.request("POST", path, body, end=end)
        if name == "documents" and answer.status in _REFUSED and "`texts`" in answer.said:
            # text-embeddings-inference has a word of its own, and says so.
            self._takes_texts = True
            return self._score(query, documents, end)
        if not answer.is_fine:
            return answer
        scores = scores_of(answer.content, len(documents))
        self._count(answer)
        return scores

    def _in_parts(self, texts: Sequence[str], ask: Any) -> arrays.FloatMatrix:
        """Ask for all texts at once, and for halves of what is too much for the server."""
        import numpy as np

        end = time.monotonic() + self.hosted.timeout
        waiting, parts = [list(texts)], []
        while waiting:
            some = waiting.pop()
            answer = ask(some, end)
            if not isinstance(answer, Answer):
                parts.append(answer)
            elif answer.status == _TOO_LARGE and len(some) > 1:
                half = len(some) // 2
                waiting += [some[half:], some[:half]]
            else:
                raise self._refusal(answer, some)
        if len({part.shape[1] for part in parts}) != 1:
            raise ModelError(f"{self} answers with vectors of another size each time.")
        if len(parts) > 1:
            # Of what was too much, none was one text alone that no server takes.
            self.most_texts = min(self.most_texts, max(map(len, parts)))
        matrix: arrays.FloatMatrix = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return matrix

    def _refusal(self, answer: Answer, texts: Sequence[str]) -> ModelError:
        said = f": {answer.said}" if answer.said else ""
        if answer.status in (401, 403):
            return ModelError(
                f"{self.hosted.host} does not take the key (status {answer.status}){said}. It was "
                f"looked for in {self.hosted.key_name}."
            )
        if answer.status == 404:
            return ModelError(
                f"{self.hosted.url} has no model {self.model!r}, or is no address of a server like "
                f"OpenAI's (status 404){said}. Mostly base_url= ends with /v1."
            )
        if answer.status in _REFUSED:
            longest = max(map(len, texts))
            return RefusedError(
                f"{self} refuses {len(texts)} texts, the longest of {longest:,} characters (status "
                f"{answer.status}){said}."
            )
        status = f" (status {answer.status})" if answer.status else ""
        return ModelError(f"{self} cannot be asked{status}{said}.")

    def _ask_for_space(self) -> EmbeddingSpace | None:
        end = time.monotonic() + self.hosted.timeout
        answer = self.client.request("GET", "/models", end=end)
        if not answer.is_fine:
            if answer.status in _NO_LIST:
                return None
            raise self._refusal(answer, [""])
        listed = answer.content.get("data") if isinstance(answer.content, Mapping) else None
        for item in listed if isinstance(listed, list) else []:
            if isinstance(item, Mapping) and item.get("id") == self.model:
                space = item.get("space")
                try:
                    return EmbeddingSpace.from_dict(space) if isinstance(space, Mapping) else None
                except ValueError as error:
                    raise ModelError(f"{self} tells a space that cannot be read: {error}") from None
        return None

    def _count(self, answer: Answer) -> None:
        with self._counting:
            requests, tokens = self._usage
            self._usage = Usage(requests + 1, tokens + tokens_of(answer.content))


_servers: WeakValueDictionary[tuple[object, ...], ModelServer] = WeakValueDictionary()
_lock = Lock()


def shared_server(model: str, hosted: Hosted, dimensions: int | None) -> ModelServer:
    """Return the server for a model; who asks for the same shares one."""
    key = (model, hosted, dimensions)
    with _lock:
        server = _servers.get(key)
        if server is None:
            server = _servers[key] = ModelServer(model, hosted, dimensions)
        return server


def _start_anew() -> None:
    global _lock
    _lock = Lock()
    for server in list(_servers.values()):
        keep_for_ever(server)  # its connections are the parent's
    _servers.clear()


after_fork(_start_anew)
