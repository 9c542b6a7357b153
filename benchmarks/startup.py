"""How long a fresh process takes: to import a library, and to its first vector.

    python benchmarks/startup.py [--models minilm bert-large] [--repeats 3]

Each turn is a process of its own that imports the library, loads the model from its folder and
embeds one query; the seconds are the whole process', Python's own start included. Files are in the
system's cache, and toastrack knows the weights' digest from the run before, as on any second start.
Beside it the peak resident memory of that process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from inputs import Subject, models_option, subject
from measuring import Contestant, Table, main, needs, take_turns
from peers import has_bfloat16, onnx_folder
from processes import peak_of

QUERY = "why is bread brown?"
# What a program imports, and the distribution that brings it.
IMPORTS = {
    "numpy": "numpy",
    "toastrack": "toastrack",
    "sentence_transformers": "sentence-transformers",
    "langchain_huggingface": "langchain-huggingface",
    "llama_index.embeddings.huggingface": "llama-index-embeddings-huggingface",
    "fastembed": "fastembed",
}
TOASTRACK = """
from toastrack import Embedder
Embedder({folder!r}, engine={engine!r}, device="cpu").embed_query({query!r})
"""
PLAIN = """
from sentence_transformers import SentenceTransformer
SentenceTransformer({folder!r}, device="cpu").encode({query!r}, normalize_embeddings=True)
"""
LANGCHAIN = """
from langchain_huggingface import HuggingFaceEmbeddings
HuggingFaceEmbeddings(model_name={folder!r}, model_kwargs={{"device": "cpu"}}).embed_query({query!r})
"""
LLAMA_INDEX = """
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
HuggingFaceEmbedding(model_name={folder!r}, device="cpu").get_query_embedding({query!r})
"""
FASTEMBED = """
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
TextEmbedding.add_custom_model(
    model="benchmark/cold", pooling=PoolingType.{pooling}, normalization=True,
    sources=ModelSource(hf="benchmark/cold"), dim={dimensions}, model_file="model.onnx",
)
model = TextEmbedding("benchmark/cold", specific_model_path={folder!r})
next(iter(model.query_embed({query!r})))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this part."""
    models_option(parser)
    parser.add_argument("--repeats", type=int, default=3, help="turns each; the median counts")


def tables(options: argparse.Namespace) -> Iterator[Table]:
    """Imports first, then each model's first vector."""
    imports = {
        f"import {module}": partial(_importing, module, package)
        for module, package in IMPORTS.items()
    }
    yield _measured("Importing, in a fresh process", imports, options.repeats)
    for name in options.models:
        model = subject(name)
        yield _measured(
            f"{model.name}: from nothing to the first vector", _cold(model), options.repeats
        )


def _importing(module: str, package: str) -> str:
    needs(module, package)
    return f"import {module}"


def _cold(model: Subject) -> dict[str, Callable[[], str]]:
    def peer(code: str, module: str, folder: Path) -> str:
        needs(module, IMPORTS[module])
        return code.format(folder=str(folder), query=QUERY)

    def toastrack(engine: str, module: str, folder: Path) -> str:
        needs(module, f"toastrack[{'openvino' if engine == 'openvino' else 'local'}]")
        return TOASTRACK.format(folder=str(folder), query=QUERY, engine=engine)

    def fastembed() -> str:
        needs("fastembed", "fastembed")
        return FASTEMBED.format(
            folder=str(onnx_folder(model)),
            query=QUERY,
            dimensions=model.hidden,
            pooling="CLS" if model.takes_cls else "MEAN",
        )

    precision = "bfloat16" if has_bfloat16() else "float32"
    plain = "sentence_transformers"
    return {
        f"toastrack, openvino, {precision}": partial(
            toastrack, "openvino", "openvino", model.exported
        ),
        "toastrack, sentence-transformers, float32": partial(
            toastrack, "sentence-transformers", plain, model.folder
        ),
        "sentence-transformers, defaults": partial(peer, PLAIN, plain, model.folder),
        "langchain-huggingface, defaults": partial(
            peer, LANGCHAIN, "langchain_huggingface", model.folder
        ),
        "llama-index-embeddings-huggingface, defaults": partial(
            peer, LLAMA_INDEX, "llama_index.embeddings.huggingface", model.folder
        ),
        "fastembed, defaults": fastembed,
    }


def _measured(title: str, codes: Mapping[str, Callable[[], str]], repeats: int) -> Table:
    table = Table(
        title,
        {"": "", "seconds": ".2f", "slowest/quickest turn": ".2f", "peak MB": ",.0f", "remark": ""},
    )
    contestants = [
        Contestant(name, partial(_process, code))
        for name, code in {"Python, nothing else": lambda: "pass", **codes}.items()
    ]
    turns = take_turns(contestants, repeats)
    for name, turn in turns.items():
        if turn.failed:
            table.add(name, None, None, None, turn.failed)
        else:
            table.add(name, turn.median, turn.spread, turn.result)
    table.keep(turns)
    return table


def _process(code: Callable[[], str]) -> Callable[[], float]:
    return partial(peak_of, code())


if __name__ == "__main__":
    main(__doc__, arguments, tables)
