"""Which prompt wins, and that the table of known models says what their authors say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models import MXBAI_PROMPT

from toastrack import Embedder
from toastrack.models.prompts import KNOWN, Prompts, add_prompt, known_prompts, saved_prompts

MXBAI = "mixedbread-ai/mxbai-embed-large-v1"
WEB_SEARCH = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)


def resaved(folder: Path, target: Path, prompts: dict[str, str] | None) -> Path:
    """A copy of a model with other saved prompts; None leaves the key out."""
    shutil.copytree(folder, target)
    path = target / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["prompts"]
    if prompts is not None:
        config["prompts"] = prompts
    path.write_text(json.dumps(config), encoding="utf-8")
    return target


def hub_cache(
    folder: Path, root: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, commit: str = "0" * 40
) -> None:
    """Lay a model out as the hub's client would have downloaded it."""
    from huggingface_hub import constants

    home = root / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))


def test_saved_prompts_are_used(tiny_folder: Path, tmp_path: Path) -> None:
    folder = resaved(tiny_folder, tmp_path / "m", {"query": "ask: ", "document": "tell: "})
    assert Embedder(folder).prompts == Prompts(
        "ask: ", "tell: ", "saved with the model", "saved with the model"
    )


@pytest.mark.parametrize("name", ["document", "passage"])
def test_both_spellings_of_the_saved_document_prompt_are_read(
    tiny_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = resaved(tiny_folder, tmp_path / "m", {"query": "ask: ", name: "tell: "})
    assert Embedder(folder).document_prompt == "tell: "


def test_an_empty_spelling_does_not_hide_the_other(tiny_folder: Path, tmp_path: Path) -> None:
    # sentence-transformers writes "document": "" beside the "passage" a model was saved with.
    prompts = {"query": "ask: ", "document": "", "passage": "tell: "}
    folder = resaved(tiny_folder, tmp_path / "m", prompts)
    assert Embedder(folder).document_prompt == "tell: "


def test_a_saved_query_prompt_alone_leaves_documents_as_they_are(
    tiny_folder: Path, tmp_path: Path
) -> None:
    embedder = Embedder(resaved(tiny_folder, tmp_path / "m", {"query": "ask: "}))
    assert (embedder.query_prompt, embedder.document_prompt) == ("ask: ", "")


@pytest.mark.parametrize(
    "prompts", [None, {}, {"query": "", "document": ""}, {"query": "", "passage": ""}]
)
def test_saved_prompts_that_are_empty_say_nothing(prompts: dict[str, str] | None) -> None:
    assert saved_prompts({} if prompts is None else {"prompts": prompts}) is None


@pytest.mark.parametrize("prompts", [None, {}, {"query": "", "document": ""}])
def test_a_model_that_names_no_prompt_gets_none(
    tiny_folder: Path, tmp_path: Path, prompts: dict[str, str] | None
) -> None:
    found = Embedder(resaved(tiny_folder, tmp_path / "m", prompts)).prompts
    assert (found.query, found.document) == ("", "")
    assert found.query_source.startswith("none")
    assert found.document_source.startswith("none")


def test_the_callers_prompts_win_over_saved_ones(tiny_folder: Path) -> None:
    embedder = Embedder(tiny_folder, query_prompt="mine: ", document_prompt="text: ")
    assert embedder.prompts == Prompts("mine: ", "text: ", "argument", "argument")


def test_an_empty_string_switches_a_saved_prompt_off(tiny_folder: Path) -> None:
    assert Embedder(tiny_folder, query_prompt="").query_prompt == ""


def test_overriding_one_prompt_keeps_the_other(tiny_folder: Path, tmp_path: Path) -> None:
    folder = resaved(tiny_folder, tmp_path / "m", {"query": "ask: ", "document": "tell: "})
    assert Embedder(folder, query_prompt="mine: ").prompts == Prompts(
        "mine: ", "tell: ", "argument", "saved with the model"
    )
    assert Embedder(folder, document_prompt="mine: ").prompts == Prompts(
        "ask: ", "mine: ", "saved with the model", "argument"
    )


def test_overriding_one_prompt_keeps_the_other_of_the_table() -> None:
    embedder = Embedder("intfloat/e5-base-v2", query_prompt="mine: ")
    assert (embedder.query_prompt, embedder.document_prompt) == ("mine: ", "passage: ")


def test_saved_prompts_win_over_the_table(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resaved(tiny_folder, tmp_path / "m", {"query": "ask: ", "document": "tell: "})
    hub_cache(folder, tmp_path / "hub", "intfloat/e5-base-v2", monkeypatch)
    embedder = Embedder("intfloat/e5-base-v2")
    assert (embedder.query_prompt, embedder.document_prompt) == ("ask: ", "tell: ")


def test_the_table_speaks_for_a_model_that_was_saved_with_empty_prompts(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resaved(tiny_folder, tmp_path / "m", {"query": "", "document": ""})
    hub_cache(folder, tmp_path / "hub", "intfloat/e5-base-v2", monkeypatch)
    prompts = Embedder("intfloat/e5-base-v2").prompts
    assert (prompts.query, prompts.document) == ("query: ", "passage: ")
    assert "https://" in prompts.query_source


def test_a_model_that_arrives_later_is_asked_again(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    embedder = Embedder(MXBAI)
    assert embedder.query_prompt == MXBAI_PROMPT
    folder = resaved(tiny_folder, tmp_path / "m", {"query": "ask: ", "document": "tell: "})
    hub_cache(folder, tmp_path / "hub", MXBAI, monkeypatch)
    assert embedder.query_prompt == "ask: "


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        (MXBAI, MXBAI_PROMPT, ""),
        ("mixedbread-ai/mxbai-embed-2d-large-v1", MXBAI_PROMPT, ""),
        ("mixedbread-ai/mxbai-embed-xsmall-v1", MXBAI_PROMPT, ""),
        ("mixedbread-ai/deepset-mxbai-embed-de-large-v1", "query: ", "passage: "),
        ("BAAI/bge-small-en", MXBAI_PROMPT, ""),
        ("BAAI/bge-base-en-v1.5", MXBAI_PROMPT, ""),
        ("BAAI/bge-large-en-v1.5", MXBAI_PROMPT, ""),
        # The authors' own punctuation: U+FF1A, the full-width colon.
        ("BAAI/bge-large-zh-v1.5", "为这个句子生成表示以用于检索相关文章\uff1a", ""),
        ("BAAI/bge-m3", "", ""),
        ("intfloat/e5-small", "query: ", "passage: "),
        ("intfloat/e5-large-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", WEB_SEARCH, ""),
        ("intfloat/e5-mistral-7b-instruct", WEB_SEARCH, ""),
        ("thenlper/gte-base", "", ""),
        ("Alibaba-NLP/gte-large-en-v1.5", "", ""),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", WEB_SEARCH, ""),
        ("nomic-ai/nomic-embed-text-v1", "search_query: ", "search_document: "),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("nomic-ai/modernbert-embed-base", "search_query: ", "search_document: "),
        ("Snowflake/snowflake-arctic-embed-xs", MXBAI_PROMPT, ""),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", MXBAI_PROMPT, ""),
        ("Snowflake/snowflake-arctic-embed-l", MXBAI_PROMPT, ""),
        ("Snowflake/snowflake-arctic-embed-m-v2.0", "query: ", ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
    ],
)
def test_the_table_knows_what_the_authors_ask_for(model: str, query: str, document: str) -> None:
    known = known_prompts(model)
    assert known is not None
    assert (known.query, known.document) == (query, document)


def test_every_entry_of_the_table_names_its_source() -> None:
    assert [entry for entry in KNOWN if not entry.source.startswith("https://")] == []


@pytest.mark.parametrize(
    "model",
    [
        "someone/else",
        "sentence-transformers/all-MiniLM-L6-v2",
        "someone/mxbai-embed-large-v1",
        "mixedbread-ai/mxbai-embed-large-v1-finetuned",
        "mixedbread-ai/mxbai-embed-large-v1\n",
        "x/mixedbread-ai/mxbai-embed-large-v1",
    ],
)
def test_the_table_is_silent_about_other_models(model: str) -> None:
    assert known_prompts(model) is None


@pytest.mark.parametrize("model", [MXBAI.upper(), "baai/BGE-large-EN-v1.5"])
def test_the_case_of_a_name_does_not_matter(model: str) -> None:
    known = known_prompts(model)
    assert known is not None
    assert known.query == MXBAI_PROMPT


def test_a_known_prompt_needs_neither_network_nor_weights_nor_torch(tmp_path: Path) -> None:
    code = f"""
import json, socket, sys
def refuse(*_):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from toastrack import Embedder
prompt = Embedder({MXBAI!r}).query_prompt
print(json.dumps([prompt, sorted({{"torch", "transformers"}} & set(sys.modules))]))
"""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment.pop("HF_HUB_CACHE", None)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.stderr == ""
    assert json.loads(result.stdout) == [MXBAI_PROMPT, []]


@pytest.mark.parametrize("spelling", ["absolute", "relative"])
def test_a_folder_that_is_named_like_a_known_model_is_not_that_model(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    folder = resaved(tiny_folder, tmp_path / MXBAI, None)
    monkeypatch.chdir(tmp_path)
    embedder = Embedder(folder if spelling == "absolute" else MXBAI)
    assert embedder.query_prompt == ""


@pytest.mark.parametrize(
    ("prompt", "text", "prompted"),
    [
        ("query: ", "bread", "query: bread"),
        ("query: ", "", "query: "),
        ("query: ", "query: bread", "query: bread"),
        ("query: ", "my query: bread", "query: my query: bread"),
        ("", "bread", "bread"),
    ],
)
def test_a_prompt_is_added_once(prompt: str, text: str, prompted: str) -> None:
    assert add_prompt(prompt, text) == prompted
