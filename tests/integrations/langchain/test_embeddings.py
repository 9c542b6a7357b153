"""What LangChain asks of an embeddings class, beyond the contract that all adapters share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_PROMPT
from token_ids import read, seen_by_the_model

from toastrack import Embedder
from toastrack.errors import TruncationError, TruncationWarning

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from toastrack.utils.peers import ARGUMENTS
from toastrack_langchain import ToastrackEmbeddings


@pytest.fixture
def embeddings(loaded: Embedder, tiny_folder: Path) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(model=tiny_folder, device="cpu")  # type: ignore[arg-type]


def make(settings: Mapping[str, Any]) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(**settings)


@pytest.mark.parametrize("spelling", ["model", "model_name"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_model_is_named_either_way_as_text_or_path(
    spelling: str, kind: type, tiny_folder: Path
) -> None:
    embeddings = make({spelling: kind(tiny_folder)})
    assert embeddings.model_name == embeddings.embedder.model == str(tiny_folder)


def test_without_arguments_it_is_the_default_model() -> None:
    embeddings = ToastrackEmbeddings()
    assert embeddings.model_name == Embedder().model
    assert embeddings.embedder.settings() == Embedder().settings()


def test_every_setting_of_the_embedder_is_a_field() -> None:
    settings = {
        "model": "owner/name",
        "revision": "abc",
        "engine": "sentence-transformers",
        "device": "cpu",
        "precision": "float32",
        "query_prompt": "q: ",
        "document_prompt": "d: ",
        "dimensions": 64,
        "max_tokens": 128,
        "on_truncate": "ignore",
    }
    embeddings = make(settings)
    assert embeddings.embedder.settings() == settings
    dumped = embeddings.model_dump()
    assert dumped == {"model_name": settings.pop("model"), **settings}
    assert make(dumped).embedder.settings() == embeddings.embedder.settings()


def test_a_given_embedder_says_the_settings() -> None:
    embedder = Embedder("owner/name", dimensions=64, query_prompt="q: ")
    embeddings = ToastrackEmbeddings(embedder=embedder)
    assert embeddings.embedder is embedder
    assert (embeddings.model_name, embeddings.dimensions) == ("owner/name", 64)
    assert "Embedder(" not in repr(embeddings)
    assert "query_prompt='q: '" in repr(embeddings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "x"}, "modle"),
        ({"engine": "onnx"}, "engine='onnx' is not one of"),
        ({"dimensions": 0}, "dimensions=0 must be a whole number"),
        ({"dimensions": "16"}, "dimensions='16' must be a whole number"),
        ({"model": ""}, "name is empty"),
        ({"model": "a/b", "model_name": "a/c"}, "one setting"),
        ({"embedder": "a/b"}, "'a/b' is not a toastrack.Embedder"),
        ({"embedder": Embedder("a/b"), "device": "cpu"}, "device came beside it"),
        ({"embedder": Embedder("a/b"), "model_name": "a/b"}, "model came beside it"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(settings)


def test_a_setting_cannot_change_under_the_embedder(embeddings: ToastrackEmbeddings) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        embeddings.dimensions = 8


def test_a_changed_copy_has_an_embedder_of_its_own(embeddings: ToastrackEmbeddings) -> None:
    assert embeddings.model_copy().embedder is embeddings.embedder
    assert len(embeddings.model_copy(deep=True).embed_query("bread")) == 32
    shorter = embeddings.model_copy(update={"dimensions": 8})
    assert (len(shorter.embed_query("bread")), shorter.device) == (8, "cpu")
    other = Embedder("owner/name")
    assert embeddings.model_copy(update={"embedder": other}).embedder is other


def test_no_text_is_no_vector(embeddings: ToastrackEmbeddings) -> None:
    assert embeddings.embed_documents([]) == []


def test_langchain_postgres_finds_nothing_to_embed_inside_the_database() -> None:
    # https://github.com/langchain-ai/langchain-postgres: it asks for these by hasattr.
    embeddings = ToastrackEmbeddings()
    assert not hasattr(embeddings, "embed_query_inline_template")
    assert not hasattr(embeddings, "embed_query_inline")


def test_a_retriever_prompts_its_query_and_no_document(
    embeddings: ToastrackEmbeddings, tiny_folder: Path
) -> None:
    store = InMemoryVectorStore(embeddings)
    with seen_by_the_model(embeddings.embedder) as rows:
        store.add_documents([Document("rye bread keeps fresh"), Document("the oven is cold")])
        (found,) = store.as_retriever(search_kwargs={"k": 1}).invoke("why is bread fresh?")
    assert found.page_content in ("rye bread keeps fresh", "the oven is cold")
    texts = ["rye bread keeps fresh", "the oven is cold"]
    assert sorted(rows[:2]) == sorted(read(tiny_folder, text) for text in texts)
    assert rows[2:] == [read(tiny_folder, MXBAI_PROMPT + "why is bread fresh?")]


def test_a_cut_text_is_announced_at_the_line_that_embeds_it(
    embeddings: ToastrackEmbeddings, tiny_folder: Path
) -> None:
    with pytest.warns(TruncationWarning, match="1 of 2 texts were cut at 64") as caught:
        embeddings.embed_documents(["rye", "bread " * 100])
    assert caught[0].filename == __file__
    strict = make({"model": tiny_folder, "device": "cpu", "on_truncate": "error"})
    with pytest.raises(TruncationError):
        strict.embed_query("bread " * 100)


def test_scores_of_the_store_are_cosines_of_the_core(embeddings: ToastrackEmbeddings) -> None:
    texts = ["rye bread keeps fresh", "the oven is cold", "warm water"]
    store = InMemoryVectorStore.from_texts(texts, embeddings)
    found = store.similarity_search_with_score("why is bread fresh?", k=3)
    cosines = embeddings.embedder.embed_documents(texts) @ embeddings.embedder.embed_query(
        "why is bread fresh?"
    )
    scores = {document.page_content: score for document, score in found}
    np.testing.assert_allclose([scores[text] for text in texts], cosines, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"model_name"}))
def test_an_argument_of_a_peer_is_answered_with_ours(name: str) -> None:
    build: Any = ToastrackEmbeddings
    with pytest.raises(ValueError, match=f"has no argument '{name}': ") as error:
        build(**{name: None})
    assert ARGUMENTS[name] in str(error.value)


def test_an_argument_of_nobody_is_named() -> None:
    build: Any = ToastrackEmbeddings
    with pytest.raises(ValueError, match=r"ToastrackEmbeddings has no argument 'colour'\."):
        build(colour="red")


def test_all_arguments_that_are_wrong_are_named_at_once() -> None:
    build: Any = ToastrackEmbeddings
    with pytest.raises(ValueError, match="has no argument") as error:
        build(cache_folder="models", encode_kwargs={"device": "cpu"}, colour="red")
    said = str(error.value)
    assert all(
        f"has no argument '{name}'" in said for name in ("cache_folder", "encode_kwargs", "colour")
    )


def test_an_error_shows_no_key() -> None:
    build: Any = ToastrackEmbeddings
    for wrong in ({"api_key": "sk-secret"}, {"colour": "sk-secret"}):
        with pytest.raises(ValueError, match="ToastrackEmbeddings") as error:
            build(**wrong)
        assert "sk-secret" not in str(error.value)


def test_a_cut_names_what_splits_here(embedder: Embedder) -> None:
    with pytest.warns(TruncationWarning) as caught:
        ToastrackEmbeddings(embedder=embedder).embed_documents(["rye " * 100])
    assert "ToastrackEmbeddings.splitter()" in str(caught[0].message)
