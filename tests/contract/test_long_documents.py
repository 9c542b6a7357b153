"""One match a document, and what stands around a match, in every store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from known_order import Given, nearness, number_of

from toastrack import Embedder, Record, ingest
from toastrack.stores.chunk_places import PLACE

if TYPE_CHECKING:
    from toastrack.stores.protocol import IngestStore, Store

DIMENSIONS = 32
MANY = 60
QUERY = [1.0, *[0.0] * (DIMENSIONS - 1)]


def near(far: float) -> list[float]:
    return [1 - far, far, *[0.0] * (DIMENSIONS - 2)]


def chunk(document: str, number: int, vector: Any, **metadata: object) -> Record:
    text = f"{document} part {number}"
    id = f"{document}#{number}"
    return Record(id, text, metadata, vector=vector, document_id=document, chunk=number)


def fill(store: Store, near: Callable[[float], Any]) -> Store:
    """Store a long document that is nearest by all its chunks, and some that are further away."""
    store.replace("long", [chunk("long", i, near(i / 1000), even=i % 2 == 0) for i in range(MANY)])
    store.replace("mid", [chunk("mid", i, near(0.3 + i / 100), even=True) for i in range(5)])
    store.upsert([Record("whole", "a whole one", {"even": False}, vector=near(0.4))])
    store.replace("far", [chunk("far", i, near(0.6 - i / 100), even=True) for i in range(2)])
    return store


@pytest.fixture
def filled(store: Store) -> Store:
    return fill(store, near)


def test_each_document_comes_once_by_its_best_chunk(filled: Store) -> None:
    found = filled.search(QUERY, k=10, group_by_document=True)
    assert [match.id for match in found] == ["long#0", "mid#0", "whole", "far#1"]
    assert [match.document_id for match in found] == ["long", "mid", "whole", "far"]
    for k in range(1, 5):
        assert filled.search(QUERY, k=k, group_by_document=True) == found[:k]
    assert filled.search(QUERY, k=0, group_by_document=True) == []


def test_grouping_keeps_filter_lowest_score_and_exactness(filled: Store) -> None:
    even = filled.search(QUERY, filter={"even": True}, group_by_document=True, exact=True)
    assert [match.id for match in even] == ["long#0", "mid#0", "far#1"]
    odd = filled.search(QUERY, filter={"even": False}, group_by_document=True)
    assert [match.id for match in odd] == ["long#1", "whole"]
    near_enough = filled.search(QUERY, min_score=0.8, group_by_document=True)
    assert [match.id for match in near_enough] == ["long#0", "mid#0", "whole"]


def number_if_any(text: str) -> float:
    return number_of(text) if text[-1].isdigit() else -1


def test_the_reranker_chooses_the_chunk_and_reads_on_until_there_are_enough(
    store: Store, embedder: Embedder
) -> None:
    fill(store, nearness(embedder.embed_query("q")))
    reranker = Given(number_if_any)
    found = store.search("q", k=3, rerank=reranker, candidates=20, group_by_document=True)
    assert [match.id for match in found] == ["long#59", "mid#4", "far#1"]
    read = [text for _, texts in reranker.asked for text in texts]
    assert len(read) == len(set(read)) == store.count()
    # Neighbours among the chunks are nearly as far away, and a host may swap them.
    nearest = [match.text for match in store.search("q", k=20)]
    reranker = Given(number_if_any)
    found = store.search("q", k=1, rerank=reranker, candidates=20, group_by_document=True)
    assert [match.text for match in found] == [max(nearest, key=number_of)]
    assert [len(texts) for _, texts in reranker.asked] == [20]
    # The best chunk by the score that ranks, and then its cosine.
    cosine = {match.id: match.score for match in store.search("q", k=100)}
    found = store.search(
        "q", k=9, rerank=Given(number_if_any), group_by_document=True, min_score=cosine["mid#3"]
    )
    assert [match.id for match in found] == ["long#59"]


@pytest.mark.connection
def test_the_chunks_around_a_match_are_its_context(filled: Store) -> None:
    (match,) = filled.search(near(0.3), k=1, neighbours=0, filter={"even": True}, exact=True)
    assert match.context is None
    found = filled.search(QUERY, k=4, neighbours=1, group_by_document=True)
    assert [match.context for match in found] == [
        "long part 0\n\nlong part 1",
        "mid part 0\n\nmid part 1",
        "a whole one",
        "far part 0\n\nfar part 1",
    ]
    (last,) = filled.search(near(0.344), k=1, neighbours=2)
    assert last.id == "mid#4"
    assert last.context == "mid part 2\n\nmid part 3\n\nmid part 4"
    (odd,) = filled.search(near(0.003), k=1, filter={"even": False}, neighbours=1)
    assert odd.context == "long part 2\n\nlong part 3\n\nlong part 4"
    (everything,) = filled.search(near(0.3), k=1, neighbours=10**6)
    assert everything.context == "\n\n".join(f"mid part {i}" for i in range(5))
    assert everything.to_dict()["context"] == everything.context


def test_many_matches_get_their_context(filled: Store) -> None:
    found = filled.search(QUERY, k=MANY, neighbours=1)
    for number, match in enumerate(found):
        around = [i for i in (number - 1, number, number + 1) if 0 <= i < MANY]
        assert match.context == "\n\n".join(f"long part {i}" for i in around)


WORDS = ("rye", "salt", "crumb", "a\u0308pfel", "loaf", "oven")


def long_text() -> str:
    """Return paragraphs with all kinds of white space between their words."""
    between = (" ", "  ", "\n", " \t", "\n\n", "\n \n\n", ". ")
    return "".join(f"{WORDS[i % 6]}{i}{between[i % 7]}" for i in range(400)) + "end"


@pytest.mark.parametrize("overlap", [0, 6])
def test_context_is_the_document_as_it_was_written(store: IngestStore, overlap: int) -> None:
    text = long_text()
    report = ingest([Record("doc", f"\n {text}", {"lang": "en"})], store, overlap=overlap)
    assert report.chunks > 4
    found = store.search("salt", k=report.chunks, neighbours=1)
    for match in found:
        assert match.context is not None
        assert match.context in text
        assert match.text in match.context
        assert match.metadata == {"lang": "en"}
    (whole,) = store.search("salt", k=1, neighbours=report.chunks)
    assert whole.context == text
    again = ingest([Record("doc", f"\n {text}", {"lang": "en"})], store, overlap=overlap)
    assert (again.embedded, again.written, again.unchanged) == (0, 0, report.chunks)


def test_a_copy_keeps_the_places(make_store: Callable[..., Any]) -> None:
    store, copy = make_store(), make_store(collection="copy")
    ingest([Record("doc", long_text())], store)
    assert all(PLACE in record.metadata for record in store.records())
    assert copy.upsert(store.records(vectors=True)).embedded == 0
    (match,) = copy.search("salt", k=1, neighbours=100)
    assert match.context == long_text()


def test_what_was_stored_without_places_gets_them_and_is_not_embedded(store: IngestStore) -> None:
    documents = [Record("doc", long_text())]
    ingest(documents, store)
    bare = [
        Record(record.id, record.text, {}, document_id="doc", chunk=record.chunk)
        for record in store.records()
    ]
    store.replace("doc", bare)
    parts = sorted(bare, key=lambda record: record.chunk or 0)
    (match,) = store.search("salt", k=1, neighbours=100)
    assert match.context == "\n\n".join(part.text for part in parts)
    assert ingest(documents, store).embedded == 0
    (match,) = store.search("salt", k=1, neighbours=100)
    assert match.context == long_text()


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
def test_what_is_no_number_of_neighbours_is_refused(store: Store, wrong: Any) -> None:
    with pytest.raises(ValueError, match="neighbours="):
        store.search("salt", neighbours=wrong)
