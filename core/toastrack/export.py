"""Make a folder that the engine "openvino" runs, out of a model that sentence-transformers runs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from toastrack.embedder import Embedder
from toastrack.engines.openvino import import_openvino
from toastrack.errors import ModelError
from toastrack.hosted.model import HostedModel
from toastrack.int8.loss import Loss
from toastrack.int8.quantise import import_nncf
from toastrack.int8.texts import samples
from toastrack.int8.writing import check_loss, write_int8
from toastrack.models.config import PROMPTS_FILE
from toastrack.models.files import find_task
from toastrack.models.json_files import read_json
from toastrack.models.openvino_files import (
    NOTE_FILE,
    RUN_FILES,
    NotedPrecision,
    why_not,
    write_note,
)
from toastrack.models.prompts import saved_prompts
from toastrack.reranker import Reranker
from toastrack.utils.arguments import check_choice, check_positive

# Beside the weights: configuration, vocabulary, and what the model's authors ask to be kept.
_COPIED = ("*.json", "*.txt", "*.model", "*/config.json", "README.md", "LICENSE*", "NOTICE*")
_LEFT_OUT = ("*.safetensors.index.json", NOTE_FILE, "onnx/*", "openvino/*")

# In float32 both engines agree to 1e-6 or so; a wrong trace is off by 1e-2 and more. A score is
# no part of a unit vector: it goes to 10 and over, and its last digits differ sooner.
_TOLERANCE = 1e-4
_SCORE_TOLERANCE = 1e-3

_SENTENCE = "Why does rye bread keep fresh for a week, and what feeds a starter? "


@dataclass(frozen=True)
class Exported:
    """What became of an export, and the largest difference of a number to the original's.

    ``default`` is the precision in which the folder runs here; ``loss`` is there in int8 alone.
    """

    folder: Path
    in_float32: float
    in_default: float
    default: str
    loss: Loss | None = None


def export(
    model: str,
    folder: Path,
    *,
    revision: str | None = None,
    precision: NotedPrecision = "float32",
    calibrate: str | None = None,
    sample: int | None = None,
    force: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Exported:
    """Write an embedding model or a reranker as OpenVINO reads it, with its small files; check it.

    The folder names the weights that it was made of, so its vectors are of the original's space.
    ``calibrate`` names a file, a folder or a store with texts like those that a model in int8 will
    read, ``sample`` how many of them are used.

    Raises ``ModelError`` if the folder is not empty and ``force`` is not given, if what comes out
    does not embed or score as the original does, or in int8 loses too much and ``force`` is not
    given; the folder is as it was then. ``SourceError`` if there are too few texts.
    """
    check_choice("precision", precision, get_args(NotedPrecision))
    check_positive("sample", sample)
    in_int8 = precision == "int8"
    if not in_int8 and (calibrate is not None or sample is not None):
        raise ValueError("calibrate= and sample= go with precision='int8'.")
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise ModelError(
            f"{str(folder)!r} is not empty. Choose another, or write into it: force=True."
        )
    import_openvino()
    on_step("reading the model")
    task = find_task(model, revision)
    if in_int8:
        if task != "embedding":
            raise ModelError(
                f"{model!r} is a reranker, and precision='int8' is for embedding models: small "
                "differences of scores change the order, and of no trained reranker has anybody here "
                "measured how much. Leave it out."
            )
        import_nncf()
    kind = Embedder if task == "embedding" else Reranker
    original = kind(
        model,
        revision=revision,
        engine="sentence-transformers",
        device="cpu",
        precision="float32",
        on_truncate="ignore",
    )
    assert not isinstance(original._model, HostedModel)
    files = original._model.files
    source = files.folder()
    reason = why_not(source, task)
    if reason is not None:
        raise ModelError(f"{model!r} cannot be exported: {reason}.")
    drawn = None
    if in_int8:
        assert isinstance(original, Embedder)
        on_step("reading texts")
        drawn = samples(original, calibrate, sample)
        for line in drawn.notes:
            on_note(line)
    original.load()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as partial:
        made = Path(partial) / "model"
        made.mkdir()
        on_step("converting it")
        _convert(original, made / RUN_FILES[0])
        _copy_files(source, made)
        if isinstance(original, Embedder):
            _keep_prompts(original, made)
        weights, name, commit = files.weights(), original.model, files.commit()

        def note(where: Path, precision: NotedPrecision) -> None:
            write_note(where, weights=weights, model=name, revision=commit, precision=precision)

        note(made, "float32")
        on_step("comparing both")
        if isinstance(original, Embedder):
            exported = _compare(original, made, folder)
        else:
            exported = _compare_scores(original, made, folder)
        if drawn is not None:
            del original  # what comes next takes several times its memory
            exact, made = made, Path(partial) / "int8"
            cost, difference = write_int8(exact, made, drawn, note=note, on_step=on_step)
            check_loss(model, cost, force=force, on_note=on_note)
            exported = replace(exported, in_default=difference, default="int8", loss=cost)
        _put(made, folder)
    return exported


def _put(made: Path, folder: Path) -> None:
    """Move what was made into a folder, each file in one step.

    A process that runs what lies there has the old file mapped into its memory: written into, it
    would change or end that process.
    """
    for path in sorted(made.rglob("*"), key=lambda path: (path.name == NOTE_FILE, path)):
        target = folder / path.relative_to(made)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(path, partial)
        partial.replace(target)


def _traced(original: Embedder | Reranker) -> tuple[Any, list[str], str]:
    """Return the torch module to trace, its inputs' names, and the one of its outputs to keep."""
    if isinstance(original, Embedder):
        from toastrack.engines.sentence_transformers import SentenceTransformersEngine

        engine = original._engine()
        assert isinstance(engine, SentenceTransformersEngine)
        return engine.transformer, engine.inputs, "last_hidden_state"
    from toastrack.engines.cross_encoder import TorchReranker

    scoring = original._worker().engine
    assert isinstance(scoring, TorchReranker)
    # DeBERTa's tokenizer makes types that the model has no vectors for.
    names = [
        name
        for name in scoring.reads.model_input_names
        if name != "token_type_ids" or scoring.config.types is not None
    ]
    return scoring.model, names, "logits"


