"""The identity of an embedding space: what changes it, what does not, and how a difference reads."""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import MXBAI_PROMPT, save_tiny_bert

from toastrack import Embedder, EmbeddingSpace
from toastrack.errors import GuessWarning, SpaceMismatchError
from toastrack.models.digests import file_digest, weights_digest
from toastrack.stores.space_check import check_same_space, missing_space

SPACE = EmbeddingSpace(
    weights="a" * 64,
    tokenizer="b" * 64,
    pooling="c" * 64,
    query_prompt="query: ",
    document_prompt="passage: ",
    dimensions=384,
    model="owner/name",
    revision="abc123",
)
OTHER: dict[str, Any] = {
    "weights": "0" * 64,
    "tokenizer": "1" * 64,
    "pooling": "2" * 64,
    "query_prompt": "ask: ",
    "document_prompt": "",
    "dimensions": 64,
}
# sentence-transformers 5 writes one switch for each mode, 6 the mode's name.
POOLING_5 = {
    "word_embedding_dimension": 32,
    "pooling_mode_cls_token": True,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
    "pooling_mode_weightedmean_tokens": False,
    "pooling_mode_lasttoken": False,
    "include_prompt": True,
}
POOLING_6 = {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return shutil.copytree(tiny_folder, tmp_path / "copied")


@pytest.fixture(scope="module")
def shards_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(
        tmp_path_factory.mktemp("m") / "shards",
        shards=True,
        prompts={"query": MXBAI_PROMPT, "passage": ""},
    )


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """An empty digest cache, for this test only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        patch.setattr("toastrack.models.digests._in_process", {})
        yield tmp_path / "cache"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_pooling(folder: Path, config: dict[str, Any]) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")


# -- what a space is made of ----------------------------------------------------------------


def test_a_space_says_what_made_it(tiny_folder: Path) -> None:
    space = Embedder(tiny_folder).space
    assert space.weights == sha256(tiny_folder / "model.safetensors")
    assert (space.query_prompt, space.document_prompt) == (MXBAI_PROMPT, "")
    assert space.dimensions == 32
    assert space.model == str(tiny_folder)
    assert all(len(part) == 64 for part in (space.tokenizer, space.pooling, space.digest))


def test_a_copy_of_the_folder_is_the_same_space(tiny_folder: Path, copied: Path) -> None:
    ours, theirs = Embedder(tiny_folder).space, Embedder(copied).space
    assert ours == theirs
    assert ours.digest == theirs.digest
    assert ours.model != theirs.model


def test_other_weights_under_the_same_name_are_another_space(
    other_folder: Path, copied: Path
) -> None:
    before = Embedder(copied).space
    shutil.copyfile(other_folder / "model.safetensors", copied / "model.safetensors")
    after = Embedder(copied).space
    assert set(before.differences(after)) == {"weights"}
    assert before.digest != after.digest


@pytest.mark.parametrize(
    "settings",
    [
        {"device": "cpu"},
        {"precision": "bfloat16"},
        {"engine": "sentence-transformers"},
        {"on_truncate": "error"},
        {"max_tokens": 16},
        {"revision": "main"},
        {"query_prompt": MXBAI_PROMPT},
        {"document_prompt": ""},
        {"dimensions": 32},
    ],
)
def test_settings_that_do_not_change_the_meaning_of_a_vector_keep_the_space(
    tiny_folder: Path, settings: dict[str, Any]
) -> None:
    ours, theirs = Embedder(tiny_folder).space, Embedder(tiny_folder, **settings).space
    assert ours == theirs
    assert ours.digest == theirs.digest


@pytest.mark.parametrize(
    ("name", "value"), [("query_prompt", ""), ("document_prompt", "passage: "), ("dimensions", 16)]
)
def test_prompts_and_dimensions_change_the_space(tiny_folder: Path, name: str, value: Any) -> None:
    settings: dict[str, Any] = {name: value}
    ours, theirs = Embedder(tiny_folder).space, Embedder(tiny_folder, **settings).space
    assert list(ours.differences(theirs)) == [name]
    assert ours.digest != theirs.digest


def test_the_batch_size_does_not_change_the_space(
    embedder: Embedder, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = embedder.space
    monkeypatch.setattr(embedder._engine(), "batch_tokens", 7)
    embedder.embed_documents(["bread", "rye and salt"])
    assert embedder.space == Embedder(tiny_folder).space == before


def test_an_embedder_made_from_a_space_has_that_space(tiny_folder: Path) -> None:
    space = Embedder(tiny_folder, query_prompt="ask: ", dimensions=8).space
    assert Embedder.from_space(space).space == space


@pytest.mark.parametrize("limit", [None, 16])
def test_the_limit_is_recorded_and_used_but_not_compared(
    tiny_folder: Path, limit: int | None
) -> None:
    embedder = Embedder(tiny_folder, max_tokens=limit)
    recorded = EmbeddingSpace.from_dict(json.loads(json.dumps(embedder.space.to_dict())))
    assert recorded.max_tokens == embedder.max_tokens == (limit or 64)
    assert Embedder.from_space(recorded).max_tokens == embedder.max_tokens
    assert recorded == Embedder(tiny_folder, max_tokens=8).space
    assert recorded.digest == Embedder(tiny_folder, max_tokens=8).space.digest


def test_a_space_that_recorded_no_limit_leaves_it_to_the_model(tiny_folder: Path) -> None:
    values = Embedder(tiny_folder, max_tokens=16).space.to_dict()
    del values["max_tokens"]
    recorded = EmbeddingSpace.from_dict(values)
    assert recorded.max_tokens is None
    assert Embedder.from_space(recorded).max_tokens == 64


def test_the_space_of_a_model_that_is_not_here_is_not_known() -> None:
    assert Embedder("no-such/model")._known_space is None


def test_the_space_of_a_model_that_is_here_is_known(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder)
    assert embedder._known_space == embedder.space


# -- tokenizer and pooling files ------------------------------------------------------------


def test_the_truncation_of_a_tokenizers_last_user_is_not_part_of_the_space(
    tiny_folder: Path, copied: Path
) -> None:
    import tokenizers

    path = copied / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.enable_truncation(16)
    backend.enable_padding(length=16)
    backend.save(str(path))
    assert sha256(path) != sha256(tiny_folder / "tokenizer.json")
    assert Embedder(copied).space == Embedder(tiny_folder).space


def test_a_tokenizer_written_with_other_white_space_is_the_same(
    tiny_folder: Path, copied: Path
) -> None:
    path = copied / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert sha256(path) != sha256(tiny_folder / "tokenizer.json")
    assert Embedder(copied).space == Embedder(tiny_folder).space


def test_a_tokenizer_that_reads_otherwise_is_another_space(tiny_folder: Path, copied: Path) -> None:
    path = copied / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content), encoding="utf-8")
    assert list(Embedder(tiny_folder).space.differences(Embedder(copied).space)) == ["tokenizer"]


def test_lower_casing_that_the_model_asks_for_is_part_of_the_space(copied: Path) -> None:
    path = copied / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content), encoding="utf-8")
    path = copied / "sentence_bert_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"do_lower_case": True}), encoding="utf-8")
    before = Embedder(copied).space
    path.write_text(json.dumps(config | {"do_lower_case": False}), encoding="utf-8")
    assert list(before.differences(Embedder(copied).space)) == ["tokenizer"]


def test_both_spellings_of_a_pooling_are_one_space_and_one_vector(copied: Path) -> None:
    set_pooling(copied, POOLING_5)
    five = Embedder(copied, device="cpu")
    pooling, dimensions = five.space.pooling, five.dimensions
    vector = five.embed_query("bread")
    set_pooling(copied, POOLING_6)
    six = Embedder(copied, device="cpu")
    assert six.space.pooling == pooling
    assert six.space.digest == five.space.digest
    assert six.dimensions == dimensions == 32
    np.testing.assert_allclose(vector, six.embed_query("bread"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        POOLING_6 | {"pooling_mode": "mean"},
        POOLING_5 | {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        POOLING_6 | {"include_prompt": False},
        POOLING_6 | {"pooling_mode": "max"},
    ],
)
def test_another_pooling_is_another_space(
    tiny_folder: Path, copied: Path, config: dict[str, Any]
) -> None:
    set_pooling(copied, config)
    assert list(Embedder(tiny_folder).space.differences(Embedder(copied).space)) == ["pooling"]


def test_the_order_of_two_poolings_is_part_of_the_space(copied: Path) -> None:
    set_pooling(copied, POOLING_6 | {"pooling_mode": ["cls", "mean"]})
    before = Embedder(copied).space
    set_pooling(copied, POOLING_6 | {"pooling_mode": ["mean", "cls"]})
    assert list(before.differences(Embedder(copied).space)) == ["pooling"]


@pytest.mark.parametrize(
    ("five", "six"),
    [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ],
)
def test_every_pooling_is_one_space_in_both_spellings(copied: Path, five: str, six: str) -> None:
    set_pooling(copied, POOLING_5 | {"pooling_mode_cls_token": False, five: True})
    space = Embedder(copied).space
    set_pooling(copied, POOLING_6 | {"pooling_mode": six})
    assert Embedder(copied).space == space


def test_a_model_without_modules_pools_as_sentence_transformers_would(copied: Path) -> None:
    set_pooling(copied, POOLING_6 | {"pooling_mode": "mean"})
    mean = Embedder(copied).space
    (copied / "modules.json").unlink()
    with pytest.warns(GuessWarning, match=r"no modules\.json"):
        assert Embedder(copied).space == mean


def test_a_module_that_only_normalises_is_not_part_of_the_space(
    tiny_folder: Path, copied: Path
) -> None:
    path = copied / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8"))
    kind = "sentence_transformers.models.Normalize"
    modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": kind})
    path.write_text(json.dumps(modules), encoding="utf-8")
    (copied / "2_Normalize").mkdir()
    names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    (copied / "2_Normalize" / "config.json").write_text(json.dumps(names), encoding="utf-8")
    assert Embedder(copied).space == Embedder(tiny_folder).space


# -- weights --------------------------------------------------------------------------------


def test_the_packaged_models_weights_are_the_hubs_own(minilm_folder: Path) -> None:
    weights = Embedder(minilm_folder).space.weights
    assert weights.startswith("53aa5117")
    assert weights.endswith("b128d9db")


def test_shards_are_digested_by_name_and_content(shards_folder: Path) -> None:
    shards = sorted(shards_folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    listing = "\n".join(f"{path.name} {sha256(path)}" for path in shards)
    expected = hashlib.sha256(listing.encode("utf-8")).hexdigest()
    assert Embedder(shards_folder).space.weights == expected


def test_a_copy_of_sharded_weights_is_the_same_space(shards_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(shards_folder, tmp_path / "m")
    assert Embedder(copied).space == Embedder(shards_folder).space


@pytest.mark.parametrize("number", [0, -1])
def test_one_changed_shard_is_another_space(
    shards_folder: Path, tmp_path: Path, number: int
) -> None:
    copied = shutil.copytree(shards_folder, tmp_path / "m")
    shard = sorted(copied.glob("model-*.safetensors"))[number]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert Embedder(copied).space.weights != Embedder(shards_folder).space.weights


def test_the_weights_of_a_further_module_are_part_of_the_space(copied: Path) -> None:
    dense = copied / "2_Dense"
    dense.mkdir()
    listed = json.loads((copied / "modules.json").read_text(encoding="utf-8"))
    kind = "sentence_transformers.models.Dense"
    listed.append({"idx": 2, "name": "2", "path": "2_Dense", "type": kind})
    (copied / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    (dense / "model.safetensors").write_bytes(b"one")
    before = Embedder(copied).space.weights
    (dense / "model.safetensors").write_bytes(b"another")
    assert Embedder(copied).space.weights != before


def test_weights_that_no_index_names_are_not_part_of_the_space(
    shards_folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(shards_folder, tmp_path / "m")
    (copied / "optimizer.safetensors").write_bytes(b"left over")
    assert Embedder(copied).space == Embedder(shards_folder).space


# -- the digest cache -----------------------------------------------------------------------


def test_a_file_rewritten_with_the_same_size_is_noticed(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"rye")
    assert file_digest(path) == hashlib.sha256(b"rye").hexdigest()
    path.write_bytes(b"oat")
    # Two writes can fall into one tick of the file system's clock.
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
    assert file_digest(path) == hashlib.sha256(b"oat").hexdigest()


def test_a_digest_is_remembered_by_size_and_time(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"rye")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    digest = file_digest(path)
    path.write_bytes(b"oat")
    os.utime(path, ns=times)
    assert file_digest(path) == digest, "the file was read again"


def test_one_file_keeps_one_remembered_digest(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    for number, content in enumerate([b"rye", b"oat", b"barley"]):
        path.write_bytes(content)
        os.utime(path, ns=(0, number))
        file_digest(path)
    # The next process knows only what was written down.
    monkeypatch.setattr("toastrack.models.digests._in_process", {})
    files = list(cache.rglob("digests.json"))
    if not files:
        pytest.skip("this system's cache folder is not under XDG_CACHE_HOME")
    remembered = json.loads(files[0].read_text(encoding="utf-8"))
    assert list(remembered.values()) == [hashlib.sha256(b"barley").hexdigest()]
    assert file_digest(path) == hashlib.sha256(b"barley").hexdigest()


def test_a_cache_folder_that_cannot_be_written_is_no_problem(cache: Path, tmp_path: Path) -> None:
    cache.write_text("a file where the folder should be")
    path = tmp_path / "weights"
    path.write_bytes(b"rye")
    assert file_digest(path) == hashlib.sha256(b"rye").hexdigest()


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_damaged_cache_is_no_problem(cache: Path, tmp_path: Path, content: str) -> None:
    from platformdirs import user_cache_path

    file = user_cache_path("toastrack") / "digests.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    path = tmp_path / "weights"
    path.write_bytes(b"rye")
    assert file_digest(path) == hashlib.sha256(b"rye").hexdigest()


@pytest.mark.parametrize("is_hubs", [True, False])
def test_only_a_file_in_the_hubs_cache_is_known_by_its_blobs_name_and_not_read(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hubs: bool
) -> None:
    hub = tmp_path if is_hubs else tmp_path / "elsewhere"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    name = "53aa5117" + "0" * 56
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "commit"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / name).write_bytes(b"not what the name says, so reading it would show")
    link = snapshot / "model.safetensors"
    try:
        link.symlink_to(blobs / name)
    except OSError as error:
        pytest.skip(f"this system makes no symbolic links: {error}")
    expected = name if is_hubs else sha256(blobs / name)
    assert weights_digest([link]) == file_digest(link) == expected


def test_a_small_file_of_the_hubs_cache_is_read(cache: Path, tmp_path: Path) -> None:
    # What is not stored with LFS has a git hash as its name, which is shorter.
    blob = tmp_path / "blobs" / ("a" * 40)
    blob.parent.mkdir()
    blob.write_bytes(b"rye")
    assert file_digest(blob) == hashlib.sha256(b"rye").hexdigest()


# -- the value itself -----------------------------------------------------------------------


def test_a_space_survives_json() -> None:
    assert EmbeddingSpace.from_dict(json.loads(json.dumps(SPACE.to_dict()))) == SPACE


def test_what_is_not_compared_survives_too() -> None:
    restored = EmbeddingSpace.from_dict(SPACE.to_dict())
    assert (restored.model, restored.revision) == ("owner/name", "abc123")


def test_keys_of_a_newer_version_are_left_aside() -> None:
    assert EmbeddingSpace.from_dict({**SPACE.to_dict(), "engine": "quantum"}) == SPACE


@pytest.mark.parametrize("name", OTHER)
def test_a_missing_field_is_named(name: str) -> None:
    values = SPACE.to_dict()
    del values[name]
    with pytest.raises(ValueError, match=rf"An embedding space lacks {name}\."):
        EmbeddingSpace.from_dict(values)


def test_names_for_people_may_be_missing() -> None:
    values = SPACE.to_dict()
    del values["model"], values["revision"]
    assert EmbeddingSpace.from_dict(values) == SPACE


def test_a_space_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        SPACE.weights = "0" * 64  # type: ignore[misc]


def test_equal_spaces_are_one_key() -> None:
    assert len({SPACE, copy.copy(SPACE), replace(SPACE, model="other", revision=None)}) == 1
    assert len({SPACE, *(replace(SPACE, **{name: OTHER[name]}) for name in OTHER)}) == 7


def test_every_compared_field_is_tested_here() -> None:
    assert [item.name for item in fields(EmbeddingSpace) if item.compare] == list(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_every_compared_field_changes_the_digest(name: str) -> None:
    changed = replace(SPACE, **{name: OTHER[name]})
    assert changed != SPACE
    assert changed.digest != SPACE.digest


def test_the_name_of_a_model_is_not_compared() -> None:
    renamed = replace(SPACE, model="other/name", revision=None)
    assert renamed == SPACE
    assert renamed.digest == SPACE.digest
    assert SPACE.differences(renamed) == {}


@pytest.mark.parametrize("name", OTHER)
def test_differences_show_both_values(name: str) -> None:
    other = replace(SPACE, **{name: OTHER[name]})
    assert SPACE.differences(other) == {name: (getattr(SPACE, name), OTHER[name])}


def test_several_differences_are_all_there() -> None:
    assert list(SPACE.differences(replace(SPACE, **OTHER))) == list(OTHER)


# -- how a difference reads -----------------------------------------------------------------


def mismatch(stored: EmbeddingSpace, ours: EmbeddingSpace) -> SpaceMismatchError:
    with pytest.raises(SpaceMismatchError) as caught:
        check_same_space(stored, ours, where="Table 'docs'")
    return caught.value


def test_equal_spaces_are_let_through() -> None:
    check_same_space(SPACE, replace(SPACE, model="other/name"), where="Table 'docs'")


def test_a_different_prompt_names_the_call_that_opens_it() -> None:
    error = mismatch(SPACE, replace(SPACE, query_prompt="it's: "))
    message = str(error)
    assert message.startswith("Table 'docs' was built in another embedding space")
    assert "the query prompt" in message
    assert repr("query: ") in message
    assert repr("it's: ") in message
    assert "Embedder('owner/name', query_prompt='query: ')" in message


@pytest.mark.parametrize("name", ["query_prompt", "document_prompt", "dimensions"])
def test_the_named_call_carries_what_is_stored(name: str) -> None:
    message = str(mismatch(replace(SPACE, **{name: OTHER[name]}), SPACE))
    assert f"Embedder('owner/name', {name}={OTHER[name]!r})" in message


def test_the_named_call_makes_the_stored_space(tiny_folder: Path) -> None:
    stored = Embedder(tiny_folder, query_prompt="it's: ", document_prompt="\n", dimensions=8).space
    message = str(mismatch(stored, Embedder(tiny_folder).space))
    call = message[message.index("Embedder(") : message.index("), or") + 1]
    assert eval(call, {"Embedder": Embedder}).space == stored


def test_several_different_settings_are_one_call() -> None:
    stored = replace(SPACE, query_prompt="ask: ", document_prompt="", dimensions=64)
    assert "Embedder('owner/name', query_prompt='ask: ', document_prompt='', dimensions=64)" in str(
        mismatch(stored, SPACE)
    )


@pytest.mark.parametrize("name", ["weights", "tokenizer", "pooling"])
def test_a_different_model_is_shown_by_both_digests_and_the_stored_name(name: str) -> None:
    ours = replace(SPACE, model="other/model", **{name: OTHER[name]})
    message = str(mismatch(SPACE, ours))
    assert name in message
    assert getattr(SPACE, name)[:12] in message
    assert OTHER[name][:12] in message
    assert "Open it with 'owner/name', revision abc123" in message
    assert "'other/model'" in message


def test_a_prompt_is_shown_whole_however_long_it_is() -> None:
    prompt = "x" * 64
    assert repr(prompt) in str(mismatch(replace(SPACE, query_prompt=prompt), SPACE))


def test_the_error_carries_both_spaces_and_their_differences() -> None:
    ours = replace(SPACE, dimensions=64)
    error = mismatch(SPACE, ours)
    assert (error.stored, error.ours) == (SPACE, ours)
    assert error.differences == {"dimensions": (384, 64)}


def test_rows_without_a_space_say_how_to_adopt_them() -> None:
    error = missing_space(SPACE, where="Table 'docs'")
    assert str(error).startswith("Table 'docs' holds rows but does not say")
    assert "adopt=True" in str(error)
    assert "'owner/name'" in str(error)
