"""Chroma's own collections embed with our function: documents as they are, queries prompted."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

# ruff: noqa: E402
import pytest

pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

import chromadb
from chromadb.utils.embedding_functions import known_embedding_functions

from toastrack import Embedder
from toastrack.errors import TruncationWarning
from toastrack.utils.peers import ARGUMENTS
from toastrack_chroma import ToastrackEmbeddingFunction

TEXTS = ["rye bread keeps fresh", "salt is in the dough", "the oven is warm"]
QUERY = "which bread keeps fresh?"


def check(stored: Any, answer: Any, embedder: Embedder) -> None:
    """Compare what a collection stores, and the distances of a query, with the embedder's."""
    documents, query = embedder.embed_documents(TEXTS), embedder.embed_query(QUERY)
    by_id = dict(zip(stored["ids"], stored["embeddings"], strict=True))
    for number, vector in enumerate(documents):
        np.testing.assert_allclose(by_id[str(number)], vector, atol=1e-5)
    for id, distance in zip(answer["ids"][0], answer["distances"][0], strict=True):
        assert distance == pytest.approx(1 - float(documents[int(id)] @ query), abs=1e-5)
    # The test could tell: unprompted, the best would be at another distance.
    unprompted = documents @ embedder.embed_documents([QUERY])[0]
    assert abs(unprompted.max() - (documents @ query).max()) > 0.01


# -- on every client ----------------------------------------------------------------------------


def test_documents_plain_and_queries_prompted(client: Any, embedder: Embedder) -> None:
    function: Any = ToastrackEmbeddingFunction(embedder=embedder)
    collection = client.create_collection("docs", embedding_function=function)
    collection.add(ids=["0", "1"], documents=TEXTS[:2])
    collection.upsert(ids=["2"], documents=TEXTS[2:])
    check(collection.get(include=["embeddings"]), collection.query(query_texts=[QUERY]), embedder)
    assert collection.configuration_json["hnsw"]["space"] == "cosine"
    # Opened without a function, it is rebuilt from what the collection recorded.
    again = client.get_collection("docs")
    again.update(ids=["2"], documents=TEXTS[2:])
    check(again.get(include=["embeddings"]), again.query(query_texts=[QUERY]), embedder)


def test_on_an_async_client(chroma_database: tuple[str, int, str], embedder: Embedder) -> None:
    host, port, database = chroma_database

    async def use() -> tuple[Any, Any]:
        client = await chromadb.AsyncHttpClient(host=host, port=port, database=database)
        function: Any = ToastrackEmbeddingFunction(embedder=embedder)
        collection = await client.create_collection("docs", embedding_function=function)
        await collection.add(ids=["0", "1", "2"], documents=TEXTS)
        again = await client.get_collection("docs")
        answers = (
            await again.get(include=["embeddings"]),
            await again.query(query_texts=[QUERY]),
        )
        await client._server._cleanup()  # type: ignore[attr-defined]
        return answers

    check(*asyncio.run(use()), embedder)


def test_many_queries_at_once(ephemeral: Any, embedder: Embedder) -> None:
    function: Any = ToastrackEmbeddingFunction(embedder=embedder)
    collection = ephemeral.create_collection("docs", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=TEXTS)
    answer = collection.query(query_texts=[QUERY, "salt", *TEXTS], n_results=1)
    documents = embedder.embed_documents(TEXTS)
    queries = embedder.embed_queries([QUERY, "salt", *TEXTS])
    assert [int(ids[0]) for ids in answer["ids"]] == list((queries @ documents.T).argmax(axis=1))


ANOTHER_PROCESS = """
import json, sys, warnings
warnings.simplefilter("error")
import chromadb, toastrack_chroma
client = chromadb.PersistentClient(sys.argv[1])
collection = client.get_collection("docs")
collection.add(ids=["ready"], embeddings=[[1.0] * 32])
collection.delete(ids=["ready"])
assert "torch" not in sys.modules, "adding ready vectors loaded a model"
stored = collection.get(include=["embeddings"])
answer = collection.query(query_texts=[sys.argv[2]])
vectors = stored["embeddings"].tolist()
print(json.dumps([{"ids": stored["ids"], "embeddings": vectors}, answer]))
"""


@pytest.mark.rest
def test_another_process_gets_the_same(persistent: Any, embedder: Embedder, tmp_path: Path) -> None:
    function: Any = ToastrackEmbeddingFunction(embedder=embedder)
    collection = persistent.create_collection("docs", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=TEXTS)
    result = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "chroma"), QUERY],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )
    assert result.returncode == 0, result.stderr
    stored, answer = json.loads(result.stdout)
    check(stored, answer, embedder)


