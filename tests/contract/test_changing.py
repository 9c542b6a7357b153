"""A collection that became another one under an open store is not searched or written to unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from toastrack import Embedder, Record
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack.stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from contract.conftest import MakeStore

A, B, C = (
    Record(id, text, {"n": 1})
    for id, text in (("a", "rye keeps fresh"), ("b", "salt is in it"), ("c", "wheat"))
)

CALLS: dict[str, Callable[[Store], object]] = {
    "search": lambda store: store.search("rye"),
    "search exactly": lambda store: store.search("rye", filter={"n": 1}),
    "search for a vector": lambda store: store.search([1.0] * 32),
    "upsert": lambda store: store.upsert([C]),
    "upsert what is there": lambda store: store.upsert([A]),
    "upsert metadata": lambda store: store.upsert([Record("a", A.text, {"n": 2})]),
    "replace": lambda store: store.replace("a", [A, C]),
    "get": lambda store: store.get(["a"], vectors=True),
    "records": lambda store: list(store.records(vectors=True)),
}
# What is to go was chosen in the old collection, so they do not go on in a new one.
DELETIONS: dict[str, Callable[[Store], object]] = {
    "delete": lambda store: store.delete(["a"]),
    "delete a document": lambda store: store.delete(documents=["a"]),
    "delete by a filter": lambda store: store.delete(filter={"n": 1}),
}

HOWS = pytest.mark.parametrize("how", ["made anew", "under its name"])


class Hand:
    """Somebody's own client of the host, who has collections of ours and does as they like."""

    def __init__(self, store: Any, request: pytest.FixtureRequest) -> None:
        self._backend = store._backend
        self._loop = getattr(store, "_loop", None)
        self._request = request
        self.host = type(self._backend).__module__.partition(".")[0].removeprefix("toastrack_")
        if self.host not in ("postgres", "chroma", "qdrant"):
            pytest.skip("how a collection is renamed is known of our own hosts only")
        if self.host == "qdrant" and type(self._client).__name__ == "EdgeClient":
            pytest.skip("this client's collections cannot be deleted or renamed")

    def _wait(self, answer: Any) -> Any:
        return self._loop.run(answer) if self._loop and hasattr(answer, "__await__") else answer

    def drop(self, name: str) -> None:
        if self.host == "postgres":
            self._execute("drop table {}", name)
        else:
            self._wait(self._client.delete_collection(self._named(name)))

    def put_in_place(self, name: str, of: str) -> None:
        """Give one collection, or alias, the name of another, which goes on under a third one."""
        if self.host == "postgres":
            self._execute("alter table {} rename to {}", of, f"old_{of}")
            self._execute("alter table {} rename to {}", name, of)
        elif self.host == "chroma":
            for old, new in ((of, f"old_{of}"), (name, of)):
                self._wait(self._wait(self._client.get_collection(old)).modify(name=new))
        else:
            self.alias(of, name)

    def alias(self, alias: str, name: str) -> None:
        from qdrant_client import models

        created = models.CreateAlias(
            collection_name=self._named(name), alias_name=self._named(alias)
        )
        change = models.CreateAliasOperation(create_alias=created)
        self._wait(self._client.update_collection_aliases([change]))

    @property
    def _client(self) -> Any:
        return self._backend.client if self.host == "chroma" else self._backend.host.client

    def _named(self, name: str) -> str:
        prefix: str = self._backend.label.rpartition("_")[0]  # of those that share a server
        return f"{prefix}_{name}" if prefix else name

    def _execute(self, statement: Any, *names: str) -> None:
        import psycopg
        from psycopg import sql

        schema, dsn = map(self._request.getfixturevalue, ("schema", "postgres_dsn"))
        with psycopg.connect(dsn) as connection:
            connection.execute(f"set search_path to {schema}")
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.fixture
def become(make_store: MakeStore, request: pytest.FixtureRequest, how: str) -> Any:
    """Fills a collection, opens stores over it, and puts that of another embedder in its place."""

    def begin(number: int) -> tuple[list[Store], Callable[[Embedder], Store]]:
        hand = Hand(make_store(collection="documents"), request)
        by_alias = how == "under its name" and hand.host == "qdrant"
        make_store(collection="first" if by_alias else "documents").upsert([A, B])
        if by_alias:
            hand.alias("documents", "first")
        stores = [make_store() for _ in range(number)]
        for store in stores:
            assert [match.id for match in store.search(A.text, k=1)] == ["a"]

        def change(embedder: Embedder) -> Store:
            if how == "made anew":
                hand.drop("documents")
                other = make_store(embedder, collection="documents")
                other.upsert([A])
                return other
            make_store(embedder, collection="second").upsert([A])
            hand.put_in_place("second", "documents")
            return make_store(embedder, collection="documents")

        return stores, change

    return begin


@HOWS
@pytest.mark.parametrize("other", ["another model", "another size"])
def test_another_space_is_noticed_at_the_next_call(
    become: Any, embedder: Embedder, other_folder: Path, other: str
) -> None:
    names = [*CALLS, *DELETIONS]
    stores, change = become(len(names))
    theirs = change(
        Embedder(other_folder, device="cpu")
        if other == "another model"
        else Embedder(embedder.model, dimensions=16, device="cpu")
    )
    before = list(theirs.records(vectors=True))
    for name, store in zip(names, stores, strict=True):
        call = {**CALLS, **DELETIONS}[name]
        if name in DELETIONS:
            with pytest.raises(StoreError, match=r"run the same call again|embedding space"):
                call(store)
        for _ in range(2):
            with pytest.raises(SpaceMismatchError, match="documents"):
                call(store)
    assert list(theirs.records(vectors=True)) == before


@HOWS
def test_another_one_of_the_same_space_is_taken_as_it_is(become: Any, embedder: Embedder) -> None:
    names = ["search", "upsert what is there", "upsert", "replace", "get", "records"]
    stores, change = become(len(names))
    theirs = change(embedder)
    for name, store in zip(names, stores, strict=True):
        CALLS[name](store)
    assert {record.id for record in theirs.records()} == {"a", "c"}
