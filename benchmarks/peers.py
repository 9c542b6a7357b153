"""Toastrack's engines and the libraries that people use instead, each as its users use it."""

from __future__ import annotations

import asyncio
import json
import shutil
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import Subject
from measuring import CannotRunError, needs, progress, seconds

from toastrack import Embedder
from toastrack.batching.engine_pool import Precision
from toastrack.models.engine_choice import EngineName

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
PLAIN = "sentence-transformers encode, defaults"
EXACT = "sentence-transformers encode, float32"


@dataclass(frozen=True)
class Peer:
    """A loaded model behind the calls that its users make.

    Args:
        documents: Texts in, vectors out, in one call.
        query: One query in, its vector out.
        queries: Many queries in one call; None where there is no such call.
        aquery: One query in, its vector out, as an asynchronous program asks it.
        said: What it says it runs on, or which setting was found best.
    """

    documents: Callable[[Sequence[str]], Any]
    query: Callable[[str], Any]
    queries: Callable[[Sequence[str]], Any] | None
    aquery: Callable[[str], Awaitable[Any]]
    said: str = ""


Loader = Callable[[Subject, Sequence[str]], Peer]


def peers(subject: Subject, *, tuning: bool = True) -> dict[str, Loader]:
    """Return who takes part, by name; each loads a model, given texts to tune itself with.

    ``tuning`` looks for the best batch size of ``encode``, which one query has no use for.
    """
    found: dict[str, Loader] = {}
    if has_bfloat16():
        found["toastrack, openvino, bfloat16"] = partial(toastrack, "openvino", "bfloat16")
    found |= {
        "toastrack, openvino, float32": partial(toastrack, "openvino", "float32"),
        "toastrack, sentence-transformers, float32": partial(
            toastrack, "sentence-transformers", "auto"
        ),
        PLAIN: partial(plain, None),
    }
    if subject.dtype != "float32":
        found[EXACT] = partial(plain, "float32")
    if tuning:
        for dtype in ("float32", "bfloat16"):
            name = f"sentence-transformers encode, {dtype}, best batch size"
            found[name] = partial(tuned, dtype)
    else:
        found["sentence-transformers encode, bfloat16"] = partial(plain, "bfloat16")
    found |= {
        "langchain-huggingface, defaults": langchain,
        "llama-index-embeddings-huggingface, defaults": llama_index,
        "fastembed, defaults": fastembed,
    }
    return found


def has_bfloat16() -> bool:
    """Tell whether the processor computes in bfloat16; without OpenVINO nobody here asks it to."""
    from toastrack.engines.openvino import pick_precision
    from toastrack.errors import MissingExtraError

    try:
        return pick_precision("auto") == "bfloat16"
    except MissingExtraError:
        return False


def toastrack(
    engine: EngineName, precision: Precision, subject: Subject, texts: Sequence[str]
) -> Peer:
    """One of our engines; it takes queries that come at once together."""
    folder = subject.exported if engine == "openvino" else subject.folder
    embedder = Embedder(
        folder, engine=engine, precision=precision, device="cpu", on_truncate="ignore"
    ).load()

    return Peer(
        embedder.embed_documents,
        embedder.embed_query,
        embedder.embed_queries,
        embedder.aembed_query,
        embedder.running_on,
    )


def plain(dtype: str | None, subject: Subject, texts: Sequence[str]) -> Peer:
    """``encode``, in the precision of the file unless told otherwise, 32 texts a batch."""
    return _encoding(_sentence_transformer(subject, dtype), {})


