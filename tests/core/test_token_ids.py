"""The proof: the ids that reach the model hold the prompt once for queries, never for documents."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from models import MXBAI_PROMPT
from token_ids import Ids, read, seen_by_the_model, times

from toastrack import Embedder

PLAIN = "how do i feed my starter?"
MIXED_LENGTHS = [
    "bread",
    "how do i feed my starter with rye flour and warm water, and when?",
    "",
    "the crust is sour.",
    "dough " * 20,
    "why",
]
SPECIAL = [
    "",
    " ",
    "\n\n",
    "rye\nflour\r\n\twater",
    "crème brûlée — naïve…",
    "🍞🥖 bread 👩‍🍳",
    "面包是酸的",
    "[CLS] [SEP] [PAD] [MASK]",
    "<|endoftext|> </s>",
    "\u200bzero\u00a0width\ufeff",
    "a\x00b",
    "Represent",
    "query: bread",
]


def query_ids(embedder: Embedder, texts: Sequence[str]) -> list[Ids]:
    with seen_by_the_model(embedder) as rows:
        embedder.embed_queries(texts)
    return rows


def document_ids(embedder: Embedder, texts: Sequence[str]) -> list[Ids]:
    with seen_by_the_model(embedder) as rows:
        embedder.embed_documents(texts)
    return rows


@pytest.fixture(scope="module")
def prompt_ids(tiny_folder: Path) -> Ids:
    return read(tiny_folder, MXBAI_PROMPT, specials=False)


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Embedder:
    """A real vocabulary, asked with mxbai's prompt."""
    return Embedder(minilm_folder, device="cpu", query_prompt=MXBAI_PROMPT).load()


def test_a_query_holds_the_prompt_once(
    embedder: Embedder, tiny_folder: Path, prompt_ids: Ids
) -> None:
    (row,) = query_ids(embedder, [PLAIN])
    assert times(prompt_ids, row) == 1
    start, *text, end = read(tiny_folder, PLAIN)
    assert row == [start, *prompt_ids, *text, end]


def test_embed_query_holds_the_prompt_once(embedder: Embedder, tiny_folder: Path) -> None:
    with seen_by_the_model(embedder) as rows:
        embedder.embed_query(PLAIN)
    assert rows == [read(tiny_folder, MXBAI_PROMPT + PLAIN)]


def test_a_document_is_read_as_it_is(
    embedder: Embedder, tiny_folder: Path, prompt_ids: Ids
) -> None:
    (row,) = document_ids(embedder, [PLAIN])
    assert times(prompt_ids, row) == 0
    assert row == read(tiny_folder, PLAIN)


def test_a_query_that_starts_with_the_prompt_is_not_prompted_again(
    embedder: Embedder, tiny_folder: Path, prompt_ids: Ids
) -> None:
    (row,) = query_ids(embedder, [MXBAI_PROMPT + PLAIN])
    assert times(prompt_ids, row) == 1
    assert row == read(tiny_folder, MXBAI_PROMPT + PLAIN)


def test_a_document_that_starts_with_the_query_prompt_keeps_its_own_text(
    embedder: Embedder, tiny_folder: Path
) -> None:
    assert document_ids(embedder, [MXBAI_PROMPT + PLAIN]) == [
        read(tiny_folder, MXBAI_PROMPT + PLAIN)
    ]


def test_every_row_of_a_batch_of_queries_holds_the_prompt_once(
    embedder: Embedder, tiny_folder: Path, prompt_ids: Ids
) -> None:
    rows = query_ids(embedder, MIXED_LENGTHS)
    assert [times(prompt_ids, row) for row in rows] == [1] * len(MIXED_LENGTHS)
    assert sorted(rows) == sorted(read(tiny_folder, MXBAI_PROMPT + text) for text in MIXED_LENGTHS)


def test_no_row_of_a_batch_of_documents_holds_the_prompt(
    embedder: Embedder, tiny_folder: Path, prompt_ids: Ids
) -> None:
    rows = document_ids(embedder, MIXED_LENGTHS)
    assert [times(prompt_ids, row) for row in rows] == [0] * len(MIXED_LENGTHS)
    assert sorted(rows) == sorted(read(tiny_folder, text) for text in MIXED_LENGTHS)


@pytest.mark.parametrize("text", SPECIAL)
def test_special_characters_are_read_as_the_models_own_tokenizer_reads_them(
    minilm: Embedder, minilm_folder: Path, text: str
) -> None:
    prompt = read(minilm_folder, MXBAI_PROMPT, specials=False)
    (query,) = query_ids(minilm, [text])
    (document,) = document_ids(minilm, [text])
    assert times(prompt, query) == 1
    assert times(prompt, document) == 0
    assert query == read(minilm_folder, MXBAI_PROMPT + text)
    assert document == read(minilm_folder, text)


