"""What happens to a text over the limit: it is counted, cut as the model would, and said once."""

import linecache
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_PROMPT
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from toastrack import Embedder
from toastrack.errors import ModelError, TruncationError, TruncationWarning
from toastrack.models.tokenizer import Tokenizer

LONG = "my starter falls in warm water and the crust is sour . " * 20


def words(count: int, *, seed: int = 0) -> str:
    """So many words that are one token each in the tiny vocabulary."""
    pick = random.Random(seed)
    return " ".join(pick.choices(["bread", "rye", "flour", "water", "salt", "yeast"], k=count))


def own_count(folder: Path, text: str) -> int:
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def plain(folder: Path, texts: list[str], limit: int, prompt: str = "") -> Any:
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = limit
    return model.encode(texts, prompt=prompt, normalize_embeddings=True)


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Embedder:
    return Embedder(minilm_folder, device="cpu", on_truncate="ignore").load()


# -- saying so ------------------------------------------------------------------------------


def test_a_call_that_cuts_warns_once_with_the_numbers(
    embedder: Embedder, tiny_folder: Path
) -> None:
    longest = own_count(tiny_folder, LONG)
    with pytest.warns(TruncationWarning) as caught:
        embedder.embed_documents(["bread", LONG, words(70), words(62), "rye"])
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("2 of 5 texts were cut at 64 tokens")
    assert f"the longest has {longest}" in message
    assert "embedder.split" in message


