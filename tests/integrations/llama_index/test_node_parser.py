"""Nodes for LlamaIndex: each fits the model together with its metadata."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest

from toastrack import Embedder

pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")

from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, TextNode

from toastrack_llama_index import ToastrackEmbedding, ToastrackNodeParser

HANDBOOK = Path(__file__).parents[3] / "examples" / "handbook"
METADATA = {"file_path": "faults/troubleshooting-guide.md", "tags": "crust, dough; oven"}


@pytest.fixture
def embedding(embedder: Embedder) -> ToastrackEmbedding:
    return ToastrackEmbedding(embedder=embedder)


@pytest.fixture(scope="module")
def guide() -> str:
    return (HANDBOOK / "faults" / "troubleshooting-guide.md").read_text(encoding="utf-8")


def sizes(embedding: ToastrackEmbedding, nodes: list[BaseNode]) -> list[int]:
    """How many tokens the model would read of each node, as LlamaIndex hands it over."""
    count = embedding.embedder.count_tokens
    return [count(node.get_content(metadata_mode=MetadataMode.EMBED)) for node in nodes]


def squeezed(nodes: list[BaseNode]) -> str:
    return "".join("".join(node.get_content().split()) for node in nodes)


def test_an_option_of_nobody_is_refused(embedding: ToastrackEmbedding) -> None:
    with pytest.raises(ValueError, match="chunk_len"):
        embedding.node_parser(chunk_len=64)


def test_nodes_fit_with_their_metadata_and_lose_nothing(
    embedding: ToastrackEmbedding, guide: str
) -> None:
    nodes = embedding.node_parser()([Document(text=guide, metadata=METADATA)])
    assert len(nodes) > 10
    assert max(sizes(embedding, nodes)) <= 64
    assert squeezed(nodes) == "".join(guide.split())
    assert all(node.metadata == METADATA for node in nodes)
    embedding(nodes)  # a warning that something was cut would be an error


def test_llama_indexs_own_splitter_would_not_fit(embedding: ToastrackEmbedding, guide: str) -> None:
    """What node_parser is for: a chunk_size in tiktoken's tokens, with metadata it underrates."""
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0)(
        [Document(text=guide, metadata=METADATA)]
    )
    assert max(sizes(embedding, nodes)) > 64


@pytest.mark.parametrize("size", [40, 50])
def test_a_smaller_size_and_the_document_prompt_are_kept_to(
    tiny_folder: Path, guide: str, size: int
) -> None:
    embedder = Embedder(tiny_folder, device="cpu", document_prompt="bread and water: ")
    embedding = ToastrackEmbedding(embedder=embedder)
    nodes = embedding.node_parser(size)([Document(text=guide, metadata={"flour": "rye"})])
    assert size - 15 < max(sizes(embedding, nodes)) <= size


def test_a_real_vocabulary_is_kept_to(minilm_folder: Path, guide: str) -> None:
    embedding = ToastrackEmbedding(minilm_folder, device="cpu")
    nodes = embedding.node_parser(80, 10)([Document(text=guide, metadata=METADATA)])
    assert 60 < max(sizes(embedding, nodes)) <= 80


def test_templates_and_excluded_keys_are_measured_as_they_are_written(
    embedding: ToastrackEmbedding, guide: str
) -> None:
    document = Document(
        text=guide,
        metadata={"flour": "rye", "salt": "warm water " * 20, "oven": "cold"},
        excluded_embed_metadata_keys=["salt"],
        metadata_template="{key} is {value}",
        metadata_separator="; and the ",
        text_template="{content}\n\nit is so with: {metadata_str} and with bread",
    )
    nodes = embedding.node_parser()([document])
    assert 50 < max(sizes(embedding, nodes)) <= 64
    assert nodes[0].get_content(MetadataMode.EMBED).endswith("oven is cold and with bread")


