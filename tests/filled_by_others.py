"""What LangChain, LlamaIndex and others put into a database with MiniLM, without a line of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pytest
from models import MXBAI_PROMPT

from toastrack import Match, Record
from toastrack.errors import SpaceMismatchError, UnsupportedError
from toastrack.stores import Store

TEXTS = [
    "Rye bread keeps for a week, since its bran holds water.",
    "Wheat dough is stretched and folded every half hour.",
    "A sourdough starter wants flour and water once a day.",
    "Salt slows the yeast down and tightens the gluten.",
    "Steam in the first ten minutes lets the crust open.",
    "A loaf is done when its core has ninety-six degrees.",
    "Croissants need cold butter and a rest between the turns.",
    "Bagels are boiled before they are baked.",
    "Pretzels get their brown skin from lye.",
    "Freeze bread in slices, and toast them from the freezer.",
    "Poolish is half water and half flour, with a pinch of yeast.",
    "Altitude makes dough rise faster, as the air is thin.",
]
IDS = [str(uuid5(NAMESPACE_URL, text)) for text in TEXTS]
METADATA: list[dict[str, Any]] = [
    {"place": place, "shelf": "top" if place < 6 else "bottom"} for place in range(len(TEXTS))
]
QUESTION = "how are bagels made?"
BAGELS = 7

Encode = Callable[[list[str]], list[list[float]]]

WRONG = {
    "another model": "none of them fits",
    "document prompt": "in front of its documents",
    "another pooling": "pooled by 'cls'",
}
"""How a collection was filled otherwise, and what is said of it."""


def refusals(peers: Iterable[str]) -> list[Any]:
    """Return every peer with every way of ``WRONG``; of each some are left to the longer run."""
    return [
        pytest.param(
            peer,
            wrong,
            id=f"{peer}-{wrong}",
            marks=[] if place % len(WRONG) == number else [pytest.mark.rest],
        )
        for place, peer in enumerate(peers)
        for number, wrong in enumerate(WRONG)
    ]


@contextmanager
def refused(wrong: str) -> Iterator[None]:
    """Expect that a collection is refused that was filled in one of the ways of ``WRONG``."""
    with pytest.raises(SpaceMismatchError, match=f"of {len(TEXTS)} texts") as caught:
        yield
    assert WRONG[wrong] in str(caught.value)


def check_read(store: Store, documents: set[str], *, has_metadata: bool = True) -> Match:
    """A store of ours that proved its model reads all of it; returns what answers ``QUESTION``."""
    assert store.space.unproven == ("query_prompt",)
    record, missing = store.get([IDS[BAGELS], "nothing"])
    assert missing is None
    assert record is not None
    assert (record.id, record.text) == (IDS[BAGELS], TEXTS[BAGELS])
    if has_metadata:
        assert METADATA[BAGELS].items() <= record.metadata.items()
    assert sorted(record.text for record in store.records()) == sorted(TEXTS)
    match = store.search(QUESTION, k=1)[0]
    assert (match.id, match.text, match.score_kind) == (IDS[BAGELS], TEXTS[BAGELS], "cosine")
    chosen = store.search(QUESTION, filter={"place": {"$lt": 3}})
    assert {found.metadata["place"] for found in chosen} == ({0, 1, 2} if has_metadata else set())
    assert store.count() == len(TEXTS)
    assert store.count(filter={"shelf": "top"}) == (6 if has_metadata else 0)
    assert store.count(documents=True) == len(documents)
    assert set(store.document_ids()) == documents
    return match


def check_only_read(
    store: Store,
    error: type[Exception] = UnsupportedError,
    why: str = r"only read.*upsert\(store.records",
) -> None:
    """Whatever would change it is refused."""
    for write in (
        lambda: store.upsert([Record("new", "Toast it.")]),
        lambda: store.replace("new", [Record("new", "Toast it.")]),
        lambda: store.delete([IDS[0]]),
        lambda: store.delete(filter={"place": 1}),
    ):
        with pytest.raises(error, match=why):
            write()


@cache
def _model(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def encoding(folder: Path, wrong: str = "") -> Encode:
    """Embed as those do who use sentence-transformers, or in one of the ways of ``WRONG``."""
    model = _model(folder)
    turned = np.random.default_rng(0).permutation(384)

    def encode(texts: list[str]) -> list[list[float]]:
        if wrong == "another pooling":
            tokens = model.encode(texts, output_value="token_embeddings")
            return [one[0].tolist() for one in tokens]
        prompt = MXBAI_PROMPT if wrong == "document prompt" else ""
        vectors = model.encode([prompt + text for text in texts])
        found: list[list[float]] = (
            vectors[:, turned] if wrong == "another model" else vectors
        ).tolist()
        return found

    return encode


def langchain_embeddings(encode: Encode) -> Any:
    """Return an embedding model of LangChain's."""
    from langchain_core.embeddings import Embeddings

    class Encoded(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return encode(texts)

        def embed_query(self, text: str) -> list[float]:
            return encode([text])[0]

    return Encoded()


def llama_index_into(store: Any, encode: Encode) -> None:
    """Fill a vector store of LlamaIndex', whose nodes are embedded with their metadata."""
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    class Encoded(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            return encode([text])[0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return encode(texts)

        def _get_query_embedding(self, query: str) -> list[float]:
            return encode([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return encode([query])[0]

    nodes: Sequence[Any] = [
        TextNode(
            id_=id,
            text=text,
            metadata=metadata,
            excluded_embed_metadata_keys=["place"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=metadata["shelf"])},
        )
        for id, text, metadata in zip(IDS, TEXTS, METADATA, strict=True)
    ]
    VectorStoreIndex(
        nodes,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=Encoded(embed_batch_size=64),
    )
