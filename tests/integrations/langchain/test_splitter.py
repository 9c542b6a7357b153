"""Chunks for LangChain: each fits the model, and knows where it came from."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from toastrack import Embedder

pytest.importorskip("langchain_core", reason="the extra 'langchain' is not installed")
pytest.importorskip("langchain_text_splitters", reason="langchain-text-splitters is not installed")

from langchain_core.documents import Document
from langchain_text_splitters import TextSplitter

from toastrack_langchain import ToastrackEmbeddings

HANDBOOK = Path(__file__).parents[3] / "examples" / "handbook"


@pytest.fixture
def embeddings(embedder: Embedder) -> ToastrackEmbeddings:
    return ToastrackEmbeddings(embedder=embedder)


@pytest.fixture(scope="module")
def guide() -> str:
    return (HANDBOOK / "faults" / "troubleshooting-guide.md").read_text(encoding="utf-8")


def repetitive(count: int) -> str:
    pick = random.Random(0)
    return " ".join(pick.choices(["bread", "rye", "flour.", "water", "salt", "\n\n"], k=count))


def test_it_is_a_text_splitter_whose_chunks_fit(
    embeddings: ToastrackEmbeddings, guide: str
) -> None:
    splitter = embeddings.splitter()
    assert isinstance(splitter, TextSplitter)
    chunks = splitter.split_text(guide)
    assert len(chunks) > 10
    assert max(map(embeddings.embedder.count_tokens, chunks)) <= 64
    assert "".join("".join(chunks).split()) == "".join(guide.split())
    embeddings.embed_documents(chunks)  # a warning that something was cut would be an error


def test_the_document_prompt_is_counted(tiny_folder: Path, guide: str) -> None:
    embedder = Embedder(tiny_folder, device="cpu", document_prompt="bread and flour and water: ")
    chunks = ToastrackEmbeddings(embedder=embedder).splitter(32).split_text(guide)
    assert max(map(embedder.count_tokens, chunks)) <= 32


def test_overlap_repeats_the_end_of_the_chunk_before(embeddings: ToastrackEmbeddings) -> None:
    text = " ".join(f"{number}" for number in range(200))
    chunks = embeddings.splitter(20, 6).split_text(text)
    assert all(first.split()[-1] in second.split() for first, second in pairwise(chunks))


def test_documents_keep_their_metadata_each_its_own(embeddings: ToastrackEmbeddings) -> None:
    documents = [Document("bread " * 100, metadata={"tags": ["a"]}), Document("rye")]
    chunks = embeddings.splitter().split_documents(documents)
    assert [chunk.metadata for chunk in chunks] == [{"tags": ["a"]}, {"tags": ["a"]}, {}]
    chunks[0].metadata["tags"].append("b")
    assert chunks[1].metadata == documents[0].metadata == {"tags": ["a"]}


@pytest.mark.parametrize("overlap", [0, 5])
def test_a_chunk_says_where_it_starts(
    embeddings: ToastrackEmbeddings, guide: str, overlap: int
) -> None:
    texts = [guide, repetitive(300)]
    splitter = embeddings.splitter(24, overlap, add_start_index=True)
    for text in texts:
        chunks = splitter.create_documents([text])
        starts = [chunk.metadata["start_index"] for chunk in chunks]
        assert starts == sorted(set(starts))
        assert starts[0] == len(text) - len(text.lstrip())
        for chunk, start in zip(chunks, starts, strict=True):
            assert text[start:].startswith(chunk.page_content)
        if not overlap:
            ends = [
                start + len(chunk.page_content) for chunk, start in zip(chunks, starts, strict=True)
            ]
            gaps = zip(ends, [*starts[1:], len(text)], strict=True)
            assert not "".join(text[end:start] for end, start in gaps).strip()


def test_blank_text_has_no_chunk(embeddings: ToastrackEmbeddings) -> None:
    assert embeddings.splitter().split_text(" \n") == []
    assert embeddings.splitter().create_documents(["", "rye"]) == [Document("rye")]


def test_a_chunk_cannot_be_larger_than_the_model_reads(embeddings: ToastrackEmbeddings) -> None:
    with pytest.raises(ValueError, match="65 is over this embedder's 64"):
        embeddings.splitter(65).split_text("bread")


def test_it_can_be_pickled(embeddings: ToastrackEmbeddings) -> None:
    splitter = embeddings.splitter(20, 4)
    copied = pickle.loads(pickle.dumps(splitter))
    assert copied.split_text("bread " * 100) == splitter.split_text("bread " * 100)


def test_without_its_package_the_error_is_the_command_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['langchain_text_splitters'] = None\n"
        "from toastrack_langchain import ToastrackEmbeddings\n"
        "try: ToastrackEmbeddings().splitter()\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Run: pip install langchain-text-splitters" in result.stdout
