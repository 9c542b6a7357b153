"""``toastrack export``: what it writes, what it says, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import save_tiny_bert, save_tiny_cross_encoder, save_tiny_generative_reranker

from toastrack import DEFAULT_MODEL, DEFAULT_RERANKER, Embedder, Reranker
from toastrack.errors import ModelError
from toastrack.export import export
from toastrack.models.files import find_task

pytestmark = [
    pytest.mark.skipif(find_spec(package) is None, reason=f"the extra {extra!r} is not installed")
    for package, extra in (("openvino", "openvino"), ("sentence_transformers", "local"))
]

Run = Callable[..., tuple[int, str, str]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_writes_a_model_of_the_same_space_and_says_how_close_it_is(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    code, out, err = run("export", tiny_folder, tmp_path / "new" / "out")
    assert (code, err) == (0, "")
    assert str(tmp_path / "new" / "out") in out
    assert "largest difference to sentence-transformers: " in out
    written = files_of(tmp_path / "new" / "out")
    assert {"openvino/openvino_model.xml", "tokenizer.json", "toastrack.json"} <= set(written)
    assert not [name for name in written if name.endswith(".safetensors")]
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "out"], "nothing is left over"
    exported = Embedder(tmp_path / "new" / "out", device="cpu")
    assert exported.space == Embedder(tiny_folder).space
    assert exported.running_on.startswith("openvino")


@pytest.mark.rest
def test_json_for_programs(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    code, out, _ = run("export", tiny_folder, tmp_path / "out", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["folder"] == str(tmp_path / "out")
    assert 0 <= report["in_float32"] <= 1e-4


@pytest.mark.rest
def test_a_folder_with_something_in_it_is_left_alone(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    code, _, err = run("export", tiny_folder, tmp_path)
    assert code == 2
    assert "is not empty" in err
    assert "--force" in err
    assert files_of(tmp_path) == {"mine.txt": b"keep me"}
    code, _, _ = run("export", tiny_folder, tmp_path, "--force")
    assert code == 0
    assert files_of(tmp_path)["mine.txt"] == b"keep me"
    assert Embedder(tmp_path, device="cpu").space == Embedder(tiny_folder).space


def test_an_empty_folder_is_as_good_as_none(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("export", tiny_folder, tmp_path / "out")[0] == 0


def test_a_model_of_another_pooling_is_refused(
    run: Run, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = save_tiny_bert(tmp_path_factory.mktemp("m") / "max", pooling="max")
    code, _, err = run("export", folder, tmp_path / "out")
    assert code == 2
    assert "cannot be exported: its pooling is 'max'" in err
    assert not (tmp_path / "out").exists()


def test_what_does_not_embed_as_the_original_does_is_not_written(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a trace that took something for a constant would come out."""
    from toastrack.engines.openvino import OpenVinoEngine

    pool = OpenVinoEngine._pool

    def wrong(engine: OpenVinoEngine, hidden: Any, mask: Any) -> Any:
        return pool(engine, hidden, mask) + np.float32(0.1)

    monkeypatch.setattr(OpenVinoEngine, "_pool", wrong)
    with pytest.raises(ModelError, match=r"its vectors would be off by 0\.\d"):
        export(str(tiny_folder), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_prompts_that_only_the_models_name_tells_are_written_down(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder has no name to look up, and its queries would be asked without a prompt."""
    commit = "0" * 40
    cache = tmp_path / "hub" / "models--BAAI--bge-small-en-v1.5"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    snapshot = cache / "snapshots" / commit
    shutil.copytree(tiny_folder, snapshot)
    path = snapshot / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"prompts": {}}), encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    original = Embedder("BAAI/bge-small-en-v1.5", device="cpu")
    assert original.query_prompt.startswith("Represent this sentence")
    export("BAAI/bge-small-en-v1.5", tmp_path / "out")
    exported = Embedder(tmp_path / "out", device="cpu")
    assert exported.query_prompt == original.query_prompt
    assert exported.space == original.space
    note = json.loads((tmp_path / "out" / "toastrack.json").read_text(encoding="utf-8"))
    assert note["model"] == "BAAI/bge-small-en-v1.5"
    assert note["revision"] == commit


@pytest.mark.rest
@pytest.mark.parametrize("settings", [{"half": True}, {"shards": True}])
def test_half_precision_and_shards_are_exported_too(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, settings: dict[str, bool]
) -> None:
    folder = save_tiny_bert(tmp_path_factory.mktemp("m") / "m", **settings)  # type: ignore[arg-type]
    made = export(str(folder), tmp_path / "out")
    assert made.in_float32 <= 1e-4
    assert Embedder(tmp_path / "out", device="cpu").space == Embedder(folder).space


# -- int8 -----------------------------------------------------------------------------------

with_nncf = pytest.mark.skipif(
    find_spec("nncf") is None, reason="the extra 'int8' is not installed"
)


@pytest.mark.rest
@with_nncf
def test_int8_says_what_it_costs_and_is_refused_where_that_is_much(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    """Random weights lose more than trained ones."""
    rows = [{"id": str(i), "text": f"rye bread {i} keeps fresh"} for i in range(210)]
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["export", tiny_folder, out, "--precision", "int8", "--calibrate", own]
    code, _, err = run(*words)
    assert code == 2
    assert f"'{own}' holds 210 different texts, and 300 are needed" in err
    assert "leave --calibrate out" in err
    code, printed, err = run(*words, "--sample", "10")
    assert (code, printed) == (2, "")
    assert "on 200 texts held back the cosine to float32 is" in err
    assert "A good one keeps 0.98 at worst, 0.995 on average and 90%" in err
    assert err.rstrip().endswith("To write it nevertheless: --force.")
    assert list(tmp_path.iterdir()) == [own], "nothing is left over"
    code, printed, err = run(*words, "--sample", "10", "--force", "--json")
    assert code == 0
    assert "It was written nevertheless." in err
    report = json.loads(printed)
    assert report["default"] == "int8"
    assert report["loss"]["texts"] == 200
    assert report["loss"]["cosine_min"] <= report["loss"]["cosine_mean"] <= 1
    assert 0 <= report["loss"]["overlap"] <= 1
    assert Embedder(out).precision == "int8"


@with_nncf
def test_int8_without_texts_of_ones_own_says_so(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    words = ["export", tiny_folder, tmp_path / "out", "--precision", "int8", "--force"]
    code, out, err = run(*words, "--sample", "5")
    assert code == 0
    assert "calibrated with 5 neutral texts that come with toastrack" in err
    assert "Your own texts do better" in err
    assert out.startswith(f"{tmp_path / 'out'}\nint8: on 200 texts held back")


def test_int8_is_not_for_rerankers(run: Run, cross_encoder_folder: Path, tmp_path: Path) -> None:
    code, _, err = run("export", cross_encoder_folder, tmp_path / "out", "--precision", "int8")
    assert code == 2
    assert "is a reranker, and --precision int8 is for embedding models" in err
    assert not list(tmp_path.iterdir())


def test_texts_to_calibrate_with_go_with_int8_alone(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    for words in (["--calibrate", "notes/"], ["--sample", "9"]):
        code, _, err = run("export", tiny_folder, tmp_path / "out", *words)
        assert code == 2
        assert "--calibrate and --sample go with --precision int8." in err


def test_without_nncf_the_error_is_the_command_that_installs_it(
    run: Run, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    code, _, err = run("export", tiny_folder, tmp_path / "out", "--precision", "int8")
    assert code == 2
    assert "'nncf' is not installed. Run: pip install" in err
    assert "[int8]" in err


# -- rerankers ------------------------------------------------------------------------------

QUERY = "why is my rye bread sour"
DOCUMENTS = ["", "rye", "salt the dough " * 4, "bread keeps fresh", "sour rye bread . " * 30]
# A process in which importing torch fails, as on a machine without it.
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None
from toastrack import Reranker
reranker = Reranker(sys.argv[1], on_truncate="ignore")
query, *documents = json.loads(sys.argv[2])
print(json.dumps([reranker.running_on, reranker.score(query, documents).tolist()]))
"""


@pytest.mark.parametrize("kind", ["bert", pytest.param("deberta", marks=pytest.mark.rest)])
@pytest.mark.parametrize("whole", [False, True])
def test_a_reranker_is_exported_and_runs_without_torch(
    run: Run, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, kind: Any, whole: bool
) -> None:
    folder = save_tiny_cross_encoder(
        tmp_path_factory.mktemp("m") / kind, kind=kind, whole=whole, half=whole
    )
    code, out, _ = run("export", folder, tmp_path / "out")
    assert code == 0
    assert "largest difference to sentence-transformers: " in out
    written = files_of(tmp_path / "out")
    assert {"openvino/openvino_model.xml", "tokenizer.json", "toastrack.json"} <= set(written)
    assert not [name for name in written if name.endswith(".safetensors")]
    given = json.dumps([QUERY, *DOCUMENTS])
    words = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "out"), given]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    running_on, scores = json.loads(done.stdout)
    assert running_on == "openvino on cpu in float32"
    original = Reranker(
        folder, engine="sentence-transformers", device="cpu", on_truncate="ignore"
    ).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(scores, original, atol=1e-3)
    assert np.argsort(scores).tolist() == np.argsort(original).tolist()


