"""Splitting: every chunk fits, nothing but white space is lost, and there is always a chunk."""

import random
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toastrack import Embedder
from toastrack.models import tokenizer as tokens
from toastrack.models.tokenizer import Tokenizer

WORDS = ["bread", "rye", "flour", "water", "salt", "sourdough", "crust", "it", "hydration", "100"]


def paragraphs(count: int, *, seed: int = 0) -> str:
    pick = random.Random(seed)
    lines = []
    for _ in range(count):
        sentences = [
            " ".join(pick.choices(WORDS, k=pick.randint(2, 14))).capitalize() + "."
            for _ in range(pick.randint(1, 5))
        ]
        lines.append(" ".join(sentences))
    return "\n\n".join(lines)


CODE = '''
def feed(starter: Starter, *, flour: int = 50) -> Starter:
    """Feed it; never on a Monday."""
    if not starter.alive:
        raise DeadStarterError(f"{starter!r} is dead: {{flour}} g will not help.")
    return replace(starter, flour=starter.flour + flour, water=[w ** 2 for w in starter.water])

'''
TEXTS = {
    "prose": paragraphs(12),
    "one sentence": " ".join(random.Random(1).choices(WORDS, k=300)),
    "code": CODE * 6,
    "markdown": "# Rye\n\n- warm\n- cold\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\n" * 8,
    "one letter": "a" * 3_000,
    "no spaces": "".join(random.Random(2).choices("abcdefgh0123456789-_/.", k=3_000)),
    "short words": "ab " * 800,
    "chinese": "面包是酸的。我的酵头在温水里。" * 40,
    "japanese": "パンが焼けた、そしてとても美味しい。" * 30,
    "thai": "ขนมปังเปรี้ยวและอุ่น" * 30,
    "emoji": "🍞🥖👩‍🍳🇫🇷 " * 120,
    "emoji without spaces": "🍞🥖👩‍🍳🇫🇷" * 120,
    "accents": "cre\u0301me bru\u0302le\u0301e naïve Ångström " * 60,
    "line ends": "rye\r\nflour\rwater\n\n\n\tsalt\u00a0and\u2028yeast\x0b" * 60,
    "control characters": "rye\x00flour\x1cwater\x1f " * 80,
    "white space around": f"\n\n   {paragraphs(4, seed=3)}   \n\n\t",
    "one long word among short": "bread " * 40 + "x" * 500 + " rye" * 40,
}


def letters(text: str) -> str:
    return "".join(text.split())


def with_document_prompt(folder: Path, target: Path) -> Embedder:
    shutil.copytree(folder, target)
    path = target / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "query: ", "passage": "passage: "}}', encoding="utf-8")
    return Embedder(target, device="cpu")


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> Embedder:
    return Embedder(minilm_folder, device="cpu")


@pytest.mark.parametrize("limit", [4, 7, 16, 63, None])
@pytest.mark.parametrize("kind", TEXTS)
def test_every_chunk_fits_and_nothing_but_white_space_is_lost(
    embedder: Embedder, kind: str, limit: int | None
) -> None:
    text = TEXTS[kind]
    chunks = embedder.split(text, max_tokens=limit)
    assert chunks
    assert max(embedder.count_tokens(chunk) for chunk in chunks) <= (limit or 64)
    assert letters("".join(chunks)) == letters(text)
    assert all(chunk.strip() for chunk in chunks)


@pytest.mark.parametrize("limit", [16, None])
@pytest.mark.parametrize("kind", TEXTS)
def test_every_chunk_fits_a_real_model(minilm: Embedder, kind: str, limit: int | None) -> None:
    text = TEXTS[kind]
    chunks = minilm.split(text, max_tokens=limit)
    assert max(minilm.count_tokens(chunk) for chunk in chunks) <= (limit or 256)
    assert letters("".join(chunks)) == letters(text)


