"""Tokens a second on an NVIDIA card in bfloat16, against sentence-transformers and the card's limit.

    python benchmarks/cuda.py [--model bert-large] [--lengths 32 128 512] [--tokens 1000000]

Texts of equal lengths first, then passages as they come. All of it counts: tokenising, copying to
the card and back. The limit is a plain matrix product in bfloat16, the best of the model's own
shapes and of large squares; the share counts the texts' own tokens and their attention, no padding.
Last, how long one query waits, and 64 in one call.

It needs neither OpenVINO nor a package with a model: --vocabulary-of takes a folder with
tokenizer.json, tokenizer_config.json, special_tokens_map.json and vocab.txt. To see that it works
where there is no card: --device cpu --model FOLDER --tokens 2000 --card-passages 8.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from inputs import (
    SPECIALS,
    Subject,
    corpus_option,
    passages,
    prose,
    queries,
    subject,
    where_from,
)
from measuring import (
    CannotRunError,
    Contestant,
    Outcome,
    Table,
    main,
    needs,
    percentile,
    seconds,
    take_turns,
)
from peers import spread, worst_cosine

from toastrack import Embedder

BATCH_SIZES = (32, 64, 128, 256, 512)
CALLERS = 64
DEFAULTS = "sentence-transformers encode, bfloat16, defaults"
TUNED = "sentence-transformers encode, bfloat16, best batch size"
OURS = "toastrack, bfloat16"
COLUMNS = {
    "": "",
    "tokens/s": ",.0f",
    "documents/s": ",.0f",
    "times sentence-transformers": ".2f",
    "share of the limit": ".0%",
    "cosine": ".5f",
    "slowest/quickest turn": ".2f",
    "remark": "",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu only to try it")
    parser.add_argument("--model", default="bert-large", help="minilm, bert-large, or a folder")
    parser.add_argument("--vocabulary-of", type=Path, metavar="FOLDER", help="for bert-large")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512], help="in tokens")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of each equal length")
    corpus_option(parser)
    parser.add_argument("--card-passages", type=int, default=5_000, help="of the real mix")
    parser.add_argument("--repeats", type=int, default=5, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Say what the card is, then measure it length by length."""
    needs("torch", "torch")
    needs("sentence_transformers", "sentence-transformers")
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise CannotRunError(
            f"not run: torch {torch.__version__} sees no CUDA device here, so nothing is said "
            "about tokens/s on a card"
        )
    model = subject(options.model, exporting=False, vocabulary_of=options.vocabulary_of)
    card = _card(options.device)
    pick = random.Random(options.seed)
    loaded = Loaded(model, options.device)
    for length in options.lengths:
        count = max(1, options.tokens // length)
        texts = [prose(pick, length - SPECIALS) for _ in range(count)]
        title = f"{model.name} on {card}: {count:,} texts of {length} tokens"
        yield throughput(title, model, loaded, texts, options)
    texts = passages(options.card_passages, corpus=options.corpus, seed=options.seed)
    title = f"{model.name} on {card}: {len(texts):,} {where_from(options.corpus)}"
    yield throughput(title, model, loaded, texts, options)
    yield waits(f"{model.name} on {card}: queries", loaded, options)


class Loaded:
    """The models that take part, each loaded once for all tables."""

    def __init__(self, model: Subject, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.ours = Embedder(
            model.folder,
            engine="sentence-transformers",
            device=device,
            precision="bfloat16",
            on_truncate="ignore",
        ).load()

        def plain(dtype: str) -> Callable[..., Any]:
            transformer = SentenceTransformer(
                str(model.folder), device=device, model_kwargs={"torch_dtype": dtype}
            )
            return partial(transformer.encode, normalize_embeddings=True, show_progress_bar=False)

        self.plain = plain("bfloat16")
        self.exact = plain("float32")


def throughput(
    title: str, model: Subject, loaded: Loaded, texts: Sequence[str], options: argparse.Namespace
) -> Table:
    """Time whole calls in turns, the limit among them."""
    limit = loaded.ours.max_tokens
    lengths = [min(limit, loaded.ours.count_tokens(text)) for text in texts]
    sample = spread(texts, 64)
    reference = loaded.exact(sample)
    products = {
        f"limit: {' x '.join(map(str, shape))}": (shape, times)
        for shape, times in _shapes(model, options.device)
    }
    remarks = {}

    def tuned() -> Callable[[], object]:
        some = spread(texts, max(1, min(len(texts), 2 * BATCH_SIZES[-1])))
        sizes = [size for size in BATCH_SIZES if size <= len(some)] or [len(some)]
        best = min(sizes, key=lambda size: seconds(partial(loaded.plain, some, batch_size=size)))
        remarks[TUNED] = f"batch_size={best}"
        return partial(loaded.plain, list(texts), batch_size=best)

    turns = take_turns(
        [
            *(
                Contestant(name, partial(_product, options.device, shape, times))
                for name, (shape, times) in products.items()
            ),
            Contestant(OURS, lambda: partial(loaded.ours.embed_documents, texts)),
            Contestant(DEFAULTS, lambda: partial(loaded.plain, list(texts))),
            Contestant(TUNED, tuned),
        ],
        options.repeats,
    )
    best, of = _best(products, turns)
    vectors = {OURS: loaded.ours.embed_documents(sample), DEFAULTS: loaded.plain(sample)}
    table = Table(title, COLUMNS)
    plain = turns[DEFAULTS]
    for name in (OURS, DEFAULTS, TUNED):
        turn = turns[name]
        if turn.failed:
            table.add(name, *[None] * 6, turn.failed)
            continue
        table.add(
            name,
            sum(lengths) / turn.median,
            len(texts) / turn.median,
            None if plain.failed else plain.median / turn.median,
            model.gflop(lengths) / turn.median / best if best else None,
            worst_cosine(vectors.get(name, vectors[DEFAULTS]), reference),
            turn.spread,
            remarks.get(name),
        )
    if best:
        ceiling = sum(lengths) * best / model.gflop(lengths)
        table.add("limit in bfloat16", ceiling, ceiling * len(texts) / sum(lengths))
        table.note(f"Limit: {best / 1e3:,.1f} TFLOP/s, a product of {of}.")
    if limit in lengths:
        table.note(f"The model reads {limit} tokens of a text; what is cut off is not counted.")
    table.note(f"{sum(lengths):,} tokens. Cosine: the worst of {len(sample)} texts with float32.")
    table.keep(turns)
    return table


def waits(title: str, loaded: Loaded, options: argparse.Namespace) -> Table:
    """One query after another, and 64 in a call."""
    texts = queries(CALLERS, seed=options.seed)
    singly: dict[str, list[float]] = {OURS: [], DEFAULTS: []}

    def each(name: str, ask: Callable[[str], object]) -> None:
        singly[name] += [seconds(partial(ask, text)) * 1_000 for text in texts]

    asks: dict[str, Callable[[str], object]] = {
        OURS: loaded.ours.embed_query,
        DEFAULTS: loaded.plain,
    }
    calls: dict[str, Callable[[], object]] = {
        OURS: partial(loaded.ours.embed_queries, texts),
        DEFAULTS: partial(loaded.plain, texts),
    }
    for name in asks:
        asks[name](texts[0])
    turns = take_turns(
        [
            *(
                Contestant(name, lambda name=name: partial(each, name, asks[name]))  # type: ignore[misc]
                for name in asks
            ),
            *(
                Contestant(f"{name}: call", lambda name=name: calls[name])  # type: ignore[misc]
                for name in calls
            ),
        ],
        options.repeats,
    )
    table = Table(
        title, {"": "", "alone, p50 ms": ".2f", "p99 ms": ".2f", "64 in a call, ms": ".1f"}
    )
    for name, times in singly.items():
        call = turns[f"{name}: call"]
        table.add(
            name,
            *(percentile(times, percent) if times else None for percent in (50, 99)),
            call.failed or call.median * 1_000,
        )
    table.keep(turns)
    return table


def _card(device: str) -> str:
    import torch

    if not device.startswith("cuda"):
        return f"{device} (a trial: no card)"
    found = torch.cuda.get_device_properties(device)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _shapes(model: Subject, device: str) -> list[tuple[tuple[int, int, int], int]]:
    """Return shapes (rows, in, out) of products, and how many of each make a turn."""
    wide, narrow = model.intermediate, model.hidden
    if not device.startswith("cuda"):
        return [((512, narrow, wide), 10)]
    return [
        ((32_768, narrow, wide), 100),
        ((32_768, wide, narrow), 100),
        ((8_192, 8_192, 8_192), 25),
        ((16_384, 16_384, 16_384), 4),
    ]


def _product(device: str, shape: tuple[int, int, int], times: int) -> Callable[[], object]:
    import torch

    rows, given, made = shape
    left = torch.randn(rows, given, device=device, dtype=torch.bfloat16)
    right = torch.randn(given, made, device=device, dtype=torch.bfloat16)
    out = torch.empty(rows, made, device=device, dtype=torch.bfloat16)

    def run() -> None:
        for _ in range(times):
            torch.matmul(left, right, out=out)
        if device.startswith("cuda"):
            # Else only the asking would be timed.
            torch.cuda.synchronize(device)

    return run


def _best(
    products: dict[str, tuple[tuple[int, int, int], int]], turns: dict[str, Outcome]
) -> tuple[float, str]:
    """Return GFLOP/s of the quickest turn of all products, and which that was."""
    found = [(0.0, "nothing")]
    for name, ((rows, given, made), times) in products.items():
        if turns[name].seconds:
            gflop = 2 * rows * given * made * times / 1e9
            found.append((gflop / min(turns[name].seconds), name.removeprefix("limit: ")))
    return max(found)


if __name__ == "__main__":
    main(__doc__, arguments, tables)
