"""A folder in int8: what runs there, what is refused, and that nobody gets it who did not ask."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from models import MXBAI_PROMPT, WORDS, save_tiny_bert

from toastrack import DEFAULT_MODEL, Embedder, Record, Reranker
from toastrack.errors import ModelError, SourceError, UnsupportedError
from toastrack.export import export
from toastrack.int8.loss import Loss, loss
from toastrack.int8.texts import (
    HELD_BACK,
    LEAST,
    draw,
    neutral_texts,
    query_of,
    read_texts,
    samples,
)

pytestmark = [
    pytest.mark.skipif(find_spec(package) is None, reason=f"the extra {extra!r} is not installed")
    for package, extra in (
        ("openvino", "openvino"),
        ("sentence_transformers", "local"),
        ("nncf", "int8"),
    )
]

TEXTS = [f"{WORDS[i % len(WORDS)]} {WORDS[i * 7 % len(WORDS)]} bread {i}" for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the module's own, so that nobody else holds its engines."""
    made = tmp_path_factory.mktemp("m")
    prompts = {"query": MXBAI_PROMPT, "passage": ""}
    return save_tiny_bert(made / "original", seed=8, prompts=prompts)


@pytest.fixture(scope="module")
def exact_folder(folder: Path) -> Path:
    target = folder.with_name("exact")
    export(str(folder), target)
    return target


@pytest.fixture(scope="module")
def int8_folder(folder: Path) -> Path:
    """Of random weights, which lose more than a trained model's: hence the force."""
    target = folder.with_name("int8")
    export(str(folder), target, precision="int8", sample=8, force=True)
    return target


def close(ours: Embedder, theirs: Embedder) -> float:
    """The worst cosine of some texts in both roles."""
    pairs = [
        (ours.embed_documents(TEXTS), theirs.embed_documents(TEXTS)),
        (ours.embed_queries(TEXTS), theirs.embed_queries(TEXTS)),
    ]
    return min(float((some * others).sum(axis=1).min()) for some, others in pairs)


# -- what runs ------------------------------------------------------------------------------


def test_it_says_what_runs_and_is_of_the_originals_space(folder: Path, int8_folder: Path) -> None:
    small, original = Embedder(int8_folder), Embedder(folder, device="cpu")
    assert small.precision == "int8", "before the model is loaded"
    assert small.running_on == "openvino on cpu in int8"
    assert small.space == original.space
    assert original.precision == "float32"
    assert small.settings()["precision"] == "auto", "what it was given"
    assert "int8" not in repr(small).replace(str(int8_folder), "")
    note = json.loads((int8_folder / "toastrack.json").read_text(encoding="utf-8"))
    assert note["precision"] == "int8"
    assert note["model"] == str(folder)
    # Weights in a quarter of the bytes, and vectors that are near and not the same.
    assert 0.9 < close(small, original) < 1 - 1e-6


@pytest.mark.rest
def test_a_copy_and_a_space_bring_it_back(int8_folder: Path) -> None:
    small = Embedder(int8_folder, precision="int8")
    for other in (pickle.loads(pickle.dumps(small)), Embedder.from_space(small.space)):
        assert other.precision == "int8"
        np.testing.assert_array_equal(other.embed_query("rye"), small.embed_query("rye"))


def test_what_one_filled_the_other_searches(
    folder: Path, int8_folder: Path, tmp_path: Path
) -> None:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import QdrantStore

    pairs = [(folder, int8_folder), (int8_folder, folder)]
    for number, (filler, asker) in enumerate(pairs):
        client = qdrant_client.QdrantClient(":memory:")
        with QdrantStore(client, "bread", embedder=Embedder(filler, device="cpu")) as store:
            store.upsert(Record(str(i), text) for i, text in enumerate(TEXTS))
        with QdrantStore(client, "bread", embedder=Embedder(asker, device="cpu")) as store:
            report = store.upsert(Record(str(i), text) for i, text in enumerate(TEXTS))
            assert (report.embedded, report.unchanged) == (0, len(TEXTS)), number
            # A document's own vector: random queries with a prompt are all alike.
            vector = store.embedder.embed_documents([TEXTS[3]])[0]
            assert store.search(vector, k=1)[0].id == "3"
            assert len(store.search(TEXTS[3], k=5)) == 5


# -- what is promised -------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_precision_is_never_met_by_it(int8_folder: Path, precision: str) -> None:
    for engine in ("auto", "openvino"):
        asked = Embedder(int8_folder, engine=engine, precision=precision)  # type: ignore[arg-type]
        for use in (
            asked.load,
            lambda asked=asked: asked.precision,
            lambda asked=asked: asked.space,
        ):
            with pytest.raises(ModelError, match=f"in int8, and precision='{precision}' is asked"):
                use()