def test_chunks_are_cut_where_the_text_pauses(embedder: Embedder) -> None:
    sentences = ["Rye is sour. It keeps.", "My starter rises in warm water, and falls in cold."]
    assert embedder.split("\n\n".join(sentences), max_tokens=16) == sentences


def test_chunks_are_not_much_smaller_than_they_may_be(embedder: Embedder) -> None:
    chunks = embedder.split("bread " * 600)
    assert [embedder.count_tokens(chunk) for chunk in chunks[:-1]] == [64] * (len(chunks) - 1)


@pytest.mark.parametrize("text", ["bread", "", "  bread\n\n rye ", "x", "🍞", "bread " * 62])
def test_a_text_that_fits_comes_back_unchanged(embedder: Embedder, text: str) -> None:
    assert embedder.split(text) == [text]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u00a0\u2003", " " * 5_000, "\x1c\x1f"])
def test_blank_text_is_one_chunk(embedder: Embedder, text: str) -> None:
    assert embedder.split(text) == [text]


def test_the_result_can_be_embedded_without_a_cut(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu", on_truncate="error")
    for text in TEXTS.values():
        embedder.embed_documents(embedder.split(text))


def test_without_overlap_nothing_repeats(embedder: Embedder) -> None:
    text = " ".join(f"b{number}" for number in range(200))
    chunks = embedder.split(text, max_tokens=20)
    assert " ".join(chunks) == text


def test_overlap_repeats_the_end_of_a_chunk_at_the_start_of_the_next(embedder: Embedder) -> None:
    text = " ".join(random.Random(4).choices(["bread", "rye", "salt", "water"], k=200))
    chunks = embedder.split(text, max_tokens=20, overlap=5)
    assert len(chunks) > len(embedder.split(text, max_tokens=20))
    for chunk, following in pairwise(chunks):
        assert chunk.split()[-5:] == following.split()[:5]
    assert max(embedder.count_tokens(chunk) for chunk in chunks) <= 20


@pytest.mark.parametrize("overlap", [1, 5, 20])
@pytest.mark.parametrize("kind", TEXTS)
def test_chunks_with_overlap_fit_and_cover_the_text(
    embedder: Embedder, kind: str, overlap: int
) -> None:
    chunks = embedder.split(TEXTS[kind], max_tokens=32, overlap=overlap)
    assert max(embedder.count_tokens(chunk) for chunk in chunks) <= 32
    assert len("".join(map(letters, chunks))) >= len(letters(TEXTS[kind]))
    position = 0
    for chunk in chunks:
        found = TEXTS[kind].find(chunk, 0 if not position else position - 1)
        assert found >= 0, "chunks are pieces of the text, in order"
        position = found + 1


@pytest.mark.parametrize("limit", [8, 16, None])
@pytest.mark.parametrize("kind", TEXTS)
def test_the_document_prompt_counts(
    tiny_folder: Path, tmp_path: Path, kind: str, limit: int | None
) -> None:
    embedder = with_document_prompt(tiny_folder, tmp_path / "m")
    text = TEXTS[kind]
    chunks = embedder.split(text, max_tokens=limit)
    assert max(embedder.count_tokens(chunk) for chunk in chunks) <= (limit or 64)
    assert letters("".join(chunks)) == letters(text)


def test_a_text_that_fits_with_its_document_prompt_is_not_split(
    tiny_folder: Path, tmp_path: Path
) -> None:
    embedder = with_document_prompt(tiny_folder, tmp_path / "m")
    text = "bread " * 60
    assert embedder.count_tokens(text) == 64
    assert embedder.split(text) == [text]
    assert len(embedder.split(f"{text}bread")) > 1


def test_a_text_that_brings_its_document_prompt_is_not_charged_twice(
    tiny_folder: Path, tmp_path: Path
) -> None:
    embedder = with_document_prompt(tiny_folder, tmp_path / "m")
    text = "passage: " + "bread " * 60
    assert embedder.count_tokens(text) == 64
    assert embedder.split(text) == [text]


def test_a_prompt_that_merges_with_the_text_still_fits(tiny_folder: Path) -> None:
    # Without a space the prompt and the first word become one long word of other pieces.
    embedder = Embedder(tiny_folder, device="cpu", document_prompt="pre")
    text = paragraphs(6, seed=5)
    chunks = embedder.split(text, max_tokens=12)
    assert max(embedder.count_tokens(chunk) for chunk in chunks) <= 12
    assert letters("".join(chunks)) == letters(text)


def byte_tokenizer() -> Tokenizer:
    """One token a byte, as in byte-level models: one character can be several tokens."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return Tokenizer(backend)


@pytest.mark.parametrize("prompt", ["", "passage: "])
@pytest.mark.parametrize("room", [4, 5, 13, 30])
@pytest.mark.parametrize("kind", ["prose", "emoji", "emoji without spaces", "accents", "thai"])
def test_characters_of_several_tokens_stay_whole(kind: str, room: int, prompt: str) -> None:
    tokenizer = byte_tokenizer()
    limit = tokenizer.count(prompt) + room
    text = TEXTS[kind][:300]
    parts = tokenizer.split(text, max_tokens=limit, overlap=0, prompt=prompt)
    chunks = [chunk for _, chunk in parts]
    assert all(text.startswith(chunk, offset) for offset, chunk in parts)
    assert max(tokenizer.count(prompt + chunk) for chunk in chunks) <= limit
    assert letters("".join(chunks)) == letters(text)


def test_blank_text_is_one_chunk_where_white_space_is_tokens_too() -> None:
    blank = " \n" * 200
    chunks = byte_tokenizer().split(blank, max_tokens=16, overlap=0, prompt="")
    assert chunks == [(0, blank)]


def test_a_limit_below_one_character_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens=5 is too small to split this text"):
        byte_tokenizer().split("rye 🍞 " * 9, max_tokens=5, overlap=0, prompt="")


def test_the_embedders_own_limit_is_the_default(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu", max_tokens=16)
    chunks = embedder.split("bread " * 100)
    assert max(embedder.count_tokens(chunk) for chunk in chunks) == 16


@pytest.mark.parametrize("limit", [0, -1, True])
def test_a_limit_that_is_no_size_is_refused(embedder: Embedder, limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_tokens={limit!r} must be a whole number"):
        embedder.split("bread " * 100, max_tokens=limit)


def test_a_limit_over_the_embedders_own_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="max_tokens=65 is over this embedder's 64"):
        embedder.split("bread", max_tokens=65)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_that_leaves_no_room_is_refused(embedder: Embedder, limit: int) -> None:
    with pytest.raises(ValueError, match=rf"max_tokens={limit} leaves no room .* take 2\."):
        embedder.split("bread " * 100, max_tokens=limit)


def test_a_limit_that_the_prompt_fills_is_refused(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, device="cpu", document_prompt="bread rye salt water ")
    with pytest.raises(ValueError, match=r"max_tokens=6 leaves no room .* take 6\."):
        embedder.split("bread " * 100, max_tokens=6)


@pytest.mark.parametrize("overlap", [-1, 14, 100])
@pytest.mark.parametrize("text", ["bread", "bread " * 100], ids=["short", "long"])
def test_an_overlap_that_a_chunk_cannot_hold_is_refused(
    embedder: Embedder, overlap: int, text: str
) -> None:
    with pytest.raises(ValueError, match=f"overlap={overlap} must be "):
        embedder.split(text, max_tokens=16, overlap=overlap)


def test_splitting_a_text_that_is_not_unicode_says_so(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        embedder.split("bread \ud800 " * 100)


def test_what_was_split_is_not_tokenised_again(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder.embed_documents(["bread"])
    texts = [paragraphs(1, seed=1), paragraphs(9, seed=2)]
    whole = [chunk for text in texts for chunk in embedder.split(text)]
    assert len(whole) > 2
    expected = Embedder(embedder.model, device="cpu").embed_documents(whole)

    seen: list[str] = []
    encode = Tokenizer._encode

    def watched(self: Tokenizer, tokenizer: Any, batch: Sequence[str]) -> object:
        seen.extend(batch)
        return encode(self, tokenizer, batch)

    chunks = [chunk for text in texts for chunk in embedder.split(text)]
    monkeypatch.setattr(Tokenizer, "_encode", watched)
    vectors = embedder.embed_documents(
        ["rye that nobody split", *chunks, "wheat that nobody split"]
    )
    assert seen == ["rye that nobody split", "wheat that nobody split"]
    assert np.abs(vectors[1:-1] - expected).max() < 1e-5

    # They are kept for one use, and only for a limit that they fit.
    embedder.embed_documents(chunks)
    assert seen[2:] == chunks
    long = embedder.split(texts[1])[0]
    short = Embedder(embedder.model, device="cpu", max_tokens=10, on_truncate="ignore")
    short.embed_documents([long])
    assert seen[-1] == long


def test_ids_of_texts_that_are_never_embedded_are_forgotten(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_KEPT", 5)
    tokenizer = Tokenizer.from_folder(tiny_folder)
    for number in range(20):
        tokenizer.split(f"bread {number}", max_tokens=64, overlap=0, prompt="")
    assert list(tokenizer._split._ids) == [f"bread {number}" for number in range(15, 20)]


def test_a_splitter_is_made_once(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(embedder.model, device="cpu", max_tokens=29)
    made = []
    build = tokens.Tokenizer._splitter

    def watched(self: Tokenizer, room: int, overlap: int, markdown: bool) -> object:
        splitter = build(self, room, overlap, markdown)
        made.append(splitter)
        return splitter

    monkeypatch.setattr(tokens.Tokenizer, "_splitter", watched)
    for seed in range(5):
        embedder.split(paragraphs(5, seed=seed))
    assert len(made) == 5
    assert len({id(splitter) for splitter in made}) == 1


@pytest.mark.parametrize("overlap", [0, 6])
@pytest.mark.parametrize("under", ["# Rye\n\n## Why\n\n{}", "Rye\n===\n\n{}", "### Rye\n{}"])
def test_no_chunk_of_markdown_is_a_heading_alone(
    under: str, overlap: int, embedder: Embedder
) -> None:
    words = random.Random(3).choices(WORDS, k=200)
    for length in range(34, 48):
        body = " ".join(words[:length]) + "."
        text = "\n\n".join([under.format(body), under.format(body + " " + body), body])
        parts = embedder._chunks(text, 48, overlap, markdown=True)
        assert all(text.startswith(chunk, offset) for offset, chunk in parts)
        assert max(embedder.count_tokens(chunk) for _, chunk in parts) <= 48
        headings = {"#", "##", "###", "===", "Rye", "Why"}
        assert all(set(chunk.split()) - headings for _, chunk in parts)
        if not overlap:
            assert letters("".join(chunk for _, chunk in parts)) == letters(text)


def test_a_heading_that_leaves_no_room_stands_alone(embedder: Embedder) -> None:
    heading = "# " + "rye bread " * 12
    parts = embedder._chunks(f"{heading}\n\n{'salt ' * 40}", 48, markdown=True)
    assert parts[0] == (0, heading.strip())


def test_markdown_is_split_at_its_headings(embedder: Embedder) -> None:
    texts = ["Rye bread is sour. " * (2 + n % 3) for n in range(9)]
    text = "\n\n".join(f"## Bread {n}\n\n{body}" for n, body in enumerate(texts))
    parts = embedder._chunks(text, 48, markdown=True)
    assert all(text.startswith(chunk, offset) for offset, chunk in parts)
    assert letters("".join(chunk for _, chunk in parts)) == letters(text)
    assert max(embedder.count_tokens(chunk) for _, chunk in parts) <= 48
    assert all(chunk.startswith("## Bread") for _, chunk in parts)
    assert not all(chunk.startswith("## Bread") for chunk in embedder.split(text, 48))
