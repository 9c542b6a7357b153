"""Which prompt wins, and that the table of known models says what their authors say."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models import MXBAI_PROMPT

from toastrack import Embedder
from toastrack.errors import GuessWarning, ModelError
from toastrack.models.known_models import KNOWN, family, known_copy, known_model, nearest_name
from toastrack.models.prompts import Prompts, add_prompt, saved_prompts

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
    known = known_model(model)
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
    assert known_model(model) is None


@pytest.mark.parametrize("model", [MXBAI.upper(), "baai/BGE-large-EN-v1.5"])
def test_the_case_of_a_name_does_not_matter(model: str) -> None:
    known = known_model(model)
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


# -- a copy of a well-known model ---------------------------------------------------------------


def renamed(folder: Path, target: Path, **config: object) -> Path:
    """A copy without prompts, and with other values in its config.json."""
    resaved(folder, target, None)
    path = target / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | config), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("mxbai-embed-large-v1", MXBAI_PROMPT, ""),
        ("mixedbread-ai/mxbai-embed-large-v1", MXBAI_PROMPT, ""),
        ("BAAI_bge-base-en-v1.5", MXBAI_PROMPT, ""),
        ("intfloat--e5-base-v2", "query: ", "passage: "),
        ("models--intfloat--e5-base-v2/snapshots/0123abc", "query: ", "passage: "),
        ("nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("snowflake-arctic-embed-m", MXBAI_PROMPT, ""),
    ],
)
@pytest.mark.parametrize("spelling", ["absolute", "relative", "in config.json"])
def test_a_copy_of_a_known_model_is_known_by_its_folder_or_its_configuration(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    query: str,
    document: str,
    spelling: str,
) -> None:
    if spelling == "in config.json":
        folder = renamed(tiny_folder, tmp_path / "m", _name_or_path=f"/home/ann/.cache/{name}/")
    else:
        folder = renamed(tiny_folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    prompts = Embedder(f"./{name}" if spelling == "relative" else folder).prompts
    assert (prompts.query, prompts.document) == (query, document)
    assert prompts.query_source.startswith("known by ")
    assert "https://" in prompts.query_source


def test_what_a_copy_was_saved_with_goes_before_its_name(tiny_folder: Path, tmp_path: Path) -> None:
    prompts = {"query": "ask: ", "document": "tell: "}
    folder = resaved(tiny_folder, tmp_path / "e5-base-v2", prompts)
    assert Embedder(folder).query_prompt == "ask: "


@pytest.mark.parametrize(
    "path",
    ["/models/tiny", "/BAAI/bge/x", "/e5-base-v2/mine", "/x/bge-large-en-mine", "/", "", "."],
)
def test_a_folder_that_is_called_otherwise_is_no_known_model(path: str) -> None:
    assert known_copy(path) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/e5-baking", "e5"),
        ("/models/my-bge-small-en-v1.5-tuned/final", "bge"),
        ("owner/snowflake-arctic-embed-l-tuned", "arctic"),
        ("owner/mxbai-embed-large-v1-de", "mxbai"),
        ("sentence-transformers/all-MiniLM-L6-v2", None),
        ("owner/fe5x", None),
        ("/home/e5/a/b/models/tiny", None),
    ],
)
def test_a_family_is_known_by_a_part_of_the_name(name: str, expected: str | None) -> None:
    assert family(name) == expected


# -- what has to be guessed, once ---------------------------------------------------------------


async def awaited(embedder: Embedder, how: str) -> None:
    await (embedder.aload() if how == "async load" else embedder.aembed_query("bread"))


def asked(embedder: Embedder, how: str) -> None:
    if how.startswith("async"):
        asyncio.run(awaited(embedder, how))
    elif how == "query":
        embedder.embed_query("bread")
    elif how == "documents":
        embedder.embed_documents(["bread"])
    elif how == "space":
        _ = embedder.space
    else:
        embedder.load()


HOW = ["query", "documents", "space", "load", "async", "async load"]


@pytest.mark.parametrize("how", HOW)
def test_a_family_that_wants_a_prompt_and_has_none_is_said_once(
    tiny_folder: Path, tmp_path: Path, how: str
) -> None:
    folder = renamed(tiny_folder, tmp_path / "my-e5-base")
    with pytest.warns(GuessWarning, match=r"my-e5-base' names no prompt.* e5 .*query_prompt=") as w:
        asked(Embedder(folder, device="cpu"), how)
    assert [warning.filename for warning in w] == [__file__]
    # The next one says nothing, and a warning is an error here.
    asked(Embedder(folder, device="cpu"), how)


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_who_says_which_prompt_it_is_hears_nothing(
    tiny_folder: Path, tmp_path: Path, prompt: str
) -> None:
    folder = renamed(tiny_folder, tmp_path / "my-e5-base")
    assert Embedder(folder, device="cpu", query_prompt=prompt).embed_query("bread").shape == (32,)


@pytest.mark.parametrize("how", HOW)
def test_a_folder_that_does_not_say_how_it_pools_is_said_once(
    tiny_folder: Path, tmp_path: Path, how: str
) -> None:
    folder = renamed(tiny_folder, tmp_path / "m")
    (folder / "modules.json").unlink()
    with pytest.warns(GuessWarning, match=r"m' has no modules\.json.* their mean is taken\.") as w:
        asked(Embedder(folder, device="cpu"), how)
    assert [warning.filename for warning in w] == [__file__]
    asked(Embedder(folder, device="cpu"), how)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("name", "config", "pooling"),
    [
        ("bge-base-en-v1.5", {}, "cls"),
        ("m", {"_name_or_path": "mixedbread-ai/mxbai-embed-large-v1"}, "cls"),
        ("m", {"classifier_pooling": "cls"}, "cls"),
        ("m", {"architectures": ["MistralForCausalLM"]}, "lasttoken"),
    ],
)
def test_a_mean_that_is_known_to_be_wrong_is_not_taken(
    tiny_folder: Path, tmp_path: Path, how: str, name: str, config: dict[str, object], pooling: str
) -> None:
    folder = renamed(tiny_folder, tmp_path / name, **config)
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match=rf"no modules\.json.* made for the pooling '{pooling}'"):
        asked(Embedder(folder, device="cpu"), how)


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


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("mxbai-embed-large-v1", "mixedbread-ai/mxbai-embed-large-v1"),
        ("mixedbread/mxbai-embed-large-v1", "mixedbread-ai/mxbai-embed-large-v1"),
        ("BAAI/bge-base-en-v15", "BAAI/bge-base-en-v1.5"),
        ("nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5"),
        ("multilingual-e5-base", "intfloat/multilingual-e5-base"),
        ("all-MiniLM-L6-v2", None),
        ("somebody/something", None),
        ("", None),
    ],
)
def test_the_nearest_known_name(written: str, meant: str | None) -> None:
    assert nearest_name(written) == meant
    assert meant is None or known_model(meant) is not None


def test_a_name_without_its_owner_is_answered_with_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="no extra with an engine is installed")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, says in (
        ("mxbai-embed-large-v1", "Did you mean 'mixedbread-ai/mxbai-embed-large-v1'?"),
        ("mixedbread-ai/mxbai-embed-large-v1", "HF_HUB_OFFLINE is set. Unset it to download it"),
    ):
        with pytest.raises(ModelError) as error:
            Embedder(name).load()
        assert says in str(error.value)
        assert "HF_HUB_OFFLINE is set" in str(error.value)
        assert ("Did you mean" in str(error.value)) is (name == "mxbai-embed-large-v1")