def test_a_knn_search_by_text_is_prompted(ephemeral: Any, embedder: Embedder) -> None:
    """Local servers have no Search; what Chroma sends to one that has is made in the client."""
    from chromadb.execution.expression.operator import Knn
    from chromadb.execution.expression.plan import Search

    function: Any = ToastrackEmbeddingFunction(embedder=embedder)
    collection = ephemeral.create_collection("docs", embedding_function=function)
    search = collection._embed_search_string_queries(Search().rank(Knn(query=QUERY)))
    sent = search.to_dict()["rank"]["$knn"]["query"]
    np.testing.assert_allclose(sent, embedder.embed_query(QUERY), atol=1e-5)


# -- what is recorded ---------------------------------------------------------------------------


def test_registered_under_a_static_name() -> None:
    assert ToastrackEmbeddingFunction.name() == "toastrack"
    assert known_embedding_functions["toastrack"] is ToastrackEmbeddingFunction


KEYS = {"model", "revision", "query_prompt", "document_prompt", "dimensions", "max_tokens"}


def test_the_config_is_plain_and_says_what_a_vector_depends_on(tiny_folder: Path) -> None:
    function = ToastrackEmbeddingFunction(tiny_folder, query_prompt="q: ", device="cpu")
    config = function.get_config()
    assert json.loads(json.dumps(config)) == config
    assert set(config) == KEYS
    assert config["model"] == str(tiny_folder)
    config["model"] = "changed by somebody"
    assert function.get_config()["model"] == str(tiny_folder)
    embedder = Embedder(tiny_folder, device="cpu", dimensions=16, max_tokens=32)
    config = ToastrackEmbeddingFunction(embedder=embedder).get_config()
    assert (config["dimensions"], config["max_tokens"]) == (16, 32)
    assert set(config) == KEYS