def test_a_chunk_that_merges_with_its_metadata_still_fits(
    embedding: ToastrackEmbedding,
) -> None:
    document = Document(
        text="bread " * 200,
        metadata={"flour": "rye"},
        text_template="{metadata_str}{content}",  # "ryebread" is more tokens than its parts
    )
    nodes = embedding.node_parser()([document])
    count = embedding.embedder.count_tokens
    apart = count("flour: rye") + count(nodes[0].get_content()) - count("")
    assert sizes(embedding, nodes)[0] > apart
    assert 55 < max(sizes(embedding, nodes)) <= 64


def test_metadata_that_stays_off_the_nodes_takes_no_room(
    embedding: ToastrackEmbedding, guide: str
) -> None:
    document = Document(text=guide, metadata={"salt": "warm water " * 40})
    nodes = embedding.node_parser(include_metadata=False)([document])
    assert nodes[0].metadata == {}
    assert max(sizes(embedding, nodes)) > 50


def test_metadata_without_room_for_text_is_an_error_that_names_the_document(
    embedding: ToastrackEmbedding,
) -> None:
    document = Document(id_="doc-7", text="bread", metadata={"salt": "warm water " * 40})
    with pytest.raises(ValueError, match=r"metadata of 'doc-7' takes \d+ of 64 .*excluded_embed"):
        embedding.node_parser()([document])


def test_a_node_cannot_be_larger_than_the_model_reads(embedding: ToastrackEmbedding) -> None:
    document = Document(text="bread " * 100, metadata=METADATA)
    with pytest.raises(ValueError, match="chunk_size=65 is over the 64 tokens"):
        embedding.node_parser(65)([document])


def test_a_short_document_stays_whole(embedding: ToastrackEmbedding) -> None:
    documents = [Document(text="bread  is\n sour"), Document(text=""), TextNode(text=" rye ")]
    nodes = embedding.node_parser()(documents)
    assert [node.get_content() for node in nodes] == ["bread  is\n sour", "", " rye "]


def test_nodes_know_their_place(embedding: ToastrackEmbedding, guide: str) -> None:
    document = Document(id_="guide", text=guide)
    nodes = embedding.node_parser(chunk_overlap=5)([document])
    for node in nodes:
        assert isinstance(node, TextNode)
        assert node.ref_doc_id == "guide"
        assert guide[node.start_char_idx : node.end_char_idx] == node.text
    assert nodes[1].relationships[NodeRelationship.PREVIOUS].node_id == nodes[0].node_id  # type: ignore[union-attr]


def test_it_splits_bare_text_too(embedding: ToastrackEmbedding, guide: str) -> None:
    parser = embedding.node_parser()
    count = embedding.embedder.count_tokens
    chunks = parser.split_text(guide)
    assert max(map(count, chunks)) <= 64
    beside = parser.split_text_metadata_aware(guide, "flour: rye")
    assert max(count(f"flour: rye\n\n{chunk}") for chunk in beside) <= 64
    assert parser.split_text_metadata_aware(guide, "") == chunks


def test_awaited_it_gives_the_same_nodes_and_leaves_the_loop(
    embedding: ToastrackEmbedding, guide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Document(text=guide, metadata=METADATA)
    parser = embedding.node_parser(60, 5)
    split = Embedder.split

    def noted(self: Embedder, *args: object) -> list[str]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return split(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "split", noted)
    nodes = asyncio.run(parser.acall([document]))
    assert [node.get_content() for node in nodes] == [
        node.get_content() for node in parser([document])
    ]


def test_it_can_be_pickled_and_says_what_decides_about_nodes(
    embedding: ToastrackEmbedding, other_folder: Path
) -> None:
    parser = embedding.node_parser(50, 5)
    copied = pickle.loads(pickle.dumps(parser))
    assert copied.to_dict() == parser.to_dict()
    assert parser.to_dict()["class_name"] == ToastrackNodeParser.class_name()
    others = [
        embedding.node_parser(51, 5),
        embedding.node_parser(50, 6),
        ToastrackEmbedding(other_folder, device="cpu").node_parser(50, 5),
    ]
    assert parser.to_dict() not in [other.to_dict() for other in others]
