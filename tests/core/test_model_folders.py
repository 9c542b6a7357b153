"""What runs is what the space names: whole weights, one file of them, and nothing outside the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from models import MXBAI_PROMPT, save_tiny_bert

from toastrack import Embedder
from toastrack.errors import ModelError

POOLER = ("pooler.dense.weight", "pooler.dense.bias")


@pytest.fixture(scope="module")
def shards_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_folder``'s weights in several files."""
    prompts = {"query": MXBAI_PROMPT, "passage": ""}
    return save_tiny_bert(tmp_path_factory.mktemp("m") / "shards", shards=True, prompts=prompts)


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def torch_embedder(folder: Path) -> Embedder:
    return Embedder(folder, engine="sentence-transformers", device="cpu")


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Write a file of weights anew with other tensors."""
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def update(path: Path, change: dict[str, Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | change), encoding="utf-8")


# -- tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.1.output.dense.weight",
        pytest.param("", id="any", marks=pytest.mark.rest),
    ],
)
def test_a_tensor_that_the_vectors_depend_on_is_not_made_up(copied: Path, name: str) -> None:
    path = copied / "model.safetensors"
    whole = path.read_bytes()
    names = safetensors.torch.load_file(path).keys() - set(POOLER)
    for missing in [name] if name else sorted(names):
        path.write_bytes(whole)
        rewrite(path, lambda tensors, missing=missing: tensors.pop(missing))  # type: ignore[misc]
        with pytest.raises(ModelError) as caught:
            torch_embedder(copied).embed_query("bread")
        assert str(caught.value).startswith(f"{str(path)!r} lacks {missing}, which the vectors ")


def test_many_missing_tensors_are_counted(copied: Path) -> None:
    path = copied / "model.safetensors"
    rewrite(
        path, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layer.1" in name]
    )
    with pytest.raises(ModelError, match=r"lacks encoder\.layer\.1\.\S+, \S+, \S+ and 13 more, wh"):
        torch_embedder(copied).embed_query("bread")


def test_a_tensor_of_another_size_is_not_replaced(copied: Path) -> None:
    path = copied / "model.safetensors"
    name = "encoder.layer.0.output.dense.weight"
    rewrite(path, lambda tensors: tensors.update({name: torch.zeros(3, 3)}))
    update(copied / "sentence_bert_config.json", {"model_args": {"ignore_mismatched_sizes": True}})
    with pytest.raises(ModelError, match=r"sets model_args\.ignore_mismatched_sizes to True"):
        torch_embedder(copied).embed_query("bread")
    (copied / "sentence_bert_config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json and the weights cannot be loaded"):
        torch_embedder(copied).embed_query("bread")


def test_a_shard_that_the_index_forgets_is_missed(shards_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards_folder, tmp_path / "m")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    last = max(index["weight_map"].values())
    kept = {key: file for key, file in index["weight_map"].items() if file != last}
    path.write_text(json.dumps(index | {"weight_map": kept}), encoding="utf-8")
    with pytest.raises(ModelError, match="which the vectors depend on"):
        torch_embedder(folder).embed_query("bread")


def test_a_tensor_of_a_further_module_is_not_made_up(tiny_folder: Path, tmp_path: Path) -> None:
    folder = dense_folder(tiny_folder, tmp_path)
    assert torch_embedder(folder).embed_query("bread").shape == (16,)
    rewrite(folder / "2_Dense" / "model.safetensors", lambda tensors: tensors.pop("linear.bias"))
    with pytest.raises(ModelError, match=r"2_Dense' is damaged.*linear\.bias"):
        torch_embedder(folder).embed_query("bread")


def dense_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy of a model with a dense layer behind its pooling."""
    from sentence_transformers import SentenceTransformer

    modules: Any = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    model = SentenceTransformer(str(folder), device="cpu")
    model.append(modules.Dense(32, 16))
    model.save(str(tmp_path / "dense"))
    return tmp_path / "dense"


def test_a_pooler_that_is_missing_is_no_fault(embedder: Embedder, copied: Path) -> None:
    rewrite(copied / "model.safetensors", lambda tensors: [tensors.pop(name) for name in POOLER])
    vectors = torch_embedder(copied).embed_queries(["bread", "rye"])
    np.testing.assert_allclose(vectors, embedder.embed_queries(["bread", "rye"]), atol=1e-5)


def test_tensors_that_nobody_asks_for_are_no_fault(embedder: Embedder, copied: Path) -> None:
    extra = {"cls.predictions.bias": torch.ones(120), "rye": torch.ones(2, 2)}
    rewrite(copied / "model.safetensors", lambda tensors: tensors.update(extra))
    vectors = torch_embedder(copied).embed_queries(["bread", "rye"])
    np.testing.assert_allclose(vectors, embedder.embed_queries(["bread", "rye"]), atol=1e-5)


# -- which file ---------------------------------------------------------------------------------


