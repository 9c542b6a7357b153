"""What somebody else filled is taken over once its vectors are proven, and verified on request."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from models import MXBAI_PROMPT, WORDS

from toastrack import Embedder, EmbeddingSpace, Record
from toastrack.errors import SpaceMismatchError, UnprovenWarning

if TYPE_CHECKING:
    from contract.conftest import MakeStore, Runs

pytestmark = pytest.mark.own_hosts

PLAIN = [word for word in WORDS if word.isalpha()]
RECORDS = [
    Record(
        str(place),
        " ".join(PLAIN[(5 * place + step * (place + 1)) % len(PLAIN)] for step in range(7)),
        {"place": place},
    )
    for place in range(12)
]


class Named(Embedder):
    """Says to be another model than it is, as a server may whose weights were changed."""

    says: EmbeddingSpace

    @property
    def space(self) -> EmbeddingSpace:
        return self.says

    @property
    def _known_space(self) -> EmbeddingSpace | None:
        return self.says


def named(space: EmbeddingSpace, model: str | Path, **settings: Any) -> Embedder:
    embedder = Named(model, device="cpu", **settings)
    embedder.says = space
    return embedder


def forget_space(store: Any) -> None:
    """Take out of a collection what it says of its model, as if somebody else had made it."""
    backend = store._backend

    async def forget(session: Any) -> None:
        if "postgres" in type(backend).__module__:
            await session.execute(backend.table.statements.comment("made elsewhere"))
        elif "chroma" in type(backend).__module__:
            await session.call(backend.host.modify, metadata={"made": "elsewhere"})
        else:
            forgotten = {"toastrack": None}
            await backend.points.call(
                session, "update_collection", backend.label, metadata=forgotten
            )

    flow = store._flow
    result = flow.perform(forget)
    loop = getattr(store, "_loop", None)
    if loop is None:
        from toastrack.stores import run_sync

        run_sync(result)
    else:
        loop.run(result)
    store.close()


@pytest.mark.connection
def test_what_is_proven_is_adopted_and_nothing_is_embedded_anew(
    make_store: MakeStore, embedder: Embedder
) -> None:
    store = make_store()
    store.upsert(RECORDS)
    forget_space(store)
    with pytest.raises(SpaceMismatchError, match="adopt=True"):
        make_store().open()
    adopted = make_store(adopt=True)
    adopted.open()
    assert adopted.space == embedder.space
    assert adopted.space.unproven == ("query_prompt",)
    assert adopted.upsert(RECORDS).unchanged == len(RECORDS)
    # It goes on being compared.
    with pytest.raises(SpaceMismatchError, match="query prompt"):
        make_store(Embedder(embedder.model, device="cpu", query_prompt="")).open()
    assert make_store().get(["3"]) == [RECORDS[3]]


def test_another_models_vectors_are_refused_with_the_numbers(
    make_store: MakeStore, embedder: Embedder, other_folder: Path
) -> None:
    store = make_store(Embedder(other_folder, device="cpu"))
    store.upsert(RECORDS)
    forget_space(store)
    for _ in range(2):  # a refusal writes nothing down
        with pytest.raises(SpaceMismatchError) as caught:
            make_store(adopt=True).open()
        assert "of 12 texts that were embedded again" in str(caught.value)
        assert "none of them fits" in str(caught.value)
        assert caught.value.ours == embedder.space
    believed = make_store(adopt="unchecked")
    believed.open()
    assert set(believed.space.unproven) >= {"weights", "query_prompt", "dimensions"}
    assert make_store().open().count() == len(RECORDS)


def test_a_prompt_on_documents_is_named(make_store: MakeStore, embedder: Embedder) -> None:
    prompted = Embedder(embedder.model, device="cpu", document_prompt=MXBAI_PROMPT)
    store = make_store(prompted)
    store.upsert(RECORDS)
    forget_space(store)
    with pytest.raises(SpaceMismatchError, match="the query prompt is in front") as caught:
        make_store(adopt=True).open()
    assert f"document_prompt={MXBAI_PROMPT!r}" in str(caught.value)
    make_store(prompted, adopt=True).open()


def test_fewer_dimensions_are_named(make_store: MakeStore, embedder: Embedder) -> None:
    small = Embedder(embedder.model, device="cpu", dimensions=16)
    store = make_store(small)
    store.upsert(RECORDS)
    forget_space(store)
    with pytest.raises(SpaceMismatchError, match="dimensions=16"):
        make_store(adopt=True).open()
    make_store(small, adopt=True).open()


def test_few_texts_are_adopted_and_it_is_said(make_store: MakeStore, embedder: Embedder) -> None:
    store = make_store()
    store.upsert(RECORDS[:3])
    forget_space(store)
    with pytest.warns(UnprovenWarning, match="3 texts embedded again agree"):
        make_store(adopt=True).open()
    assert make_store().upsert(RECORDS[:3]).unchanged == 3


def test_where_no_text_can_be_compared_it_takes_a_word(
    make_store: MakeStore, embedder: Embedder
) -> None:
    store = make_store()
    store.upsert([replace(record, text=" ", vector=[1.0] * 32) for record in RECORDS])
    forget_space(store)
    with pytest.raises(SpaceMismatchError, match=r"adopt='unchecked'"):
        make_store(adopt=True).open()
    make_store(adopt="unchecked").open()


def test_a_model_that_is_proven_the_same_is_excused_for_ever(
    make_store: MakeStore, embedder: Embedder
) -> None:
    converted = replace(embedder.space, weights="c" * 64, tokenizer="t" * 64)
    make_store().upsert(RECORDS)
    other = named(converted, embedder.model)
    with pytest.raises(SpaceMismatchError, match="weights"):
        make_store(other).open()
    store = make_store(other, adopt=True)
    store.open()
    assert store.space == embedder.space  # it keeps one
    assert store.space.equals == (converted.model_identity,)
    assert make_store(other).upsert(RECORDS).unchanged == len(RECORDS)
    assert make_store().open().count() == len(RECORDS)
    # Prompts and sizes are never excused.
    asked = replace(converted, query_prompt="")
    with pytest.raises(SpaceMismatchError, match="query prompt"):
        make_store(named(asked, embedder.model, query_prompt=""), adopt=True).open()


def test_another_model_is_not_excused(
    make_store: MakeStore, embedder: Embedder, other_folder: Path
) -> None:
    make_store().upsert(RECORDS)
    with pytest.raises(SpaceMismatchError, match="not the same, either") as caught:
        make_store(Embedder(other_folder, device="cpu"), adopt=True).open()
    assert "weights" in caught.value.differences
    assert make_store().open().space.equals == ()


def test_verify_notices_that_a_model_became_another(
    make_store: MakeStore, embedder: Embedder, other_folder: Path, runs: Runs
) -> None:
    make_store().upsert(RECORDS)
    runs.clear()
    make_store(verify=True).open()
    assert sum(runs) == len(RECORDS)
    changed = named(embedder.space, other_folder)
    for _ in range(2):
        store = make_store(changed, verify=True)
        with pytest.raises(SpaceMismatchError, match="of 12 texts that were embedded again"):
            store.search("rye")
    make_store(changed).open()  # nobody asked


def test_verify_passes_over_vectors_that_were_given(make_store: MakeStore) -> None:
    given = [replace(record, vector=[1.0, *[0.0] * 31]) for record in RECORDS[:4]]
    make_store().upsert([*given, *RECORDS[4:]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_store(verify=True).open()


def test_an_empty_collection_has_nothing_to_verify(make_store: MakeStore) -> None:
    make_store(verify=True).open()
    make_store(verify=True, adopt=True).open()


def test_adopt_is_one_of_three(make_store: MakeStore) -> None:
    with pytest.raises(ValueError, match="unchecked"):
        make_store(adopt="maybe")
