"""The engine that needs no torch: the same vectors, ids and space as the other one."""

from __future__ import annotations

import asyncio
import copy
import csv
import gc
import json
import math
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_PROMPT, WORDS, embed_in_another_process, exported, save_tiny_bert
from programs import SECONDS, run, run_warm
from token_ids import read

from toastrack import Embedder
from toastrack.engines.openvino import OpenVinoEngine, _batch_tokens, pick_precision
from toastrack.errors import ModelError
from toastrack.models.engine_choice import _has_gpu

EXAMPLES = Path(__file__).parents[2] / "examples"
LENGTHS = [1, 2, 5, 12, 30, 90]


def prose(count: int, seed: int = 0) -> list[str]:
    pick = random.Random(seed)
    return ["", *(" ".join(pick.choices(WORDS, k=pick.choice(LENGTHS))) for _ in range(count - 1))]


def exact(folder: Path, **settings: Any) -> Embedder:
    return Embedder(folder, device="cpu", precision="float32", on_truncate="ignore", **settings)


def torch_embedder(folder: Path, **settings: Any) -> Embedder:
    return Embedder(
        folder, engine="sentence-transformers", device="cpu", on_truncate="ignore", **settings
    )


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@contextmanager
def seen(embedder: Embedder) -> Iterator[list[list[int]]]:
    """Collect every row of ids that enters the compiled model, without its padding."""
    engine = embedder._engine()
    assert isinstance(engine, OpenVinoEngine)
    rows: list[list[int]] = []
    infer = engine._request.infer

    def record(features: dict[str, Any], **settings: Any) -> Any:
        pairs = zip(features["input_ids"], features["attention_mask"], strict=True)
        rows.extend(ids[mask == 1].tolist() for ids, mask in pairs)
        return infer(features, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._request, "infer", record)
        yield rows


