"""The family mxbai-rerank-v2: a language model asked in the published words, which answers 1 or 0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_V2_TEMPLATE, WORDS, save_tiny_generative_reranker

from toastrack import Embedder, Reranker
from toastrack.errors import ModelError, TruncationWarning

QUERY = "why is my rye bread sour?"
DOCUMENTS = [
    "Rye bread keeps fresh.",
    "warm dough\n",
    "what?\n\n",
    "",
    "sour " * 40,
    "line one.\nline two\r\n\tand a tab",
    "Grüße, 日本語, \U0001f35e",
    "document: query: 1",
]


def asked(query: str, document: str) -> str:
    """The published template, letter for letter: https://github.com/mixedbread-ai/mxbai-rerank ."""
    return (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        f"<|im_end|>\n<|im_start|>user\nquery: {query}\ndocument: {document}\nYou are a search "
        "relevance expert who evaluates how well documents match search queries. For each query-"
        "document pair, carefully analyze the semantic relationship between them, then provide "
        "your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generative_reranker(tmp_path_factory.mktemp("v2") / "v2")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return shutil.copytree(folder, tmp_path / "copied")


def reranker(folder: Path, **settings: Any) -> Reranker:
    return Reranker(folder, engine="sentence-transformers", device="cpu", **settings)


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    load: Any = AutoTokenizer.from_pretrained
    return load(str(folder))


def theirs(folder: Path, **settings: Any) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    return CrossEncoder(
        str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, **settings
    )


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")


# -- what is asked --------------------------------------------------------------------------


def test_the_token_ids_are_those_of_the_published_template(folder: Path) -> None:
    pairs = reranker(folder)._worker().engine.prepare_pairs(QUERY, DOCUMENTS, 512)
    reads, model = tokenizer(folder), theirs(folder)
    for document, pair in zip(DOCUMENTS, pairs, strict=True):
        whole = asked(QUERY, document)
        assert list(pair.ids) == reads(whole, add_special_tokens=False)["input_ids"]
        assert reads.decode(pair.ids) == whole
        assert list(pair.ids) == model.preprocess([(QUERY, document)])["input_ids"][0].tolist()
        assert pair.uncut == len(pair.ids)


@pytest.mark.parametrize("tied", [False, True])
def test_scores_are_those_of_sentence_transformers(tmp_path: Path, tied: bool) -> None:
    import torch

    folder = save_tiny_generative_reranker(tmp_path / "m", tied=tied, seed=1)
    scores = reranker(folder).score(QUERY, DOCUMENTS)
    pairs = [(QUERY, document) for document in DOCUMENTS]
    expected = theirs(folder).predict(pairs, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert scores.argsort().tolist() == expected.argsort().tolist()


def test_a_score_says_how_much_likelier_1_is_than_0_behind_the_last_token(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    model, reads = load(str(folder), dtype=torch.float32).eval(), tokenizer(folder)
    one, zero = reads.convert_tokens_to_ids(["1", "0"])
    by_hand = []
    for document in DOCUMENTS:
        ids = reads(asked(QUERY, document), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            last = model(torch.tensor([ids])).logits[0, -1]
        by_hand.append(float(last[one] - last[zero]))
    scores = reranker(folder).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(scores, by_hand, atol=1e-3)


@pytest.mark.parametrize("budget", [1, 400, 1_000_000])
def test_a_batch_is_padded_on_the_left_and_changes_no_score(
    folder: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = reranker(folder)
    expected = [float(ours.score(QUERY, [document])[0]) for document in DOCUMENTS]
    engine: Any = ours._worker().engine
    logits, masks = engine.logits, []

    def noted(features: Any) -> Any:
        masks.append(features["attention_mask"])
        return logits(features)

    monkeypatch.setattr(engine, "batch_tokens", budget)
    monkeypatch.setattr(engine, "logits", noted)
    np.testing.assert_allclose(ours.score(QUERY, DOCUMENTS), expected, atol=1e-3)
    assert all(int(mask[:, -1].min()) == 1 for mask in masks)
    assert any(int(mask[:, 0].min()) == 0 for mask in masks) == (budget > 1)


# -- the limit ------------------------------------------------------------------------------


def test_a_long_document_is_cut_and_the_question_stays_whole(folder: Path) -> None:
    documents = ["rye", "bread keeps fresh. " * 300]
    ours = reranker(folder, max_tokens=160)
    with pytest.warns(TruncationWarning, match="1 of 2 texts were cut at 160 tokens"):
        ours.score(QUERY, documents)
    short, long = ours._worker().engine.prepare_pairs(QUERY, documents, 160)
    assert (len(long.ids), short.uncut) == (160, len(short.ids))
    reads = tokenizer(folder)
    assert reads.decode(long.ids).endswith(asked("", "").partition("document: ")[2])
    assert long.uncut == len(reads(asked(QUERY, documents[1]))["input_ids"])
    model = theirs(folder, max_length=160)
    assert list(long.ids) == model.preprocess([(QUERY, documents[1])])["input_ids"][0].tolist()


def test_a_long_query_leaves_room_for_the_document(folder: Path) -> None:
    ours = reranker(folder, max_tokens=160, on_truncate="ignore")
    (pair,) = ours._worker().engine.prepare_pairs("bread " * 400, ["rye sour dough " * 50], 160)
    text = tokenizer(folder).decode(pair.ids)
    assert len(pair.ids) == 160
    assert "document: rye sour dough rye" in text
    assert pair.uncut > 400
    with pytest.raises(ValueError, match=r"max_tokens=40 leaves no room for text: what stands"):
        reranker(folder, max_tokens=40).score(QUERY, ["rye"])


# -- what is refused ------------------------------------------------------------------------


def test_a_bare_language_model_is_refused(copied: Path) -> None:
    (copied / "modules.json").unlink()
    with pytest.raises(ModelError, match="a language model without the files that make it"):
        reranker(copied).load()


def test_other_answers_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_generative_reranker(tmp_path / "m", answers=("2", "0"))
    with pytest.raises(ModelError, match=r"compares the tokens .* mxbai-rerank-v2"):
        reranker(folder).load()


@pytest.mark.parametrize(
    "values", [{"false_token_id": None}, {"true_token_id": 10**9}, {"true_token_id": "1"}]
)
def test_answers_that_are_none_are_refused(copied: Path, values: dict[str, Any]) -> None:
    change(copied / "1_LogitScore", "config.json", **values)
    with pytest.raises(ModelError, match="compares the tokens"):
        reranker(copied).load()


@pytest.mark.parametrize(
    "template",
    [
        MXBAI_V2_TEMPLATE.replace("query: {{", "question: {{"),
        MXBAI_V2_TEMPLATE.replace("binary", "own"),
        "{{ messages[0].content }} {{ messages[1].content }}",
    ],
)
def test_another_template_is_refused(copied: Path, template: str) -> None:
    (copied / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ModelError, match=r"The chat template of .* asks"):
        reranker(copied).load()


def test_a_template_that_lost_its_last_line_break_is_asked_as_published(
    folder: Path, copied: Path
) -> None:
    path = copied / "chat_template.jinja"
    path.write_text(MXBAI_V2_TEMPLATE.replace('{{ "\\n" }}', "\n"), encoding="utf-8")
    expected = reranker(folder).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(reranker(copied).score(QUERY, DOCUMENTS), expected, atol=1e-4)


def test_a_model_without_a_template_is_refused(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="template"):
        reranker(copied).load()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"modality_config": {"text": {"method": "forward"}}}, "sets modality_config"),
        ({"modality_config": None}, "sets modality_config"),
        ({"processing_kwargs": {"text": {"max_length": 8}}}, "sets processing_kwargs"),
        ({"processing_kwargs": {"chat_template": {"tools": []}}}, "sets processing_kwargs"),
        ({"transformer_task": "feature-extraction"}, "sets transformer_task"),
    ],
)
def test_settings_that_would_ask_otherwise_are_refused(
    copied: Path, values: dict[str, Any], said: str
) -> None:
    change(copied, "sentence_bert_config.json", **values)
    with pytest.raises(ModelError, match=said):
        reranker(copied).load()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "own.Model"}}, "code of its own"),
        ({"architectures": ["Qwen2Model"]}, "it names Qwen2Model"),
    ],
)
def test_another_model_under_the_same_files_is_refused(
    copied: Path, values: dict[str, Any], said: str
) -> None:
    change(copied, "config.json", **values)
    with pytest.raises(ModelError, match=said):
        reranker(copied).load()


def test_openvino_does_not_run_it_and_auto_does_not_try(folder: Path) -> None:
    pytest.importorskip("openvino_telemetry", reason="the extra 'openvino' is not installed")
    with pytest.raises(ModelError, match="engine='openvino' cannot run"):
        Reranker(folder, engine="openvino").load()
    assert Reranker(folder, device="cpu").running_on.startswith("sentence-transformers")


def test_it_is_no_embedder(folder: Path) -> None:
    with pytest.raises(ModelError, match="LogitScore"):
        Embedder(folder, engine="sentence-transformers", device="cpu").embed_query("bread")


def test_it_is_ranked_like_any_other(folder: Path) -> None:
    documents = [" ".join(WORDS[i % 40 : i % 40 + 5]) + f" {i}" for i in range(70)]
    ours = reranker(folder)
    scores = ours.score(QUERY, documents)
    ranked = ours.rank(QUERY, documents, k=5)
    assert [position for position, _ in ranked] == np.argsort(-scores, kind="stable")[:5].tolist()