def test_int8_is_never_met_by_another(
    folder: Path, exact_folder: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    for name in (folder, exact_folder, DEFAULT_MODEL):
        with pytest.raises(ModelError, match=r"toastrack export .* DIR --precision int8"):
            Embedder(name, precision="int8").load()
    with pytest.raises(ValueError, match="precision='int8' is not one of"):
        Reranker(precision="int8")  # type: ignore[arg-type]


def test_sentence_transformers_cannot_run_it(int8_folder: Path) -> None:
    with pytest.raises(ModelError, match="runs with engine='openvino' on the CPU only"):
        Embedder(int8_folder, engine="sentence-transformers").load()


def test_auto_takes_the_models_own_weights_where_they_lie_beside_it(
    folder: Path, int8_folder: Path, tmp_path: Path
) -> None:
    both = shutil.copytree(folder, tmp_path / "both")
    shutil.copytree(int8_folder, both, dirs_exist_ok=True)
    for precision in ("auto", "float32"):
        embedder = Embedder(both, device="cpu", precision=precision)
        assert embedder.running_on == "sentence-transformers on cpu in float32"
    for asked in (
        Embedder(both, precision="int8"),
        Embedder(both, engine="openvino", precision="auto"),
    ):
        assert asked.running_on == "openvino on cpu in int8"


def test_where_a_gpu_is_an_exported_folder_runs_on_the_cpu(
    int8_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toastrack.models.engine_choice._has_gpu", lambda: True)
    assert Embedder(int8_folder).running_on == "openvino on cpu in int8"


def test_a_file_that_does_not_hold_what_the_note_says_is_refused(
    exact_folder: Path, int8_folder: Path, tmp_path: Path
) -> None:
    silent = shutil.copytree(int8_folder, tmp_path / "silent")
    note = json.loads((silent / "toastrack.json").read_text(encoding="utf-8"))
    del note["precision"]
    (silent / "toastrack.json").write_text(json.dumps(note), encoding="utf-8")
    with pytest.raises(ModelError, match="holds numbers in 8 bits or less"):
        Embedder(silent, device="cpu").load()
    boasting = shutil.copytree(exact_folder, tmp_path / "boasting")
    shutil.copy(int8_folder / "toastrack.json", boasting)
    with pytest.raises(ModelError, match=r"is not in int8, as toastrack\.json beside it says"):
        Embedder(boasting, device="cpu").load()
    newer = shutil.copytree(exact_folder, tmp_path / "newer")
    (newer / "toastrack.json").write_text(json.dumps(note | {"precision": "int2"}))
    with pytest.raises(ModelError, match="names the precision 'int2'"):
        Embedder(newer, device="cpu").load()


def test_its_vectors_prove_nothing(int8_folder: Path) -> None:
    qdrant_client = pytest.importorskip(
        "qdrant_client", reason="the extra 'qdrant' is not installed"
    )
    from toastrack_qdrant import QdrantStore

    client, small = qdrant_client.QdrantClient(":memory:"), Embedder(int8_folder)
    with QdrantStore(client, "bread", embedder=small) as store:
        store.upsert(Record(str(i), text) for i, text in enumerate(TEXTS))
        with pytest.raises(UnsupportedError, match=r"runs in int8, .* proves nothing"):
            store._prove()
    with pytest.raises(UnsupportedError, match="Compare with the model that it was made of"):
        QdrantStore(client, "bread", embedder=small, verify=True).open()


# -- what is shared ---------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["exact", "int8"])
def test_engines_of_two_files_are_never_shared(
    exact_folder: Path, int8_folder: Path, first: str
) -> None:
    exact = Embedder(exact_folder, precision="float32")
    small = Embedder(int8_folder)
    for embedder in (exact, small) if first == "exact" else (small, exact):
        embedder.load()
    assert exact._engine() is not small._engine()
    assert exact.running_on.endswith("float32")
    assert small._engine() is Embedder(int8_folder)._engine()
    assert close(exact, small) < 1 - 1e-6


@pytest.mark.rest
def test_a_folder_that_is_written_anew_is_loaded_anew_and_who_has_it_keeps_it(
    folder: Path, exact_folder: Path, int8_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    export(str(folder), place)
    before = Embedder(place, precision="float32")
    expected = before.embed_documents(TEXTS)
    export(str(folder), place, precision="int8", sample=8, force=True)
    after = Embedder(place)
    assert after.running_on == "openvino on cpu in int8"
    np.testing.assert_allclose(before.embed_documents(TEXTS), expected, rtol=0, atol=1e-6)
    assert before.running_on.endswith("float32")
    small = after.embed_documents(TEXTS)
    export(str(folder), place, force=True)
    assert Embedder(place, precision="float32").running_on.endswith("float32")
    assert Embedder(place).precision != "int8"
    np.testing.assert_allclose(after.embed_documents(TEXTS), small, rtol=0, atol=1e-6)
    names = {path.relative_to(place) for path in place.rglob("*")}
    assert names == {path.relative_to(exact_folder) for path in exact_folder.rglob("*")}


def test_a_reranker_written_anew_is_loaded_anew(
    cross_encoder_folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from models import save_tiny_cross_encoder

    other = save_tiny_cross_encoder(tmp_path_factory.mktemp("m") / "other", seed=3)
    place, pair = tmp_path / "place", ("sour rye", ["rye bread", "salt"])
    export(str(cross_encoder_folder), place)
    before = Reranker(place, engine="openvino")
    expected = before.score(*pair)
    export(str(other), place, force=True)
    assert np.abs(Reranker(place, engine="openvino").score(*pair) - expected).max() > 1e-3
    np.testing.assert_allclose(before.score(*pair), expected, rtol=0, atol=1e-6)


# -- what it is made with -----------------------------------------------------------------------


def test_there_are_enough_neutral_texts() -> None:
    texts = neutral_texts()
    assert len(set(texts)) == len(texts) >= HELD_BACK + LEAST
    assert not [text for text in texts if text != text.strip()]


def test_texts_are_drawn_by_chance_and_always_the_same(embedder: Embedder) -> None:
    texts = [f"text {i}" for i in range(500)]
    assert draw(texts, 50) == draw(texts, 50) != draw(texts[::-1], 50)
    assert len(set(draw([*texts, *texts, " "], 600))) == 500
    drawn = samples(embedder, None, 20)
    assert (len(drawn.held_back), len(drawn.calibration)) == (HELD_BACK, 20)
    assert not set(drawn.held_back) & set(drawn.calibration)
    assert "Your own texts do better" in drawn.notes[0]


def test_own_texts_come_from_a_file_a_folder_or_a_store(embedder: Embedder, tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": f"rye {i}"} for i in range(HELD_BACK + 30)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert list(read_texts(str(file), embedder)) == [row["text"] for row in rows]
    with pytest.raises(SourceError, match="holds 230 different texts, and 300 are needed"):
        samples(embedder, str(file), None)
    drawn = samples(embedder, str(file), 30)
    assert (len(drawn.held_back), len(drawn.calibration), drawn.notes) == (HELD_BACK, 30, [])
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "long.txt").write_text(" ".join(["rye bread keeps fresh ."] * 400))
    chunks = list(read_texts(str(whole), embedder))
    assert len(chunks) > 10
    assert all(embedder.count_tokens(chunk) <= embedder.max_tokens for chunk in chunks)
    (whole / "broken.jsonl").write_text("{")
    with pytest.raises(SourceError, match=r"broken\.jsonl"):
        list(read_texts(str(whole), embedder))


def test_a_store_gives_its_texts(
    minilm_folder: Path, minilm_loaded: Embedder, tmp_path: Path
) -> None:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    from toastrack.stores import open_store

    address = f"qdrant:{tmp_path / 'q'}/bread"
    ready = np.eye(384, dtype=np.float32)
    texts = [f"rye {i}" for i in range(20)]
    with open_store(address, Embedder(minilm_folder)) as store:
        store.upsert(Record(t, t, vector=ready[i]) for i, t in enumerate(texts))
    assert sorted(read_texts(address, minilm_loaded)) == sorted(texts)


def test_a_query_is_a_texts_first_sentence() -> None:
    assert query_of("Why is it so? Because. And so on.") == "Why is it so?"
    assert query_of("version 4.1 is there") == "version 4.1 is there"
    assert len(query_of("word " * 100).split()) == 32


def test_the_loss_is_measured_on_both_roles() -> None:
    documents = np.eye(20, dtype=np.float32)
    same = loss((documents, documents), (documents, documents))
    assert same == Loss(20, 1.0, 1.0, 1.0)
    assert same.is_small
    turned = loss((documents, documents), (documents[::-1], documents[::-1]))
    assert turned.cosine_mean == 0
    assert not turned.is_small
    assert not Loss(200, 0.979, 0.999, 1).is_small
    assert not Loss(200, 0.99, 0.994, 1).is_small
    assert not Loss(200, 0.99, 0.999, 0.89).is_small
    assert "0.9790 at worst" in str(Loss(200, 0.979, 0.999, 1))


def test_nncf_leaves_the_process_as_it_was(int8_folder: Path) -> None:
    assert logging.getLoggerClass() is logging.Logger
    assert sys.modules.get("openvino_telemetry", True) is not None


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """NNCF prints bars of its own unless it is kept from it."""
    yield
    assert "Applying" not in capfd.readouterr().out


# -- a real model -------------------------------------------------------------------------------


@pytest.mark.rest
def test_a_real_model_loses_little(minilm_folder: Path, tmp_path: Path) -> None:
    """With the neutral texts, which is the least that it is made with."""
    made = export(str(minilm_folder), tmp_path / "int8", precision="int8")
    assert made.loss is not None
    assert made.loss.is_small
    assert made.loss.texts == HELD_BACK
    small = tmp_path / "int8" / "openvino" / "openvino_model.bin"
    assert small.stat().st_size < 0.3 * (minilm_folder / "model.safetensors").stat().st_size
    small_embedder = Embedder(tmp_path / "int8", on_truncate="ignore")
    exact = Embedder(minilm_folder, engine="sentence-transformers", device="cpu")
    questions = ["which bread stays fresh?", "how does a battery work?", "why are glaciers moving?"]
    documents = [text for text in neutral_texts() if not text.endswith("?")]
    filled, asked = exact.embed_documents(documents), small_embedder.embed_queries(questions)
    best = [documents[i] for i in (asked @ filled.T).argmax(axis=1)]
    both = exact.embed_queries(questions)
    assert best == [documents[i] for i in (both @ filled.T).argmax(axis=1)]