@pytest.fixture(scope="module")
def mean_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with mean pooling."""
    return save_tiny_bert(
        tmp_path_factory.mktemp("m") / "mean", pooling="mean", prompts={"query": MXBAI_PROMPT}
    )


@pytest.fixture(scope="module")
def openvino_mean(mean_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(mean_folder, tmp_path_factory.mktemp("m") / "openvino")


@pytest.fixture
def copied(openvino_folder: Path, tmp_path: Path) -> Path:
    """A copy of the exported model that a test may change."""
    return shutil.copytree(openvino_folder, tmp_path / "copied")


# -- the same vectors -----------------------------------------------------------------------


@pytest.mark.rest
def test_a_real_model_equals_sentence_transformers(
    openvino_minilm: Path, minilm_folder: Path
) -> None:
    texts = prose(60)
    ours, theirs = exact(openvino_minilm), torch_embedder(minilm_folder)
    assert ours.running_on == "openvino on cpu in float32"
    expected = theirs.embed_documents(texts)
    assert_close(ours.embed_documents(texts), expected)
    assert_close(np.stack([ours.embed_documents([text])[0] for text in texts]), expected)
    order = random.Random(1).sample(range(60), 60)
    assert_close(ours.embed_documents([texts[i] for i in order]), expected[order])


@pytest.mark.parametrize("dimensions", [None, 8])
def test_cls_pooling_equals_sentence_transformers(
    openvino_folder: Path, tiny_folder: Path, dimensions: int | None
) -> None:
    ours = exact(openvino_folder, dimensions=dimensions)
    theirs = torch_embedder(tiny_folder, dimensions=dimensions)
    texts = prose(60)
    assert_close(ours.embed_documents(texts), theirs.embed_documents(texts))
    assert_close(ours.embed_queries(texts), theirs.embed_queries(texts))
    assert_close(ours.embed_query("bread"), theirs.embed_query("bread"))


def test_mean_pooling_equals_sentence_transformers(openvino_mean: Path, mean_folder: Path) -> None:
    ours, theirs = exact(openvino_mean), torch_embedder(mean_folder)
    texts = prose(60)
    assert_close(ours.embed_documents(texts), theirs.embed_documents(texts))
    assert_close(ours.embed_queries(texts), theirs.embed_queries(texts))


@pytest.mark.parametrize(
    "change", [{"include_prompt": False}, {"pooling_mode": ["cls", "mean"], "include_prompt": True}]
)
def test_a_pooling_without_the_prompt_and_two_in_one_equal_sentence_transformers(
    openvino_mean: Path, mean_folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folders = []
    for folder in (openvino_mean, mean_folder):
        folders.append(shutil.copytree(folder, tmp_path / folder.name))
        path = folders[-1] / "1_Pooling" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(config | change), encoding="utf-8")
    ours, theirs = exact(folders[0]), torch_embedder(folders[1])
    assert ours.dimensions == theirs.dimensions
    assert ours.space == theirs.space
    texts = prose(30)
    assert_close(ours.embed_queries(texts), theirs.embed_queries(texts))


@pytest.mark.parametrize("budget", [1, 70, 500, 1_000_000])
def test_the_size_of_batches_does_not_change_a_vector(
    openvino_folder: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    embedder = exact(openvino_folder)
    expected = embedder.embed_queries(prose(30, seed=1))
    monkeypatch.setattr(embedder._engine(), "batch_tokens", budget)
    assert_close(embedder.embed_queries(prose(30, seed=1)), expected)


@pytest.mark.parametrize(
    ("threads", "budget"), [(1, 512), (2, 512), (3, 512), (4, 1_024), (12, 3_072), (96, 4_096)]
)
def test_more_threads_share_larger_batches(threads: int, budget: int) -> None:
    assert _batch_tokens(threads) == budget


@pytest.mark.rest
def test_bfloat16_finds_what_float32_finds(openvino_minilm: Path, minilm_folder: Path) -> None:
    """The handbook's passages and questions, whose best answers are known."""
    if pick_precision("auto") != "bfloat16":
        pytest.skip("this processor has no bfloat16")
    passages = {
        path.relative_to(EXAMPLES / "handbook").as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((EXAMPLES / "handbook").rglob("*.md"))
    }
    questions = {row["question_id"]: row["question"] for row in table("handbook-questions")}
    grades: dict[str, dict[str, int]] = {key: {} for key in questions}
    for row in table("handbook-qrels"):
        grades[row["question_id"]][row["document_id"]] = int(row["relevance"])
    embedders = (
        Embedder(openvino_minilm, device="cpu", on_truncate="ignore"),
        torch_embedder(minilm_folder),
    )
    assert embedders[0].running_on == "openvino on cpu in bfloat16"
    results = [
        (e.embed_documents(list(passages.values())), e.embed_queries(list(questions.values())))
        for e in embedders
    ]
    for ours, theirs in zip(*results, strict=True):
        assert float(np.sum(ours * theirs, axis=1).min()) >= 0.9999
    tops = [np.argsort(-(queries @ texts.T), axis=1)[:, :10] for texts, queries in results]
    overlaps = [len({*a} & {*b}) / 10 for a, b in zip(*tops, strict=True)]
    assert np.mean(overlaps) >= 0.98
    ids = list(passages)
    means = [
        np.mean(
            [
                gain([grade.get(ids[column], 0) for column in row])
                / gain(sorted(grade.values())[::-1])
                for grade, row in zip(grades.values(), top, strict=True)
            ]
        )
        for top in tops
    ]
    # Less than if one of the questions had its best answer second instead of first.
    assert abs(means[0] - means[1]) < (1 - 1 / math.log2(3)) / len(questions)


def table(name: str) -> list[dict[str, str]]:
    with (EXAMPLES / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades))


# -- what the model reads -------------------------------------------------------------------


