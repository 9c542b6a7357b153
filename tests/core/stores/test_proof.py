"""Stored vectors are those of an embedder, or the reason is named why they are not."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server import ModelServer, serving
from models import MXBAI_PROMPT, WORDS, save_tiny_bert

from toastrack import Embedder, Hosted, Record
from toastrack.errors import ModelError
from toastrack.stores.embedded_text import embedded_text, node_text
from toastrack.stores.plan import Row
from toastrack.stores.proof import Proof
from toastrack.stores.proving import prove
from toastrack.utils import arrays


def texts(number: int = 12, words: int = 8) -> list[str]:
    """Different texts of real words: ``words`` tokens each, and what stands around them."""
    plain = [word for word in WORDS if word.isalpha()]
    return [
        " ".join(plain[(place * 5 + step * (place + 1)) % len(plain)] for step in range(words))
        for place in range(number)
    ]


def rows(
    embedder: Embedder, some: Sequence[str], embedded: Sequence[str] | None = None
) -> list[Row]:
    """Rows as somebody else's collection holds them."""
    vectors = embedder.embed_documents(some if embedded is None else embedded)
    return [
        Row(Record(str(place), text), b"", vector)
        for place, (text, vector) in enumerate(zip(some, vectors, strict=True))
    ]


def proven_of(embedder: Embedder, stored: Sequence[Row]) -> Proof:
    vector = stored[0].vector
    assert vector is not None
    return prove(embedder, stored, dimensions=len(vector))


def stored_as(stored: Sequence[Row], change: Any) -> list[Row]:
    return [row._replace(vector=change(row.vector)) for row in stored]


@pytest.fixture(scope="module")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder(tiny_folder, device="cpu", engine="sentence-transformers")


@pytest.fixture(scope="module")
def mean_pooled(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """The weights of ``tiny_folder``, run by somebody who takes the mean of the tokens."""
    folder = tmp_path_factory.mktemp("models") / "mean"
    return Embedder(
        save_tiny_bert(folder, pooling="mean", prompts={"query": MXBAI_PROMPT, "passage": ""}),
        device="cpu",
        engine="sentence-transformers",
    )


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("float32", lambda vector: vector),
        ("halfvec", lambda vector: vector.astype(np.float16).astype(np.float32)),
        (
            "int8",
            lambda vector: np.round(vector * (127 / abs(vector).max())).astype(np.float32),
        ),
    ],
)
def test_what_a_host_stores_of_a_vector_is_proven(
    embedder: Embedder, how: str, change: Any
) -> None:
    proof = proven_of(embedder, stored_as(rows(embedder, texts()), change))
    assert proof.proven, proof
    assert (proof.compared, proof.agreeing, proof.too_long) == (12, 12, 0)
    assert ("not normalised" in str(proof)) == (how == "int8")


def test_vectors_that_are_not_normalised_are_proven_and_it_is_said(embedder: Embedder) -> None:
    proof = proven_of(embedder, stored_as(rows(embedder, texts()), lambda vector: vector * 7))
    assert proof.proven
    assert "not normalised" in str(proof)


def test_another_model_is_refuted(embedder: Embedder, other_folder: Path) -> None:
    other = Embedder(other_folder, device="cpu", engine="sentence-transformers")
    proof = proven_of(embedder, rows(other, texts()))
    assert proof.refuted
    assert not proof.proven
    assert "none of them fits" in proof.found
    assert "another model" in proof.found
    for tried in ("query prompt", "pooled by 'mean'", "'passage: '"):
        assert tried in proof.found
    assert f"of 12 texts that were embedded again {proof.agreeing} agree" in str(proof)


def wrong(name: str, tiny: Path, mean_pooled: Embedder) -> tuple[Embedder, Embedder]:
    """Return who filled a collection, and who opens it."""

    def make(**settings: Any) -> Embedder:
        return Embedder(tiny, device="cpu", engine="sentence-transformers", **settings)

    return {
        "query prompt": (make(document_prompt=MXBAI_PROMPT), make()),
        "no prompt": (make(), make(document_prompt="passage: ")),
        "another prompt": (make(document_prompt="passage: "), make()),
        "fewer dimensions": (make(dimensions=16), make()),
        "more dimensions": (make(), make(dimensions=16)),
        "both": (make(dimensions=16, document_prompt=MXBAI_PROMPT), make()),
        "cut": (make(max_tokens=32, on_truncate="ignore"), make()),
        "pooling": (mean_pooled, make()),
    }[name]


FITS = {
    "query prompt": ("the query prompt is in front", f"document_prompt={MXBAI_PROMPT!r}"),
    "no prompt": ("no prompt is in front", "document_prompt=''"),
    "another prompt": ("'passage: ' is in front", "document_prompt='passage: '"),
    "fewer dimensions": ("the first numbers", "dimensions=16"),
    "more dimensions": ("the first numbers", "dimensions=32"),
    "both": ("the query prompt is in front", "dimensions=16"),
    "cut": ("cut at 32 tokens", "max_tokens=32"),
    "pooling": ("pooled by 'mean'", "Embed its texts anew"),
}