def tuned(dtype: str, subject: Subject, texts: Sequence[str]) -> Peer:
    """``encode`` with the batch size that is best for these texts."""
    model = _sentence_transformer(subject, dtype)
    sample = spread(texts, min(64, max(8, len(texts) // 3)))
    encode = partial(model.encode, sample, normalize_embeddings=True, show_progress_bar=False)
    # A batch larger than the sample is the sample.
    sizes = [size for size in BATCH_SIZES if size <= len(sample)] or [1]
    best = min(sizes, key=lambda size: seconds(partial(encode, batch_size=size)))
    return _encoding(model, {"batch_size": best})


def langchain(subject: Subject, texts: Sequence[str]) -> Peer:
    """``HuggingFaceEmbeddings``; normalised, as its documentation does for cosine search."""
    needs("langchain_huggingface", "langchain-huggingface")
    from langchain_huggingface import HuggingFaceEmbeddings

    model = HuggingFaceEmbeddings(
        model_name=str(subject.folder),
        model_kwargs={"device": "cpu"},
        encode_kwargs={"normalize_embeddings": True},
    )

    return Peer(
        lambda some: model.embed_documents(list(some)),
        model.embed_query,
        None,
        model.aembed_query,
        _dtype(model._client),
    )


def llama_index(subject: Subject, texts: Sequence[str]) -> Peer:
    """``HuggingFaceEmbedding``, 10 texts a batch."""
    needs("llama_index.embeddings.huggingface", "llama-index-embeddings-huggingface")
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=str(subject.folder), device="cpu")

    return Peer(
        lambda some: model.get_text_embedding_batch(list(some)),
        model.get_query_embedding,
        None,
        model.aget_query_embedding,
        _dtype(model._model),
    )


def fastembed(subject: Subject, texts: Sequence[str]) -> Peer:
    """``TextEmbedding`` over an ONNX file of the same weights, on all cores, 256 texts a batch."""
    needs("fastembed", "fastembed")
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = onnx_folder(subject)
    name = f"benchmark/{subject.folder.name}"
    if name not in {known["model"] for known in TextEmbedding.list_supported_models()}:
        TextEmbedding.add_custom_model(
            model=name,
            pooling=PoolingType.CLS if subject.takes_cls else PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=name),
            dim=subject.hidden,
            model_file="model.onnx",
        )
    model = TextEmbedding(name, specific_model_path=str(folder))

    def query(text: str) -> Any:
        return next(iter(model.query_embed(text)))

    return Peer(
        lambda some: list(model.embed(some)),
        query,
        lambda queries: list(model.query_embed(list(queries))),
        # It has no asynchronous call.
        lambda text: asyncio.to_thread(query, text),
    )


def spread(texts: Sequence[str], count: int) -> list[str]:
    """Return so many texts, from the shortest to the longest at even steps."""
    ordered = sorted(texts, key=len)
    count = min(count, len(ordered))
    return [ordered[int((number + 0.5) * len(ordered) / count)] for number in range(count)]


def worst_cosine(vectors: Any, others: Any) -> float:
    """Return the smallest cosine between two models' vectors of the same texts."""
    left, right = (np.asarray(list(some), np.float64) for some in (vectors, others))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / lengths).min())


@cache
def _sentence_transformer(subject: Subject, dtype: str | None) -> Any:
    needs("sentence_transformers", "sentence-transformers")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    settings: Any = logging
    settings.disable_progress_bar()
    if dtype is None:
        return SentenceTransformer(str(subject.folder), device="cpu")
    return SentenceTransformer(
        str(subject.folder), device="cpu", model_kwargs={"torch_dtype": dtype}
    )


def _encoding(model: Any, settings: dict[str, int]) -> Peer:
    encode = partial(model.encode, normalize_embeddings=True, show_progress_bar=False, **settings)

    said = [_dtype(model)]
    said += [f"{name}={value}" for name, value in settings.items()]
    return Peer(
        lambda some: encode(list(some)),
        encode,
        lambda queries: encode(list(queries)),
        # It has no asynchronous call.
        lambda text: asyncio.to_thread(encode, text),
        ", ".join(said),
    )


def _dtype(model: Any) -> str:
    """Name the precision that a torch model has been loaded in."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def onnx_folder(subject: Subject) -> Path:
    """Return the model as fastembed reads it, made once."""
    folder = subject.exported.with_name(f"{subject.exported.name}-onnx")
    if not (folder / "special_tokens_map.json").is_file():
        needs("onnx", "onnx")
        progress(f"writing {subject.name} as ONNX, once")
        write_onnx(subject, folder)
    return folder


def write_onnx(subject: Subject, folder: Path) -> None:
    """Write the last layer's vectors as an ONNX file, with what else fastembed reads."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for path in subject.exported.glob("*.json"):
        shutil.copy(path, folder)
    # It reads what the tokenizer could, the others what the model is meant to.
    path = folder / "tokenizer_config.json"
    limit = Embedder(subject.exported, device="cpu").max_tokens
    config = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": limit}
    path.write_text(json.dumps(config | {"max_length": limit}), encoding="utf-8")
    engine: Any = Embedder(subject.folder, engine="sentence-transformers", device="cpu")._engine()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    if set(engine.inputs) - set(names):
        raise CannotRunError(f"not measured: no ONNX file is made of {engine.inputs}")

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
    # Last: with it the folder is whole.
    tokens = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    given = subject.folder / "special_tokens_map.json"
    text = given.read_text(encoding="utf-8") if given.is_file() else json.dumps(tokens)
    (folder / "special_tokens_map.json").write_text(text, encoding="utf-8")