def test_a_query_holds_the_prompt_once_and_a_document_never(
    openvino_folder: Path, tiny_folder: Path
) -> None:
    embedder = exact(openvino_folder)
    texts = ["how do i feed my starter?", "", "bread " * 20, MXBAI_PROMPT + "why"]
    with seen(embedder) as rows:
        embedder.embed_queries(texts)
    prompted = [text if text.startswith(MXBAI_PROMPT) else MXBAI_PROMPT + text for text in texts]
    assert sorted(rows) == sorted(read(tiny_folder, text) for text in prompted)
    with seen(embedder) as rows:
        embedder.embed_documents(texts)
    assert sorted(rows) == sorted(read(tiny_folder, text) for text in texts)
    with seen(embedder) as rows:
        embedder.embed_query("rye")
    assert rows == [read(tiny_folder, MXBAI_PROMPT + "rye")]


def test_a_text_over_the_limit_is_cut_as_the_other_engine_cuts_it(
    openvino_folder: Path, tiny_folder: Path
) -> None:
    embedder = exact(openvino_folder, max_tokens=16)
    with seen(embedder) as rows:
        embedder.embed_documents(["bread " * 100])
    assert rows == [[*read(tiny_folder, "bread " * 14)]]


# -- one identity ---------------------------------------------------------------------------


def test_both_engines_make_one_space(
    openvino_folder: Path, tiny_folder: Path, openvino_minilm: Path, minilm_folder: Path
) -> None:
    for ours, theirs in ((openvino_folder, tiny_folder), (openvino_minilm, minilm_folder)):
        assert Embedder(ours, device="cpu").space == torch_embedder(theirs).space
        assert (
            Embedder(ours, device="cpu", precision="bfloat16").space.digest
            == Embedder(theirs).space.digest
        )


def test_a_folder_with_both_is_named_by_its_safetensors(copied: Path, tiny_folder: Path) -> None:
    (copied / "toastrack.json").unlink()
    shutil.copy(tiny_folder / "model.safetensors", copied)
    embedder = Embedder(copied, device="cpu")
    assert embedder.running_on.startswith("openvino")
    assert embedder.space == Embedder(tiny_folder).space


def test_a_folder_that_does_not_say_which_weights_it_holds_is_refused(copied: Path) -> None:
    (copied / "toastrack.json").unlink()
    with pytest.raises(ModelError, match=r"does not say which weights .*toastrack export"):
        Embedder(copied, device="cpu").embed_query("bread")


def test_an_export_of_other_weights_than_those_beside_it_is_refused(
    copied: Path, other_folder: Path
) -> None:
    shutil.copy(other_folder / "model.safetensors", copied)
    with pytest.raises(ModelError, match=r"other weights than its OpenVINO file was made of"):
        Embedder(copied, device="cpu").embed_query("bread")
    embedder = torch_embedder(copied)
    assert embedder.space == Embedder(other_folder).space


