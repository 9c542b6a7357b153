"""What is asked with nothing, or of nothing, is answered alike by every store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toastrack import Record, Reranker, ingest
from toastrack.errors import FilterError, SourceError, ToastrackError
from toastrack.stores import Store

AXES = np.eye(32, dtype=np.float32)
RECORDS = [
    Record("a", "rye", {"n": 1}, vector=AXES[0]),
    Record("b", "wheat", {"n": 2}, vector=AXES[1]),
    Record("c#0", "salt", {"n": 3}, document_id="c", chunk=0, vector=AXES[2]),
]


def numbers(report: Any) -> dict[str, int]:
    """The counts of a report that are not 0."""
    names = ("read", "chunks", "embedded", "unchanged", "written", "deleted", "skipped")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def ids(matches: Any) -> list[str]:
    return sorted(match.id for match in matches)


NOTHING: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "upsert a list": (lambda store: numbers(store.upsert([])), {}),
    "upsert a generator": (lambda store: numbers(store.upsert(iter(()))), {}),
    "replace_many a list": (lambda store: numbers(store.replace_many([])), {}),
    "replace_many a generator": (lambda store: numbers(store.replace_many(iter(()))), {}),
    "replace what is not there": (lambda store: numbers(store.replace("x", [])), {"read": 1}),
    "replace the empty document": (lambda store: numbers(store.replace("", iter(()))), {"read": 1}),
    "delete a list": (lambda store: store.delete([]), 0),
    "delete a generator": (lambda store: store.delete(iter(())), 0),
    "delete no documents": (lambda store: store.delete(documents=iter(())), 0),
    "delete neither": (lambda store: store.delete([], []), 0),
    "delete the empty id": (lambda store: store.delete([""], [""]), 0),
    "delete what nothing matches": (lambda store: store.delete(filter={"n": {"$in": []}}), 0),
    "get a list": (lambda store: store.get([]), []),
    "get a generator": (lambda store: store.get(iter(()), vectors=True), []),
    "get the empty id": (lambda store: store.get([""]), [None]),
    "get the empty id's vector": (lambda store: store.get(["", ""], vectors=True), [None, None]),
    "records of nothing": (lambda store: list(store.records({"n": {"$in": []}})), []),
    "count nothing": (lambda store: store.count(filter={"n": {"$in": []}}), 0),
    "count documents of nothing": (lambda store: store.count(True, {"n": {"$in": []}}), 0),
    "search for none": (lambda store: store.search("rye", 0), []),
    "search among none": (lambda store: store.search("rye", 3, {"n": {"$in": []}}), []),
    "search among none exactly": (lambda store: store.search(AXES[0], 3, {"x": 1}, True), []),
    "search above all": (lambda store: store.search(-AXES[0], 3, min_score=1.0), []),
}
REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "delete with no argument": (lambda store: store.delete(), ValueError),
    "delete by an empty filter": (lambda store: store.delete(filter={}), FilterError),
    "rerank for a blank query": (
        lambda store: store.search(" ", rerank=Reranker("nowhere/at-all")),
        ValueError,
    ),
    "search with no vector": (lambda store: store.search([]), ValueError),
    "ingest a list": (lambda store: ingest([], store), SourceError),
    "ingest a generator": (lambda store: ingest(iter(()), store, source="here"), SourceError),
    "ingest nothing and prune": (lambda store: ingest(iter(()), store, prune=True), SourceError),
}
EVERYTHING: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "records": (lambda store: ids(store.records()), ["a", "b", "c#0"]),
    "records with an empty filter": (
        lambda store: ids(store.records({}, vectors=True)),
        ["a", "b", "c#0"],
    ),
    "document_ids": (lambda store: sorted(store.document_ids()), ["a", "b", "c"]),
    "count": (lambda store: store.count(), 3),
    "count with an empty filter": (lambda store: store.count(filter={}), 3),
    "count documents with an empty filter": (lambda store: store.count(True, {}), 3),
    "search with an empty filter": (
        lambda store: ids(store.search(AXES[0], 9, {})),
        ["a", "b", "c#0"],
    ),
    "search exactly": (lambda store: ids(store.search("rye", 9, {}, True)), ["a", "b", "c#0"]),
    "search with an empty query": (lambda store: ids(store.search("", 9)), ["a", "b", "c#0"]),
}


def check(store: Store, expected: dict[str, tuple[Callable[[Any], Any], Any]]) -> None:
    """Make all calls before any is judged, so that one difference does not hide others."""
    found: dict[str, Any] = {}
    for name, (call, _) in expected.items():
        try:
            found[name] = call(store)
        except Exception as error:
            found[name] = error
    wrong = {name: found[name] for name, (_, answer) in expected.items() if found[name] != answer}
    assert not wrong


def check_refused(store: Store) -> None:
    for name, (call, kind) in REFUSED.items():
        with pytest.raises(kind) as caught:
            pytest.fail(f"{name}: {call(store)!r}")
        assert str(caught.value), name
        assert kind is not FilterError or isinstance(caught.value, ToastrackError)


def test_nothing_of_a_filled_store(store: Store) -> None:
    store.upsert(RECORDS)
    check(store, NOTHING)
    check_refused(store)
    check(store, EVERYTHING)
    assert store.build_index(filter_fields=()) in (True, False)
    check(store, EVERYTHING)


def test_anything_of_an_empty_store(store: Store, cross_encoder_folder: Path) -> None:
    check(store, NOTHING)
    check_refused(store)
    empty = {"count": 0, "count with an empty filter": 0, "count documents with an empty filter": 0}
    check(store, {name: (call, empty.get(name, [])) for name, (call, _) in EVERYTHING.items()})
    searching: Any = store
    assert searching.search("rye", rerank=Reranker(cross_encoder_folder), candidates=5) == []
    assert store.build_index() in (True, False)
    assert store.count() == 0
