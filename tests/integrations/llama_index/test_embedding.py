"""What LlamaIndex asks of an embedding, beyond the contract that all adapters share."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_PROMPT
from token_ids import read, seen_by_the_model

from toastrack import Embedder

pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")

from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingStartEvent
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index_instrumentation import get_dispatcher
from pydantic import ValidationError

from toastrack.errors import TruncationWarning
from toastrack.utils.peers import ARGUMENTS
from toastrack_llama_index import ToastrackEmbedding

SECRET = "tr-5up3r-53cr37"


@pytest.fixture
def embedding(loaded: Embedder, tiny_folder: Path) -> ToastrackEmbedding:
    return ToastrackEmbedding(tiny_folder, device="cpu")


# -- settings -------------------------------------------------------------------------------


def test_every_setting_of_the_embedder_is_a_field() -> None:
    settings: dict[str, Any] = {
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
    embedding = ToastrackEmbedding("owner/name", **settings)
    assert embedding.embedder.settings() == {"model": "owner/name", **settings}
    assert {name: getattr(embedding, name) for name in settings} == settings
    assert embedding.model_name == "owner/name"


def test_without_arguments_it_is_the_default_model() -> None:
    assert ToastrackEmbedding().embedder.settings() == Embedder().settings()
    assert ToastrackEmbedding().model_name == Embedder().model


def test_a_path_names_a_model_too(tiny_folder: Path) -> None:
    for model in (tiny_folder, str(tiny_folder)):
        assert ToastrackEmbedding(model_name=model).model_name == str(tiny_folder)


def test_a_given_embedder_says_the_settings() -> None:
    embedder = Embedder("owner/name", dimensions=64, device="cpu")
    embedding = ToastrackEmbedding(embedder=embedder)
    assert embedding.embedder is embedder
    assert (embedding.model_name, embedding.dimensions, embedding.device) == (
        "owner/name",
        64,
        "cpu",
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query_promt": "x"}, "query_promt"),
        ({"engine": "onnx"}, "engine='onnx' is not one of"),
        ({"dimensions": 0}, "dimensions=0 must be a whole number"),
        ({"model_name": ""}, "name is empty"),
        ({"embedder": Embedder("a/b"), "device": "cpu"}, "device came beside it"),
        ({"embedder": Embedder("a/b"), "model_name": "a/b"}, "model came beside it"),
        ({"embed_batch_size": 0}, "greater than 0"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToastrackEmbedding(**settings)


@pytest.mark.parametrize("name", Embedder().settings())
def test_a_setting_cannot_change_under_the_embedder(
    embedding: ToastrackEmbedding, name: str
) -> None:
    field = "model_name" if name == "model" else name
    with pytest.raises(ValidationError, match="frozen"):
        setattr(embedding, field, "other")


def test_a_changed_copy_has_an_embedder_of_its_own(embedding: ToastrackEmbedding) -> None:
    assert embedding.model_copy().embedder is embedding.embedder
    assert len(embedding.model_copy(deep=True).get_query_embedding("bread")) == 32
    shorter = embedding.model_copy(update={"dimensions": 8})
    assert (len(shorter.get_query_embedding("bread")), shorter.device) == (8, "cpu")
    other = Embedder("owner/name")
    copied = embedding.model_copy(update={"embedder": other, "embed_batch_size": 7})
    assert (copied.embedder, copied.embed_batch_size) == (other, 7)


def test_it_serves_as_the_settings_embed_model(embedding: ToastrackEmbedding) -> None:
    before = Settings._embed_model
    try:
        Settings.embed_model = embedding
        assert Settings.embed_model is embedding
        assert len(Settings.embed_model.get_query_embedding("bread")) == 32
    finally:
        Settings._embed_model = before


# -- what is written down -------------------------------------------------------------------


def test_a_dict_brings_the_same_vectors_back(
    embedding: ToastrackEmbedding, tiny_folder: Path
) -> None:
    original = ToastrackEmbedding(
        tiny_folder,
        device="cpu",
        query_prompt="why: ",
        document_prompt="it is: ",
        dimensions=16,
        max_tokens=32,
    )
    restored = ToastrackEmbedding.from_dict(original.to_dict(), device="cpu")
    assert restored.to_dict() == original.to_dict()
    assert ToastrackEmbedding.from_json(original.to_json()).to_dict() == original.to_dict()
    np.testing.assert_allclose(
        restored.get_query_embedding("bread"), original.get_query_embedding("bread"), atol=1e-5
    )
    assert restored.embedder.settings() == original.embedder.settings()


def test_a_dict_names_the_class_and_the_space(embedding: ToastrackEmbedding) -> None:
    data = embedding.to_dict()
    assert data["class_name"] == ToastrackEmbedding.class_name() == "ToastrackEmbedding"
    assert data["space"] == embedding.embedder.space.digest
    assert embedding.to_payload()["model_name"] == embedding.model_name


def test_a_pickle_keeps_every_field(tiny_folder: Path) -> None:
    embedding = ToastrackEmbedding(
        tiny_folder, device="cpu", on_truncate="error", embed_batch_size=7, num_workers=2
    )
    copied = pickle.loads(pickle.dumps(embedding))
    assert copied.embedder.settings() == embedding.embedder.settings()
    assert (copied.embed_batch_size, copied.num_workers) == (7, 2)


def test_no_secret_is_in_what_is_written_down_or_sent(
    embedding: ToastrackEmbedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "MXBAI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    built = embedding.model_copy(update={"dimensions": 16})
    built.get_query_embedding("bread")
    for shown in (built.to_dict(), built.to_json(), built.to_payload(), repr(built)):
        assert SECRET not in str(shown)


# -- LlamaIndex' own calls ------------------------------------------------------------------


def test_batches_are_large_enough_to_be_sorted_by_length(embedding: ToastrackEmbedding) -> None:
    assert embedding.embed_batch_size >= 256
    texts = [f"bread {'rye ' * (number % 7)}" for number in range(600)]
    np.testing.assert_allclose(
        embedding.get_text_embedding_batch(texts),
        embedding.embedder.embed_documents(texts),
        atol=1e-5,
    )


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}])
def test_batches_keep_the_order_when_awaited(
    embedding: ToastrackEmbedding, options: dict[str, int]
) -> None:
    texts = [f"bread {'rye ' * (number % 7)} {number}" for number in range(50)]
    several = embedding.model_copy(update={"embed_batch_size": 8, **options})
    np.testing.assert_allclose(
        asyncio.run(several.aget_text_embedding_batch(texts)),
        embedding.embedder.embed_documents(texts),
        atol=1e-5,
    )


def test_no_text_is_no_vector(embedding: ToastrackEmbedding) -> None:
    assert embedding.get_text_embedding_batch([]) == []
    assert asyncio.run(embedding.aget_text_embedding_batch([])) == []


@pytest.mark.parametrize(
    ("ask", "prompt"),
    [
        (lambda e: e.get_query_embedding("bread"), MXBAI_PROMPT),
        (lambda e: asyncio.run(e.aget_query_embedding("bread")), MXBAI_PROMPT),
        (lambda e: e.get_agg_embedding_from_queries(["bread"]), MXBAI_PROMPT),
        (lambda e: asyncio.run(e.aget_agg_embedding_from_queries(["bread"])), MXBAI_PROMPT),
        (lambda e: e.get_text_embedding("bread"), ""),
        (lambda e: asyncio.run(e.aget_text_embedding("bread")), ""),
        (lambda e: e.get_text_embedding_batch(["bread"]), ""),
        (lambda e: asyncio.run(e.aget_text_embedding_batch(["bread"])), ""),
        (lambda e: e([TextNode(text="bread")]), ""),
    ],
)
def test_every_public_call_has_its_role(
    embedding: ToastrackEmbedding,
    tiny_folder: Path,
    ask: Callable[[ToastrackEmbedding], Any],
    prompt: str,
) -> None:
    with seen_by_the_model(embedding.embedder) as rows:
        ask(embedding)
    assert rows == [read(tiny_folder, prompt + "bread")]


def test_metadata_is_part_of_what_a_document_says(
    embedding: ToastrackEmbedding, tiny_folder: Path
) -> None:
    node = TextNode(text="bread", metadata={"flour": "rye", "salt": 2})
    node.excluded_embed_metadata_keys = ["salt"]
    with seen_by_the_model(embedding.embedder) as rows:
        embedding([node])
    assert rows == [read(tiny_folder, "flour: rye\n\nbread")]


def test_callbacks_see_texts_and_vectors_but_only_the_models_name(
    loaded: Embedder, tiny_folder: Path
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = ToastrackEmbedding(
        tiny_folder, device="cpu", callback_manager=CallbackManager([debug])
    )
    vector = embedding.get_query_embedding("bread")
    ((start, end),) = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert start.payload == {EventPayload.SERIALIZED: embedding.to_payload()}
    assert end.payload == {EventPayload.CHUNKS: ["bread"], EventPayload.EMBEDDINGS: [vector]}


class _Seen(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012 - a field of pydantic's

    @classmethod
    def class_name(cls) -> str:
        return "_Seen"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)


def test_instrumentation_sees_each_batch(embedding: ToastrackEmbedding) -> None:
    seen, dispatcher = _Seen(), get_dispatcher()
    dispatcher.add_event_handler(seen)
    try:
        embedding.get_text_embedding_batch(["bread", "rye"])
    finally:
        dispatcher.event_handlers.remove(seen)
    starts = [event for event in seen.events if isinstance(event, EmbeddingStartEvent)]
    assert [event.model_dict for event in starts] == [embedding.to_payload()]


# -- LlamaIndex' cache of vectors -----------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda e: e.get_query_embedding("bread"),
        lambda e: e.get_text_embedding("bread"),
        lambda e: e.get_text_embedding_batch(["bread"]),
        lambda e: asyncio.run(e.aget_query_embedding("bread")),
        lambda e: asyncio.run(e.aget_text_embedding("bread")),
        lambda e: asyncio.run(e.aget_text_embedding_batch(["bread"])),
    ],
)
def test_a_cache_that_mixes_roles_is_warned_of_once(
    embedding: ToastrackEmbedding, ask: Callable[[ToastrackEmbedding], Any]
) -> None:
    cached = embedding.model_copy(update={"embeddings_cache": SimpleKVStore()})
    with pytest.warns(UserWarning, match="keyed by the text alone") as caught:
        ask(cached)
    assert len(caught) == 1
    cached.get_text_embedding("rye")  # a second warning would be an error


def test_a_cache_of_a_model_with_one_prompt_is_fine(loaded: Embedder, tiny_folder: Path) -> None:
    embedding = ToastrackEmbedding(
        tiny_folder, device="cpu", query_prompt="", embeddings_cache=SimpleKVStore()
    )
    assert embedding.get_text_embedding("bread") == embedding.get_query_embedding("bread")


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"model_name"}))
def test_an_argument_of_a_peer_is_answered_with_ours(name: str) -> None:
    build: Any = ToastrackEmbedding
    with pytest.raises(ValueError, match=f"has no argument '{name}': ") as error:
        build(**{name: None})
    assert ARGUMENTS[name] in str(error.value)


def test_an_argument_of_nobody_is_named() -> None:
    build: Any = ToastrackEmbedding
    with pytest.raises(ValueError, match=r"ToastrackEmbedding has no argument 'colour'\."):
        build(colour="red")


def test_all_arguments_that_are_wrong_are_named_at_once() -> None:
    build: Any = ToastrackEmbedding
    with pytest.raises(ValueError, match="has no argument") as error:
        build(cache_folder="models", encode_kwargs={"device": "cpu"}, colour="red")
    said = str(error.value)
    assert all(
        f"has no argument '{name}'" in said for name in ("cache_folder", "encode_kwargs", "colour")
    )


def test_a_cut_names_what_splits_here(embedder: Embedder) -> None:
    with pytest.warns(TruncationWarning) as caught:
        ToastrackEmbedding(embedder=embedder).get_text_embedding_batch(["rye " * 100])
    assert "ToastrackEmbedding.node_parser()" in str(caught[0].message)