def test_a_relative_folder_is_recorded_whole(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    assert ToastrackEmbeddingFunction("tiny").get_config()["model"] == str(tiny_folder)


def test_a_collection_records_no_more(client: Any, tiny_folder: Path) -> None:
    function: Any = ToastrackEmbeddingFunction(tiny_folder, device="cpu")
    client.create_collection("docs", embedding_function=function)
    recorded = client.get_collection("docs").configuration_json["embedding_function"]
    assert recorded == {"type": "known", "name": "toastrack", "config": function.get_config()}


def test_another_model_or_prompt_is_no_update(tiny_folder: Path) -> None:
    function = ToastrackEmbeddingFunction(tiny_folder)
    old = function.get_config()
    function.validate_config_update(old, dict(old))
    for key, value in {"model": "x/y", "query_prompt": "", "dimensions": 16}.items():
        with pytest.raises(ValueError, match=f"{key} cannot change from"):
            function.validate_config_update(old, {**old, key: value})


def test_spaces(tiny_folder: Path, ephemeral: Any) -> None:
    function: Any = ToastrackEmbeddingFunction(tiny_folder)
    assert function.default_space() == "cosine"
    assert set(function.supported_spaces()) == {"cosine", "l2", "ip"}
    collection = ephemeral.create_collection(
        "docs", embedding_function=function, configuration={"hnsw": {"space": "l2"}}
    )
    assert collection.configuration_json["hnsw"]["space"] == "l2"


# -- building -----------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"model": "no-such-model/anywhere"}
BAD: dict[str, Any] = {
    "trust_remote_code": {**GOOD, "trust_remote_code": True},
    "kwargs": {**GOOD, "kwargs": {"trust_remote_code": True}},
    "device": {**GOOD, "device": "cuda:7"},
    "engine": {**GOOD, "engine": "hosted"},
    "model is a number": {"model": 5},
    "model is None": {"model": None},
    "no model": {"query_prompt": "q: "},
    "nothing": {},
    "prompt is a list": {**GOOD, "query_prompt": ["a"]},
    "dimensions is text": {**GOOD, "dimensions": "16"},
    "dimensions is true": {**GOOD, "dimensions": True},
    "dimensions is a fraction": {**GOOD, "dimensions": 16.0},
    "no mapping": None,
    "a list": ["model"],
    "text": "model",
}


@pytest.mark.parametrize("name", BAD)
def test_a_config_that_cannot_be_understood_builds_and_never_embeds(
    name: str, loads: list[str]
) -> None:
    function = ToastrackEmbeddingFunction.build_from_config(BAD[name])
    assert set(function.get_config()) == KEYS
    for embed in (function, function.embed_query, function, copy.deepcopy(function)):
        with pytest.raises(ValueError, match="The collection's config") as caught:
            embed(["rye"])
        if isinstance(BAD[name], dict) and name in BAD[name]:
            assert repr(name) in str(caught.value)
    assert not loads


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no folder": ({"model": "/no/such/folder"}, "/no/such/folder"),
    "no model": ({"model": "no-such-owner/no-such-model"}, "no-such-owner/no-such-model"),
    "empty": ({"model": ""}, "name is empty"),
    "too many dimensions": ({"dimensions": 33}, "dimensions=33 is more than the 32"),
    "no dimensions": ({"dimensions": 0}, "dimensions=0"),
    "fewer than none": ({"dimensions": -1}, "dimensions=-1"),
    "too many tokens": ({"max_tokens": 10**6}, "max_tokens=1000000 is over"),
    "no tokens": ({"max_tokens": 0}, "max_tokens=0"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_settings_build_and_fail_when_used(name: str, tiny_folder: Path) -> None:
    config, says = IMPOSSIBLE[name]
    function = ToastrackEmbeddingFunction.build_from_config({"model": str(tiny_folder), **config})
    for embed in (function, function.embed_query):
        with pytest.raises(Exception, match=says):
            embed(["rye"])


def test_a_config_of_an_older_version_may_lack_keys(tiny_folder: Path, embedder: Embedder) -> None:
    function = ToastrackEmbeddingFunction.build_from_config({"model": str(tiny_folder)})
    assert set(function.get_config()) == KEYS
    np.testing.assert_allclose(function.embed_query([QUERY])[0], embedder.embed_query(QUERY))


def test_a_foreign_config_on_a_server_opens_and_says_what_is_wrong(ephemeral: Any) -> None:
    class Foreign(ToastrackEmbeddingFunction):
        def get_config(self) -> dict[str, Any]:
            return {"model": "x/y", "trust_remote_code": True}

    function: Any = Foreign()
    ephemeral.create_collection("docs", embedding_function=function)
    known_embedding_functions["toastrack"] = ToastrackEmbeddingFunction  # creating registers
    collection = ephemeral.get_collection("docs")
    collection.add(ids=["1"], embeddings=[[1.0, 0.0]], documents=["rye"])
    assert collection.get()["documents"] == ["rye"]
    with pytest.raises(ValueError, match="trust_remote_code"):
        collection.query(query_texts=["rye"])


def test_wrong_settings_of_ones_own_are_an_error_at_once(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="dimensions=33 is more than the 32"):
        ToastrackEmbeddingFunction(tiny_folder, dimensions=33)
    with pytest.raises(ValueError, match="embedder= has its own query_prompt"):
        ToastrackEmbeddingFunction(embedder=Embedder(), query_prompt="q: ")
    with pytest.raises(ValueError, match="embedder= has its own model"):
        ToastrackEmbeddingFunction(tiny_folder, embedder=Embedder())
    with pytest.raises(TypeError, match="embedder= takes an Embedder, not str"):
        ToastrackEmbeddingFunction(embedder="tiny")  # type: ignore[arg-type]


# -- the model in memory ------------------------------------------------------------------------


def test_the_model_is_loaded_once(ephemeral: Any, fresh_folder: Path, loads: list[str]) -> None:
    embedder = Embedder(fresh_folder, device="cpu")
    function: Any = ToastrackEmbeddingFunction(embedder=embedder)
    collection = ephemeral.create_collection("docs", embedding_function=function)
    collection.add(ids=["ready"], embeddings=[[1.0] * 32])
    ephemeral.get_collection("docs").count()
    assert loads == []
    collection.add(ids=["0", "1", "2"], documents=TEXTS)
    collection.query(query_texts=[QUERY])
    embedder.embed_query("rye")
    ToastrackEmbeddingFunction(embedder=embedder)(["rye"])
    assert loads == ["fresh"]


def test_a_recorded_function_keeps_its_model_between_queries(
    ephemeral: Any, fresh_folder: Path, loads: list[str]
) -> None:
    """Chroma builds the function anew for each of them."""
    function: Any = ToastrackEmbeddingFunction(fresh_folder)
    collection = ephemeral.create_collection("docs", embedding_function=function)
    collection.add(ids=["ready"], embeddings=[[1.0] * 32])
    del function, collection
    collection = ephemeral.get_collection("docs")
    for _ in range(3):
        collection.query(query_texts=[QUERY])
        gc.collect()
    assert loads == ["fresh"]


def test_copies_embed_the_same(tiny_folder: Path, embedder: Embedder) -> None:
    function = ToastrackEmbeddingFunction(tiny_folder, query_prompt="q: ", device="cpu")
    function(["rye"])
    expected = function.embed_query([QUERY])[0]
    for twin in (pickle.loads(pickle.dumps(function)), copy.deepcopy(function)):
        assert twin.get_config() == function.get_config()
        np.testing.assert_allclose(twin.embed_query([QUERY])[0], expected, atol=1e-6)
    assert len(pickle.dumps(function)) < 5_000


def test_the_repr_says_what_is_recorded(tiny_folder: Path) -> None:
    shown = repr(ToastrackEmbeddingFunction(tiny_folder, query_prompt="q: "))
    assert shown == f"ToastrackEmbeddingFunction(model={str(tiny_folder)!r}, query_prompt='q: ')"


# -- the types that Chroma wants ----------------------------------------------------------------


def test_rows_of_float32(tiny_folder: Path, embedder: Embedder) -> None:
    function = ToastrackEmbeddingFunction(tiny_folder, device="cpu")
    for rows, expected in (
        (function(TEXTS), embedder.embed_documents(TEXTS)),
        (function.embed_query(input=TEXTS), embedder.embed_queries(TEXTS)),
    ):
        assert isinstance(rows, list)
        assert all(row.dtype == np.float32 and row.shape == (32,) for row in rows)
        np.testing.assert_allclose(np.stack(rows), expected, atol=1e-5)


def test_nothing_in_nothing_out(tiny_folder: Path, ephemeral: Any) -> None:
    function: Any = ToastrackEmbeddingFunction(tiny_folder, device="cpu")
    assert function.embed_query([]) == []
    with pytest.raises(ValueError, match="non-empty"):
        function([])  # Chroma's own check of what a function returns
    collection = ephemeral.create_collection("docs", embedding_function=function)
    with pytest.raises(ValueError, match="empty"):
        collection.query(query_texts=[])
    with pytest.raises(ValueError, match="empty"):
        collection.add(ids=[], documents=[])


def test_what_is_no_text_is_named(tiny_folder: Path) -> None:
    function: Any = ToastrackEmbeddingFunction(tiny_folder, device="cpu")
    with pytest.raises(TypeError, match="text 1 is NoneType"):
        function(["rye", None])
    with pytest.raises(TypeError, match="text 0 is int"):
        function.embed_query([7])


def test_importing_loads_no_engine() -> None:
    code = (
        "import sys, toastrack_chroma; toastrack_chroma.ToastrackEmbeddingFunction();"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    engines = {"torch", "transformers", "sentence_transformers", "onnxruntime", "openvino"}
    assert not engines & set(result.stdout.split())


def test_without_any_engine_installed_the_error_names_the_extra(tiny_folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'sentence_transformers', 'transformers'): sys.modules[name] = None\n"
        "import chromadb, toastrack_chroma\n"
        "function = toastrack_chroma.ToastrackEmbeddingFunction(sys.argv[1])\n"
        "collection = chromadb.EphemeralClient().create_collection('docs',\n"
        "    embedding_function=function)\n"
        "collection.add(ids=['1'], embeddings=[[1.0]], documents=['rye'])\n"
        "try: collection.query(query_texts=['rye'])\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)], capture_output=True, text=True, check=False
    )
    assert result.stdout.startswith("MissingExtraError"), result.stderr
    assert "[local]" in result.stdout


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_an_argument_of_a_peer_is_answered_with_ours(name: str) -> None:
    build: Any = ToastrackEmbeddingFunction
    with pytest.raises(TypeError, match=f"has no argument '{name}': ") as error:
        build(**{name: None})
    assert ARGUMENTS[name] in str(error.value)


def test_an_argument_of_nobody_is_named() -> None:
    build: Any = ToastrackEmbeddingFunction
    with pytest.raises(TypeError, match=r"ToastrackEmbeddingFunction has no argument 'colour'\."):
        build(colour="red")


def test_all_arguments_that_are_wrong_are_named_at_once() -> None:
    build: Any = ToastrackEmbeddingFunction
    with pytest.raises(TypeError, match="has no argument") as error:
        build(cache_folder="models", encode_kwargs={"device": "cpu"}, colour="red")
    said = str(error.value)
    assert all(
        f"has no argument '{name}'" in said for name in ("cache_folder", "encode_kwargs", "colour")
    )


def test_a_cut_names_what_splits_here(embedder: Embedder) -> None:
    with pytest.warns(TruncationWarning) as caught:
        ToastrackEmbeddingFunction(embedder=embedder)(["rye " * 100])
    assert "toastrack.ingest()" in str(caught[0].message)