def test_a_trace_that_scores_otherwise_is_not_written(
    cross_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toastrack.engines.cross_encoder import OpenVinoCrossEncoder

    score = OpenVinoCrossEncoder.run

    def wrong(engine: OpenVinoCrossEncoder, batch: Any, *, prompt: str) -> Any:
        return score(engine, batch, prompt=prompt) + np.float32(0.1)

    monkeypatch.setattr(OpenVinoCrossEncoder, "run", wrong)
    with pytest.raises(ModelError, match=r"its scores would be off by 0\.\d"):
        export(str(cross_encoder_folder), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_openvino_cannot_score_is_refused(
    run: Run, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    made = tmp_path_factory.mktemp("m")
    asked = save_tiny_generative_reranker(made / "v2")
    classes = save_tiny_cross_encoder(made / "nli", labels=3)
    for folder, said in (
        (asked, "language model that is asked for a score"),
        (classes, "3 labels"),
    ):
        code, _, err = run("export", folder, tmp_path / "out")
        assert code == 2
        assert said in " ".join(err.split())
        assert not (tmp_path / "out").exists()


def test_a_models_own_files_say_what_it_is_for(
    tiny_folder: Path,
    cross_encoder_folder: Path,
    hub_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    assert find_task(DEFAULT_MODEL, None) == find_task(str(tiny_folder), None) == "embedding"
    for name in (DEFAULT_RERANKER, str(cross_encoder_folder)):
        assert find_task(name, None) == "reranking"
    for made_for, task in (("BertForSequenceClassification", "reranking"), ("X", "embedding")):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": [made_for]}))
        assert find_task(str(tmp_path), None) == task
    for listed, task in (
        ([], "embedding"),
        (["MLMTransformer", "SpladePooling"], "embedding"),
        (["Transformer"], "reranking"),
        (["Transformer", "LogitScore"], "reranking"),
    ):
        modules: list[object] = [{"type": f"sentence_transformers.{kind}"} for kind in listed]
        (tmp_path / "modules.json").write_text(json.dumps(modules or ["Transformer"]))
        assert find_task(str(tmp_path), None) == task