@pytest.mark.parametrize(
    "call",
    [
        lambda embedder: embedder.embed_documents([LONG]),
        lambda embedder: embedder.embed_queries([LONG]),
        lambda embedder: embedder.embed_query(LONG),
        lambda embedder: embedder.embed_documents(text for text in [LONG]),
    ],
    ids=["embed_documents", "embed_queries", "embed_query", "generator"],
)
def test_the_warning_points_at_the_callers_own_line(
    embedder: Embedder, call: Callable[[Embedder], object]
) -> None:
    with pytest.warns(TruncationWarning) as caught:
        call(embedder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "LONG" in linecache.getline(__file__, caught[0].lineno)


def test_texts_of_several_windows_make_one_warning(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.batching.encoder._WINDOW", 2)
    with pytest.warns(TruncationWarning, match=r"^3 of 5 texts") as caught:
        embedder.embed_documents([LONG, "bread", LONG, "rye", LONG])
    assert len(caught) == 1


def test_every_call_counts_anew(embedder: Embedder) -> None:
    for _ in range(2):
        with pytest.warns(TruncationWarning, match=r"^1 of 1 texts"):
            embedder.embed_documents([LONG])


def test_the_prompt_counts(embedder: Embedder) -> None:
    text = words(60)
    embedder.embed_documents([text])  # a warning would be an error
    with pytest.warns(TruncationWarning, match=r"^1 of 1 texts"):
        embedder.embed_queries([text])


def test_a_text_that_just_fits_is_not_cut(embedder: Embedder) -> None:
    assert embedder.count_tokens(words(62)) == 64
    embedder.embed_documents([words(62)])  # a warning would be an error
    with pytest.warns(TruncationWarning, match="the longest has 65"):
        embedder.embed_documents([words(63)])


def test_ignore_says_nothing(tiny_folder: Path, embedder: Embedder) -> None:
    silent = Embedder(tiny_folder, device="cpu", on_truncate="ignore")
    vectors = silent.embed_documents([LONG])  # a warning would be an error
    with pytest.warns(TruncationWarning):
        np.testing.assert_array_equal(vectors, embedder.embed_documents([LONG]))


def test_error_names_the_text_and_what_to_do(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu", on_truncate="error")
    longest = own_count(tiny_folder, LONG)
    with pytest.raises(TruncationError) as caught:
        embedder.embed_documents(["bread", "rye", LONG, "salt"])
    message = str(caught.value)
    assert message.startswith(f"text 2 has {longest} tokens, over the limit of 64")
    assert "embedder.split" in message


def test_error_names_a_text_far_down_the_list(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.batching.encoder._WINDOW", 4)
    embedder = Embedder(tiny_folder, device="cpu", on_truncate="error")
    with pytest.raises(TruncationError, match=r"^text 9 has "):
        embedder.embed_documents(["bread"] * 9 + [LONG])


def test_error_leaves_texts_that_fit_alone(tiny_folder: Path, embedder: Embedder) -> None:
    strict = Embedder(tiny_folder, device="cpu", on_truncate="error")
    texts = ["bread", words(62)]
    np.testing.assert_array_equal(strict.embed_documents(texts), embedder.embed_documents(texts))


def test_the_error_is_a_value_error_and_pickles() -> None:
    error = pickle.loads(pickle.dumps(TruncationError("text 2 has 65 tokens")))
    assert isinstance(error, ValueError)
    assert str(error) == "text 2 has 65 tokens"


# -- counting -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "bread", "a loaf, a crust!", LONG, "🍞", words(500)])
def test_counting_includes_specials_and_the_prompt_of_the_role(
    embedder: Embedder, tiny_folder: Path, text: str
) -> None:
    assert embedder.count_tokens(text) == own_count(tiny_folder, text)
    assert embedder.count_tokens(text, role="document") == own_count(tiny_folder, text)
    assert embedder.count_tokens(text, role="query") == own_count(tiny_folder, MXBAI_PROMPT + text)


def test_counting_is_not_cut_after_an_embedding_was(embedder: Embedder, tiny_folder: Path) -> None:
    with pytest.warns(TruncationWarning):
        embedder.embed_documents([LONG])
    assert embedder.count_tokens(LONG) == own_count(tiny_folder, LONG) > 200


def test_counting_is_the_same_before_and_after_the_model_is_loaded(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu")
    before = embedder.count_tokens(LONG, role="query")
    assert embedder.load().count_tokens(LONG, role="query") == before


def test_counting_of_a_tokenizer_saved_with_a_limit_is_not_cut(
    tiny_folder: Path, tmp_path: Path
) -> None:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    backend.enable_truncation(8)
    backend.enable_padding(length=300)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.count("bread") == 3
    assert tokenizer.count(words(100)) == 102


def test_a_query_that_starts_with_the_prompt_is_counted_once(embedder: Embedder) -> None:
    bare, prompted = "bread", MXBAI_PROMPT + "bread"
    assert embedder.count_tokens(prompted, role="query") == embedder.count_tokens(
        bare, role="query"
    )


def test_counting_a_text_that_is_not_unicode_says_so(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        embedder.count_tokens("bread \ud800")


# -- cutting --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [12, 16, 63, 64])
def test_a_cut_text_is_cut_as_sentence_transformers_cuts_it(tiny_folder: Path, limit: int) -> None:
    texts = [LONG, words(200, seed=1), "bread", words(limit)]
    embedder = Embedder(tiny_folder, device="cpu", max_tokens=limit, on_truncate="ignore")
    np.testing.assert_allclose(
        embedder.embed_documents(texts), plain(tiny_folder, texts, limit), rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        embedder.embed_queries(texts),
        plain(tiny_folder, texts, limit, MXBAI_PROMPT),
        rtol=0,
        atol=1e-5,
    )


def test_a_real_model_is_cut_at_its_own_limit(minilm: Embedder, minilm_folder: Path) -> None:
    assert minilm.max_tokens == 256
    text = words(400)
    model = SentenceTransformer(str(minilm_folder), device="cpu")
    expected = model.encode([text], normalize_embeddings=True)
    np.testing.assert_allclose(minilm.embed_documents([text]), expected, rtol=0, atol=1e-5)


def test_what_lies_behind_the_limit_of_a_real_model_does_not_matter(minilm: Embedder) -> None:
    inside, outside = words(254), words(50, seed=1)
    assert minilm.count_tokens(inside) == 256
    vectors = minilm.embed_documents([inside, f"{inside} {outside}", inside[: -len("bread")]])
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-5)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-4


def files(folder: Path, config: str) -> Path:
    """A model of which only the configuration is there, to ask for its limit."""
    (folder / "config.json").write_text(config, encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def files_of_roberta(tmp_path: Path) -> Path:
    """The configuration of a model that numbers its positions from 2."""
    return files(tmp_path, '{"model_type": "roberta", "max_position_embeddings": 514}')


def test_positions_that_a_roberta_never_uses_are_not_part_of_the_limit(
    files_of_roberta: Path,
) -> None:
    assert Embedder(files_of_roberta).max_tokens == 512


def test_a_tokenizer_without_a_limit_leaves_it_to_the_model(files_of_roberta: Path) -> None:
    (files_of_roberta / "tokenizer_config.json").write_text(
        '{"model_max_length": 1000000000000000019884624838656}', encoding="utf-8"
    )
    assert Embedder(files_of_roberta).max_tokens == 512


def test_the_saved_limit_wins_over_the_tokenizers(files_of_roberta: Path) -> None:
    (files_of_roberta / "tokenizer_config.json").write_text(
        '{"model_max_length": 512}', encoding="utf-8"
    )
    (files_of_roberta / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 128}', encoding="utf-8"
    )
    assert Embedder(files_of_roberta).max_tokens == 128


def test_a_model_that_names_no_limit_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not say how many tokens it reads.*max_tokens="):
        _ = Embedder(files(tmp_path, '{"model_type": "t5"}')).max_tokens


def test_a_model_that_names_no_limit_takes_the_callers(tmp_path: Path) -> None:
    assert Embedder(files(tmp_path, '{"model_type": "t5"}'), max_tokens=128).max_tokens == 128