@pytest.mark.parametrize("digest", ["abc", 5, "g" * 64])
def test_a_note_that_names_no_digest_is_refused(copied: Path, digest: Any) -> None:
    (copied / "toastrack.json").write_text(json.dumps({"weights": digest}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"toastrack\.json.*names no sha256 of weights"):
        Embedder(copied, device="cpu").embed_query("bread")


@pytest.mark.rest
def test_two_files_that_say_they_hold_the_same_weights_do_not_share_an_engine(
    copied: Path, openvino_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    shutil.rmtree(copied / "openvino")
    other = exported(other_folder, tmp_path / "other")
    shutil.copytree(other / "openvino", copied / "openvino")
    first, second = exact(openvino_folder), exact(copied)
    assert second.space == first.space
    assert second.load()._engine() is not first.load()._engine()
    assert_close(second.embed_query("bread"), exact(other).embed_query("bread"))


# -- what cannot be run ---------------------------------------------------------------------


def test_a_pooling_that_is_not_known_is_named(copied: Path) -> None:
    config = {"embedding_dimension": 32, "pooling_mode": "max", "include_prompt": True}
    (copied / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"engine='openvino' cannot run .* its pooling is 'max'"):
        Embedder(copied, engine="openvino").embed_query("bread")


def test_a_module_that_is_not_known_is_named(copied: Path) -> None:
    modules = json.loads((copied / "modules.json").read_text(encoding="utf-8"))
    kind = "sentence_transformers.models.Dense"
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": kind})
    (copied / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelError, match=r"cannot run .* it has a module 'Dense'"):
        Embedder(copied, engine="openvino").embed_query("bread")


def test_a_folder_without_a_file_to_run_is_told_how_to_make_one(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"none of openvino/openvino_model\.xml.*toastrack export"):
        Embedder(tiny_folder, engine="openvino").embed_query("bread")


@pytest.mark.parametrize("device", ["cuda", "mps", "gpu"])
def test_another_device_than_the_cpu_is_refused(openvino_folder: Path, device: str) -> None:
    with pytest.raises(ModelError, match=rf"device='{device}'.*engine='openvino'.*CPU"):
        Embedder(openvino_folder, engine="openvino", device=device).embed_query("bread")


@pytest.mark.parametrize("kept", [0, 1_000])
@pytest.mark.parametrize("name", ["openvino_model.xml", "openvino_model.bin"])
def test_a_file_that_was_not_copied_whole_is_named(copied: Path, name: str, kept: int) -> None:
    path = copied / "openvino" / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"openvino_model\.xml' is damaged or was not copied"):
        exact(copied).embed_query("bread")


def test_bfloat16_where_the_processor_has_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr("toastrack.engines.openvino._core", Old)
    assert pick_precision("auto") == pick_precision("float32") == "float32"
    with pytest.raises(ModelError, match=r"precision='bfloat16'.*float32"):
        pick_precision("bfloat16")


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("2024.6.0-17404-4c0f47d2335-releases/2024/6", True),
        ("2025.2.0-19140-c01cd93e24d-releases/2025/2", True),
        ("2025.3.0-19807-44526285f24-releases/2025/3", False),
        ("2026.0.0.dev20251101", False),
    ],
)
def test_a_release_that_gives_zeros_is_refused(
    openvino_folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    monkeypatch.setattr("openvino.__version__", version)
    monkeypatch.setattr("toastrack.engines.openvino._shared", [])
    expected = r"openvino 202\d\.\d\.0 is installed.* needs 2025\.3 or later.*pip install"
    with pytest.raises(ModelError, match=expected) if refused else nullcontext():
        exact(openvino_folder).embed_query("bread")


# -- one model for everybody ----------------------------------------------------------------


def test_eight_threads_get_the_right_vectors(openvino_folder: Path) -> None:
    embedder, wanted = exact(openvino_folder), prose(100)
    queries, documents = embedder.embed_queries(wanted), embedder.embed_documents(wanted)

    def work(seed: int) -> float:
        pick = random.Random(seed)
        worst = 0.0
        for _ in range(100):
            i = pick.randrange(len(wanted))
            if pick.random() < 0.5:
                difference = embedder.embed_query(wanted[i]) - queries[i]
            else:
                difference = embedder.embed_documents([wanted[i]])[0] - documents[i]
            worst = max(worst, float(np.abs(difference).max()))
        return worst

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) <= 1e-4


def test_awaited_calls_get_the_same(openvino_folder: Path) -> None:
    embedder, wanted = exact(openvino_folder), prose(100)

    async def ask() -> Any:
        return await asyncio.gather(*map(embedder.aembed_query, wanted))

    for _ in range(2):
        assert_close(asyncio.run(ask()), embedder.embed_queries(wanted))