@pytest.mark.parametrize("name", FITS)
def test_what_usually_went_wrong_is_named(
    name: str, tiny_folder: Path, mean_pooled: Embedder
) -> None:
    filled, opening = wrong(name, tiny_folder, mean_pooled)
    some = texts(words=40) if name == "cut" else texts()
    proof = proven_of(opening, rows(filled, some))
    assert proof.refuted
    for part in FITS[name]:
        assert part in proof.found


def test_what_is_named_opens_it(tiny_folder: Path, mean_pooled: Embedder) -> None:
    for name in ("query prompt", "no prompt", "fewer dimensions"):
        filled, _ = wrong(name, tiny_folder, mean_pooled)
        assert proven_of(filled, rows(filled, texts())).proven


def test_of_texts_that_are_longer_than_it_reads_nothing_is_known(tiny_folder: Path) -> None:
    filled = Embedder(tiny_folder, device="cpu", on_truncate="ignore")
    short = Embedder(tiny_folder, device="cpu", max_tokens=32)
    stored = rows(filled, [*texts(9), *texts(3, words=60)])
    proof = proven_of(short, stored)
    assert proof.proven
    assert (proof.compared, proof.too_long) == (9, 3)
    nothing = proven_of(short, stored[9:])
    assert (nothing.compared, nothing.refuted, nothing.proven) == (0, False, False)


@pytest.mark.parametrize("number", [1, 7, 8])
def test_a_proof_takes_eight_texts(embedder: Embedder, number: int) -> None:
    stored = rows(embedder, texts(number))
    proof = proven_of(embedder, [*stored, *stored])  # the same text twice is one
    assert (proof.compared, proof.refuted, proof.proven) == (number, False, number >= 8)


def test_one_wrong_vector_refutes(embedder: Embedder, other_folder: Path) -> None:
    other = Embedder(other_folder, device="cpu", engine="sentence-transformers")
    proof = proven_of(embedder, [*rows(embedder, texts())[:11], rows(other, texts())[11]])
    assert (proof.compared, proof.agreeing, proof.refuted) == (12, 11, True)


# -- over a server --------------------------------------------------------------------------------


@pytest.fixture
def model_server(embedder: Embedder) -> Iterator[ModelServer]:
    """Serves the model of ``embedder``, whose tokenizer none of its clients has."""
    pytest.importorskip("httpx", reason="the extra 'hosted' is not installed")

    settings = embedder.settings()
    settings["on_truncate"] = "ignore"
    quiet = Embedder(**settings)

    def embed(sent: Sequence[str], role: str) -> arrays.FloatMatrix:
        return quiet.embed_documents(sent)

    with serving(ModelServer(embed)) as running:
        yield running


def test_a_hosted_models_vectors_are_proven_by_characters(
    model_server: ModelServer, embedder: Embedder
) -> None:
    hosted = Embedder("tiny", engine=Hosted(base_url=model_server.url), query_prompt="query: ")
    with pytest.raises(ModelError):
        hosted.count_tokens("rye")
    (long,) = rows(embedder, ["rye"])
    long = long._replace(record=Record("long", "rye " * 1_000))
    proof = proven_of(hosted, [*rows(embedder, texts()), long])
    assert proof.proven, proof
    assert (proof.compared, proof.too_long) == (12, 1)


def test_what_went_wrong_is_tried_on_the_same_server(
    model_server: ModelServer, embedder: Embedder, other_folder: Path
) -> None:
    engine = Hosted(base_url=model_server.url)
    hosted = Embedder("tiny", engine=engine, query_prompt=MXBAI_PROMPT)
    some = texts()
    for prompt, said in (
        (MXBAI_PROMPT, "the query prompt is in front"),
        ("passage: ", "passage: "),
    ):
        proof = proven_of(hosted, rows(embedder, some, [prompt + text for text in some]))
        assert said in proof.found
        # What is named has the server, too.
        assert f"document_prompt={prompt!r}" in proof.found
        assert repr(engine) in proof.found
    asked = len(model_server.asked)
    cut = [vector[:16] for vector in embedder.embed_documents(some)]
    stored = [
        row._replace(vector=vector) for row, vector in zip(rows(embedder, some), cut, strict=True)
    ]
    assert "dimensions=16" in proven_of(hosted, stored).found
    assert len(model_server.asked) > asked

    other = Embedder(other_folder, device="cpu", engine="sentence-transformers")
    proof = proven_of(hosted, rows(other, some))
    assert "none of them fits" in proof.found
    assert "cut at" not in proof.found  # nobody can tell
    assert "pooled by" not in proof.found


