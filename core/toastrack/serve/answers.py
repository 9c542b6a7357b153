"""Requests for vectors and scores: what they ask for, and the answers, as their clients know them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from toastrack.batching.truncation import TruncationCounter
from toastrack.embedder import Embedder
from toastrack.models.prompts import Role
from toastrack.reranker import Reranker
from toastrack.serve.reading import flag, texts_of, whole_number
from toastrack.serve.refusals import Refusal, wrong, wrong_value
from toastrack.serve.roles import role_of
from toastrack.utils import arrays

Encoding = Literal["float", "base64"]

_CUTS: Mapping[str, bool] = {"end": True, "right": True, "none": False}


@dataclass(frozen=True)
class Answer:
    """The content of an answer, and the headers that say what was done with the texts."""

    content: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class Counted(TruncationCounter):
    """Counts the tokens of a request; a text over the limit is cut, or refused where that is wanted."""

    def __init__(self, *, cuts: bool, noun: str) -> None:
        super().__init__("ignore", "")
        self._cuts = cuts
        self._noun = noun

    def add(
        self, uncut: Sequence[int], limit: int, *, first: int, name: Callable[[int], str]
    ) -> None:
        """Note the token counts of some texts."""
        super().add(uncut, limit, first=first, name=name)
        if self.cut and not self._cuts:
            raise Refusal(
                400,
                f"A {self._noun} has {self.longest:,} tokens, over the limit of {limit:,}. Split it, or let "
                'it be cut with "truncate": true.',
                code="context_length_exceeded",
            )

    @property
    def usage(self) -> dict[str, int]:
        """The tokens that were read."""
        return {"prompt_tokens": self.tokens, "total_tokens": self.tokens}

    @property
    def headers(self) -> dict[str, str]:
        """Say that texts were cut."""
        return {"x-toastrack-truncated": str(self.cut)} if self.cut else {}


@dataclass(frozen=True)
class EmbeddingRequest:
    """What a request for embeddings asks for."""

    texts: list[str]
    role: Role
    dimensions: int | None
    encoding: Encoding
    cuts: bool

    @classmethod
    def read(
        cls,
        body: Mapping[str, Any],
        embedder: Embedder,
        *,
        named: Role | None,
        most: int,
        cuts: bool,
    ) -> EmbeddingRequest:
        """Read the fields that change a vector; raises ``Refusal`` for those that cannot be followed."""
        role = role_of(body, named, embedder.prompts)
        if not flag(body, ("normalized", "normalize"), True):
            raise wrong("normalized", "Vectors are of length 1 here. Leave normalized out.")
        if flag(body, ("late_chunking",), False):
            raise wrong("late_chunking", "Each text has its own vector. Leave late_chunking out.")
        return cls(
            texts=texts_of(body, ("input",), most),
            role=role,
            dimensions=whole_number(
                body, ("dimensions", "output_dimension", "truncate_dim"), embedder.dimensions
            ),
            encoding=_encoding(body),
            cuts=_cuts(body, cuts),
        )

    async def answer(self, embedder: Embedder, model: str) -> Answer:
        """Embed the texts."""
        counted = Counted(cuts=self.cuts, noun=self.role)
        vectors = await embedder._acounted(self.texts, self.role, counted)
        if self.dimensions is not None:
            vectors = _kept(vectors, self.dimensions)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, self.encoding)}
            for index, vector in enumerate(vectors)
        ]
        return Answer(
            {"object": "list", "data": data, "model": model, "usage": counted.usage},
            {"x-toastrack-role": self.role, **counted.headers},
        )


@dataclass(frozen=True)
class RerankRequest:
    """What a request for scores asks for."""

    query: str
    documents: list[str]
    k: int | None
    with_texts: bool
    raw: bool
    cuts: bool

    @classmethod
    def read(cls, body: Mapping[str, Any], *, most: int, cuts: bool, raw: bool) -> RerankRequest:
        """Read the fields in the words of Cohere, Jina, mixedbread and text-embeddings-inference."""
        query = body.get("query")
        if not isinstance(query, str) or not query.strip():
            raise wrong("query", "query is missing or blank. It takes what is looked for.")
        return cls(
            query=query,
            documents=texts_of(body, ("documents", "texts", "input"), most),
            k=whole_number(body, ("top_n", "top_k"), 2**31),
            with_texts=flag(body, ("return_documents", "return_input", "return_text"), False),
            raw=flag(body, ("raw_scores",), raw),
            cuts=_cuts(body, cuts),
        )

    async def answer(self, reranker: Reranker, model: str, *, of_mixedbread: bool) -> Answer:
        """Score the documents, best first."""
        import numpy as np

        counted = Counted(cuts=self.cuts, noun="query with its document")
        scores = (await reranker._acounted(self.query, self.documents, counted)).astype(np.float64)
        order = np.argsort(-scores, kind="stable")[: self.k]
        if not self.raw:
            scores = 1 / (1 + np.exp(-scores))
        called, holder, text = (
            ("score", "data", "input")
            if of_mixedbread
            else ("relevance_score", "results", "document")
        )
        found = []
        for index in order.tolist():
            item: dict[str, Any] = {"index": index, called: float(scores[index])}
            if of_mixedbread:
                item |= {"object": "rank_result", "input": None}
            if self.with_texts:
                document = self.documents[index]
                item[text] = document if of_mixedbread else {"text": document}
            found.append(item)
        content = {"object": "list", "model": model, holder: found, "usage": counted.usage}
        return Answer(content, counted.headers)


def _encoding(body: Mapping[str, Any]) -> Encoding:
    names = ("encoding_format", "embedding_type", "output_dtype")
    name = next((name for name in names if body.get(name) is not None), names[0])
    value = body.get(name)
    words = value if isinstance(value, list) else ["float" if value is None else value]
    if words == ["float"]:
        return "float"
    if words == ["base64"]:
        return "base64"
    raise wrong_value(name, value, '"float" or "base64", one of them')


def _cuts(body: Mapping[str, Any], default: bool) -> bool:
    """Return whether a text over the limit is cut; some say it with a word."""
    word = body.get("truncate")
    if isinstance(word, str):
        if word.lower() not in _CUTS:
            raise wrong_value("truncate", word, '"END", which cuts the end of a text, or "NONE"')
        return _CUTS[word.lower()]
    return flag(body, ("truncate", "truncation"), default)


def _kept(vectors: arrays.FloatMatrix, dimensions: int) -> arrays.FloatMatrix:
    """Return the first numbers of vectors, at length 1 again."""
    import numpy as np

    kept = vectors[:, :dimensions]
    norms = np.linalg.norm(kept.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        raise wrong("dimensions", f"A vector has only zeros in its first {dimensions} numbers.")
    unit: arrays.FloatMatrix = (kept / norms).astype(np.float32)
    return unit


def _written(vector: arrays.FloatVector, encoding: Encoding) -> Any:
    """Write a vector as its numbers, which orjson reads out of the array, or as their bytes."""
    if encoding == "float":
        return vector
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