def test_embedders_and_copies_share_one_engine(openvino_folder: Path, copied: Path) -> None:
    embedder = exact(openvino_folder).load()
    for other in (
        exact(openvino_folder, query_prompt="why: ", dimensions=8),
        exact(copied),
        copy.deepcopy(embedder),
        pickle.loads(pickle.dumps(embedder)),
    ):
        assert other._engine() is embedder._engine()
    if pick_precision("auto") == "bfloat16":
        assert Embedder(openvino_folder, device="cpu")._engine() is not embedder._engine()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_processes_get_the_same_vectors(openvino_folder: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    context: Any = multiprocessing.get_context(method)
    vectors = context.Queue()
    process = context.Process(target=embed_in_another_process, args=(openvino_folder, vectors))
    process.start()
    found = vectors.get(timeout=SECONDS)
    process.join()
    assert_close(found, Embedder(openvino_folder, device="cpu").embed_queries(["bread", "rye"]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_builds_its_engine_anew_and_does_not_hang(openvino_minilm: Path) -> None:
    code = f"""
import os, signal, threading, numpy as np
from toastrack import Embedder
embedder = Embedder({str(openvino_minilm)!r}, device="cpu", precision="float32").load()
texts = ["bread " * n for n in range(40)]
expected = embedder.embed_documents(texts)
parents = embedder._engine()
busy = threading.Thread(target=embedder.embed_documents, args=(texts * 5,))
busy.start()
child = os.fork()
if not child:
    signal.alarm(120)
    vectors = embedder.embed_documents(texts)
    shared = embedder._engine() is parents
    os._exit(3 if shared or not np.allclose(vectors, expected, atol=1e-4) else 0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
busy.join()
"""
    assert run_warm(code) == "0\n"


def test_an_error_while_the_model_runs_does_not_abort_the_process(openvino_minilm: Path) -> None:
    code = f"""
from toastrack import Embedder
from toastrack.batching.truncation import TruncationCounter
embedder = Embedder({str(openvino_minilm)!r}, device="cpu", on_truncate="ignore")
for _ in embedder._stream("document", TruncationCounter("ignore")).add(["bread " * 300] * 100):
    raise RuntimeError("enough")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert result.stderr.rstrip().endswith("RuntimeError: enough")


# -- what is not loaded ---------------------------------------------------------------------


@pytest.mark.skipif(_has_gpu(), reason="a GPU runs another engine")
def test_neither_torch_nor_telemetry_is_imported(openvino_folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from toastrack import Embedder
embedder = Embedder({str(openvino_folder)!r})
embedder.embed_query("bread"), embedder.split("bread " * 100)
print(embedder.running_on.partition(" ")[0])
heavy = {{"torch", "transformers", "sentence_transformers", "openvino_telemetry"}}
print(sorted(heavy & set(sys.modules)))
import openvino
"""
    assert run(code, HOME=str(tmp_path)) == "openvino\n[]\n"
    # OpenVINO's own telemetry would leave a folder.
    assert not (tmp_path / "intel").exists()


# -- ONNX -----------------------------------------------------------------------------------


@pytest.fixture
def onnx_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with an ONNX file beside its weights, as a repository on the hub has it."""
    pytest.importorskip("onnx", reason="onnx is not installed, and torch exports with it")
    import warnings

    import torch

    folder = shutil.copytree(tiny_folder, tmp_path / "with-onnx")
    (folder / "onnx").mkdir()
    engine: Any = torch_embedder(tiny_folder)._engine()
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
            str(folder / "onnx" / "model.onnx"),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={n: {0: "batch", 1: "tokens"} for n in [*names, "last_hidden_state"]},
            opset_version=17,
            dynamo=False,
        )
    return folder


def test_an_onnx_file_is_run_and_kept_in_openvinos_form(
    onnx_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("toastrack.models.digests._in_process", {})
    gc.collect()  # an engine that another test let go would serve this one
    texts: Sequence[str] = prose(30)
    expected = torch_embedder(onnx_folder).embed_queries(texts)
    for _ in range(2):
        embedder = exact(onnx_folder)
        assert embedder.running_on == "openvino on cpu in float32"
        assert_close(embedder.embed_queries(texts), expected)
        del embedder
        kept = list((tmp_path / "cache").rglob("openvino_model.xml"))
        assert len(kept) == 1
    kept[0].with_suffix(".bin").write_bytes(b"damaged")
    assert_close(exact(onnx_folder).embed_queries(texts), expected)
    assert kept[0].with_suffix(".bin").stat().st_size > 1_000