def test_what_could_not_be_tried_is_said(model_server: ModelServer, embedder: Embedder) -> None:
    hosted = Embedder("tiny", engine=Hosted(base_url=model_server.url), query_prompt=MXBAI_PROMPT)
    some = texts()
    stored = rows(embedder, some, [MXBAI_PROMPT + text for text in some])
    model_server.most_characters = max(map(len, some)) + 10
    found = proven_of(hosted, stored).found
    assert "the query prompt is in front of its documents (not tried: " in found
    assert "may fit" in found
    assert "another model" not in found


# -- what was embedded ----------------------------------------------------------------------------


def node(**changes: Any) -> Any:
    from llama_index.core.schema import TextNode

    return TextNode(
        text="feed the starter",
        metadata={"file_path": "bread/rye.md", "page": 3},
        excluded_embed_metadata_keys=["page"],
        **changes,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metadata_seperator": " | "},
        {"metadata_template": "{key}={value}"},
        {"text_template": "[{metadata_str}] {content}"},
    ],
    ids=lambda changes: next(iter(changes), "as it is"),
)
@pytest.mark.parametrize("remove_text", [True, False])
def test_what_llama_index_embeds_is_rebuilt(changes: dict[str, str], remove_text: bool) -> None:
    pytest.importorskip("llama_index.core", reason="the extra 'llama-index' is not installed")
    from llama_index.core.schema import MetadataMode
    from llama_index.core.vector_stores.utils import node_to_metadata_dict

    made = node(**changes)
    stored = node_to_metadata_dict(made, remove_text=remove_text)
    embedded = made.get_content(MetadataMode.EMBED)
    assert "bread/rye.md" in embedded
    assert embedded_text(made.text if remove_text else "", stored) == (embedded, "")


def test_text_alone_is_what_others_embed() -> None:
    assert embedded_text("rye", {"file_path": "rye.md"}) == ("rye", "")


@pytest.mark.parametrize("damaged", ["{", "[]", '{"metadata": 3}', '{"text_template": "{x}"}', 7])
def test_what_cannot_be_rebuilt_is_said(embedder: Embedder, damaged: Any) -> None:
    if damaged == '{"text_template": "{x}"}':
        damaged = json.dumps({"text_template": "{x}", "metadata": {"a": 1}})
    text, doubt = embedded_text("rye", {"_node_content": damaged})
    assert text == "rye"
    assert "_node_content" in doubt

    metadata = {"_node_content": damaged}
    some = texts()
    stored = rows(embedder, some, [f"key: value\n\n{text}" for text in some])
    proof = proven_of(
        embedder,
        [row._replace(record=Record(row.record.id, row.record.text, metadata)) for row in stored],
    )
    assert proof.refuted
    assert "is not known" in proof.found
    assert "adopt='unchecked'" in proof.found
    assert "another model" not in proof.found


@pytest.mark.parametrize(
    "said",
    [
        {"text_template": "{content:>999999999999}{metadata_str}"},
        {"text_template": "{content.__class__}"},
        {"text_template": "{content[0]}"},
        {"text_template": "{content!r:{metadata_str}}"},
        {"text_template": "{0}"},
        {"text_template": "{content}" * 500_000},
        {"metadata_template": "{value:>999999999999}"},
        {"metadata_template": "{value.__doc__}"},
        {"metadata_seperator": "x" * 50_000, "metadata": dict.fromkeys(map(str, range(200)), 1)},
        {"metadata_template": "{key}" * 1_000, "metadata": {"k" * 10_000: 1}},
    ],
    ids=lambda said: f"{said}"[:40],
)
def test_a_stored_template_can_do_nothing_but_place_texts(said: dict[str, Any]) -> None:
    content = {"text": "rye bread", "metadata": {"flour": "rye"}, **said}
    tracemalloc.start()
    try:
        text, doubt = embedded_text("", {"_node_content": json.dumps(content)})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text == ""
    assert "_node_content" in doubt
    assert peak < 64 * 1024 * 1024


@pytest.mark.parametrize("read", [lambda found: embedded_text("rye", found)[0], node_text])
def test_a_node_as_deep_as_no_node_is_passed_over(read: Any) -> None:
    assert read({"_node_content": "[" * 200_000}) in ("rye", "")


def test_fields_in_front_are_named_where_no_node_says_so(embedder: Embedder) -> None:
    some = texts()
    stored = [
        row._replace(record=Record(row.record.id, row.record.text, {"flour": "rye"}))
        for row in rows(embedder, some, [f"flour: rye\n\n{text}" for text in some])
    ]
    proof = proven_of(embedder, stored)
    assert "fields of the metadata" in proof.found
    assert "adopt='unchecked'" in proof.found
