"""How every store opens, whose vectors it accepts, and how it closes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any, cast

import pytest

from toastrack import Embedder, EmbeddingSpace, Record
from toastrack.errors import SpaceMismatchError, StoreError
from toastrack.stores.protocol import Store

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs

A, B = Record("a", "rye bread keeps fresh"), Record("b", "salt is in the dough")


def test_it_is_a_store(store: Store) -> None:
    assert isinstance(store.open(), Store)


def test_building_one_does_nothing(make_store: MakeStore) -> None:
    make_store(collection="one")
    with pytest.raises(StoreError):
        make_store(collection="one", create=False).open()


@pytest.mark.connection
def test_opening_creates_and_the_first_call_opens(make_store: MakeStore) -> None:
    assert make_store(collection="one").open().count() == 0
    assert make_store(collection="one", create=False).count() == 0
    assert make_store(collection="two").count() == 0
    assert make_store(collection="three").search("rye") == []
    assert make_store(collection="four").get(["a"]) == [None]
    assert make_store(collection="five").delete(["a"]) == 0
    assert list(make_store(collection="six").document_ids()) == []
    assert make_store(collection="seven").upsert([A]).written == 1
    assert make_store(collection="eight").replace("a", [A]).written == 1


@pytest.mark.connection
def test_what_is_not_there_is_not_created_unasked(make_store: MakeStore) -> None:
    store = make_store(collection="nowhere", create=False)
    for call in (
        store.open,
        lambda: store.upsert([A]),
        lambda: store.search("rye"),
        lambda: store.get(["a"]),
        store.count,
    ):
        with pytest.raises(StoreError, match="nowhere"):
            call()


def test_what_it_embeds_with_may_depend_on_what_is_recorded(
    make_store: MakeStore, embedder: Embedder
) -> None:
    asked: list[EmbeddingSpace | None] = []

    def choose(space: EmbeddingSpace | None) -> Embedder:
        asked.append(space)
        return embedder

    store = make_store(choose)
    with pytest.raises(StoreError, match="not open yet"):
        _ = store.embedder
    store.upsert([A])
    assert store.embedder is embedder
    assert make_store(choose).search("rye")[0].id == "a"
    assert asked == [None, embedder.space]


def test_the_space_is_known_once_it_is_open(make_store: MakeStore, embedder: Embedder) -> None:
    store = make_store()
    with pytest.raises(StoreError, match=r"not open yet\. Call open\(\)"):
        _ = store.space
    assert store.open().space == embedder.space
    store.close()
    with pytest.raises(StoreError, match="not open yet"):
        _ = store.space


def test_an_embedder_is_wanted(make_store: MakeStore) -> None:
    for wrong in ("mixedbread-ai/mxbai-embed-large-v1", Embedder):
        with pytest.raises(TypeError, match="embedder= takes an Embedder"):
            make_store(cast(Any, wrong))


def test_collections_are_apart(make_store: MakeStore) -> None:
    one, two = make_store(collection="one"), make_store(collection="two")
    one.upsert([A])
    two.upsert([A, B])
    two.delete(["a"])
    assert one.get(["a", "b"]) == [A, None]
    assert two.get(["a", "b"]) == [None, B]
    assert [match.id for match in one.search("rye", k=5)] == ["a"]


@pytest.mark.connection
def test_with_opens_and_closes(make_store: MakeStore) -> None:
    with cast(AbstractContextManager[Store], make_store()) as store:
        store.upsert([A])
        assert make_store(create=False).open().count() == 1
    assert make_store().get(["a"]) == [A]


@pytest.mark.connection
def test_close_whenever(make_store: MakeStore) -> None:
    store = make_store()
    store.close()
    store.upsert([A])
    store.close()
    store.close()
    # What was closed opens again at the next call.
    assert store.get(["a"]) == [A]
    assert store.search("rye")[0].id == "a"


# -- the space ----------------------------------------------------------------------------------


@pytest.mark.connection
def test_the_space_is_recorded(make_store: MakeStore, embedder: Embedder) -> None:
    make_store().upsert([A])
    again = make_store().open()
    assert again.space == embedder.space
    assert again.space.model == embedder.model
    assert make_store(Embedder.from_space(again.space)).open().upsert([A]).unchanged == 1


def test_what_was_stored_under_another_limit_is_unchanged_for_the_recorded_embedder(
    make_store: MakeStore, tiny_folder: Path
) -> None:
    settings: dict[str, Any] = {"device": "cpu", "on_truncate": "ignore"}
    long = Record("long", "rye bread " * 30)
    assert make_store(Embedder(tiny_folder, max_tokens=16, **settings)).upsert([long]).embedded == 1
    again = Embedder.from_space(make_store().open().space, device="cpu")
    assert again.max_tokens == 16
    assert make_store(again, create=False).upsert([long]).unchanged == 1


def test_the_same_space_by_another_name(
    make_store: MakeStore, embedder: Embedder, tmp_path: Path
) -> None:
    make_store().upsert([A, B])
    copy = Embedder(
        copytree(embedder.model, tmp_path / "copy"),
        query_prompt=embedder.query_prompt,
        dimensions=32,
        on_truncate="error",
    )
    store = make_store(copy, create=False)
    assert store.upsert([A, B]).unchanged == 2
    assert store.space.model == embedder.model


DIFFERENT: dict[str, dict[str, Any]] = {
    "weights": {},
    "query_prompt": {"query_prompt": "find this: "},
    "document_prompt": {"document_prompt": "read this: "},
    "dimensions": {"dimensions": 16},
    "all": {"query_prompt": "find this: ", "document_prompt": "read this: ", "dimensions": 16},
}


def shown(value: object) -> str:
    """A digest is too long to be read."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_space_is_refused(
    make_store: MakeStore, embedder: Embedder, other_folder: Path, runs: Runs, name: str
) -> None:
    model = other_folder if name in ("weights", "all") else embedder.model
    other = Embedder(model, device="cpu", **DIFFERENT[name])
    make_store().upsert([A, B])
    runs.clear()

    def refused(store: Store) -> SpaceMismatchError:
        calls = (
            store.open,
            lambda: store.upsert([Record("c", "wheat")]),
            lambda: store.replace("a", []),
            lambda: store.search("rye"),
            lambda: store.search([1.0] * other.dimensions),
        )
        for call in calls:
            with pytest.raises(SpaceMismatchError) as caught:
                call()
        with (
            pytest.raises(SpaceMismatchError),
            cast(AbstractContextManager[Store], store),
        ):
            pass
        return caught.value

    names = set(DIFFERENT) - {"all"} if name == "all" else {name}
    for adopt in (False, True):
        error = refused(make_store(other, adopt=adopt))
        assert error.stored == embedder.space
        assert error.ours == other.space
        assert set(error.differences) == names
        for field in names:
            both = (getattr(embedder.space, field), getattr(other.space, field))
            assert error.differences[field] == both
            assert field.replace("_", " ") in str(error)
            for value in both:
                assert shown(value) in str(error)
        assert "documents" in str(error), "the collection is not named"
    assert not runs

    mine = make_store()
    assert mine.get(["a", "b", "c"]) == [A, B, None]
    assert mine.space == embedder.space