def test_of_one_file_and_shards_the_digest_is_of_the_one_that_runs(
    shards_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(shards_folder, tmp_path / "m")
    shutil.copy(other_folder / "model.safetensors", folder)
    ours, other = torch_embedder(folder), torch_embedder(other_folder)
    assert ours.space.weights == other.space.weights
    np.testing.assert_allclose(ours.embed_query("bread"), other.embed_query("bread"), atol=1e-5)


def test_of_a_further_modules_files_the_digest_is_of_the_one_that_runs(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = dense_folder(tiny_folder, tmp_path)
    before = torch_embedder(folder).space
    shutil.copy(tiny_folder / "model.safetensors", folder / "2_Dense" / "another.safetensors")
    assert torch_embedder(folder).space == before


def test_parts_that_would_be_loaded_in_place_of_the_weights_are_refused(
    copied: Path, other_folder: Path
) -> None:
    name = "shard-00000-model-00001-of-00001.safetensors"
    shutil.copy(other_folder / "model.safetensors", copied / name)
    with pytest.raises(ModelError, match=f"holds {name}"):
        _ = torch_embedder(copied).space


@pytest.mark.parametrize("name", ["other.safetensors", "../m/model.safetensors"])
def test_a_configuration_that_names_other_weights_is_refused(copied: Path, name: str) -> None:
    update(copied / "config.json", {"transformers_weights": name})
    with pytest.raises(ModelError, match=rf"config\.json' names '{name}' as its weights"):
        _ = torch_embedder(copied).space


def test_an_adapter_for_other_weights_is_refused(copied: Path) -> None:
    update(copied / "adapter_config.json", {"base_model_name_or_path": "owner/name"})
    with pytest.raises(ModelError, match=r"adapter_config\.json' makes this an adapter"):
        _ = torch_embedder(copied).space


def test_a_transformer_in_another_folder_is_refused(copied: Path, other_folder: Path) -> None:
    shutil.copytree(other_folder, copied / "0_Transformer")
    modules = json.loads((copied / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (copied / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelError, match="has the transformer in '0_Transformer'"):
        _ = torch_embedder(copied).space


def test_tokens_that_the_model_does_not_know_are_refused(
    copied: Path, openvino_folder: Path, tmp_path: Path
) -> None:
    """As after a tokenizer was copied from another model."""
    exported = shutil.copytree(openvino_folder, tmp_path / "exported")
    for folder in (copied, exported):
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["model"]["vocab"]["croissant"] = 5_000
        path.write_text(json.dumps(content), encoding="utf-8")
        embedder = Embedder(folder, device="cpu")
        assert embedder.embed_query("bread").shape == (32,)
        with pytest.raises(ModelError, match=r"gives token 5,000 to a model that knows 120"):
            embedder.embed_query("croissant")


# -- names that lead out ------------------------------------------------------------------------

OUTSIDE = [
    "../outside",
    "/etc/passwd",
    "a/../../outside",
    "..\\outside",
    "C:\\outside",
    "~/outside",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_in_the_index_leads_out(shards_folder: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(shards_folder, tmp_path / "m")
    update(folder / "model.safetensors.index.json", {"weight_map": {"a": f"{name}.safetensors"}})
    with pytest.raises(ModelError, match=r"index\.json' names .* outside of the model's folder"):
        _ = torch_embedder(folder).space


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["Transformer", "Pooling", "Normalize"])
def test_no_path_of_a_module_leads_out(copied: Path, name: str, kind: str) -> None:
    modules = json.loads((copied / "modules.json").read_text(encoding="utf-8"))
    modules.append({"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    for module in modules:
        if module["type"].endswith(kind):
            module["path"] = name
    (copied / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(ModelError, match=r"modules\.json' names .* outside of the model's folder"):
        _ = torch_embedder(copied).space


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tokenizer_name_or_path", "../outside"),
        ("model_args", {"variant": "other"}),
        ("config_args", {"transformers_weights": "other.safetensors"}),
        ("transformer_task", "text-generation"),
        ("module_output_name", "pooler_output"),
        ("rye", "bread"),
    ],
)
def test_a_setting_that_would_run_something_else_is_refused(
    copied: Path, setting: str, value: Any
) -> None:
    update(copied / "sentence_bert_config.json", {setting: value})
    with pytest.raises(ModelError, match=rf"sentence_bert_config\.json' sets {setting}.* to "):
        torch_embedder(copied).embed_query("bread")


def test_code_on_the_hub_is_not_fetched(copied: Path) -> None:
    update(copied / "config.json", {"attn_implementation": "owner/kernel"})
    with pytest.raises(ModelError, match=r"config\.json' names code on the hub, 'owner/kernel'"):
        torch_embedder(copied).embed_query("bread")


def test_the_links_of_the_hubs_cache_are_followed(
    embedder: Embedder, tiny_folder: Path, tmp_path: Path
) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "m"
    blobs.mkdir()
    for number, path in enumerate(p for p in tiny_folder.rglob("*") if p.is_file()):
        shutil.copy(path, blobs / str(number))
        link = folder / path.relative_to(tiny_folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(blobs / str(number))
        except OSError as error:
            pytest.skip(f"this system makes no symbolic links: {error}")
    linked = torch_embedder(folder)
    assert linked.space == embedder.space
    np.testing.assert_allclose(
        linked.embed_query("bread"), embedder.embed_query("bread"), atol=1e-5
    )
