"""The facade: vectors that equal sentence-transformers', and mistakes that say what to do."""

import asyncio
import copy
import gc
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from models import MXBAI_PROMPT, save_tiny_bert
from numpy.typing import NDArray
from programs import run, run_warm
from sentence_transformers import SentenceTransformer

from toastrack import Embedder
from toastrack.batching.truncation import TruncationCounter
from toastrack.engines.sentence_transformers import SentenceTransformersEngine, one_name
from toastrack.errors import GuessWarning, ModelError

Matrix = NDArray[np.float32]
PROMPTS = {"query": MXBAI_PROMPT, "passage": ""}
WORDS = re.findall(
    r"\w+",
    "the a of and is in to with it my how do i bread rye flour water salt yeast dough oven crust "
    "starter warm cold rises falls sour sweet bake baker keeps fresh why what when where",
)


def prose(count: int, *, longest: int, seed: int = 0) -> list[str]:
    """English-looking texts of mixed lengths, the empty one among them, the same every time."""
    pick = random.Random(seed)
    texts = [""]
    while len(texts) < count:
        sizes = [1, 2, 5, 12, longest // 4, longest]
        (size,) = pick.choices(sizes, weights=[3, 3, 4, 4, 2, 1])
        words = pick.choices(WORDS, k=size)
        for place in range(6, len(words), 9):
            words[place] += pick.choice([",", ".", ";", " -", "?", "!"])
        texts.append(" ".join(words).capitalize() + ".")
    pick.shuffle(texts)
    return texts


@cache
def plain_model(folder: Path) -> SentenceTransformer:
    settings = {"torch_dtype": torch.float32}
    return SentenceTransformer(str(folder), device="cpu", model_kwargs=settings)


def plain(folder: Path, texts: Sequence[str], prompt: str = "") -> Matrix:
    """What sentence-transformers makes of the texts by itself, in float32."""
    vectors = plain_model(folder).encode(list(texts), prompt=prompt, normalize_embeddings=True)
    return np.asarray(vectors, dtype=np.float32)


def assert_equal_vectors(ours: Matrix, theirs: Matrix, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def half_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model saved in fp16, as mxbai is."""
    return save_tiny_bert(tmp_path_factory.mktemp("m") / "half", half=True, prompts=PROMPTS)


@pytest.fixture(scope="module")
def shards_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_folder``'s weights in several files."""
    return save_tiny_bert(tmp_path_factory.mktemp("m") / "shards", shards=True, prompts=PROMPTS)


@pytest.fixture(scope="module")
def mean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_folder``'s weights with mean pooling."""
    return save_tiny_bert(tmp_path_factory.mktemp("m") / "mean", pooling="mean", prompts=PROMPTS)


@pytest.fixture
def quiet(loaded: Embedder, tiny_folder: Path) -> Embedder:
    """An embedder of the tiny model that cuts without a word."""
    return Embedder(tiny_folder, device="cpu", on_truncate="ignore")


# -- shapes and types -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
def test_a_matrix_is_float32_contiguous_and_one_row_a_text(embedder: Embedder, method: str) -> None:
    vectors = getattr(embedder, method)(["bread", "", "my starter rises"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 32)
    assert vectors.flags.c_contiguous


def test_one_query_is_one_float32_vector(embedder: Embedder) -> None:
    vector = embedder.embed_query("bread")
    assert vector.dtype == np.float32
    assert vector.shape == (32,)
    assert vector.flags.c_contiguous


def test_one_query_equals_itself_in_a_list(embedder: Embedder) -> None:
    assert_equal_vectors(embedder.embed_query("bread"), embedder.embed_queries(["bread"])[0])


@pytest.mark.parametrize("dimensions", [None, 8])
@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
def test_every_vector_has_length_one(
    tiny_folder: Path, method: str, dimensions: int | None
) -> None:
    embedder = Embedder(tiny_folder, device="cpu", on_truncate="ignore", dimensions=dimensions)
    vectors = getattr(embedder, method)(prose(40, longest=80)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dimensions", [None, 8])
@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
def test_no_texts_make_an_empty_matrix(
    tiny_folder: Path, method: str, dimensions: int | None
) -> None:
    vectors = getattr(Embedder(tiny_folder, device="cpu", dimensions=dimensions), method)([])
    assert vectors.shape == (0, dimensions or 32)
    assert vectors.dtype == np.float32


def test_the_order_of_the_texts_is_kept(quiet: Embedder) -> None:
    texts = prose(50, longest=80)
    alone = np.stack([quiet.embed_documents([text])[0] for text in texts])
    assert_equal_vectors(quiet.embed_documents(texts), alone)
    order = random.Random(1).sample(range(50), 50)
    assert_equal_vectors(quiet.embed_documents([texts[i] for i in order]), alone[order])


def test_a_generator_is_as_good_as_a_list(embedder: Embedder) -> None:
    texts = ["bread", "rye", "bread"]
    assert_equal_vectors(
        embedder.embed_documents(text for text in texts), embedder.embed_documents(texts)
    )


def test_each_batch_names_its_positions(quiet: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet._engine(), "batch_tokens", 100)
    texts = prose(30, longest=80)
    parts = list(quiet._stream("query", TruncationCounter("ignore")).add(texts))
    assert len(parts) > 2
    assert sorted(position for positions, _ in parts for position in positions) == list(range(30))
    expected = quiet.embed_queries(texts)
    for positions, vectors in parts:
        assert_equal_vectors(vectors, expected[positions])


# -- what may not be embedded ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
def test_one_str_where_a_list_belongs_is_refused(embedder: Embedder, method: str) -> None:
    with pytest.raises(TypeError, match=rf"{method} takes a list of texts .* one str.*\[text\]"):
        getattr(embedder, method)("bread")


@pytest.mark.parametrize("value", [["bread"], None, 5, b"bread"])
def test_embed_query_takes_only_a_str(embedder: Embedder, value: Any) -> None:
    with pytest.raises(TypeError, match=f"one str, not {type(value).__name__}"):
        embedder.embed_query(value)


@pytest.mark.parametrize("value", [None, 5, b"bread", ["bread"], float("nan")])
def test_what_is_not_a_text_is_named_by_its_position(embedder: Embedder, value: Any) -> None:
    with pytest.raises(TypeError, match=f"text 2 is {type(value).__name__}"):
        embedder.embed_documents(["bread", "rye", value])


def test_a_lone_surrogate_is_named_by_its_position(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=r"text 1 holds a lone surrogate.*U\+D800 at offset 4"):
        embedder.embed_documents(["bread", "rye \ud800", "salt"])


def test_a_lone_surrogate_far_down_the_list_is_named_by_its_position(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.batching.encoder._WINDOW", 4)
    with pytest.raises(ValueError, match="text 9 holds a lone surrogate"):
        embedder.embed_documents(["bread"] * 9 + ["\udfff"])


def test_a_lone_surrogate_in_a_query_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        embedder.embed_query("\ud83c")


@pytest.mark.parametrize("method", ["embed_queries", "embed_documents"])
@pytest.mark.parametrize("value", [None, 5, b"bread", {"a": "bread"}])
def test_what_is_no_list_of_texts_is_named(embedder: Embedder, method: str, value: Any) -> None:
    with pytest.raises(
        TypeError, match=f"{method} takes a list of texts, not {type(value).__name__}"
    ) as e:
        getattr(embedder, method)(value)
    assert repr(value) in str(e.value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda embedder: embedder.embed_query(b"bread"),
        lambda embedder: embedder.embed_documents(["rye", b"bread"]),
        lambda embedder: embedder.embed_documents(b"bread"),
        lambda embedder: embedder.count_tokens(b"bread"),
        lambda embedder: embedder.split(b"bread"),
        lambda embedder: asyncio.run(embedder.aembed_query(b"bread")),
    ],
)
def test_bytes_are_to_be_decoded_first(
    embedder: Embedder, ask: Callable[[Embedder], object]
) -> None:
    with pytest.raises(TypeError, match=r"bytes: b'bread'\. Decode it first: \.decode\('utf-8'\)"):
        ask(embedder)


def test_a_role_that_is_none_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="role='qery' is not one of 'query', 'document'"):
        embedder.count_tokens("bread", role="qery")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["count_tokens", "split"])
def test_what_is_counted_and_split_is_one_text(embedder: Embedder, method: str) -> None:
    with pytest.raises(TypeError, match=f"{method} takes one str, not NoneType: None"):
        getattr(embedder, method)(None)


@pytest.mark.parametrize("overlap", [-1, 1.5, "2", True, None])
def test_an_overlap_is_a_whole_number(embedder: Embedder, overlap: Any) -> None:
    with pytest.raises(ValueError, match=f"overlap={overlap!r} must be a whole number"):
        embedder.split("bread", overlap=overlap)


# -- the same numbers as sentence-transformers ----------------------------------------------


def test_documents_equal_plain_sentence_transformers(quiet: Embedder, tiny_folder: Path) -> None:
    texts = prose(60, longest=80)
    assert_equal_vectors(quiet.embed_documents(texts), plain(tiny_folder, texts))


def test_queries_equal_plain_sentence_transformers_with_the_prompt(
    quiet: Embedder, tiny_folder: Path
) -> None:
    texts = prose(60, longest=80)
    assert_equal_vectors(quiet.embed_queries(texts), plain(tiny_folder, texts, MXBAI_PROMPT))


def test_the_prompt_changes_the_vector(quiet: Embedder) -> None:
    query, document = quiet.embed_query("bread"), quiet.embed_documents(["bread"])[0]
    assert query @ document < 0.9


def test_a_real_model_equals_plain_sentence_transformers(minilm_folder: Path) -> None:
    texts = prose(60, longest=300)
    embedder = Embedder(
        minilm_folder, device="cpu", on_truncate="ignore", query_prompt=MXBAI_PROMPT
    )
    assert_equal_vectors(embedder.embed_documents(texts), plain(minilm_folder, texts))
    short = [text for text in texts if len(text) < 100]
    assert_equal_vectors(embedder.embed_queries(short), plain(minilm_folder, short, MXBAI_PROMPT))
    assert_equal_vectors(
        np.stack([embedder.embed_documents([text])[0] for text in short]),
        plain(minilm_folder, short),
    )


@pytest.mark.parametrize("budget", [1, 70, 500, 1_000_000])
def test_the_size_of_batches_does_not_change_a_vector(
    quiet: Embedder, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    texts = prose(30, longest=80, seed=1)
    expected = plain(tiny_folder, texts, MXBAI_PROMPT)
    monkeypatch.setattr(quiet._engine(), "batch_tokens", budget)
    assert_equal_vectors(quiet.embed_queries(texts), expected)


def test_windows_do_not_change_a_vector(quiet: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = prose(30, longest=80, seed=2)
    expected = quiet.embed_documents(texts)
    monkeypatch.setattr("toastrack.batching.encoder._WINDOW", 7)
    assert_equal_vectors(quiet.embed_documents(texts), expected)


def test_threads_that_share_an_embedder_get_the_same_vectors(quiet: Embedder) -> None:
    texts = prose(40, longest=80, seed=3)
    queries, documents = quiet.embed_queries(texts), quiet.embed_documents(texts)
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(quiet.embed_query, texts * 2))
        stored = list(pool.map(lambda _: quiet.embed_documents(texts), range(8)))
    assert_equal_vectors(np.stack(asked), np.concatenate([queries, queries]))
    for vectors in stored:
        assert_equal_vectors(vectors, documents)


def test_mean_pooling_equals_plain_sentence_transformers(mean_folder: Path) -> None:
    texts = prose(30, longest=80)
    embedder = Embedder(mean_folder, device="cpu", on_truncate="ignore")
    assert_equal_vectors(embedder.embed_documents(texts), plain(mean_folder, texts))
    assert_equal_vectors(embedder.embed_queries(texts), plain(mean_folder, texts, MXBAI_PROMPT))


def test_pooling_is_the_models_own(quiet: Embedder, mean_folder: Path) -> None:
    mean = Embedder(mean_folder, device="cpu").embed_documents(["my starter rises"])
    assert float(np.sum(mean * quiet.embed_documents(["my starter rises"]))) < 0.99


def test_a_pooling_that_leaves_the_prompt_out_equals_plain_sentence_transformers(
    mean_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(mean_folder, tmp_path / "m")
    path = folder / "1_Pooling" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"include_prompt": False}), encoding="utf-8")
    embedder = Embedder(folder, device="cpu", on_truncate="ignore")
    texts = prose(20, longest=80)
    assert_equal_vectors(embedder.embed_queries(texts), plain(folder, texts, MXBAI_PROMPT))


def test_two_poolings_in_one_vector_keep_all_their_numbers(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    config = {"embedding_dimension": 32, "pooling_mode": ["cls", "mean"], "include_prompt": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    embedder = Embedder(folder, device="cpu")
    texts = ["bread", "my starter rises"]
    expected = plain(folder, texts)
    assert expected.shape == (2, 64)
    assert embedder.dimensions == 64
    assert_equal_vectors(embedder.embed_documents(texts), expected)


def test_a_dense_layer_behind_the_pooling_counts(tiny_folder: Path, tmp_path: Path) -> None:
    # sentence-transformers 5 has it under another name.
    modules: Any = pytest.importorskip(
        "sentence_transformers.sentence_transformer.modules",
        reason="sentence-transformers 6 is not installed",
    )
    model = SentenceTransformer(str(tiny_folder), device="cpu")
    model.append(modules.Dense(32, 16))
    model.save(str(tmp_path / "m"))
    embedder = Embedder(tmp_path / "m", device="cpu")
    assert embedder.dimensions == 16
    texts = ["bread", "my starter rises"]
    assert_equal_vectors(embedder.embed_documents(texts), plain(tmp_path / "m", texts))


def test_a_bare_transformer_takes_the_mean_as_sentence_transformers_does(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        shutil.copyfile(tiny_folder / name, folder / name)
    embedder = Embedder(folder, device="cpu")
    assert (embedder.dimensions, embedder.max_tokens, embedder.query_prompt) == (32, 64, "")
    texts = ["bread", "my starter rises"]
    with pytest.warns(GuessWarning, match=r"no modules\.json"):
        vectors = embedder.embed_documents(texts)
    assert_equal_vectors(vectors, plain(folder, texts))


def cased(folder: Path, target: Path, *, lower: bool) -> Path:
    """A copy whose tokenizer keeps capitals, and whose model may ask for lower case all the same."""
    shutil.copytree(folder, target)
    changes: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {"do_lower_case": False},
        "sentence_bert_config.json": {"do_lower_case": lower},
    }
    for name, change in changes.items():
        content = json.loads((target / name).read_text(encoding="utf-8"))
        (target / name).write_text(json.dumps(content | change), encoding="utf-8")
    content = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    (target / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return target


def test_models_that_differ_in_lower_casing_alone_do_not_share_an_engine(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folders = [cased(tiny_folder, tmp_path / str(lower), lower=lower) for lower in (True, False)]
    texts = ["My Starter Rises", "RYE and salt"]
    expected = [plain(folder, texts) for folder in folders]
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    embedders = [Embedder(folder, device="cpu").load() for folder in folders]
    for embedder, vectors in zip(embedders, expected, strict=True):
        assert_equal_vectors(embedder.embed_documents(texts), vectors)


def test_lower_casing_counts_the_same_before_and_after_loading(
    tiny_folder: Path, tmp_path: Path
) -> None:
    embedder = Embedder(cased(tiny_folder, tmp_path / "m", lower=True), device="cpu")
    before = embedder.count_tokens("SOURDOUGH Starter")
    assert embedder.load().count_tokens("SOURDOUGH Starter") == before


def test_models_that_differ_in_the_order_of_their_poolings_do_not_share_an_engine(
    tiny_folder: Path, tmp_path: Path
) -> None:
    embedders = []
    for modes in (["cls", "mean"], ["mean", "cls"]):
        folder = shutil.copytree(tiny_folder, tmp_path / modes[0])
        config = {"embedding_dimension": 32, "pooling_mode": modes, "include_prompt": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
        embedders.append(Embedder(folder, device="cpu").load())
    for embedder in embedders:
        texts = ["bread", "my starter rises"]
        assert_equal_vectors(embedder.embed_documents(texts), plain(Path(embedder.model), texts))


def changed_json(folder: Path, target: Path, name: str, change: dict[str, Any]) -> Path:
    """A copy of a model with other values in one of its files."""
    shutil.copytree(folder, target)
    content = json.loads((target / name).read_text(encoding="utf-8"))
    (target / name).write_text(json.dumps(content | change), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"layer_norm_eps": 0.1}),
        ("tokenizer_config.json", {"padding_side": "left"}),
    ],
)
def test_models_that_differ_in_how_they_run_do_not_share_an_engine(
    quiet: Embedder, tiny_folder: Path, tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    folder = changed_json(tiny_folder, tmp_path / "m", name, change)
    other = Embedder(folder, device="cpu", on_truncate="ignore")
    texts = ["bread", "my starter rises"]
    expected = plain(folder, texts)
    assert np.abs(expected - quiet.embed_documents(texts)).max() > 1e-4
    assert_equal_vectors(other.embed_documents(texts), expected)


def test_what_a_model_notes_for_people_does_not_keep_it_from_sharing_an_engine(
    embedder: Embedder, tiny_folder: Path, tmp_path: Path
) -> None:
    notes = {"transformers_version": "9.9", "_name_or_path": "elsewhere", "dtype": "float32"}
    folder = changed_json(tiny_folder, tmp_path / "m", "config.json", notes)
    assert Embedder(folder, device="cpu")._engine() is embedder._engine()


def test_a_size_that_the_model_does_not_make_is_an_error(
    embedder: Embedder, tiny_folder: Path, tmp_path: Path
) -> None:
    size = {"embedding_dimension": 48}
    folder = changed_json(tiny_folder, tmp_path / "m", "1_Pooling/config.json", size)
    with pytest.raises(ModelError, match=r"says that its vectors have 48 numbers, and makes 32\."):
        Embedder(folder, device="cpu").embed_query("bread")


# -- weights --------------------------------------------------------------------------------


def test_weights_saved_in_half_precision_run_in_float32_on_a_cpu(half_folder: Path) -> None:
    saved = safetensors.torch.load_file(half_folder / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    embedder = Embedder(half_folder, device="cpu", on_truncate="ignore")
    engine = embedder._engine()
    assert isinstance(engine, SentenceTransformersEngine)
    assert {parameter.dtype for parameter in engine._model.parameters()} == {torch.float32}
    texts = prose(30, longest=80)
    assert_equal_vectors(embedder.embed_queries(texts), plain(half_folder, texts, MXBAI_PROMPT))


def test_sharded_weights_make_the_same_vectors(quiet: Embedder, shards_folder: Path) -> None:
    assert len(list(shards_folder.glob("model-*.safetensors"))) > 1
    texts = prose(20, longest=80)
    embedder = Embedder(shards_folder, device="cpu", on_truncate="ignore")
    assert_equal_vectors(embedder.embed_queries(texts), quiet.embed_queries(texts))


def test_bfloat16_is_asked_for_by_name_and_still_gives_float32(minilm_folder: Path) -> None:
    texts = prose(20, longest=60)
    precise = Embedder(minilm_folder, device="cpu").embed_documents(texts)
    vectors = Embedder(minilm_folder, device="cpu", precision="bfloat16").embed_documents(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
    cosines = np.sum(vectors * precise, axis=1)
    assert cosines.max() < 1 - 1e-6, "this ran in float32"
    assert cosines.mean() >= 0.9999


def test_damaged_weights_are_an_error_and_not_a_vector_of_nan(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in weights.items()}
    safetensors.torch.save_file(broken, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        Embedder(folder, device="cpu").embed_query("bread")


# -- dimensions and limits ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 8, 31, 32])
def test_fewer_dimensions_are_the_first_ones_at_length_one(
    quiet: Embedder, tiny_folder: Path, size: int
) -> None:
    texts = prose(20, longest=60)
    first = quiet.embed_documents(texts).astype(np.float64)[:, :size]
    expected = (first / np.linalg.norm(first, axis=1, keepdims=True)).astype(np.float32)
    embedder = Embedder(tiny_folder, device="cpu", dimensions=size, on_truncate="ignore")
    vectors = embedder.embed_documents(texts)
    assert embedder.dimensions == size
    assert vectors.flags.c_contiguous
    assert_equal_vectors(vectors, expected)


@pytest.mark.parametrize("count", [3, 100])
def test_fewer_dimensions_are_the_same_ones_when_awaited(tiny_folder: Path, count: int) -> None:
    texts = prose(count, longest=60)
    embedder = Embedder(tiny_folder, device="cpu", dimensions=8, on_truncate="ignore")
    vectors = asyncio.run(embedder.aembed_documents(texts))
    assert vectors.shape == (count, 8)
    assert_equal_vectors(vectors, embedder.embed_documents(texts))


def test_more_dimensions_than_a_folders_model_has_are_refused_at_once(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"dimensions=33 .* 32 .*{re.escape(str(tiny_folder))}"):
        Embedder(tiny_folder, dimensions=33)


def test_a_folder_under_home_is_checked_at_once_too(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "m")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert Embedder("~/m").dimensions == 32
    with pytest.raises(ValueError, match="dimensions=33"):
        Embedder("~/m", dimensions=33)


@pytest.mark.parametrize("name", ["dimensions", "max_tokens"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8"])
def test_sizes_are_whole_numbers_of_at_least_one(tiny_folder: Path, name: str, value: Any) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a whole number"):
        Embedder(tiny_folder, **settings)


def test_the_limit_is_the_models_own(tiny_folder: Path) -> None:
    assert Embedder(tiny_folder).max_tokens == 64
    assert Embedder(tiny_folder, max_tokens=16).max_tokens == 16


def test_a_limit_over_the_models_own_is_refused(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu", max_tokens=65)
    with pytest.raises(ValueError, match="max_tokens=65 is over the 64"):
        _ = embedder.max_tokens
    with pytest.raises(ValueError, match="max_tokens=65 is over the 64"):
        embedder.embed_query("bread")


def test_limits_of_embedders_that_share_an_engine_stay_apart(
    quiet: Embedder, tiny_folder: Path
) -> None:
    text = "bread " * 40
    short = Embedder(tiny_folder, device="cpu", max_tokens=8, on_truncate="ignore")
    assert short._engine() is quiet._engine()
    before = quiet.embed_documents([text])
    cut = short.embed_documents([text])
    assert_equal_vectors(cut, quiet.embed_documents(["bread " * 6]))
    assert_equal_vectors(quiet.embed_documents([text]), before)


# -- construction ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import toastrack",
        "from toastrack import Embedder; Embedder('x/y')",
        "from toastrack import Embedder; Embedder()",
        "from toastrack import Embedder; repr(Embedder(FOLDER, dimensions=8, device='cpu'))",
    ],
)
def test_constructing_is_free(tiny_folder: Path, code: str) -> None:
    heavy = "{'torch', 'numpy', 'transformers', 'sentence_transformers', 'huggingface_hub', "
    heavy += "'openvino'}"
    code = f"import sys; FOLDER = {str(tiny_folder)!r}; {code}"
    assert run(f"{code}; print(sorted({heavy} & set(sys.modules)))") == "[]\n"


def test_what_a_model_says_of_itself_needs_no_torch(tiny_folder: Path) -> None:
    code = f"""
import sys
from toastrack import Embedder
embedder = Embedder({str(tiny_folder)!r})
print(embedder.prompts.query_source, embedder.dimensions, embedder.max_tokens)
print(embedder.count_tokens("bread"), len(embedder.split("bread " * 100)) > 1)
print(len(embedder.space.weights), "torch" in sys.modules)
"""
    assert run(code) == "saved with the model 32 64\n3 True\n64 False\n"


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("engine", "sentence_transformers", "'auto', 'sentence-transformers', 'openvino'"),
        ("precision", "float16", "'auto', 'float32', 'bfloat16'"),
        ("on_truncate", "warning", "'warn', 'error', 'ignore'"),
        ("engine", None, "'auto'"),
    ],
)
def test_a_typo_is_refused_with_the_choices(name: str, value: Any, choices: str) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name}={value!r} is not one of .*{choices}"):
        Embedder("x/y", **settings)


@pytest.mark.parametrize("name", ["query_prompt", "document_prompt", "device", "revision"])
@pytest.mark.parametrize("value", [5, b"cpu", torch.device("cpu")])
def test_a_setting_that_is_no_str_is_refused_at_once(name: str, value: Any) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=re.escape(f"{name}={value!r} must be a str such as ")):
        Embedder("x/y", **settings)


@pytest.mark.parametrize("model", [5, b"x/y", None])
def test_a_model_that_is_no_name_is_refused_at_once(model: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"model={model!r} must be a hub name")):
        Embedder(model)


def test_an_unknown_argument_is_refused() -> None:
    settings: dict[str, Any] = {"prompt": "query: "}
    with pytest.raises(TypeError, match="prompt"):
        Embedder("x/y", **settings)


def test_an_engine_that_there_is_not_is_refused_at_once() -> None:
    settings: dict[str, Any] = {"engine": "tpu"}
    with pytest.raises(ValueError, match=r"engine='tpu' is not one of 'auto', 'sentence-tr"):
        Embedder("x/y", **settings)


@pytest.mark.parametrize("device", ["banana", "cuda:99", "", "meta", "hpu:0"])
def test_a_device_that_is_not_here_is_named(tiny_folder: Path, device: str) -> None:
    embedder = Embedder(tiny_folder, device=device)
    with pytest.raises(ModelError, match=rf"device='{device}' cannot be used here: .*Leave it out"):
        embedder.embed_query("bread")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cuda", "cuda:1"),
        ("cuda:1", "cuda:1"),
        ("cuda:0", "cuda:0"),
        ("cpu", "cpu"),
        ("cpu:0", "cpu"),
        ("mps:0", "mps"),
        ("xpu:1", "xpu:1"),
    ],
)
def test_every_device_has_one_name(device: str, name: str) -> None:
    assert one_name(device, current=1) == name


def test_two_names_of_one_device_share_an_engine(embedder: Embedder, tiny_folder: Path) -> None:
    assert Embedder(tiny_folder, device="cpu:0")._engine() is embedder._engine()


def test_the_message_about_a_device_is_short(tiny_folder: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device that must be missing")
    with pytest.raises(ModelError) as caught:
        Embedder(tiny_folder, device="mps").embed_query("bread")
    assert len(str(caught.value)) < 400


def test_repr_shows_the_settings_that_were_given() -> None:
    text = repr(Embedder("x/y", dimensions=8, query_prompt="ask: "))
    assert text.startswith("Embedder(model='x/y'")
    assert "dimensions=8" in text
    assert "query_prompt='ask: '" in text
    assert "None" not in text


def test_repr_is_the_call_that_makes_an_equal_embedder() -> None:
    embedder = Embedder(
        "x/y", revision="main", device="cpu", document_prompt="", max_tokens=9, on_truncate="error"
    )
    assert repr(eval(repr(embedder), {"Embedder": Embedder})) == repr(embedder)


# -- models that are not there --------------------------------------------------------------


def test_a_hub_model_that_is_not_cached_says_so_offline() -> None:
    with pytest.raises(ModelError, match=r"'no-such/model'.*HF_HUB_OFFLINE.*local folder"):
        Embedder("no-such/model").embed_query("bread")


@pytest.mark.parametrize(
    "ask",
    [
        lambda embedder: embedder.dimensions,
        lambda embedder: embedder.max_tokens,
        lambda embedder: embedder.space,
        lambda embedder: embedder.query_prompt,
        lambda embedder: embedder.count_tokens("bread"),
        lambda embedder: embedder.split("bread"),
        lambda embedder: embedder.load(),
        lambda embedder: embedder.embed_documents([]),
    ],
)
def test_every_question_about_a_missing_model_gets_the_same_answer(
    ask: Callable[[Embedder], object],
) -> None:
    with pytest.raises(ModelError, match=r"'no-such/model'.*local folder"):
        ask(Embedder("no-such/model"))


@pytest.mark.parametrize("where", ["{tmp}/nope", "./nope", "~/no/such/folder"])
def test_a_missing_folder_is_named(tmp_path: Path, where: str) -> None:
    where = where.format(tmp=tmp_path)
    with pytest.raises(ModelError, match=r"There is no folder '.*(nope|folder)'.* hub name"):
        Embedder(where).embed_query("bread")


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{re.escape(str(tmp_path))}.*config\.json.*save\(\)"):
        Embedder(tmp_path).embed_query("bread")


def test_pickled_weights_are_not_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors.*does not load pickles.*Save"):
        Embedder(folder).embed_query("bread")


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_weights_that_were_not_copied_whole_are_named(
    shards_folder: Path, tmp_path: Path, kept: int
) -> None:
    folder = shutil.copytree(shards_folder, tmp_path / "m")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(ModelError) as caught:
        Embedder(folder, device="cpu").embed_query("bread")
    assert str(caught.value).startswith(f"{str(shard)!r} is damaged or was not copied whole (")
    assert str(caught.value).endswith("Delete it and get the model anew.")


def test_a_missing_shard_is_noticed(shards_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards_folder, tmp_path / "m")
    next(folder.glob("model-*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"safetensors"):
        Embedder(folder).embed_query("bread")


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("config.json", lambda embedder: embedder.max_tokens),
        ("tokenizer_config.json", lambda embedder: embedder.max_tokens),
        ("modules.json", lambda embedder: embedder.dimensions),
        ("1_Pooling/config.json", lambda embedder: embedder.dimensions),
        ("config_sentence_transformers.json", lambda embedder: embedder.query_prompt),
        ("tokenizer.json", lambda embedder: embedder.space),
        ("tokenizer.json", lambda embedder: embedder.count_tokens("bread")),
    ],
)
def test_a_file_that_is_not_json_is_named(
    tiny_folder: Path, tmp_path: Path, name: str, ask: Callable[[Embedder], object]
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / name).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=re.escape(name.rpartition("/")[2])):
        ask(Embedder(folder))


@pytest.mark.parametrize("name", ["bad name!", "owner/", "-x", "a/b\n", "ü/y"])
def test_a_name_that_cannot_be_one_says_what_a_name_looks_like(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        Embedder(name).embed_query("bread")
    assert repr(name) in str(caught.value)
    assert "mixedbread-ai/mxbai-embed-large-v1" in str(caught.value)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match=r"name is empty.*local folder"):
        Embedder(name)


# -- one model in memory --------------------------------------------------------------------


def test_a_pickle_carries_settings_and_no_weights(embedder: Embedder) -> None:
    expected = embedder.embed_query("bread")
    content = pickle.dumps(embedder)
    assert len(content) < 2_000
    copied = pickle.loads(content)
    assert repr(copied) == repr(embedder)
    assert_equal_vectors(copied.embed_query("bread"), expected)


def test_every_setting_survives_a_pickle(tiny_folder: Path) -> None:
    embedder = Embedder(
        tiny_folder,
        revision="main",
        engine="sentence-transformers",
        device="cpu",
        precision="float32",
        query_prompt="ask: ",
        document_prompt="tell: ",
        dimensions=8,
        max_tokens=16,
        on_truncate="error",
    )
    copied = pickle.loads(pickle.dumps(embedder))
    assert repr(copied) == repr(embedder)
    assert copied.space == embedder.space
    assert (copied.max_tokens, copied.on_truncate) == (16, "error")


def test_a_pickle_names_the_same_space_in_another_process(
    embedder: Embedder, tmp_path: Path
) -> None:
    (tmp_path / "embedder").write_bytes(pickle.dumps(embedder))
    code = f"""
import pathlib, pickle
embedder = pickle.loads(pathlib.Path({str(tmp_path / "embedder")!r}).read_bytes())
print(embedder, embedder.space.digest)
"""
    assert run(code) == f"{embedder} {embedder.space.digest}\n"


def test_a_deep_copy_shares_the_engine(embedder: Embedder) -> None:
    copied = copy.deepcopy(embedder)
    assert copied is not embedder
    assert_equal_vectors(copied.embed_query("bread"), embedder.embed_query("bread"))
    assert copied._engine() is embedder._engine()


def test_two_embedders_of_one_model_share_an_engine(embedder: Embedder, tiny_folder: Path) -> None:
    other = Embedder(tiny_folder, device="cpu", dimensions=8, query_prompt="ask: ", max_tokens=16)
    assert other._engine() is embedder._engine()


def test_a_copy_of_the_folder_shares_the_engine(
    embedder: Embedder, tiny_folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(tiny_folder, tmp_path / "m")
    assert Embedder(copied, device="cpu")._engine() is embedder._engine()


def test_threads_that_start_together_load_one_engine(other_folder: Path) -> None:
    embedders = [Embedder(other_folder, device="cpu") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda embedder: embedder._engine(), embedders))
    assert len({id(engine) for engine in engines}) == 1


def test_another_model_or_precision_has_another_engine(
    embedder: Embedder, tiny_folder: Path, other_folder: Path
) -> None:
    assert Embedder(other_folder, device="cpu")._engine() is not embedder._engine()
    assert (
        Embedder(tiny_folder, device="cpu", precision="bfloat16")._engine()
        is not embedder._engine()
    )


def test_new_weights_under_an_old_name_are_loaded(
    embedder: Embedder, tiny_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    before = Embedder(folder, device="cpu")
    assert_equal_vectors(before.embed_query("bread"), embedder.embed_query("bread"))
    shutil.copyfile(other_folder / "model.safetensors", folder / "model.safetensors")
    after = Embedder(folder, device="cpu")
    expected = Embedder(other_folder, device="cpu").embed_query("bread")
    assert_equal_vectors(after.embed_query("bread"), expected)


def test_the_engine_goes_with_its_last_embedder(other_folder: Path) -> None:
    embedder = Embedder(other_folder, device="cpu").load()
    engine = weakref.ref(embedder._engine())
    del embedder
    gc.collect()
    assert engine() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_builds_its_engine_anew_and_does_not_hang(tiny_folder: Path) -> None:
    code = f"""
import os, signal, numpy as np
from toastrack import Embedder
embedder = Embedder({str(tiny_folder)!r}, device="cpu").load()
texts = ["bread " * n for n in range(40)]
expected = embedder.embed_documents(texts)
parents = embedder._engine()
child = os.fork()
if not child:
    signal.alarm(120)
    vectors = embedder.embed_documents(texts)
    shared = embedder._engine() is parents
    os._exit(3 if shared or not np.allclose(vectors, expected, atol=1e-5) else 0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_warm(code) == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_locks_that_another_thread_holds_do_not_hang_a_forked_child(
    tiny_folder: Path, tmp_path: Path
) -> None:
    code = f"""
import os, signal, sys, threading
from toastrack import Embedder
from toastrack.batching import engine_pool
from toastrack.models import digests
embedder = Embedder({str(tiny_folder)!r}, device="cpu")
worker = Embedder({str(tiny_folder)!r}, device="cpu").load()._worker()
held, done = threading.Event(), threading.Event()
def hold():
    with embedder._lock, embedder._model._lock, digests._lock, engine_pool._lock, worker._changed:
        held.set()
        done.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(120)
    embedder.embed_query("bread")
    worker = None
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
holder.join()
print(status)
"""
    assert run_warm(code, XDG_CACHE_HOME=str(tmp_path)) == "0\n"


# -- a model that is only partly there, or brings code ------------------------------------------


def hub_cache(folder: Path, home: Path, names: list[str]) -> None:
    """Lay out files of a model as the hub's client keeps them."""
    cache = home / "models--mixedbread-ai--mxbai-embed-large-v1"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for name in names:
        (snapshot / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / name, snapshot / name)


def test_a_cached_model_without_its_pooling_and_prompts_is_not_used(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another library leaves it, that fetches the transformer alone."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    part = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    hub_cache(tiny_folder, tmp_path, part)
    with pytest.raises(ModelError, match="not in the local cache and HF_HUB_OFFLINE is set"):
        Embedder("mixedbread-ai/mxbai-embed-large-v1", device="cpu").embed_query("bread")


def test_a_whole_cached_model_is_used_under_its_hub_name(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedder: Embedder
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    files = [p.relative_to(tiny_folder).as_posix() for p in tiny_folder.rglob("*") if p.is_file()]
    hub_cache(tiny_folder, tmp_path, files)
    named = Embedder("mixedbread-ai/mxbai-embed-large-v1", device="cpu")
    assert named.space == embedder.space
    assert named.space.revision == "0" * 40
    assert named._engine() is embedder._engine()


def test_code_in_a_models_folder_is_never_run(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / "evil.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.append({"idx": 2, "name": "2", "path": "", "type": "evil.Module"})
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelError, match=r"code of its own, 'evil\.Module'"):
        Embedder(folder, device="cpu").embed_query("bread")


def test_pickled_weights_of_a_further_module_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"pickle")
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    kind = "sentence_transformers.models.Dense"
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelError, match=r"2_Dense.*as a pickle"):
        Embedder(folder, device="cpu").embed_query("bread")


def test_a_prompt_that_fills_the_limit_is_an_error(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu", max_tokens=8, on_truncate="ignore")
    assert embedder.embed_documents(["bread"]).shape == (1, 32)
    with pytest.raises(ValueError, match=r"max_tokens=8 leaves no room.*of a query take 10"):
        embedder.embed_query("bread")


def test_a_relative_folder_stays_the_same_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    embedder = Embedder(f"./{tiny_folder.name}", device="cpu")
    monkeypatch.chdir(tmp_path)
    assert embedder.embed_query("bread").shape == (32,)
    assert embedder.space.model == str(tiny_folder)


@pytest.mark.rest
def test_an_error_while_the_model_runs_does_not_abort_the_process(minilm_folder: Path) -> None:
    code = f"""
from toastrack import Embedder
embedder = Embedder({str(minilm_folder)!r}, device="cpu", on_truncate="ignore")
from toastrack.batching.truncation import TruncationCounter
for _ in embedder._stream("document", TruncationCounter("ignore")).add(["bread " * 300] * 400):
    raise RuntimeError("enough")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert result.stderr.rstrip().endswith("RuntimeError: enough")