def test_special_characters_in_one_batch(minilm: Embedder, minilm_folder: Path) -> None:
    assert sorted(query_ids(minilm, SPECIAL)) == sorted(
        read(minilm_folder, MXBAI_PROMPT + text) for text in SPECIAL
    )


def test_the_empty_query_is_the_prompt_alone(embedder: Embedder, prompt_ids: Ids) -> None:
    (row,) = query_ids(embedder, [""])
    assert row[1:-1] == prompt_ids


def test_the_empty_document_is_two_special_tokens(embedder: Embedder, tiny_folder: Path) -> None:
    (row,) = document_ids(embedder, [""])
    assert row == read(tiny_folder, "")
    assert len(row) == 2


def test_a_cut_query_keeps_its_prompt(tiny_folder: Path, prompt_ids: Ids) -> None:
    embedder = Embedder(tiny_folder, device="cpu", max_tokens=16, on_truncate="ignore")
    (row,) = query_ids(embedder, ["bread " * 100])
    assert len(row) == 16
    assert row[1 : 1 + len(prompt_ids)] == prompt_ids
    assert times(prompt_ids, row) == 1


def test_a_model_with_a_document_prompt_puts_it_on_documents_only(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "e5")
    path = folder / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "query: ", "passage": "passage: "}}', encoding="utf-8")
    embedder = Embedder(folder, device="cpu")
    texts = [PLAIN, "", "passage: bread", "query: bread"]
    assert sorted(document_ids(embedder, texts)) == sorted(
        read(folder, text)
        for text in ["passage: " + PLAIN, "passage: ", "passage: bread", "passage: query: bread"]
    )
    assert sorted(query_ids(embedder, texts)) == sorted(
        read(folder, text)
        for text in ["query: " + PLAIN, "query: ", "query: passage: bread", "query: bread"]
    )


def test_the_callers_prompts_replace_the_saved_ones(tiny_folder: Path, prompt_ids: Ids) -> None:
    embedder = Embedder(tiny_folder, device="cpu", query_prompt="why: ", document_prompt="it is: ")
    (query,) = query_ids(embedder, [PLAIN])
    (document,) = document_ids(embedder, [PLAIN])
    assert query == read(tiny_folder, "why: " + PLAIN)
    assert document == read(tiny_folder, "it is: " + PLAIN)
    assert times(prompt_ids, query) == times(prompt_ids, document) == 0


def test_a_prompt_that_the_caller_switched_off_is_not_read(
    tiny_folder: Path, prompt_ids: Ids
) -> None:
    embedder = Embedder(tiny_folder, device="cpu", query_prompt="")
    assert query_ids(embedder, [PLAIN]) == [read(tiny_folder, PLAIN)]


def test_roles_do_not_leak_when_calls_alternate(embedder: Embedder, tiny_folder: Path) -> None:
    with seen_by_the_model(embedder) as rows:
        for text in MIXED_LENGTHS:
            embedder.embed_query(text)
            embedder.embed_documents([text])
            embedder.embed_queries([text])
    expected: list[Ids] = []
    for text in MIXED_LENGTHS:
        query, document = read(tiny_folder, MXBAI_PROMPT + text), read(tiny_folder, text)
        expected += [query, document, query]
    assert rows == expected


def test_roles_do_not_leak_between_threads(embedder: Embedder, tiny_folder: Path) -> None:
    def both(text: str) -> None:
        embedder.embed_query(text)
        embedder.embed_documents([text])

    texts = MIXED_LENGTHS * 5
    with seen_by_the_model(embedder) as rows, ThreadPoolExecutor(4) as pool:
        list(pool.map(both, texts))
    expected = {text: read(tiny_folder, text) for text in MIXED_LENGTHS}
    prompted = {text: read(tiny_folder, MXBAI_PROMPT + text) for text in MIXED_LENGTHS}
    assert sorted(rows) == sorted([expected[t] for t in texts] + [prompted[t] for t in texts])


def test_two_embedders_of_one_engine_keep_their_prompts_apart(
    embedder: Embedder, tiny_folder: Path
) -> None:
    other = Embedder(tiny_folder, device="cpu", query_prompt="why: ")
    assert other._engine() is embedder._engine()
    with seen_by_the_model(embedder) as rows:
        other.embed_query(PLAIN)
        embedder.embed_query(PLAIN)
    assert rows == [read(tiny_folder, "why: " + PLAIN), read(tiny_folder, MXBAI_PROMPT + PLAIN)]