@pytest.mark.connection
def test_the_first_call_compares_whatever_it_is(make_store: MakeStore, embedder: Embedder) -> None:
    make_store().upsert([A])
    other = Embedder(embedder.model, device="cpu", query_prompt="other: ")
    calls: dict[str, Callable[[Store], object]] = {
        "count": lambda store: store.count(),
        "get": lambda store: store.get(["a"]),
        "delete": lambda store: store.delete(["a"]),
        "document_ids": lambda store: list(store.document_ids()),
        "build_index": lambda store: store.build_index(),
    }
    refused = []
    for name, call in calls.items():
        with suppress(SpaceMismatchError):
            call(make_store(other))
            continue
        refused.append(name)
    assert refused == list(calls)


@pytest.mark.parametrize("name", ["query_prompt", "document_prompt", "dimensions"])
def test_the_error_says_how_to_open_it(
    make_store: MakeStore, embedder: Embedder, name: str
) -> None:
    first = Embedder(embedder.model, device="cpu", **DIFFERENT[name])
    make_store(first).open()
    with pytest.raises(SpaceMismatchError) as caught:
        make_store().open()
    value = getattr(first.space, name)
    assert f"{name}={value!r}" in str(caught.value)
    assert make_store(Embedder(embedder.model, **{name: value})).open().count() == 0


def test_an_empty_collection_has_a_space_too(make_store: MakeStore, embedder: Embedder) -> None:
    make_store().open()
    with pytest.raises(SpaceMismatchError):
        make_store(Embedder(embedder.model, query_prompt="")).open()


PROMPTS = [
    "'single' \"double\" \\ back \\n",
    "two\nlines\r\nand\ttab",
    "%s %(id)s {} {0} $1 :b",
    "🍞 ключ e\u0301",
    "\u2028 \u2029 \u0085 \u001c \ufeff",
    "toastrack {}",
]


def test_any_prompt_can_be_recorded(make_store: MakeStore, embedder: Embedder) -> None:
    for number, prompt in enumerate(PROMPTS):
        odd = Embedder(embedder.model, query_prompt=prompt, document_prompt=prompt)
        make_store(odd, collection=f"prompt{number}").upsert([A])
        same = Embedder(embedder.model, query_prompt=prompt, document_prompt=prompt)
        again = make_store(same, collection=f"prompt{number}")
        assert again.upsert([A]).unchanged == 1
        assert again.space == odd.space
        assert EmbeddingSpace.from_dict(again.space.to_dict()) == odd.space
