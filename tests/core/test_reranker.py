"""A query with each document: the model's own logits, whatever runs it, and in whichever batch."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import random
import shutil
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Child
from models import WORDS, exported, save_tiny_cross_encoder

from toastrack import DEFAULT_RERANKER, Embedder, Reranker
from toastrack.errors import (
    GuessWarning,
    ModelError,
    TruncationError,
    TruncationWarning,
)

QUERY = "why is my rye bread sour"
KINDS = ["bert", "deberta"]


def prose(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    pick = random.Random(seed)
    return [
        "",
        *(" ".join(pick.choices(WORDS, k=pick.randint(1, longest))) for _ in range(count - 1)),
    ]


def torch_reranker(folder: Path, **settings: Any) -> Reranker:
    return Reranker(folder, engine="sentence-transformers", device="cpu", **settings)


def theirs(folder: Path, query: str, documents: list[str]) -> Any:
    """What sentence-transformers says, one pair at a time, without anything behind the logit."""
    import torch
    from sentence_transformers import CrossEncoder

    model: Any = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    pairs = [(query, document) for document in documents]
    return model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: Any) -> Path:
        if kind not in made:
            made[kind] = save_tiny_cross_encoder(tmp_path_factory.mktemp("ce") / kind, kind=kind)
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def bert(folders: Callable[[str], Path]) -> Path:
    return folders("bert")


@pytest.fixture(scope="module")
def compiled(
    folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            target = tmp_path_factory.mktemp("compiled") / kind
            made[kind] = exported(folders(kind), target)
        return made[kind]

    return folder


@pytest.fixture
def copied(bert: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return shutil.copytree(bert, tmp_path / "copied")


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | values), encoding="utf-8")


# -- the same scores ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_logits_of_sentence_transformers(
    folders: Callable[[str], Path], kind: str
) -> None:
    documents = prose(40)
    scores = torch_reranker(folders(kind)).score(QUERY, documents)
    assert scores.shape == (40,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, theirs(folders(kind), QUERY, documents), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_openvino_gives_the_same_scores_in_the_same_order(
    folders: Callable[[str], Path], compiled: Callable[[str], Path], kind: str
) -> None:
    documents = prose(40)
    ours = Reranker(compiled(kind))
    assert ours.running_on == "openvino on cpu in float32"
    expected = torch_reranker(folders(kind)).score(QUERY, documents)
    np.testing.assert_allclose(ours.score(QUERY, documents), expected, atol=1e-3)
    positions = [position for position, _ in ours.rank(QUERY, documents)]
    assert positions == [p for p, _ in torch_reranker(folders(kind)).rank(QUERY, documents)]


def test_a_folder_that_sentence_transformers_saved_is_the_same_model(
    bert: Path, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    model: Any = CrossEncoder(str(bert), device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    documents = prose(10)
    np.testing.assert_array_equal(
        torch_reranker(tmp_path / "saved").score(QUERY, documents),
        torch_reranker(bert).score(QUERY, documents),
    )


@pytest.mark.parametrize("half", [False, True])
def test_the_engine_is_float32_by_default_whatever_the_weights_are(
    tmp_path: Path, half: bool
) -> None:
    folder = save_tiny_cross_encoder(tmp_path / "m", half=half, seed=7)
    reranker = torch_reranker(folder)
    assert reranker.running_on == "sentence-transformers on cpu in float32"
    np.testing.assert_allclose(
        reranker.score(QUERY, prose(8)), theirs(folder, QUERY, prose(8)), atol=1e-4
    )


@pytest.mark.parametrize("budget", [1, 90, 500, 1_000_000])
def test_the_size_and_order_of_batches_do_not_change_a_score(
    bert: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker, documents = torch_reranker(bert), prose(40)
    expected = reranker.score(QUERY, documents)
    monkeypatch.setattr(reranker._worker().engine, "batch_tokens", budget)
    np.testing.assert_allclose(reranker.score(QUERY, documents), expected, atol=1e-4)
    order = random.Random(1).sample(range(40), 40)
    shuffled = reranker.score(QUERY, [documents[i] for i in order])
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-4)


def test_the_longest_pairs_come_first_and_no_batch_is_over_the_budget(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = torch_reranker(bert)
    engine: Any = reranker._worker().engine
    run, batches = engine.run, []

    def noted(batch: Any, *, prompt: str) -> Any:
        batches.append([len(tokens.ids) for tokens in batch])
        return run(batch, prompt=prompt)

    monkeypatch.setattr(engine, "batch_tokens", 200)
    monkeypatch.setattr(engine, "run", noted)
    reranker.score(QUERY, prose(30))
    sizes = [size for batch in batches for size in batch]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len(batch) * batch[0] <= 200 for batch in batches)


@pytest.mark.parametrize("limit", [14, 20, 32, 64])
def test_pairs_are_read_and_cut_as_transformers_does(bert: Path, limit: int) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(bert))
    ours = torch_reranker(bert)._worker().engine.tokenizer
    documents = prose(20, longest=80)
    expected = tokenizer(["bread"] * 20, documents, truncation="only_second", max_length=limit)
    pairs = ours.encode_pairs("bread", documents, limit)
    assert [list(pair.ids) for pair in pairs] == expected["input_ids"]
    assert [list(pair.types) for pair in pairs] == expected["token_type_ids"]
    whole = tokenizer(["bread"] * 20, documents)["input_ids"]
    assert [pair.uncut for pair in pairs] == list(map(len, whole))


# -- ranking --------------------------------------------------------------------------------


class Given:
    """Takes the place of a model: each document names its score."""

    def __init__(self, reranker: Reranker, patch: pytest.MonkeyPatch) -> None:
        engine: Any = reranker._worker().engine
        self.documents: list[str] = []

        def prepare(query: str, documents: list[str], limit: int) -> Any:
            from toastrack.models.tokenizer import Tokens

            self.documents += documents
            return [Tokens([position], 1) for position in range(len(documents))]

        def run(batch: Any, *, prompt: str) -> Any:
            values = [[float(self.documents[tokens.ids[0]])] for tokens in batch]
            return np.array(values, dtype=np.float32)

        patch.setattr(engine, "prepare_pairs", prepare)
        patch.setattr(engine, "run", run)


def test_the_best_come_first_and_ties_as_they_were_given(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = torch_reranker(bert)
    given = Given(reranker, monkeypatch)
    ranked = reranker.rank(QUERY, ["1", "3", "2", "3.0", "1"])
    assert ranked == [(1, 3.0), (3, 3.0), (2, 2.0), (0, 1.0), (4, 1.0)]
    assert given.documents == ["1", "3", "2", "3.0"]  # what comes twice is read once


def test_scores_that_a_sigmoid_would_make_equal_keep_their_order(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = torch_reranker(bert)
    Given(reranker, monkeypatch)
    assert reranker.rank(QUERY, ["20", "22", "21"], k=2) == [(1, 22.0), (2, 21.0)]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_score_that_is_no_number_is_an_error(
    bert: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    reranker = torch_reranker(bert)
    Given(reranker, monkeypatch)
    with pytest.raises(ModelError, match="a score that is not finite"):
        reranker.score(QUERY, ["1", number])


def test_no_documents_have_no_scores_and_take_no_model(tmp_path: Path) -> None:
    reranker = Reranker(tmp_path / "nowhere")
    assert reranker.score("bread", []).shape == (0,)
    assert reranker.rank("bread", []) == []
    assert asyncio.run(reranker.arank("bread", [])) == []


@pytest.mark.parametrize("query", ["", " \n"])
def test_a_blank_query_is_refused_and_a_blank_document_scored(bert: Path, query: str) -> None:
    with pytest.raises(ValueError, match="blank query"):
        torch_reranker(bert).score(query, ["bread"])
    assert torch_reranker(bert).score("bread", ["", " "]).shape == (2,)


def test_what_is_no_text_is_named(bert: Path) -> None:
    reranker = torch_reranker(bert)
    wrong: Any = ["bread", 1]
    with pytest.raises(TypeError, match="text 1 is int"):
        reranker.score("bread", wrong)
    with pytest.raises(TypeError, match=r"one str\. Write \[text\]"):
        reranker.score("bread", "bread")
    with pytest.raises(ValueError, match="k=0"):
        reranker.rank("bread", ["bread"], k=0)
    with pytest.raises(ValueError, match="document 1"):
        reranker.score("bread", ["bread", "\ud800"])
    with pytest.raises(ValueError, match="the query"):
        reranker.score("\ud800", ["bread"])


# -- the limit ------------------------------------------------------------------------------


def test_pairs_over_the_limit_are_counted_and_announced(bert: Path) -> None:
    documents = ["bread", "bread " * 80, "rye " * 70]
    with pytest.warns(TruncationWarning, match="2 of 3 texts were cut at 64 tokens") as caught:
        torch_reranker(bert).score("bread", documents)
    assert len(caught) == 1
    assert "was not read" in str(caught[0].message)
    with pytest.raises(TruncationError, match="document 2 has 84 tokens"):
        torch_reranker(bert, on_truncate="error").score("bread", ["rye", "rye", "bread " * 80])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch_reranker(bert, on_truncate="ignore").score("bread", documents)


def test_a_long_query_leaves_room_for_the_document(bert: Path) -> None:
    reranker = torch_reranker(bert, on_truncate="ignore")
    scores = reranker.score("bread " * 500, ["rye", "sour dough"])
    assert scores[0] != scores[1]
    engine = reranker._worker().engine
    (pair,) = engine.prepare_pairs("bread " * 500, ["rye " * 100], 64)
    assert len(pair.ids) == 64
    assert pair.types.count(1) == 17  # a quarter of 61, and the token that ends it
    assert pair.uncut == 603


def test_max_tokens_reads_less_and_never_more(bert: Path) -> None:
    assert torch_reranker(bert).max_tokens == 64
    assert torch_reranker(bert, max_tokens=16).max_tokens == 16
    with pytest.raises(ValueError, match="max_tokens=65 is over the 64"):
        torch_reranker(bert, max_tokens=65).score("bread", ["rye"])
    with pytest.raises(ValueError, match="leaves no room"):
        torch_reranker(bert, max_tokens=4).score("bread", ["rye"])
    torch_reranker(bert, max_tokens=5, on_truncate="ignore").score("bread rye", ["rye sour"])


# -- what is no reranker --------------------------------------------------------------------


def test_a_model_with_several_labels_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_cross_encoder(tmp_path / "nli", labels=3)
    with pytest.raises(ModelError, match="has 3 labels"):
        torch_reranker(folder).load()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "language model without the files"),
        ({"architectures": ["BertModel"]}, "BertModel"),
        ({"architectures": None}, "no class of model"),
        ({"auto_map": {"AutoModel": "own.Model"}}, "code of its own"),
        ({"sbert_ce_default_activation_function": "own.Activation"}, "code of its own"),
        ({"sentence_transformers": {"activation_fn": "own.Activation"}}, "code of its own"),
        ({"id2label": None, "num_labels": None}, "2 labels"),
    ],
)
def test_what_is_no_reranker_is_refused_with_its_reason(
    copied: Path, values: dict[str, Any], said: str
) -> None:
    change(copied, "config.json", **values)
    with pytest.raises(ModelError, match=said):
        torch_reranker(copied).load()


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (
            ["base.modules.transformer.Transformer", "cross_encoder.modules.LogitScore"],
            "BertForSequenceClassification, and modules.json a LogitScore",
        ),
        (["models.Transformer", "models.Pooling"], "makes vectors"),
        ([], "a reranker is a Transformer"),
    ],
)
def test_modules_of_another_kind_of_model_are_refused(
    copied: Path, modules: list[str], said: str
) -> None:
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_M",
            "type": f"sentence_transformers.{m}",
        }
        for i, m in enumerate(modules)
    ]
    (copied / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        torch_reranker(copied).load()


def test_a_prompt_that_the_model_wants_is_refused(copied: Path) -> None:
    name = "config_sentence_transformers.json"
    change(copied, name, prompts={"rank": "Rank: "}, default_prompt_name="rank")
    with pytest.raises(ModelError, match="wants the prompt 'Rank: '"):
        torch_reranker(copied).load()
    change(copied, name, prompts={"rank": ""}, default_prompt_name="rank")
    torch_reranker(copied).load()


def test_a_classifier_without_all_of_its_weights_is_refused(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = copied / "model.safetensors"
    tensors = load_file(path)
    del tensors["bert.pooler.dense.weight"]  # an embedder would do without
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks bert\.pooler\.dense\.weight.*scores"):
        torch_reranker(copied).load()


def test_a_tokenizer_with_more_types_than_the_model_is_refused(
    compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(compiled("bert"), tmp_path / "m")
    change(folder, "config.json", type_vocab_size=1)
    with pytest.raises(ModelError, match="type 1, and the model knows 1"):
        Reranker(folder).load()


def test_an_embedder_is_no_reranker_and_a_reranker_no_embedder(
    bert: Path, tiny_folder: Path, openvino_folder: Path
) -> None:
    for folder in (tiny_folder, openvino_folder):
        with pytest.raises(ModelError, match=r"makes vectors|BertModel"):
            Reranker(folder, device="cpu").score("bread", ["rye"])
    with pytest.warns(GuessWarning, match="mean is taken"):
        Embedder(bert, engine="sentence-transformers", device="cpu").embed_query("bread")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=DEFAULT_RERANKER):
        Reranker(tmp_path / "nowhere").load()


def test_wrong_arguments_are_named() -> None:
    wrong: Any = {"precision": "int8", "engine": "tpu", "on_truncate": "stop", "max_tokens": 0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            Reranker(**{name: value})


# -- shared ---------------------------------------------------------------------------------


def test_rerankers_of_one_model_share_it_and_an_embedder_does_not(
    bert: Path, tmp_path: Path
) -> None:
    first = torch_reranker(bert).load()
    again = torch_reranker(shutil.copytree(bert, tmp_path / "same"), max_tokens=32).load()
    assert first._worker() is again._worker()
    low = torch_reranker(bert, precision="bfloat16").load()
    assert low._worker() is not first._worker()
    assert low.running_on.endswith("bfloat16")


@pytest.mark.parametrize(
    "copy_of", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_a_copy_or_pickle_carries_the_settings_and_no_weights(
    bert: Path, copy_of: Callable[[Reranker], Reranker]
) -> None:
    reranker = torch_reranker(bert, max_tokens=32, on_truncate="ignore").load()
    assert len(pickle.dumps(reranker)) < 1_000
    other = copy_of(reranker)
    assert other.settings() == reranker.settings()
    assert other._loaded is None
    assert repr(other) == repr(reranker)
    np.testing.assert_array_equal(other.score(QUERY, prose(5)), reranker.score(QUERY, prose(5)))


def test_threads_and_event_loops_get_the_same_scores_and_no_loop_runs_the_model(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = torch_reranker(bert)
    documents = [prose(12, seed) for seed in range(24)]
    expected = [reranker.score(QUERY, some) for some in documents]
    engine: Any = reranker._worker().engine
    run, threads = engine.run, set()

    def noted(batch: Any, *, prompt: str) -> Any:
        threads.add(threading.get_ident())
        return run(batch, prompt=prompt)

    monkeypatch.setattr(engine, "run", noted)
    loops = []

    async def all_of(some: list[list[str]]) -> list[Any]:
        loops.append(threading.get_ident())
        return await asyncio.gather(*(reranker.ascore(QUERY, each) for each in some))

    def on_a_loop(start: int) -> list[Any]:
        return asyncio.run(all_of(documents[start : start + 8]))

    with ThreadPoolExecutor(24) as pool:
        scored = list(pool.map(lambda some: reranker.score(QUERY, some), documents))
        awaited = [part for parts in pool.map(on_a_loop, [0, 8, 16]) for part in parts]
    for got in (scored, awaited):
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    assert not threads & set(loops)


def test_awaited_scores_of_many_documents_are_the_same(bert: Path) -> None:
    documents = prose(100)
    expected = torch_reranker(bert).score(QUERY, documents)

    async def scored() -> Any:
        reranker = await torch_reranker(bert).aload()
        return await reranker.ascore(QUERY, documents)

    np.testing.assert_allclose(asyncio.run(scored()), expected, atol=1e-4)


def test_a_forked_child_scores(bert: Path) -> None:
    reranker = torch_reranker(bert)
    expected = reranker.score(QUERY, prose(8))
    forked = Child(lambda: reranker.score(QUERY, prose(8)).tolist()).answer()
    np.testing.assert_allclose(forked, expected, atol=1e-4)


# -- the real weights -----------------------------------------------------------------------


@pytest.mark.rest
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_real_models_put_those_that_answer_first(version: str) -> None:
    """As the examples of their model cards do."""
    from huggingface_hub import try_to_load_from_cache

    model = f"mixedbread-ai/mxbai-rerank-base-{version}"
    if not isinstance(try_to_load_from_cache(model, "config.json"), str):
        pytest.skip(f"{model} is not in the hub's cache on this machine")
    documents = [
        "The novel 'Moby-Dick' was written by Herman Melville and first published in 1851.",
        "'To Kill a Mockingbird' is a novel by Harper Lee published in 1960.",
        "Jane Austen was an English novelist known for her six major novels.",
        "Harper Lee, known for her novel 'To Kill a Mockingbird', was born in 1926 in Alabama.",
        "The 'Harry Potter' series was written by British author J.K. Rowling.",
    ]
    ranked = Reranker(model).rank("Who wrote 'To Kill a Mockingbird'?", documents, k=2)
    assert {position for position, _ in ranked} == {1, 3}