def _convert(original: Embedder | Reranker, path: Path) -> None:
    """Trace the model and save it; a pooling is not part of it."""
    import torch

    traced, names, output = _traced(original)

    class OneOutput(torch.nn.Module):
        """The model with its inputs by position and one output."""

        def __init__(self) -> None:
            super().__init__()
            self.traced = traced

        def forward(self, *inputs: Any) -> Any:
            return getattr(self.traced(**dict(zip(names, inputs, strict=True))), output)

    ids = torch.ones((2, 7), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    examples = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    unknown = [name for name in names if name not in examples]
    if unknown:
        raise ModelError(f"{original.model!r} cannot be exported: it asks for {unknown[0]!r}.")
    openvino = import_openvino()
    with _quiet(), torch.no_grad():
        try:
            model = openvino.convert_model(
                OneOutput().eval(), example_input=tuple(examples[name] for name in names)
            )
            for port, name in zip(model.inputs, names, strict=True):
                port.set_names({name})
                port.node.set_partial_shape(openvino.PartialShape([-1, -1]))
            model.validate_nodes_and_infer_types()
            model.outputs[0].set_names({output})
        except Exception as error:  # of torch, transformers or OpenVINO, and each has its own
            reason = " ".join(str(error).split())
            raise ModelError(f"{original.model!r} cannot be exported: {reason:.300}") from error
    path.parent.mkdir()
    openvino.save_model(model, path, compress_to_fp16=False)


def _copy_files(source: Path, made: Path) -> None:
    left_out = {path for pattern in _LEFT_OUT for path in source.glob(pattern)}
    for path in sorted({path for pattern in _COPIED for path in source.glob(pattern)} - left_out):
        target = made / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _keep_prompts(original: Embedder, made: Path) -> None:
    """Write down prompts that are known by the model's name, which a folder does not have."""
    path = made / PROMPTS_FILE
    config, prompts = read_json(path), original.prompts
    if saved_prompts(config) is None and (prompts.query or prompts.document):
        config["prompts"] = {"query": prompts.query, "document": prompts.document}
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _compare(original: Embedder, made: Path, folder: Path) -> Exported:
    """Embed texts of many lengths with both; refuse what does not agree."""
    import numpy as np

    texts = _texts()

    def difference(copy: Embedder) -> float:
        pairs = [
            (original.embed_documents(texts), copy.embed_documents(texts)),
            (original.embed_queries(texts), copy.embed_queries(texts)),
        ]
        # Also a batch of one, which a trace may have taken for the rule or the exception.
        pairs += [(pairs[0][0][2:3], copy.embed_documents(texts[2:3]))]
        return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)

    exact = Embedder(
        made, engine="openvino", device="cpu", precision="float32", on_truncate="ignore"
    )
    if exact.space != original.space:
        differing = ", ".join(original.space.differences(exact.space))
        raise ModelError(f"{original.model!r} cannot be exported: its {differing} would change.")
    in_float32 = difference(exact)
    if not in_float32 <= _TOLERANCE:
        raise ModelError(
            f"{original.model!r} cannot be exported: its vectors would be off by {in_float32:.1g}."
        )
    default = Embedder(made, engine="openvino", device="cpu", on_truncate="ignore")
    name = default.running_on.rpartition(" ")[2]
    return Exported(folder, in_float32, difference(default), name)


def _compare_scores(original: Reranker, made: Path, folder: Path) -> Exported:
    """Score documents of many lengths with both; refuse what does not agree."""
    import numpy as np

    query, texts = _SENTENCE, _texts()
    copy = Reranker(made, engine="openvino", device="cpu", on_truncate="ignore")
    ours, theirs = original.score(query, texts), copy.score(query, texts)
    alone = copy.score(query, texts[2:3])  # as a trace may take a batch for the rule
    difference = max(float(np.abs(ours - theirs).max()), float(np.abs(ours[2:3] - alone).max()))
    if not difference <= _SCORE_TOLERANCE:
        raise ModelError(
            f"{original.model!r} cannot be exported: its scores would be off by {difference:.1g}."
        )
    return Exported(folder, difference, difference, copy.running_on.rpartition(" ")[2])


def _texts() -> list[str]:
    return ["", *((_SENTENCE * 200)[:size] for size in (3, 40, 400, 13_000))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what a trace says of itself: the comparison tells whether it is right."""
    loggers = [logging.getLogger(name) for name in ("transformers", "torch", "openvino")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
