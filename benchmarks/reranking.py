"""How many pairs a second each engine scores, against sentence-transformers.

    python benchmarks/reranking.py [--pairs 50] [--tokens 200] [--repeats 3]

One query with that many documents, each pair so many tokens long. The model is a DeBERTa-v2 of
mxbai-rerank-base-v1's exact shape with random weights, which takes as long as the real one; it is
saved in fp16 as that is, so "defaults" is what its users get. It is made once and kept in the
user's cache, 1.5 GB of it with its export. All contestants score the same pairs in turns.

"largest difference" and "same first 10" compare with sentence-transformers in float32. The scores
of random weights lie closer together than those of a trained model: bfloat16 looks worse here.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import cache, packaged_minilm, prose
from measuring import Contestant, Table, main, needs, progress, take_turns
from peers import has_bfloat16

from toastrack import Reranker
from toastrack.models.engine_choice import EngineName, RerankerPrecision
from toastrack.models.openvino_files import run_file

Score = Callable[[str, Sequence[str]], Any]
"""A query and documents in, a score each out."""

PLAIN = "sentence-transformers predict, defaults"
EXACT = "sentence-transformers predict, float32"
QUERY_WORDS, SPECIALS = 10, 3
COLUMNS = {
    "": "",
    "pairs/s": ",.2f",
    "times sentence-transformers": ".2f",
    "times the same in float32": ".2f",
    "largest difference": ".1e",
    "same first 10": ".0%",
    "turns": "d",
    "slowest/quickest turn": ".2f",
    "remark": "",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=200, help="of a pair, specials counted")
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")
    parser.add_argument(
        "--skip-defaults", action="store_true", help="leave out the slowest, plain predict"
    )
    parser.add_argument("--reranker", type=Path, metavar="DIR", help="another model's folder")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Measure all contestants on the same pairs."""
    folder: Path = options.reranker or random_deberta()
    exported = folder.with_name(f"{folder.name}-openvino")
    if run_file(exported) is None:
        progress("exporting it for OpenVINO, once")
        from toastrack.export import export

        export(str(folder), exported)
    pick = random.Random(options.seed)
    query = prose(pick, QUERY_WORDS)
    words = max(1, options.tokens - QUERY_WORDS - SPECIALS)
    documents = [prose(pick, words) for _ in range(options.pairs)]
    loaders: dict[str, Callable[[], Score]] = {}
    if has_bfloat16():
        loaders["toastrack, openvino, bfloat16"] = partial(ours, exported, "openvino", "bfloat16")
    loaders |= {
        "toastrack, openvino, float32": partial(ours, exported, "openvino", "float32"),
        "toastrack, sentence-transformers, float32": partial(
            ours, folder, "sentence-transformers", "float32"
        ),
        EXACT: partial(theirs, folder, "float32"),
    }
    if not options.skip_defaults:
        loaders[PLAIN] = partial(theirs, folder, None)
    turns = take_turns(
        [
            Contestant(name, partial(_ready, load, query, documents))
            for name, load in loaders.items()
        ],
        options.repeats,
        warm_up=False,
    )
    plain, in_float32 = (
        turns[name].median if name in turns and turns[name].seconds else None
        for name in (PLAIN, EXACT)
    )
    table = Table(f"{folder.name}: {options.pairs} pairs of {options.tokens} tokens", COLUMNS)
    exact = turns[EXACT].result
    for name, turn in turns.items():
        if turn.failed or not turn.seconds:
            table.add(name, *[None] * (len(COLUMNS) - 2), turn.failed)
            continue
        table.add(
            name,
            options.pairs / turn.median,
            plain and plain / turn.median,
            in_float32 and in_float32 / turn.median,
            None if exact is None else float(np.abs(turn.result - exact).max()),
            None if exact is None else _same_first(turn.result, exact),
            len(turn.seconds),
            turn.spread,
        )
    table.keep(turns)
    yield table


def ours(folder: Path, engine: EngineName, precision: RerankerPrecision) -> Score:
    """One of our engines."""
    reranker = Reranker(folder, engine=engine, precision=precision, device="cpu").load()
    return reranker.score


def theirs(folder: Path, dtype: str | None) -> Score:
    """``CrossEncoder.predict``, in the precision of the file unless told otherwise; raw logits."""
    needs("sentence_transformers", "sentence-transformers")
    import torch
    from sentence_transformers import CrossEncoder

    kwargs = {} if dtype is None else {"model_kwargs": {"dtype": getattr(torch, dtype)}}
    model: Any = CrossEncoder(str(folder), device="cpu", **kwargs)

    def score(query: str, documents: Sequence[str]) -> Any:
        pairs = [(query, document) for document in documents]
        scores = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return scores.astype(np.float32)

    return score


def random_deberta() -> Path:
    """Return a model of mxbai-rerank-base-v1's shape, made once."""
    folder = cache() / "deberta-v2-base-reranker"
    if not (folder / "tokenizer_config.json").is_file():
        progress(f"making a DeBERTa-v2 in {folder}, once")
        save_deberta(folder, Path(packaged_minilm()))
    return folder


def save_deberta(folder: Path, vocabulary_of: Path) -> None:
    """Write the model as ``save_pretrained`` would, with another one's tokenizer."""
    needs("transformers", "sentence-transformers")
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    torch.manual_seed(0)
    make: Any = DebertaV2Config  # not all of what it takes is annotated
    shape = make(
        vocab_size=128_100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3_072,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        num_labels=1,
        # With the usual 0.02 all scores of a random model are alike.
        initializer_range=0.06,
    )
    model: Any = DebertaV2ForSequenceClassification(shape)
    model.to(torch.float16).save_pretrained(folder)
    shutil.copy(vocabulary_of / "tokenizer.json", folder)
    # Last: with it the folder is whole.
    config = json.loads((vocabulary_of / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["model_max_length"] = 512
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _ready(load: Callable[[], Score], query: str, documents: Sequence[str]) -> Callable[[], Any]:
    score = load()
    score(query, documents[:1])
    return partial(score, query, documents)


def _same_first(scores: Any, exact: Any) -> float:
    first = min(10, len(exact))
    best, true = (
        set(np.argsort(-some, kind="stable")[:first].tolist()) for some in (scores, exact)
    )
    return len(best & true) / first


if __name__ == "__main__":
    main(__doc__, arguments, tables)
