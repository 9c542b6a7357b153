"""Two writers at once, as threads and hosts have it, end as if one had come after the other."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from at_once import at_once

from toastrack import Record
from toastrack.errors import StoreError
from toastrack.stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract.conftest import MakeStore

# TOASTRACK_ROUNDS=150 looks longer, in the tests that are marked "rest".
MANY = int(os.environ.get("TOASTRACK_ROUNDS", "12"))
ROUNDS = pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(6, id="6 rounds"),
        pytest.param(MANY, id=f"{MANY} rounds", marks=pytest.mark.rest),
    ],
)


def both(one: Callable[[], Any], other: Callable[[], Any]) -> bool:
    """Make two calls at once; True if both returned, and so promise something."""

    def call(function: Callable[[], Any]) -> bool:
        try:
            function()
        except StoreError as error:
            if "another writer is changing document" not in str(error):
                raise
            return False
        return True

    return all(at_once(lambda: call(one), lambda: call(other)))


def stored(store: Store, ids: list[str]) -> list[Record]:
    return [record for record in store.get(ids) if record is not None]


@ROUNDS
@pytest.mark.parametrize("there", ["a new document", "a document that is there"])
def test_two_replaces_of_one_document_leave_one_of_both(
    make_store: MakeStore, rounds: int, there: str
) -> None:
    stores = make_store(), make_store()
    stores[0].open()
    for number in range(rounds):
        names = [f"{letter}{number}" for letter in "abc"]
        document = f"d{number}"
        a, b, c = (
            Record(name, text, {"n": number}, document_id=document)
            for name, text in zip(names, ("rye", "salt", "wheat"), strict=True)
        )
        if there != "a new document":
            stores[0].replace(document, [a, b])
        returned = both(
            partial(stores[0].replace, document, [a, b]),
            partial(stores[1].replace, document, [b, c]),
        )
        if returned:
            assert stored(stores[0], names) in ([a, b], [b, c]), f"round {number}"


@ROUNDS
def test_a_replaced_and_deleted_document_is_there_as_a_whole_or_not_at_all(
    make_store: MakeStore, rounds: int
) -> None:
    stores = make_store(), make_store()
    stores[0].open()
    for number in range(rounds):
        document = f"d{number}"
        names = [f"{letter}{number}" for letter in "ab"]
        records = [Record(name, "rye", document_id=document) for name in names]
        stores[0].replace(document, records)
        records[1] = Record(names[1], "salt", document_id=document)
        returned = both(
            partial(stores[0].replace, document, records),
            partial(stores[1].delete, documents=[document]),
        )
        if returned:
            assert stored(stores[0], names) in (records, []), f"round {number}"


@ROUNDS
def test_metadata_and_text_of_one_record_are_of_one_version(
    make_store: MakeStore, rounds: int
) -> None:
    stores = make_store(), make_store()
    stores[0].open()
    for number in range(rounds):
        before = Record(f"r{number}", "rye", {"n": 0})
        described, rewritten = Record(before.id, "rye", {"n": 1}), Record(before.id, "salt")
        stores[0].upsert([before])
        assert both(
            partial(stores[0].upsert, [described]),
            partial(stores[1].upsert, [rewritten]),
        )
        (found,) = stored(stores[0], [before.id])
        assert found in (described, rewritten), f"round {number}"
        # Its hash is of its text, and so is its vector.
        assert stores[0].upsert([found]).embedded == 0, f"round {number}"
        (vector,) = stores[0].embedder.embed_documents([found.text])
        scores = {match.id: match.score for match in stores[0].search(vector, k=200)}
        assert scores[found.id] > 0.99, f"round {number}"
