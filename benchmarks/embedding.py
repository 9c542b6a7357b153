"""How many documents a second each engine embeds, against what people use instead.

    python benchmarks/embedding.py [--models minilm bert-large] [--passages 500] [--repeats 3]

Two models: the packaged MiniLM, and a BERT-large of mxbai-embed-large-v1's exact shape with random
weights, which takes as long as the real one. It is saved in fp16 as mxbai is, so "defaults" is what
mxbai's users get; it is made once and kept in the user's cache, 4 GB of it with its exports. All
models are in memory at the same time: 16 GB for this one; --models minilm takes 4. All
contestants embed the same texts in turns. A peer so slow that a turn would take over --budget
seconds embeds fewer of them, from the shortest to the longest at even steps, and says how many.

"share of the limit" is what is computed for the texts' own tokens, over the best rate of a plain
matrix product of the model's shapes in the same precision, by torch or OpenVINO, whichever is
faster. "cosine" is the worst agreement with sentence-transformers in float32.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import limits
from inputs import Subject, corpus_option, models_option, passages, subject, where_from
from measuring import Contestant, Outcome, Table, main, seconds, take_turns
from peers import EXACT, PLAIN, Loader, Peer, peers, spread, worst_cosine

COLUMNS = {
    "": "",
    "documents/s": ",.1f",
    "tokens/s": ",.0f",
    "times sentence-transformers": ".2f",
    "share of the limit": ".0%",
    "cosine": ".5f",
    "passages": ",d",
    "turns": "d",
    "slowest/quickest turn": ".2f",
    "remark": "",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    models_option(parser)
    corpus_option(parser)
    parser.add_argument("--passages", type=int, default=500)
    parser.add_argument("--large-passages", type=int, default=24, help="for bert-large")
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")
    parser.add_argument(
        "--budget", type=float, default=30, help="seconds a turn of a peer may take"
    )


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Measure one model after the other."""
    for name in options.models:
        count = options.large_passages if name == "bert-large" else options.passages
        texts = passages(count, corpus=options.corpus, seed=options.seed)
        yield throughput(subject(name), texts, options)


class Entry:
    """One contestant: what it embeds, and how well it does."""

    def __init__(self, name: str, load: Loader, texts: Sequence[str], budget: float) -> None:
        self.name = name
        self.texts = list(texts)
        self.checked: Any = None
        self.said = ""
        self._load = load
        self._budget = budget

    def ready(self, model: Subject, sample: Sequence[str]) -> Callable[[], object]:
        """Load it, warm it up, and choose how many texts it can do in its time."""
        peer: Peer = self._load(model, self.texts)
        self.said = peer.said
        peer.documents(sample[:1])
        took = seconds(partial(self._check, peer, sample))
        # Characters stand for tokens, near enough for this.
        rate = sum(map(len, sample)) / took
        able = self._budget * rate / statistics.mean(map(len, self.texts))
        if able < len(self.texts) and not self.name.startswith("toastrack"):
            self.texts = spread(self.texts, max(2, int(able)))
        return partial(peer.documents, self.texts)

    def _check(self, peer: Peer, sample: Sequence[str]) -> None:
        self.checked = peer.documents(sample)


def throughput(model: Subject, texts: Sequence[str], options: argparse.Namespace) -> Table:
    """Time every contestant on the same texts, in turns, the limits among them."""
    sizes = model.tokens_of(texts)
    sample = spread(texts, max(3, len(texts) // 16))
    entries = [Entry(name, load, texts, options.budget) for name, load in peers(model).items()]
    products = limits.limits(model)
    contestants = [Contestant(e.name, partial(e.ready, model, sample)) for e in entries]
    turns = take_turns(
        [*products.values(), *contestants],
        options.repeats,
        warm_up=False,
        patience=1.2 * options.budget,
    )
    best = {kind: limits.best_rate(model, kind, products, turns) for kind in limits.PRECISIONS}
    mean = statistics.mean(sizes.values())
    table = Table(
        f"{model.name}: {len(texts)} {where_from(options.corpus)}, {mean:.0f} tokens on average",
        COLUMNS,
    )
    by_name = {entry.name: entry for entry in entries}
    # A file in float32 needs no second model for the reference.
    exact = by_name[EXACT if EXACT in by_name else PLAIN].checked
    plain = _tokens_a_second(by_name[PLAIN], turns[PLAIN], sizes)
    for entry in entries:
        turn = turns[entry.name]
        rate = _tokens_a_second(entry, turn, sizes)
        if rate is None:
            table.add(entry.name, *[None] * (len(COLUMNS) - 2), turn.failed)
            continue
        lengths = [sizes[text] for text in entry.texts]
        done = model.gflop(lengths) / turn.median
        ceiling = best["bfloat16" if "bfloat16" in entry.name else "float32"][0]
        table.add(
            entry.name,
            rate / mean,
            rate,
            rate / plain if plain else None,
            # fp16 has no limit of its own here.
            done / ceiling if ceiling and "float16" not in entry.said.split(", ") else None,
            None if exact is None else worst_cosine(entry.checked, exact),
            len(entry.texts),
            len(turn.seconds),
            turn.spread,
            "" if entry.name.startswith("toastrack") else entry.said,
        )
    for kind, (gflops, tool) in best.items():
        if gflops:
            full = model.gflop(list(sizes.values())) / sum(sizes.values())
            table.add(f"limit in {kind}", gflops / full / mean, gflops / full)
            table.note(f"Limit in {kind}: {gflops:,.0f} GFLOP/s, {tool}.")
        else:
            table.note(f"No limit in {kind}: {_why(products, turns, kind)}.")
    place = list(COLUMNS).index("share of the limit")
    shares = [row[place] for row in table.rows]
    if any(isinstance(share, float) and share > 1 for share in shares):
        table.note(
            "A share over 100% says that the machine was busier when the limit was measured: "
            "measure again, on a quiet one or with more --repeats."
        )
    table.note(
        "Documents/s is tokens/s over the mean length of all passages, so it stands beside the "
        "others' where fewer were embedded. Cosine: the worst of "
        f"{len(sample)} passages with sentence-transformers in float32."
    )
    table.keep(turns)
    return table


def _tokens_a_second(entry: Entry, turn: Outcome, sizes: dict[str, int]) -> float | None:
    if turn.failed or not turn.seconds:
        return None
    return sum(sizes[text] for text in entry.texts) / turn.median


def _why(products: dict[str, Contestant], turns: dict[str, Outcome], kind: str) -> str:
    reasons = {
        turns[one.name].failed for key, one in products.items() if key.startswith(f"{kind}/")
    }
    return "; ".join(sorted(reasons - {""})) or "not measured"


if __name__ == "__main__":
    main(__doc__, arguments, tables)
